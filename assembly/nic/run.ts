/**
 * A run: consecutive frames of one TX queue between the same two addresses, for which one decision of the switch holds
 * until the generation changes. What the loops of both queue flavours share: the decisions that are remembered, how a
 * queue gets its next run, and the books at a run's end.
 */
import {
  C_RX_BYTES,
  C_RX_FRAMES,
  C_RX_NO_BUFFER,
  C_TX_BYTES,
  C_TX_FRAMES,
  CTL,
  CTL_GENERATION,
  D_DST,
  D_GENERATION,
  D_POOL,
  D_SRC,
  DECISION_STRIDE,
  DECISIONS,
  DECISIONS_PER_POOL,
  FRAME_BYTES_MAX,
  P_RX_COUNT,
  POOL_STRIDE,
  POOLS,
  Q_FLAVOUR,
  Q_HEADER_BYTES,
  Q_POOL,
  Q_REGION_SIZE,
  Q_RUN_DST,
  Q_RUN_GENERATION,
  Q_RUN_POOL,
  Q_RUN_RX,
  Q_RUN_SRC,
  Q_STATE,
  QUEUE_RUNNING,
} from "../../shared/layout/nic.ts";
import { VIRTIO_NET_HDR_BYTES } from "../../shared/layout/virtio.ts";
import { count } from "../lib/deliver.ts";
import { touch } from "../lib/ring.ts";
import { flowHash, noteFlow, steer } from "./steer.ts";

/** A frame shorter than this is of no run, so that its first 16 bytes can be one load. */
export const RUN_FRAME_BYTES_MIN: u32 = 16;
/** Bytes that a buffer of a run may have at the most: a frame and its virtio-net header. */
const REACH_SLACK: u64 = FRAME_BYTES_MAX + VIRTIO_NET_HDR_BYTES;

/** Offsets below this hold any buffer whole; those at a region's very end are left to the general path. */
@inline
export function reachOf(q: usize): u64 {
  const size = load<u64>(q, Q_REGION_SIZE);
  return size > REACH_SLACK ? size - REACH_SLACK : 0;
}

/** Bytes of the frames that the last run took. */
export let runBytes: u32 = 0;

/** Whether the run of `q` still holds. */
@inline
export function runHolds(q: usize): bool {
  runBytes = 0;
  const rx: usize = load<u32>(q, Q_RUN_RX);
  if (rx == 0 || load<u32>(q, Q_RUN_GENERATION) != load<u32>(CTL, CTL_GENERATION)) return false;
  return load<u32>(rx, Q_STATE) == QUEUE_RUNNING;
}

/** Multi-queue: notes the flow for its way back; false if the frame belongs to another receive queue than `rx`. */
export function steersTo(q: usize, pool: u32, rxPool: u32, rx: usize, frame: usize, frameBytes: u32): bool {
  const hash = flowHash(frame, frameBytes);
  if (load<u32>(POOLS + pool * POOL_STRIDE, P_RX_COUNT) > 1) noteFlow(pool, hash, q);
  return load<u32>(POOLS + rxPool * POOL_STRIDE, P_RX_COUNT) == 1 || steer(rxPool, hash) == rx;
}

/** Counts what a run took, delivered and dropped, and has the receiver told. */
@inline
export function endRun(q: usize, rx: usize, taken: u32, delivered: u32, bytes: u32, droppedBytes: u32): void {
  runBytes = bytes;
  const p: usize = POOLS + load<u32>(q, Q_POOL) * POOL_STRIDE;
  count(p, C_TX_FRAMES, taken);
  count(p, C_TX_BYTES, bytes);
  const rp: usize = POOLS + load<u32>(q, Q_RUN_POOL) * POOL_STRIDE;
  if (delivered < taken) count(rp, C_RX_NO_BUFFER, taken - delivered);
  if (delivered == 0) return;
  count(rp, C_RX_FRAMES, delivered);
  count(rp, C_RX_BYTES, bytes - droppedBytes);
  touch(rx);
}

@inline
function decisionOf(pool: u32, dst: u64, src: u32): usize {
  const h = (dst ^ (<u64> src << 24)) * 0x9e3779b97f4a7c15;
  const slot = <u32> (h >> 58) & (DECISIONS_PER_POOL - 1);
  return DECISIONS + (pool * DECISIONS_PER_POOL + slot) * DECISION_STRIDE;
}

/** Remembers that `pool`'s untagged frames with these first 12 bytes go to `rxPool` as they are. */
export function rememberDecision(pool: u32, dst: u64, src: u32, rxPool: u32): void {
  const entry = decisionOf(pool, dst, src);
  store<u64>(entry, dst, D_DST);
  store<u32>(entry, src, D_SRC);
  store<u32>(entry, load<u32>(CTL, CTL_GENERATION), D_GENERATION);
  store<u32>(entry, rxPool, D_POOL);
}

/**
 * Makes the run of `q` fit a frame at `frame`, if its decision is remembered and its receiver's ring is of the same
 * flavour. What is read here is only a guess where to look: the loops read and check each frame for themselves.
 */
export function chooseRun(q: usize, frame: usize, frameBytes: u32): bool {
  const dst = load<u64>(frame);
  const src = load<u32>(frame, 8);
  const entry = decisionOf(load<u32>(q, Q_POOL), dst, src);
  if (load<u64>(entry, D_DST) != dst || load<u32>(entry, D_SRC) != src) return false;
  if (load<u32>(entry, D_GENERATION) != load<u32>(CTL, CTL_GENERATION)) return false;
  const rxPool = load<u32>(entry, D_POOL);
  const many = load<u32>(POOLS + rxPool * POOL_STRIDE, P_RX_COUNT) > 1;
  const rx = steer(rxPool, many ? flowHash(frame, frameBytes) : 0);
  if (rx == 0 || load<u32>(rx, Q_FLAVOUR) != load<u32>(q, Q_FLAVOUR) || load<u32>(rx, Q_HEADER_BYTES) != 0) return false;
  store<u32>(q, <u32> rx, Q_RUN_RX);
  store<u64>(q, dst, Q_RUN_DST);
  store<u32>(q, src, Q_RUN_SRC);
  store<u32>(q, load<u32>(CTL, CTL_GENERATION), Q_RUN_GENERATION);
  store<u32>(q, rxPool, Q_RUN_POOL);
  return true;
}
