/** Frames out of a packed transmit ring: the common kind in one loop, chains and indirect tables by the walk. */
import {
  B_BAD_DETAIL,
  B_BYTES,
  B_CHAIN_BYTES,
  B_CHAIN_DESCRIPTORS,
  B_CHAIN_ID,
  B_SEGMENTS,
  B_UNITS,
  BAD_CHAIN_LENGTH,
  BAD_HEADER,
  OK,
  Q_DESC,
  Q_HDR_BYTES,
  Q_LAST_AVAIL,
  Q_REGION_IOVA,
  Q_REGION_SIZE,
  Q_REGION_WINDOW,
  Q_SIZE,
  Q_WRAP,
  QUEUE_SIZE_MAX,
  R_DESCRIPTORS,
  R_LENGTH,
  RECORD_STRIDE,
  WRAP_AVAIL,
} from "../../../shared/layout/nic.ts";
import { VIRTQ_DESC_BYTES, VIRTQ_PACKED_DESC_LEN } from "../../../shared/layout/virtio.ts";
import { noHead, recordAt, recordDescriptors, recordPlain, recordSegments } from "../batch/record.ts";
import { batch } from "../context.ts";
import { UNITS_BYTES_SHIFT, UNITS_FRAME } from "../schedule/cost.ts";
import { reachOf } from "./domain.ts";
import { failQueue } from "./interrupts.ts";
import { availableFlags, countPacked, OWNER_FLAGS } from "./packed.ts";
import { walkPacked } from "./packed_chain.ts";
import { prefetchRing } from "./prefetch.ts";
import { inSecond, isPlainLength } from "./split_gather.ts";

/** As `gatherSplit`, from a packed ring; it also stops where nothing more is available. */
export function gatherPacked(q: usize, most: u32, byteLimit: u32, unitLimit: u32): u32 {
  const size = load<u32>(q, Q_SIZE);
  const ring: usize = load<u32>(q, Q_DESC);
  const hdrBytes = load<u32>(q, Q_HDR_BYTES);
  let slot = load<u32>(q, Q_LAST_AVAIL);
  let wrap = load<u32>(q, Q_WRAP) & WRAP_AVAIL;
  const iova = load<u64>(q, Q_REGION_IOVA);
  const reach = reachOf(load<u64>(q, Q_REGION_SIZE));
  const window: usize = load<u32>(q, Q_REGION_WINDOW);
  let available = availableFlags(wrap);
  let bytes: u32 = 0;
  let units = load<u32>(batch(), B_UNITS);
  let taken: u32 = 0;
  let n: u32 = 0;
  let before = noHead();
  prefetchRing(q, countPacked(q, most));
  for (let record = recordAt(0); n < most && bytes < byteLimit && units < unitLimit; record += RECORD_STRIDE) {
    const descriptor = ring + slot * VIRTQ_DESC_BYTES;
    const meta = atomic.load<u64>(descriptor + VIRTQ_PACKED_DESC_LEN);
    const flags = <u32> (meta >> 48);
    // A chain that laps the ring would be taken for a new one.
    if ((flags & OWNER_FLAGS) != available || taken == size) break;
    const address = load<u64>(descriptor);
    const frameBytes = <u32> meta - hdrBytes;
    let at: usize = 0;
    if (flags == available && isPlainLength(frameBytes)) {
      const offset = address - iova;
      at = offset < reach ? window + <usize> offset : inSecond(q, address);
    }
    let step: u32 = 1;
    if (at != 0 && load<u16>(at) == 0) {
      before = recordPlain(record, at + hdrBytes, frameBytes, before);
      recordDescriptors(record, 1, <u32> (meta >> 32) & 0xffff);
      bytes += frameBytes;
      units += UNITS_FRAME + (frameBytes >> UNITS_BYTES_SHIFT);
    } else {
      store<u32>(batch(), units, B_UNITS);
      if (!gatherChain(q, slot | (wrap << 16), record, size - taken, n == 0)) break;
      before = v128.load(record);
      step = load<u32>(record, R_DESCRIPTORS);
      bytes += load<u32>(record, R_LENGTH);
      units = load<u32>(batch(), B_UNITS) + UNITS_FRAME;
    }
    n++;
    taken += step;
    slot += step;
    if (slot < size) continue;
    slot -= size;
    wrap ^= WRAP_AVAIL;
    available = availableFlags(wrap);
  }
  store<u32>(batch(), units, B_UNITS);
  store<u32>(batch(), bytes, B_BYTES);
  return n;
}

/** As the split ring's: any other frame, of at most `limit` descriptors. */
function gatherChain(q: usize, position: u32, record: usize, limit: u32, first: bool): bool {
  const start = load<u32>(batch(), B_SEGMENTS);
  const hdrBytes = load<u32>(q, Q_HDR_BYTES);
  let verdict = walkPacked(q, position, start, false, QUEUE_SIZE_MAX);
  if (verdict == OK && load<u32>(batch(), B_CHAIN_DESCRIPTORS) > limit) verdict = BAD_CHAIN_LENGTH;
  const bytes = load<u64>(batch(), B_CHAIN_BYTES);
  if (verdict != OK || bytes < hdrBytes) {
    if (!first) return false;
    if (verdict != OK) failQueue(q, verdict, load<u64>(batch(), B_BAD_DETAIL));
    else failQueue(q, BAD_HEADER, bytes);
    return false;
  }
  recordSegments(record, start, bytes, hdrBytes, false);
  recordDescriptors(record, load<u32>(batch(), B_CHAIN_DESCRIPTORS), load<u32>(batch(), B_CHAIN_ID));
  return true;
}
