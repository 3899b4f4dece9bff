/**
 * Emulated mode's data path: a wire between a guest's virtqueues and a VF of the NIC, with one copy each way. What is
 * sent goes into the VF's transmit ring as it is, and what its receive ring brings goes to the guest; policy is the
 * NIC's, in this mode as in every other. A full side holds the other one up, so frames are dropped where they are
 * counted: in the NIC.
 */
import {
  BAD_CHAIN_LENGTH,
  BAD_HEADER,
  C_RX_NO_BUFFER,
  CTL,
  CTL_RATE_BLOCKED,
  FRAME_BYTES_MAX,
  FRAME_HEAD,
  HEAD_BYTES_MAX,
  POOL_STRIDE,
  POOLS,
  P_RX_COUNT,
  Q_FLAVOUR,
  FLAVOUR_SOURCE,
  Q_HDR_BYTES,
  Q_LAST_AVAIL,
  Q_POOL,
  Q_STATE,
  Q_WIRE,
  QUEUE_RUNNING,
  QUEUE_SIZE_MAX,
  TX_SEGMENTS,
  BURST_WORK,
  C_TX_BYTES,
  C_TX_FRAMES,
} from "../../shared/layout/nic.ts";
import { count, receive, receiveWork } from "../lib/deliver.ts";
import { failQueue } from "../lib/interrupts.ts";
import { clearRegionsSeen, regionsSeen } from "../lib/domain.ts";
import { publish, publishTouched, touch } from "../lib/ring.ts";
import { badDetail, clearSegments, peek, segmentCount } from "../lib/segments.ts";
import { availHead, chainBytes, chainLength, gatherChain, pushUsed } from "../lib/split_ring.ts";
import { completeSource, gatherSource, isSinkFull, sendTrunk, sourceBytes, sourceLength } from "../lib/trunk.ts";
import { flowHash, noteFlow, steer } from "./steer.ts";

/** What a frame cost, in descriptors and buffers; what the last burst did. */
let work: u32 = 0;
export let wireWork: u32 = 0;

/** Moves up to `n` frames of the wired queue `q`, of whose descriptors `waiting` are there. Answers how many. */
export function wireBurst(q: usize, n: u32, waiting: u32): u32 {
  let done: u32 = 0;
  let left = waiting;
  let spent: u32 = 0;
  const isSource = load<u32>(q, Q_FLAVOUR) == FLAVOUR_SOURCE;
  while (done < n && left > 0 && spent < <u32> BURST_WORK) {
    work = 0;
    const moved = isSource ? toGuest(q, left) : fromGuest(q);
    spent += work;
    if (moved == 0) break;
    left -= moved;
    done++;
  }
  wireWork = spent;
  if (done != 0) publish(q);
  publishTouched();
  return done;
}

/** The other side is full: the worker looks again soon. */
function blocked(): u32 {
  store<u32>(CTL, load<u32>(CTL, CTL_RATE_BLOCKED) + 1, CTL_RATE_BLOCKED);
  return 0;
}

/** One frame of the guest into the VF's transmit ring; answers how many heads it took: one, or none. */
function fromGuest(q: usize): u32 {
  const head = availHead(q, load<u32>(q, Q_LAST_AVAIL));
  const hdrBytes = load<u32>(q, Q_HDR_BYTES);
  const sink: usize = load<u32>(q, Q_WIRE);
  // Before the chain is walked: a guest whose VF is slow must not have it walked again and again for nothing.
  if (load<u32>(sink, Q_STATE) != QUEUE_RUNNING || isSinkFull(sink)) return blocked();
  clearSegments();
  clearRegionsSeen();
  const verdict = gatherChain(q, head, TX_SEGMENTS, false, QUEUE_SIZE_MAX);
  work = chainLength + segmentCount + (regionsSeen >> 3);
  if (verdict != 0) {
    failQueue(q, verdict, badDetail);
    return 0;
  }
  if (chainBytes < hdrBytes) {
    failQueue(q, BAD_HEADER, chainBytes);
    return 0;
  }
  peek(TX_SEGMENTS, 0, hdrBytes, FRAME_HEAD);
  // A frame that is too long is cut to the length that the NIC still refuses, and counts.
  const frameBytes = <u32> min(chainBytes - hdrBytes, <u64> FRAME_BYTES_MAX + 1);
  const offload = load<u16>(FRAME_HEAD) != 0;
  const refused = sendTrunk(sink, FRAME_HEAD, 0, TX_SEGMENTS, hdrBytes, frameBytes, offload);
  if (refused == C_RX_NO_BUFFER) return blocked();
  const pool = load<u32>(q, Q_POOL);
  const p: usize = POOLS + pool * POOL_STRIDE;
  if (refused == 0) {
    touch(sink);
    count(p, C_TX_FRAMES, 1);
    count(p, C_TX_BYTES, frameBytes);
    if (load<u32>(p, P_RX_COUNT) > 1) noteFlow(pool, hashOf(hdrBytes, frameBytes), q);
  }
  pushUsed(q, head, 0);
  store<u32>(q, load<u32>(q, Q_LAST_AVAIL) + 1, Q_LAST_AVAIL);
  return 1;
}

/** The flow of the gathered frame, which begins `skip` bytes into its segments. */
function hashOf(skip: u32, frameBytes: u32): u32 {
  const known = min(frameBytes, HEAD_BYTES_MAX);
  peek(TX_SEGMENTS, skip, known, FRAME_HEAD);
  return flowHash(FRAME_HEAD, known);
}

/** One frame of the VF's receive ring to the guest; answers how many descriptors it took. */
function toGuest(q: usize, waiting: u32): u32 {
  clearSegments();
  clearRegionsSeen();
  const verdict = gatherSource(q, TX_SEGMENTS, waiting);
  if (verdict != 0) {
    // A frame whose last descriptor is not there yet is waited for.
    if (verdict != BAD_CHAIN_LENGTH) failQueue(q, verdict, badDetail);
    return 0;
  }
  work = sourceLength + segmentCount;
  const pool = load<u32>(q, Q_POOL);
  const p: usize = POOLS + pool * POOL_STRIDE;
  const many = load<u32>(p, P_RX_COUNT) > 1;
  const rx = steer(pool, many ? hashOf(0, sourceBytes) : 0);
  if (rx == 0) return blocked();
  const refused = receive(rx, FRAME_HEAD, 0, TX_SEGMENTS, 0, sourceBytes);
  work += receiveWork + (regionsSeen >> 3);
  if (refused == C_RX_NO_BUFFER) return blocked();
  if (refused == 0) touch(rx);
  else count(p, refused, 1);
  completeSource(q);
  return sourceLength;
}
