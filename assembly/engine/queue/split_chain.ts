/**
 * Chains of a split virtqueue (virtio 1.2 §2.7.5). A chain has at most as many descriptors as the queue, counted, so no
 * link structure can hold the engine. An indirect table may have more: what is in no chain is not looked at. What a
 * driver gets wrong is a verdict, never a trap.
 */
import {
  B_CHAIN_BYTES,
  B_CHAIN_DESCRIPTORS,
  B_CHAIN_ID,
  B_CHAIN_SEGMENTS,
  B_CHAIN_WALKED,
  BAD_ADDRESS,
  BAD_CHAIN_LENGTH,
  BAD_DIRECTION,
  BAD_HEAD,
  BAD_INDIRECT,
  BAD_NEXT,
  OK,
  PERM_READ,
  PERM_WRITE,
  Q_DESC,
  Q_SIZE,
  RX_SEGMENTS,
  TX_SEGMENTS,
} from "../../../shared/layout/nic.ts";
import {
  VIRTQ_DESC_BYTES,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
} from "../../../shared/layout/virtio.ts";
import { appendBuffer, NOT_APPENDED } from "../batch/segments.ts";
import { batch, context } from "../context.ts";
import { spend, UNITS_DESCRIPTOR } from "../schedule/cost.ts";
import { bad, isTable, tableEntry } from "./verdict.ts";

/**
 * Walks the chain at `head` and appends its segments behind the first `start` of RX_SEGMENTS if `writable`, else of
 * TX_SEGMENTS. All its buffers must be device-writable if `writable`, device-readable if not: in a net queue no chain
 * mixes them (§5.1.6). A chain has at most `limit` descriptors. Answers OK or the reason to stop the queue, and B_CHAIN_*.
 */
export function walkSplit(q: usize, head: u32, start: u32, writable: bool, limit: u32): u32 {
  const size = load<u32>(q, Q_SIZE);
  const longest = min(size, limit);
  const list = context + (writable ? RX_SEGMENTS : TX_SEGMENTS);
  const perm: u32 = writable ? PERM_WRITE : PERM_READ;
  if (head >= size) return bad(BAD_HEAD, head);

  let table = load<u32>(q, Q_DESC);
  let tableSize = size;
  let tableIova: u64 = 0;
  let inIndirect = false;
  let index = head;
  let segments = start;
  let bytes: u64 = 0;
  for (let walked: u32 = 0; walked < longest;) {
    const descriptor = inIndirect ? tableEntry(q, tableIova, index) : table + index * VIRTQ_DESC_BYTES;
    if (descriptor == 0) return bad(BAD_INDIRECT, head);
    const iova = load<u64>(descriptor);
    const meta = load<u64>(descriptor, 8);
    const length = <u32> meta;
    const flags = <u32> (meta >> 32) & 0xffff;
    const next = <u32> (meta >> 48);
    if (flags & VIRTQ_DESC_F_INDIRECT) {
      // §2.7.5.3: not within a table, and not with NEXT.
      if (inIndirect || (flags & VIRTQ_DESC_F_NEXT) != 0 || !isTable(q, length)) return bad(BAD_INDIRECT, head);
      inIndirect = true;
      tableIova = iova;
      tableSize = length / VIRTQ_DESC_BYTES;
      index = 0;
      continue;
    }
    walked++;
    spend(UNITS_DESCRIPTOR);
    if (((flags & VIRTQ_DESC_F_WRITE) != 0) != writable) return bad(BAD_DIRECTION, index);
    segments = appendBuffer(q, list, segments, iova, length, perm);
    if (segments == NOT_APPENDED) return bad(BAD_ADDRESS, iova);
    bytes += length;
    if ((flags & VIRTQ_DESC_F_NEXT) == 0) {
      store<u64>(batch(), bytes, B_CHAIN_BYTES);
      // A chain takes one place of the avail ring, and its head is given back.
      store<u32>(batch(), 1, B_CHAIN_DESCRIPTORS);
      store<u32>(batch(), head, B_CHAIN_ID);
      store<u32>(batch(), walked, B_CHAIN_WALKED);
      store<u32>(batch(), segments, B_CHAIN_SEGMENTS);
      return OK;
    }
    if (next >= tableSize) return bad(BAD_NEXT, next);
    index = next;
  }
  return bad(BAD_CHAIN_LENGTH, head);
}
