/**
 * The NIC's engine. `run` polls every active TX queue in turn; all state is in the arena (shared/layout/nic.ts), so
 * the same module also serves the control thread, which calls the functions below `run` while the engine is parked.
 */
import {
  ACTIVE_LIST,
  BAD_AVAIL_IDX,
  CTL,
  CTL_ACTIVE_COUNT,
  CTL_BUSY_NS,
  CTL_BUSY_PASSES,
  CTL_CALL_COUNT,
  CTL_EVENT_COUNT,
  CTL_FRAMES,
  CTL_NOW_NS,
  CTL_PASSES,
  CTL_PAUSE,
  CTL_RATE_BLOCKED,
  OK,
  PERM_READ,
  PERM_WRITE,
  Q_AVAIL,
  Q_AVAIL_IOVA,
  Q_DESC,
  Q_DESC_IOVA,
  Q_LAST_AVAIL,
  Q_REGION_SIZE,
  Q_RUN_RX,
  Q_SIGNALLED,
  Q_SIZE,
  Q_STATE,
  Q_USED,
  Q_USED_IDX,
  Q_USED_IOVA,
  QUEUE_RUNNING,
  RING_UNMAPPED,
  RUN_CALLS,
  RUN_EVENT,
  RUN_PAUSE,
  RUN_RATE_BLOCKED,
  RUN_WORK,
} from "../../shared/layout/nic.ts";
import {
  VIRTQ_AVAIL_ALIGN,
  VIRTQ_AVAIL_RING,
  VIRTQ_DESC_ALIGN,
  VIRTQ_DESC_BYTES,
  VIRTQ_USED_ALIGN,
  VIRTQ_USED_ELEM_BYTES,
  VIRTQ_USED_IDX,
  VIRTQ_USED_RING,
} from "../../shared/layout/virtio.ts";
import { translateWhole } from "../lib/domain.ts";
import { armKick, availIdx, disarmKick, disarmKickAtStart } from "../lib/split_ring.ts";
import { transmitBurst } from "./transmit.ts";

export { ageFilters, clearFilters, findPoolExact, insertFilter, removeFilter, removeFiltersOf } from "./filter.ts";

/** Nanoseconds of a monotonic clock; called for a sample of passes, never per packet. */
@external("env", "now")
declare function now(): f64;

/** Every how many busy passes one is timed. A prime, so that no pattern of queues keeps step with it. */
const SAMPLE_PERIOD: u32 = 61;
const SAMPLE_FADING: f64 = 0.9375;
let untilSample: u32 = 0;
/** Every how many busy passes the clock is read. */
const CLOCK_PERIOD: u32 = 32;
let passNumber: u32 = 0;
/** What two calls of the clock cost, taken off each sample. */
let clockCostNs: f64 = 0;

/** Measures the clock, once, before the first `run`: the quickest batch, since the first ones run uncompiled code. */
export function calibrate(): void {
  clockCostNs = Infinity;
  for (let batch = 0; batch < 100; batch++) {
    const t0 = now();
    for (let i = 0; i < 255; i++) now();
    clockCostNs = min(clockCostNs, (now() - t0) / 256);
  }
}

/** Time and frames of recent samples, older ones fading. */
let sampledNs: f64 = 0;
let sampledFrames: f64 = 0;
let framesSinceSample: u32 = 0;

/**
 * Adds the time of all frames since the last sample, at what a frame cost in recent samples. By frames, not by passes:
 * reading the clock slows the polls before a timed pass, so that it finds more frames than others do.
 */
function sample(ns: f64, frames: u32): void {
  sampledNs = sampledNs * SAMPLE_FADING + ns;
  sampledFrames = sampledFrames * SAMPLE_FADING + <f64> frames;
  const spent = sampledNs / sampledFrames * <f64> framesSinceSample;
  store<f64>(CTL, load<f64>(CTL, CTL_BUSY_NS) + spent, CTL_BUSY_NS);
  framesSinceSample = 0;
}

/**
 * Polls all active queues up to `passes` times and answers RUN_* bits. Returns early when somebody wants an interrupt
 * or the control thread asks for a pause.
 */
export function run(nowNs: f64, passes: u32): u32 {
  store<f64>(CTL, nowNs, CTL_NOW_NS);
  const active = load<u32>(CTL, CTL_ACTIVE_COUNT);
  const events = load<u32>(CTL, CTL_EVENT_COUNT);
  let status: u32 = 0;
  let frames: u64 = 0;
  let busy: u32 = 0;
  let pass: u32 = 0;
  for (; pass < passes; pass++) {
    if (atomic.load<u32>(CTL + CTL_PAUSE) & 1) {
      status |= RUN_PAUSE;
      break;
    }
    const timed = untilSample == 0;
    const t0 = timed ? now() : 0;
    let taken: u32 = 0;
    passNumber++;
    store<u32>(CTL, 0, CTL_RATE_BLOCKED);
    for (let i: u32 = 0; i < active; i++) taken += transmitBurst(load<u32>(ACTIVE_LIST + i * 4), passNumber);
    if (taken == 0) continue;
    frames += taken;
    busy++;
    // A run full of work takes milliseconds: token buckets need a clock that goes on meanwhile.
    if (busy % CLOCK_PERIOD == 0) store<f64>(CTL, now(), CTL_NOW_NS);
    framesSinceSample += taken;
    if (timed) {
      sample(max(0, now() - t0 - clockCostNs), taken);
      untilSample = SAMPLE_PERIOD;
    }
    untilSample--;
    if (load<u32>(CTL, CTL_CALL_COUNT)) break;
  }
  store<u64>(CTL, load<u64>(CTL, CTL_PASSES) + pass + 1, CTL_PASSES);
  if (busy != 0) {
    status |= RUN_WORK;
    store<u64>(CTL, load<u64>(CTL, CTL_BUSY_PASSES) + busy, CTL_BUSY_PASSES);
    store<u64>(CTL, load<u64>(CTL, CTL_FRAMES) + frames, CTL_FRAMES);
  }
  if (load<u32>(CTL, CTL_CALL_COUNT)) status |= RUN_CALLS;
  if (load<u32>(CTL, CTL_RATE_BLOCKED)) status |= RUN_RATE_BLOCKED;
  if (load<u32>(CTL, CTL_EVENT_COUNT) != events) status |= RUN_EVENT;
  return status;
}

/** Asks every driver for kicks before the worker sleeps; answers how many queues have work after all. */
export function arm(): u32 {
  const active = load<u32>(CTL, CTL_ACTIVE_COUNT);
  let work: u32 = 0;
  for (let i: u32 = 0; i < active; i++) {
    const q: usize = load<u32>(ACTIVE_LIST + i * 4);
    if (load<u32>(q, Q_STATE) == QUEUE_RUNNING && armKick(q)) work++;
  }
  return work;
}

/** Tells every driver that it is polled again. */
export function disarm(): void {
  const active = load<u32>(CTL, CTL_ACTIVE_COUNT);
  for (let i: u32 = 0; i < active; i++) {
    const q: usize = load<u32>(ACTIVE_LIST + i * 4);
    if (load<u32>(q, Q_STATE) == QUEUE_RUNNING) disarmKick(q);
  }
}

/** Whether the driver of `q` has buffers waiting. */
export function hasWork(q: usize): bool {
  return load<u32>(q, Q_STATE) == QUEUE_RUNNING && availIdx(q) != (load<u32>(q, Q_LAST_AVAIL) & 0xffff);
}

/** Finds the rings of `q` from their IOVAs: OK, or RING_UNMAPPED with nothing changed. */
export function bindRings(q: usize): u32 {
  const size = load<u32>(q, Q_SIZE);
  const desc = translateWhole(q, load<u64>(q, Q_DESC_IOVA), size * VIRTQ_DESC_BYTES, PERM_READ);
  // Both rings end with an event index, which is there only with EVENT_IDX but is accounted for always.
  const avail = translateWhole(q, load<u64>(q, Q_AVAIL_IOVA), VIRTQ_AVAIL_RING + size * 2 + 2, PERM_READ);
  const usedBytes = VIRTQ_USED_RING + size * VIRTQ_USED_ELEM_BYTES + 2;
  const used = translateWhole(q, load<u64>(q, Q_USED_IOVA), usedBytes, PERM_READ | PERM_WRITE);
  if (desc == 0 || avail == 0 || used == 0) return RING_UNMAPPED;
  if (desc % VIRTQ_DESC_ALIGN != 0 || avail % VIRTQ_AVAIL_ALIGN != 0 || used % VIRTQ_USED_ALIGN != 0) {
    return RING_UNMAPPED;
  }
  store<u32>(q, <u32> desc, Q_DESC);
  store<u32>(q, <u32> avail, Q_AVAIL);
  store<u32>(q, <u32> used, Q_USED);
  return OK;
}

/**
 * Starts `q`, whose size, ring IOVAs, flags and header size are set, at avail index `position`. The used index is
 * the ring's own: it is where the driver expects the next element (virtio 1.2 §2.7.8). With -1 the queue goes on there
 * too, which is right after a crash, since the engine returns what it takes in the same burst.
 */
export function startQueue(q: usize, position: i32): u32 {
  const verdict = bindRings(q);
  if (verdict != OK) return verdict;
  const usedIdx: u32 = atomic.load<u16>(load<u32>(q, Q_USED) + VIRTQ_USED_IDX);
  const base: u32 = position < 0 ? usedIdx : position;
  store<u32>(q, base & 0xffff, Q_LAST_AVAIL);
  store<u32>(q, usedIdx, Q_USED_IDX);
  store<u32>(q, usedIdx, Q_SIGNALLED);
  store<u32>(q, 0, Q_RUN_RX);
  if (((availIdx(q) - base) & 0xffff) > load<u32>(q, Q_SIZE)) return BAD_AVAIL_IDX;
  disarmKickAtStart(q);
  atomic.store<u32>(q + Q_STATE, QUEUE_RUNNING);
  return OK;
}

/** Forgets which region translated last, when the domain's memory changes. */
export function forgetRegion(q: usize): void {
  store<u64>(q, 0, Q_REGION_SIZE);
  store<u32>(q, 0, Q_RUN_RX);
}
