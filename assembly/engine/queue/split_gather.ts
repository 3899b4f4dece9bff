/** Frames out of a split transmit ring: the common kind in one loop, chains and indirect tables by the walk. */
import {
  B_READ_AHEAD,
  Q_AVAIL,
  Q_DESC,
  Q_HDR_BYTES,
  Q_LAST_AVAIL,
  Q_REGION_IOVA,
  Q_REGION_SIZE,
  Q_REGION_WINDOW,
  Q_SIZE,
  R_ID,
  RECORD_STRIDE,
} from "../../../shared/layout/nic.ts";
import { VIRTQ_AVAIL_RING } from "../../../shared/layout/virtio.ts";
import { recordAt } from "../batch/record.ts";
import { isPlainLength, locate, mayGrow, RUN_FRAMES, take } from "../batch/take.ts";
import { batch } from "../context.ts";
import { gatherChain } from "./chain.ts";
import { inSecond, reachOf } from "./domain.ts";

/**
 * Makes records of up to `most` frames of TX queue `q`, stopping behind `byteLimit` bytes or when the batch has cost
 * `unitLimit`. Answers how many; 0 with the queue stopped if the first breaks the protocol.
 */
export function gatherSplit(q: usize, most: u32, byteLimit: u32, unitLimit: u32): u32 {
  const last = load<u32>(q, Q_LAST_AVAIL);
  const hdrBytes = load<u32>(q, Q_HDR_BYTES);
  let n: u32 = 0;
  while (n < most && mayGrow(byteLimit, unitLimit)) {
    const run = min(most - n, RUN_FRAMES);
    const taken = take(q, n, locateSplit(q, last + n, n, run, hdrBytes), byteLimit, unitLimit);
    n += taken;
    if (taken == run || !mayGrow(byteLimit, unitLimit)) continue;
    if (!gatherChain(q, last + n, recordAt(n), 1, n == 0)) break;
    n++;
  }
  return n;
}

/** Locates plain frames from ring position `position` on, up to the first that is none; answers how many. */
function locateSplit(q: usize, position: u32, first: u32, run: u32, hdrBytes: u32): u32 {
  const mask = load<u32>(q, Q_SIZE) - 1;
  const table: usize = load<u32>(q, Q_DESC);
  const ring: usize = load<u32>(q, Q_AVAIL) + VIRTQ_AVAIL_RING;
  const iova = load<u64>(q, Q_REGION_IOVA);
  const reach = reachOf(load<u64>(q, Q_REGION_SIZE));
  const window: usize = load<u32>(q, Q_REGION_WINDOW);
  let record = recordAt(first);
  let ahead: u64 = 0;
  let n: u32 = 0;
  for (; n < run; n++, record += RECORD_STRIDE) {
    const head: u32 = load<u16>(ring + ((position + n) & mask) * 2);
    const descriptor: usize = table + ((head & mask) << 4);
    const offset = load<u64>(descriptor) - iova;
    const meta = load<u64>(descriptor, 8);
    // One comparison each: a length below the minimum wraps round; a buffer within reach is within the region.
    const frameBytes = <u32> meta - hdrBytes;
    if (head > mask || (<u32> (meta >> 32) & 0xffff) != 0 || !isPlainLength(frameBytes)) break;
    const at = offset < reach ? window + <usize> offset : inSecond(q, offset + iova);
    if (at == 0) break;
    ahead += locate(record, at + hdrBytes, frameBytes, hdrBytes);
    store<u32>(record, head, R_ID);
  }
  store<u64>(batch(), ahead, B_READ_AHEAD);
  return n;
}
