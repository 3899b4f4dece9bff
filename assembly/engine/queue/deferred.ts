/** The end of deferred interrupts: when their time is over, before the worker sleeps, before it stands still. */
import {
  CTL_DEFERRED_COUNT,
  CTL_DEFERRED_UNTIL_NS,
  CTL_NOW_NS,
  DEFERRED_LIST,
  Q_DEFERRED_UNTIL_NS,
  Q_STATE,
  QUEUE_RUNNING,
} from "../../../shared/layout/nic.ts";
import { context, control } from "../context.ts";
import { nowNs } from "../schedule/clock.ts";
import { forgetDeferral, isAdaptive, noteWait, raise } from "./coalesce.ts";
import { interrupted, wanted } from "./format.ts";

/** Raises what is due by the clock. For a worker that has deferred something: it reads the clock. */
export function raiseDue(): void {
  const now = nowNs();
  store<f64>(control(), now, CTL_NOW_NS);
  if (now >= load<f64>(control(), CTL_DEFERRED_UNTIL_NS)) raiseUntil(now, false);
}

/** Raises everything that is deferred: the worker is to stand still. */
export function raiseAll(): void {
  if (load<u32>(control(), CTL_DEFERRED_COUNT) != 0) raiseUntil(Infinity, false);
}

/**
 * Raises what is deferred and is adaptive: a worker that goes to sleep sees no frames that would be waited for. Answers
 * in how many nanoseconds the first of the others is due, Infinity if there is none.
 */
export function raiseBeforeSleep(): f64 {
  if (load<u32>(control(), CTL_DEFERRED_COUNT) == 0) return Infinity;
  const now = nowNs();
  store<f64>(control(), now, CTL_NOW_NS);
  raiseUntil(now, true);
  if (load<u32>(control(), CTL_DEFERRED_COUNT) == 0) return Infinity;
  return max(0, load<f64>(control(), CTL_DEFERRED_UNTIL_NS) - now);
}

/** Raises what is due at `end`, and what is adaptive if `quiet`. */
function raiseUntil(end: f64, quiet: bool): void {
  const c = control();
  let first: f64 = Infinity;
  // From the last one down: whoever takes an ended one's place has been looked at.
  for (let i = load<u32>(c, CTL_DEFERRED_COUNT); i-- > 0;) {
    const q: usize = load<u32>(context + DEFERRED_LIST + i * 4);
    const until = load<f64>(q, Q_DEFERRED_UNTIL_NS);
    if (until <= end) finish(q, end != Infinity);
    else if (quiet && isAdaptive(q)) finish(q, false);
    else first = min(first, until);
  }
  store<f64>(c, first, CTL_DEFERRED_UNTIL_NS);
}

/**
 * Ends the wait of `q`; `judged`: it has had its time. Its driver is asked whether it still wants the interrupt: one that
 * polls meanwhile looks again before it waits. The rings of a queue that has stopped may be gone.
 */
function finish(q: usize, judged: bool): void {
  if (judged) noteWait(q);
  if (load<u32>(q, Q_STATE) == QUEUE_RUNNING) {
    if (wanted(q) == 0) return forgetDeferral(q);
    interrupted(q);
  }
  raise(q, load<f64>(control(), CTL_NOW_NS));
}
