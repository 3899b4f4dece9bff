/** Passes over the hot queues: the engine's loop. */
import {
  CTL_BUFFERED_COUNT,
  CTL_BUSY_PASSES,
  CTL_CALL_COUNT,
  CTL_COLD_COUNT,
  CTL_DEFERRED_COUNT,
  CTL_EVENT_COUNT,
  CTL_FRAMES,
  CTL_HOT_COUNT,
  CTL_NOW_NS,
  CTL_PASSES,
  CTL_PAUSE,
  CTL_RATE_BLOCKED,
  CTL_SHARE_BLOCKED,
  RUN_CALLS,
  RUN_EVENT,
  RUN_PAUSE,
  RUN_WORK,
} from "../../../shared/layout/nic.ts";
import { control } from "../context.ts";
import { releaseBuffers } from "../buffers.ts";
import { raiseAll, raiseDue } from "../queue/deferred.ts";
import { beginLooks } from "./again.ts";
import { beginTimed, endTimed, nowNs } from "./clock.ts";
import { cool, hotAt } from "./heat.ts";
import { beginShares, endShares } from "./share.ts";
import { visit, visitUnits } from "./visit.ts";

/** Every how many passes that found work the clock is read. */
const CLOCK_PERIOD: u32 = 8;
/** Every how many passes that found nothing. */
const IDLE_CLOCK_PERIOD: u32 = 64;
/** How many passes a run has that find nothing but queues that are held back: whoever holds them may want this CPU. */
const HELD_PASSES: u32 = 8;
/** How long the worker may go without a look at the kicks of cold queues. */
const KICKS_PERIOD_NS: f64 = 50_000;

// What the last pass did.
let passFrames: u32 = 0;
let passUnits: u32 = 0;

/** Visits each hot queue once. */
function pass(number: u64): void {
  const count = load<u32>(control(), CTL_HOT_COUNT);
  passFrames = 0;
  passUnits = 0;
  beginShares();
  if (load<u32>(control(), CTL_BUFFERED_COUNT) != 0) passUnits = releaseBuffers(<u32> number);
  for (let i: u32 = 0; i < count; i++) {
    passFrames += visit(hotAt(i), <u32> number);
    passUnits += visitUnits;
  }
  endShares(passUnits != 0);
}

/**
 * Polls the hot queues up to `passes` times and answers RUN_* bits. Returns early when somebody wants an interrupt, when
 * the control thread asks for a pause, and when cold queues may have been kicked.
 */
export function run(now: f64, passes: u32): u32 {
  const c = control();
  store<f64>(c, now, CTL_NOW_NS);
  const events = load<u32>(c, CTL_EVENT_COUNT);
  let status: u32 = 0;
  let frames: u64 = 0;
  let busy: u32 = 0;
  let turns: u32 = 0;
  let held: u32 = 0;
  // Passes are numbered for as long as the engine lives: a spinning one does 2^32 of them in minutes.
  let number = load<u64>(c, CTL_PASSES);
  for (let i: u32 = 0; i < passes; i++) {
    if (atomic.load<u32>(c + CTL_PAUSE) & 1) {
      raiseAll();
      status |= RUN_PAUSE;
      break;
    }
    beginTimed();
    number++;
    beginLooks();
    pass(number);
    if (load<u32>(c, CTL_DEFERRED_COUNT) != 0) {
      raiseDue();
      if (load<u32>(c, CTL_CALL_COUNT) != 0 && passUnits == 0) break;
    }
    if (passUnits == 0) {
      // All pools that have work owe: the next pass, at once, credits at least one of them enough.
      if (load<u32>(c, CTL_SHARE_BLOCKED) == 0) {
        // What is published next is told from what was published before it by this clock.
        if (load<u32>(c, CTL_RATE_BLOCKED) != 0 && ++held == HELD_PASSES) break;
        if ((i + 1) % IDLE_CLOCK_PERIOD == 0) store<f64>(c, nowNs(), CTL_NOW_NS);
        continue;
      }
      i--;
    } else {
      frames += passFrames;
      busy++;
      endTimed(passUnits);
      if (load<u32>(c, CTL_CALL_COUNT)) break;
    }
    // A run full of work takes milliseconds: token buckets need a clock that goes on meanwhile.
    if (++turns % CLOCK_PERIOD != 0) continue;
    store<f64>(c, nowNs(), CTL_NOW_NS);
    if (load<u32>(c, CTL_COLD_COUNT) != 0 && load<f64>(c, CTL_NOW_NS) - now > KICKS_PERIOD_NS) break;
  }
  store<u64>(c, number, CTL_PASSES);
  cool();
  if (busy != 0) {
    status |= RUN_WORK;
    store<u64>(c, load<u64>(c, CTL_BUSY_PASSES) + busy, CTL_BUSY_PASSES);
    store<u64>(c, load<u64>(c, CTL_FRAMES) + frames, CTL_FRAMES);
  }
  if (load<u32>(c, CTL_CALL_COUNT)) status |= RUN_CALLS;
  if (load<u32>(c, CTL_EVENT_COUNT) != events) status |= RUN_EVENT;
  return status;
}
