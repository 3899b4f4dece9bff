/**
 * Chains of virtqueues, whatever the ring's format: a walk leaves behind what the chain holds (B_CHAIN_*), and a frame's
 * record is made of it.
 */
import {
  B_BAD_DETAIL,
  B_CHAIN_BYTES,
  B_CHAIN_DESCRIPTORS,
  B_CHAIN_ID,
  B_SEGMENTS,
  BAD_CHAIN_LENGTH,
  BAD_HEADER,
  FLAVOUR_PACKED,
  OK,
  Q_FLAVOUR,
  Q_HDR_BYTES,
  Q_OFFLOADS,
  QUEUE_SIZE_MAX,
} from "../../../shared/layout/nic.ts";
import { recordDescriptors } from "../batch/record.ts";
import { recordSegments } from "../batch/unusual.ts";
import { addFrame } from "../batch/take.ts";
import { batch } from "../context.ts";
import { failQueue } from "./interrupts.ts";
import { walkPacked } from "./packed_chain.ts";
import { availHead } from "./split.ts";
import { walkSplit } from "./split_chain.ts";

/**
 * Walks the chain at `position`: in a split ring its place in the avail ring, in a packed one its slot, and WRAP_AVAIL
 * << 16 of its lap. Its segments go behind the first `start` of RX_SEGMENTS if `writable`, else of TX_SEGMENTS. No more
 * than `limit` descriptors are looked at. Answers OK or the reason to stop the queue, and B_CHAIN_*.
 */
export function walk(q: usize, position: u32, start: u32, writable: bool, limit: u32): u32 {
  if (load<u32>(q, Q_FLAVOUR) == FLAVOUR_PACKED) return walkPacked(q, position, start, writable, limit);
  return walkSplit(q, availHead(q, position), start, writable, limit);
}

/**
 * Makes `record` of the chain at `position`, which takes at most `limit` places of the ring. False if it cannot be taken
 * now: it breaks the protocol, for which the queue stops if the frame is the `first` of its batch, and otherwise when the
 * next batch meets it.
 */
export function gatherChain(q: usize, position: u32, record: usize, limit: u32, first: bool): bool {
  const start = load<u32>(batch(), B_SEGMENTS);
  const hdrBytes = load<u32>(q, Q_HDR_BYTES);
  let verdict = walk(q, position, start, false, QUEUE_SIZE_MAX);
  if (verdict == OK && load<u32>(batch(), B_CHAIN_DESCRIPTORS) > limit) verdict = BAD_CHAIN_LENGTH;
  const bytes = load<u64>(batch(), B_CHAIN_BYTES);
  if (verdict != OK || bytes < hdrBytes) {
    if (!first) return false;
    if (verdict != OK) failQueue(q, verdict, load<u64>(batch(), B_BAD_DETAIL));
    else failQueue(q, BAD_HEADER, bytes);
    return false;
  }
  recordSegments(record, start, bytes, hdrBytes, <u32> load<u16>(q, Q_OFFLOADS));
  recordDescriptors(record, load<u32>(batch(), B_CHAIN_DESCRIPTORS), load<u32>(batch(), B_CHAIN_ID));
  addFrame(record);
  return true;
}
