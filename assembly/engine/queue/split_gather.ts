/** Frames out of a split transmit ring: the common kind in one loop, chains and indirect tables by the walk. */
import {
  B_BAD_DETAIL,
  B_BYTES,
  B_CHAIN_BYTES,
  B_SEGMENTS,
  B_UNITS,
  BAD_HEADER,
  FRAME_BYTES_MAX,
  OK,
  Q_AVAIL,
  Q_DESC,
  Q_HDR_BYTES,
  Q_LAST_AVAIL,
  Q_REGION2_IOVA,
  Q_REGION2_SIZE,
  Q_REGION2_WINDOW,
  Q_REGION_IOVA,
  Q_REGION_SIZE,
  Q_REGION_WINDOW,
  Q_SIZE,
  QUEUE_SIZE_MAX,
  R_ID,
  R_LENGTH,
  RECORD_STRIDE,
} from "../../../shared/layout/nic.ts";
import { VIRTQ_AVAIL_RING } from "../../../shared/layout/virtio.ts";
import { noHead, recordAt, recordDescriptors, RECORD_HEAD_BYTES, recordPlain, recordSegments } from "../batch/record.ts";
import { batch } from "../context.ts";
import { UNITS_BYTES_SHIFT, UNITS_FRAME } from "../schedule/cost.ts";
import { reachOf } from "./domain.ts";
import { failQueue } from "./interrupts.ts";
import { prefetchSplit } from "./prefetch.ts";
import { walkSplit } from "./split_chain.ts";

/**
 * Makes records of up to `most` frames of TX queue `q`, stopping behind `byteLimit` bytes or when the batch has cost
 * `unitLimit`. Answers how many; 0 with the queue stopped if the first breaks the protocol.
 */
export function gatherSplit(q: usize, most: u32, byteLimit: u32, unitLimit: u32): u32 {
  const mask = load<u32>(q, Q_SIZE) - 1;
  const table: usize = load<u32>(q, Q_DESC);
  const ring: usize = load<u32>(q, Q_AVAIL) + VIRTQ_AVAIL_RING;
  const last = load<u32>(q, Q_LAST_AVAIL);
  const hdrBytes = load<u32>(q, Q_HDR_BYTES);
  let iova = load<u64>(q, Q_REGION_IOVA);
  let reach = reachOf(load<u64>(q, Q_REGION_SIZE));
  let window: usize = load<u32>(q, Q_REGION_WINDOW);
  let bytes: u32 = 0;
  let units = load<u32>(batch(), B_UNITS);
  let n: u32 = 0;
  let before = noHead();
  prefetchSplit(q, most);
  for (let record = recordAt(0); n < most && bytes < byteLimit && units < unitLimit; record += RECORD_STRIDE) {
    const head: u32 = load<u16>(ring + ((last + n) & mask) * 2);
    const descriptor: usize = table + ((head & mask) << 4);
    const address = load<u64>(descriptor);
    const meta = load<u64>(descriptor, 8);
    const frameBytes = <u32> meta - hdrBytes;
    let at: usize = 0;
    // One comparison each: a length below the minimum wraps round; a buffer within reach is within the region.
    if (head <= mask && (<u32> (meta >> 32) & 0xffff) == 0 && isPlainLength(frameBytes)) {
      const offset = address - iova;
      at = offset < reach ? window + <usize> offset : inSecond(q, address);
    }
    if (at != 0 && load<u16>(at) == 0) {
      before = recordPlain(record, at + hdrBytes, frameBytes, before);
      store<u32>(record, head, R_ID);
      bytes += frameBytes;
      units += UNITS_FRAME + (frameBytes >> UNITS_BYTES_SHIFT);
    } else {
      store<u32>(batch(), units, B_UNITS);
      if (!gatherChain(q, head, record, n == 0)) break;
      before = v128.load(record);
      bytes += load<u32>(record, R_LENGTH);
      units = load<u32>(batch(), B_UNITS) + UNITS_FRAME;
      iova = load<u64>(q, Q_REGION_IOVA);
      reach = reachOf(load<u64>(q, Q_REGION_SIZE));
      window = load<u32>(q, Q_REGION_WINDOW);
    }
    n++;
  }
  store<u32>(batch(), units, B_UNITS);
  store<u32>(batch(), bytes, B_BYTES);
  return n;
}

/** Whether a frame of this length can be a simple record. */
@inline
export function isPlainLength(frameBytes: u32): bool {
  return frameBytes - RECORD_HEAD_BYTES <= <u32> FRAME_BYTES_MAX - RECORD_HEAD_BYTES;
}

/** The pointer of a frame's buffer if the second remembered region has it, else 0. */
export function inSecond(q: usize, address: u64): usize {
  const offset = address - load<u64>(q, Q_REGION2_IOVA);
  if (offset >= reachOf(load<u64>(q, Q_REGION2_SIZE))) return 0;
  return load<u32>(q, Q_REGION2_WINDOW) + <usize> offset;
}

/**
 * Any other frame. False if it cannot be taken now: it breaks the protocol, for which the queue stops if the frame is
 * the `first` of its batch, and otherwise when the next batch meets it.
 */
function gatherChain(q: usize, head: u32, record: usize, first: bool): bool {
  const start = load<u32>(batch(), B_SEGMENTS);
  const hdrBytes = load<u32>(q, Q_HDR_BYTES);
  const verdict = walkSplit(q, head, start, false, QUEUE_SIZE_MAX);
  const bytes = load<u64>(batch(), B_CHAIN_BYTES);
  if (verdict != OK || bytes < hdrBytes) {
    if (!first) return false;
    if (verdict != OK) failQueue(q, verdict, load<u64>(batch(), B_BAD_DETAIL));
    else failQueue(q, BAD_HEADER, bytes);
    return false;
  }
  recordSegments(record, start, bytes, hdrBytes, false);
  recordDescriptors(record, 1, head);
  return true;
}
