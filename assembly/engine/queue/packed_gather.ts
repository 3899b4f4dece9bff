/** Frames out of a packed transmit ring: the common kind in one loop, chains and indirect tables by the walk. */
import {
  B_READ_AHEAD,
  Q_DESC,
  Q_HDR_BYTES,
  Q_LAST_AVAIL,
  Q_REGION_IOVA,
  Q_REGION_SIZE,
  Q_REGION_WINDOW,
  Q_SIZE,
  Q_WRAP,
  R_DESCRIPTORS,
  RECORD_STRIDE,
  WRAP_AVAIL,
} from "../../../shared/layout/nic.ts";
import { VIRTQ_DESC_BYTES, VIRTQ_PACKED_DESC_LEN } from "../../../shared/layout/virtio.ts";
import { recordAt, recordDescriptors } from "../batch/record.ts";
import { isPlainLength, locate, mayGrow, RUN_FRAMES, take } from "../batch/take.ts";
import { batch } from "../context.ts";
import { gatherChain } from "./chain.ts";
import { inSecond, reachOf } from "./domain.ts";
import { availableFlags, isAvailable } from "./packed.ts";

/** As `gatherSplit`, from a packed ring; it also stops where nothing more is available. */
export function gatherPacked(q: usize, most: u32, byteLimit: u32, unitLimit: u32): u32 {
  const size = load<u32>(q, Q_SIZE);
  const hdrBytes = load<u32>(q, Q_HDR_BYTES);
  let slot = load<u32>(q, Q_LAST_AVAIL);
  let wrap = load<u32>(q, Q_WRAP) & WRAP_AVAIL;
  let used: u32 = 0;
  let n: u32 = 0;
  while (n < most && mayGrow(byteLimit, unitLimit)) {
    // Up to the ring's end, so that one wrap counter holds; and a chain that laps the ring would be taken for a new one.
    const run = min(min(most - n, RUN_FRAMES), min(size - slot, size - used));
    if (run == 0) break;
    const there = locatePacked(q, slot, wrap, n, run, hdrBytes);
    let step = take(q, n, there, byteLimit, unitLimit);
    n += step;
    if (step == there && there < run && mayGrow(byteLimit, unitLimit)) {
      const position = (slot + step) | (wrap << 16);
      if (!isAvailable(q, position)) break;
      const record = recordAt(n);
      if (!gatherChain(q, position, record, size - used - step, n == 0)) break;
      step += load<u32>(record, R_DESCRIPTORS);
      n++;
    }
    used += step;
    slot += step;
    if (slot < size) continue;
    slot -= size;
    wrap ^= WRAP_AVAIL;
  }
  return n;
}

/** Locates plain frames from slot `slot` on, up to the first that is none or not available; answers how many. */
function locatePacked(q: usize, slot: u32, wrap: u32, first: u32, run: u32, hdrBytes: u32): u32 {
  const iova = load<u64>(q, Q_REGION_IOVA);
  const reach = reachOf(load<u64>(q, Q_REGION_SIZE));
  const window: usize = load<u32>(q, Q_REGION_WINDOW);
  const available = availableFlags(wrap);
  let descriptor: usize = load<u32>(q, Q_DESC) + slot * VIRTQ_DESC_BYTES;
  let record = recordAt(first);
  let ahead: u64 = 0;
  let n: u32 = 0;
  for (; n < run; n++, record += RECORD_STRIDE, descriptor += VIRTQ_DESC_BYTES) {
    const meta = atomic.load<u64>(descriptor + VIRTQ_PACKED_DESC_LEN);
    const frameBytes = <u32> meta - hdrBytes;
    if (<u32> (meta >> 48) != available || !isPlainLength(frameBytes)) break;
    const offset = load<u64>(descriptor) - iova;
    const at = offset < reach ? window + <usize> offset : inSecond(q, offset + iova);
    if (at == 0) break;
    ahead += locate(record, at + hdrBytes, frameBytes, hdrBytes);
    recordDescriptors(record, 1, <u32> (meta >> 32) & 0xffff);
  }
  store<u64>(batch(), ahead, B_READ_AHEAD);
  return n;
}
