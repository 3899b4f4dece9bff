/**
 * The common case as one loop: consecutive untagged frames between the same two addresses, each in one descriptor,
 * each into one receive buffer. The decision was made once (`switch.ts`) and holds until the generation changes, so a
 * frame costs a 12-byte comparison and one copy, from the sender's memory to the receiver's.
 *
 * The first 16 bytes are loaded once: what was compared is what is stored, so a sender that rewrites its frame
 * meanwhile gains nothing. Anything unusual ends the run and is left to the general path, which names what is wrong.
 */
import { ADV_DESC_BYTES, ADV_TXD_DTALEN_MASK } from "../../shared/layout/advanced.ts";
import {
  FRAME_BYTES_MAX,
  P_RX_COUNT,
  POOL_STRIDE,
  POOLS,
  Q_AVAIL,
  Q_DESC,
  Q_HDR_BYTES,
  Q_LAST_AVAIL,
  Q_POOL,
  Q_REGION_IOVA,
  Q_REGION_SIZE,
  Q_REGION_WINDOW,
  Q_RUN_DST,
  Q_RUN_POOL,
  Q_RUN_RX,
  Q_RUN_SRC,
  Q_SIZE,
  Q_USED,
  Q_USED_IDX,
  TOUCHED,
} from "../../shared/layout/nic.ts";
import {
  VIRTIO_NET_HDR_BYTES,
  VIRTQ_AVAIL_RING,
  VIRTQ_DESC_F_WRITE,
  VIRTQ_USED_ELEM_BYTES,
  VIRTQ_USED_RING,
} from "../../shared/layout/virtio.ts";
import { copyBytes } from "../lib/copy.ts";
import { isTag } from "../lib/ethernet.ts";
import { isAdvanced } from "../lib/ring.ts";
import { availHead, availIdx } from "../lib/split_ring.ts";
import { forwardAdvanced, isSimple } from "./forward_advanced.ts";
import { chooseRun, endRun, reachOf, RUN_FRAME_BYTES_MIN, runHolds, steersTo } from "./run.ts";


/** Frames whose lines are asked for ahead of the loop: 128 of 64 bytes take a third of a first-level cache. */
const TOUCH_AHEAD_MAX: u32 = 128;
/**
 * Reads the first lines of the next `n` frames of `q`, once a burst, and throws them away. Another CPU has just written
 * them: asked for all at once they come together, asked for one by one in the loop below each is waited for.
 */
export function touchAhead(q: usize, n: u32): void {
  const mask = load<u32>(q, Q_SIZE) - 1;
  const desc: usize = load<u32>(q, Q_DESC);
  const availRing: usize = load<u32>(q, Q_AVAIL) + VIRTQ_AVAIL_RING;
  const last = load<u32>(q, Q_LAST_AVAIL);
  const iova = load<u64>(q, Q_REGION_IOVA);
  const reach = reachOf(q);
  const window = load<u32>(q, Q_REGION_WINDOW);
  const hdrBytes = load<u32>(q, Q_HDR_BYTES);
  const ahead = min(n, TOUCH_AHEAD_MAX);
  let touched: u64 = 0;
  for (let i: u32 = 0; i < ahead; i++) {
    const head: u32 = load<u16>(availRing + ((last + i) & mask) * 2);
    const offset = load<u64>(desc + ((head & mask) << 4)) - iova;
    if (offset < reach) touched += load<u64>(window + <u32> offset + hdrBytes) + load<u16>(window + <u32> offset);
  }
  store<u64>(TOUCHED, touched);
}

/**
 * Forwards up to `n` frames from the front of TX queue `q` along its run, stopping behind `byteLimit` bytes.
 * Answers how many it took; 0 if there is no run or the first frame is not of it.
 */
function forwardSplit(q: usize, n: u32, byteLimit: i32): u32 {
  if (!runHolds(q)) return 0;
  const rx: usize = load<u32>(q, Q_RUN_RX);
  const dst = load<u64>(q, Q_RUN_DST);
  const src = load<u32>(q, Q_RUN_SRC);
  const pool = load<u32>(q, Q_POOL);
  const rxPool = load<u32>(q, Q_RUN_POOL);
  const manyQueues = load<u32>(POOLS + rxPool * POOL_STRIDE, P_RX_COUNT) > 1 ||
    load<u32>(POOLS + pool * POOL_STRIDE, P_RX_COUNT) > 1;

  const mask = load<u32>(q, Q_SIZE) - 1;
  const desc: usize = load<u32>(q, Q_DESC);
  const availRing: usize = load<u32>(q, Q_AVAIL) + VIRTQ_AVAIL_RING;
  const usedRing: usize = load<u32>(q, Q_USED) + VIRTQ_USED_RING;
  const last = load<u32>(q, Q_LAST_AVAIL);
  const iova = load<u64>(q, Q_REGION_IOVA);
  const reach = reachOf(q);
  const window = load<u32>(q, Q_REGION_WINDOW);
  const hdrBytes = load<u32>(q, Q_HDR_BYTES);

  const rxMask = load<u32>(rx, Q_SIZE) - 1;
  const rxDesc: usize = load<u32>(rx, Q_DESC);
  const rxAvailRing: usize = load<u32>(rx, Q_AVAIL) + VIRTQ_AVAIL_RING;
  const rxUsedRing: usize = load<u32>(rx, Q_USED) + VIRTQ_USED_RING;
  const rxLast = load<u32>(rx, Q_LAST_AVAIL);
  const rxIova = load<u64>(rx, Q_REGION_IOVA);
  const rxReach = reachOf(rx);
  const rxWindow = load<u32>(rx, Q_REGION_WINDOW);
  const rxHdrBytes = load<u32>(rx, Q_HDR_BYTES);
  const free = (availIdx(rx) - rxLast) & 0xffff;
  if (free > rxMask + 1) return 0;
  // This loop takes and returns in one step, so avail and used positions go together; if somebody began elsewhere, the
  // general path keeps them apart.
  if ((load<u32>(q, Q_USED_IDX) - last) & mask || (load<u32>(rx, Q_USED_IDX) - rxLast) & rxMask) return 0;

  let taken: u32 = 0;
  let delivered: u32 = 0;
  let left = byteLimit;
  let droppedBytes: u32 = 0;
  for (; taken < n && left > 0; taken++) {
    const slot = (last + taken) & mask;
    const head: u32 = load<u16>(availRing + slot * 2);
    if (head > mask) break;
    const descriptor: usize = desc + (head << 4);
    const offset = load<u64>(descriptor) - iova;
    const meta = load<u64>(descriptor, 8);
    const length = <u32> meta;
    if (<u32> (meta >> 32) & 0xffff) break;
    // One comparison: a length below the minimum wraps round. With it, a buffer within reach is within the region.
    if (length - hdrBytes - RUN_FRAME_BYTES_MIN > <u32> FRAME_BYTES_MAX - RUN_FRAME_BYTES_MIN) break;
    if (offset >= reach) break;
    const header: usize = window + <u32> offset;
    if (load<u16>(header)) break;
    const frame = header + hdrBytes;
    const frameBytes = length - hdrBytes;
    const first = v128.load(frame);
    if (v128.extract_lane<u64>(first, 0) != dst || v128.extract_lane<u32>(first, 2) != src) break;
    if (isTag(v128.extract_lane<u16>(first, 6))) break;
    if (manyQueues && !steersTo(q, pool, rxPool, rx, frame, frameBytes)) break;

    if (delivered < free) {
      const rxSlot = (rxLast + delivered) & rxMask;
      const rxHead: u32 = load<u16>(rxAvailRing + rxSlot * 2);
      if (rxHead > rxMask) break;
      const rxDescriptor: usize = rxDesc + (rxHead << 4);
      const rxOffset = load<u64>(rxDescriptor) - rxIova;
      const rxMeta = load<u64>(rxDescriptor, 8);
      const rxLength = <u32> rxMeta;
      if ((<u32> (rxMeta >> 32) & 0xffff) != VIRTQ_DESC_F_WRITE) break;
      const need = rxHdrBytes + frameBytes;
      if (rxLength < need || rxOffset >= rxReach) break;
      const buffer: usize = rxWindow + <u32> rxOffset;
      store<u64>(buffer, 0);
      if (rxHdrBytes == VIRTIO_NET_HDR_BYTES) store<u32>(buffer, 0x00010000, 8);
      else store<u16>(buffer, 0, 8);
      v128.store(buffer + rxHdrBytes, first);
      copyBytes(buffer + rxHdrBytes + 16, frame + 16, frameBytes - 16);
      store<u64>(rxUsedRing + rxSlot * VIRTQ_USED_ELEM_BYTES, <u64> rxHead | (<u64> need << 32));
      delivered++;
    } else {
      droppedBytes += frameBytes;
    }
    store<u64>(usedRing + slot * VIRTQ_USED_ELEM_BYTES, head);
    left -= <i32> frameBytes;
  }
  if (taken == 0) return 0;

  store<u32>(q, last + taken, Q_LAST_AVAIL);
  store<u32>(q, load<u32>(q, Q_USED_IDX) + taken, Q_USED_IDX);
  if (delivered > 0) {
    store<u32>(rx, rxLast + delivered, Q_LAST_AVAIL);
    store<u32>(rx, load<u32>(rx, Q_USED_IDX) + delivered, Q_USED_IDX);
  }
  endRun(q, rx, taken, delivered, byteLimit - left, droppedBytes);
  return taken;
}

/**
 * Forwards up to `n` frames from the front of TX queue `q` along its run, whatever its flavour, stopping behind
 * `byteLimit` bytes. Answers how many it took; 0 if there is no run or the first frame is not of it.
 */
@inline
export function forwardRun(q: usize, n: u32, byteLimit: i32): u32 {
  return isAdvanced(q) ? forwardAdvanced(q, n, byteLimit) : forwardSplit(q, n, byteLimit);
}

/** Makes the run of `q` fit its next frame, if that frame is simple and its decision is remembered. */
export function selectRun(q: usize): bool {
  if (isAdvanced(q)) {
    const descriptor: usize = load<u32>(q, Q_DESC) + load<u32>(q, Q_LAST_AVAIL) * ADV_DESC_BYTES;
    const meta = load<u64>(descriptor, 8);
    return isSimple(meta) && chooseAt(q, load<u64>(descriptor), <u32> meta & <u32> ADV_TXD_DTALEN_MASK, 0);
  }
  const head = availHead(q, load<u32>(q, Q_LAST_AVAIL));
  if (head >= load<u32>(q, Q_SIZE)) return false;
  const descriptor: usize = load<u32>(q, Q_DESC) + (head << 4);
  const meta = load<u64>(descriptor, 8);
  if (<u32> (meta >> 32) & 0xffff) return false;
  return chooseAt(q, load<u64>(descriptor), <u32> meta, load<u32>(q, Q_HDR_BYTES));
}

/** Chooses a run for the frame in the buffer at `iova`, if it lies in the region that translated last. */
function chooseAt(q: usize, iova: u64, length: u32, hdrBytes: u32): bool {
  const offset = iova - load<u64>(q, Q_REGION_IOVA);
  const size = load<u64>(q, Q_REGION_SIZE);
  if (length < hdrBytes + RUN_FRAME_BYTES_MIN || offset >= size || <u64> length > size - offset) return false;
  return chooseRun(q, load<u32>(q, Q_REGION_WINDOW) + <u32> offset + hdrBytes, length - hdrBytes);
}
