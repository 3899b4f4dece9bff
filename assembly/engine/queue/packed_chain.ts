/**
 * Chains of a packed virtqueue (virtio 1.2 §2.8.5–2.8.8): neighbours in the ring, or a table. The buffer id is in the
 * last descriptor of the ring. A chain has at most as many descriptors as the ring, counted.
 */
import {
  B_CHAIN_BYTES,
  B_CHAIN_DESCRIPTORS,
  B_CHAIN_ID,
  B_CHAIN_SEGMENTS,
  B_CHAIN_WALKED,
  BAD_ADDRESS,
  BAD_CHAIN_LENGTH,
  BAD_DESCRIPTOR,
  BAD_DIRECTION,
  BAD_INDIRECT,
  OK,
  PERM_READ,
  PERM_WRITE,
  Q_DESC,
  Q_SIZE,
  RX_SEGMENTS,
  TX_SEGMENTS,
  WRAP_AVAIL,
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
import { availableFlags, metaOf, OWNER_FLAGS } from "./packed.ts";
import { bad, isTable, tableEntry } from "./verdict.ts";

/**
 * Walks the chain that begins at `position` (a slot, and WRAP_AVAIL << 16 of its lap) and appends its segments behind
 * the first `start` of RX_SEGMENTS if `writable`, else of TX_SEGMENTS. Answers OK or the reason to stop the queue, and
 * B_CHAIN_*. The first descriptor is known to be available.
 */
export function walkPacked(q: usize, position: u32, start: u32, writable: bool, limit: u32): u32 {
  const size = load<u32>(q, Q_SIZE);
  const longest = min(size, limit);
  const list = context + (writable ? RX_SEGMENTS : TX_SEGMENTS);
  const perm: u32 = writable ? PERM_WRITE : PERM_READ;
  let slot = position & 0xffff;
  let wrap = position >> 16;
  let segments = start;
  let bytes: u64 = 0;
  store<u32>(batch(), 0, B_CHAIN_WALKED);
  for (let walked: u32 = 1; walked <= longest; walked++) {
    const meta = metaOf(q, slot);
    const iova = load<u64>(load<u32>(q, Q_DESC) + slot * VIRTQ_DESC_BYTES);
    const length = <u32> meta;
    const flags = <u32> (meta >> 48);
    if ((flags & OWNER_FLAGS) != availableFlags(wrap)) return bad(BAD_DESCRIPTOR, slot);
    spend(UNITS_DESCRIPTOR);
    if (flags & VIRTQ_DESC_F_INDIRECT) {
      // §2.8.7: an indirect descriptor is a chain of its own.
      if (walked > 1 || (flags & VIRTQ_DESC_F_NEXT) != 0 || !isTable(q, length)) return bad(BAD_INDIRECT, slot);
      // All entries of the table are the chain.
      if (length / VIRTQ_DESC_BYTES > longest) return bad(BAD_CHAIN_LENGTH, slot);
      const verdict = walkTable(q, iova, length, segments, writable);
      if (verdict != OK) return verdict;
    } else {
      if (((flags & VIRTQ_DESC_F_WRITE) != 0) != writable) return bad(BAD_DIRECTION, slot);
      segments = appendBuffer(q, list, segments, iova, length, perm);
      if (segments == NOT_APPENDED) return bad(BAD_ADDRESS, iova);
      bytes += length;
      store<u64>(batch(), bytes, B_CHAIN_BYTES);
      store<u32>(batch(), segments, B_CHAIN_SEGMENTS);
    }
    if ((flags & VIRTQ_DESC_F_NEXT) == 0) {
      store<u32>(batch(), walked, B_CHAIN_DESCRIPTORS);
      store<u32>(batch(), load<u32>(batch(), B_CHAIN_WALKED) + walked, B_CHAIN_WALKED);
      store<u32>(batch(), <u32> (meta >> 32) & 0xffff, B_CHAIN_ID);
      return OK;
    }
    if (++slot < size) continue;
    slot = 0;
    wrap ^= WRAP_AVAIL;
  }
  return bad(BAD_CHAIN_LENGTH, position & 0xffff);
}

/** Appends the buffers of an indirect table; of its descriptors' flags only WRITE counts (§2.8.7). */
function walkTable(q: usize, table: u64, tableBytes: u32, start: u32, writable: bool): u32 {
  const entries = tableBytes / VIRTQ_DESC_BYTES;
  const list = context + (writable ? RX_SEGMENTS : TX_SEGMENTS);
  const perm: u32 = writable ? PERM_WRITE : PERM_READ;
  let segments = start;
  let bytes: u64 = 0;
  for (let i: u32 = 0; i < entries; i++) {
    const descriptor = tableEntry(q, table, i);
    if (descriptor == 0) return bad(BAD_INDIRECT, table);
    spend(UNITS_DESCRIPTOR);
    const iova = load<u64>(descriptor);
    const meta = load<u64>(descriptor, 8);
    const flags = <u32> (meta >> 48);
    if (((flags & VIRTQ_DESC_F_WRITE) != 0) != writable) return bad(BAD_DIRECTION, i);
    segments = appendBuffer(q, list, segments, iova, <u32> meta, perm);
    if (segments == NOT_APPENDED) return bad(BAD_ADDRESS, iova);
    bytes += <u32> meta;
  }
  store<u64>(batch(), bytes, B_CHAIN_BYTES);
  store<u32>(batch(), segments, B_CHAIN_SEGMENTS);
  store<u32>(batch(), entries, B_CHAIN_WALKED);
  return OK;
}
