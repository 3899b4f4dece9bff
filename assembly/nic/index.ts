/**
 * The NIC's engine. `run` polls every active TX queue in turn; all state is in the arena (shared/layout/nic.ts), so
 * the same module also serves the control thread, which calls the functions below `run` while the engine is parked.
 */
import {
  ACTIVE_LIST,
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
  RUN_CALLS,
  RUN_EVENT,
  RUN_PAUSE,
  RUN_RATE_BLOCKED,
  RUN_WORK,
} from "../../shared/layout/nic.ts";
import { transmitBurst } from "./transmit.ts";

export { arm, disarm, hasWork } from "../lib/idle.ts";
export { fillSource, isSinkEmpty } from "../lib/trunk.ts";
export { bindRings, forgetRegion, startQueue } from "../lib/start.ts";
export { hasRoom, releaseHeld } from "./hold.ts";
export { clearFilters, findPool, insertFilter, removeFilter } from "./filter.ts";
export { filterHome } from "./filter_table.ts";
export { ageFilters, claimAddress } from "./learn.ts";

/** Nanoseconds of a monotonic clock; called for a sample of passes, never per packet. */
@external("env", "now")
declare function now(): f64;

/** Every how many busy passes one is timed. A prime, so that no pattern of queues keeps step with it. */
const SAMPLE_PERIOD: u32 = 61;
const SAMPLE_FADING: f64 = 0.9375;
let untilSample: u32 = 0;
/** Every how many busy passes the clock is read. */
const CLOCK_PERIOD: u32 = 32;
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
  // Passes are numbered for as long as the engine lives: a spinning one does 2^32 of them in a minute.
  let number = load<u64>(CTL, CTL_PASSES);
  for (let pass: u32 = 0; pass < passes; pass++) {
    if (atomic.load<u32>(CTL + CTL_PAUSE) & 1) {
      status |= RUN_PAUSE;
      break;
    }
    const timed = untilSample == 0;
    const t0 = timed ? now() : 0;
    let taken: u32 = 0;
    number++;
    store<u32>(CTL, 0, CTL_RATE_BLOCKED);
    for (let i: u32 = 0; i < active; i++) taken += transmitBurst(load<u32>(ACTIVE_LIST + i * 4), number);
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
  store<u64>(CTL, number, CTL_PASSES);
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
