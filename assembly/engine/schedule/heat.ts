/**
 * Hot and cold queues. A pass polls the hot ones only. A queue that has had no work for a while is armed (its driver is
 * asked for a kick) and goes cold: it costs nothing until the kick comes. While few queues are polled they stay hot,
 * since polling a few costs next to nothing.
 */
import {
  CTL_COLD_COUNT,
  CTL_COOL_NS,
  CTL_HOT_COUNT,
  CTL_NOW_NS,
  CTL_PASSES,
  HEAT_COLD,
  HEAT_HOT,
  HOT_LIST,
  Q_HEAT,
  Q_KICK_FD,
  Q_STATE,
  Q_WORKED_NS,
  QUEUE_RUNNING,
} from "../../../shared/layout/nic.ts";
import { context, control } from "../context.ts";
import { arm, disarm, pending } from "../queue/format.ts";
import { armLine } from "../switch/line.ts";

/** So many queues may be polled without work. */
const HOT_ANYWAY: u32 = 8;

@inline
export function hotAt(i: u32): usize {
  return load<u32>(context + HOT_LIST + i * 4);
}

/** Polls the cold queue `q` from now on, since its driver has kicked; nothing if it does not run. */
export function heat(q: usize): void {
  if (load<u32>(q, Q_HEAT) != HEAT_COLD || load<u32>(q, Q_STATE) != QUEUE_RUNNING) return;
  const c = control();
  const count = load<u32>(c, CTL_HOT_COUNT);
  store<u32>(context + HOT_LIST + count * 4, <u32> q);
  store<u32>(c, count + 1, CTL_HOT_COUNT);
  store<u32>(c, load<u32>(c, CTL_COLD_COUNT) - 1, CTL_COLD_COUNT);
  store<u32>(q, HEAT_HOT, Q_HEAT);
  store<f64>(q, load<f64>(c, CTL_NOW_NS), Q_WORKED_NS);
  disarm(q);
}

/** Lets the queues go cold that have had no work for as long as CTL_COOL_NS says, if many are polled. */
export function cool(): void {
  const c = control();
  if (load<u32>(c, CTL_HOT_COUNT) <= HOT_ANYWAY) return;
  chill(load<f64>(c, CTL_NOW_NS) - load<f64>(c, CTL_COOL_NS));
}

/**
 * Lets all queues without work go cold before the worker sleeps. Answers how many have work after all; one more if what
 * some of them wait for has come.
 */
export function coolAll(): u32 {
  const working = chill(Infinity);
  return armLine(<u32> load<u64>(control(), CTL_PASSES)) ? working + 1 : working;
}

/** Lets queues go cold that have had no work since `since`; answers how many of them have some now. */
function chill(since: f64): u32 {
  const c = control();
  const count = load<u32>(c, CTL_HOT_COUNT);
  let kept: u32 = 0;
  let working: u32 = 0;
  for (let i: u32 = 0; i < count; i++) {
    const q = hotAt(i);
    if (load<f64>(q, Q_WORKED_NS) < since) {
      const runs = load<u32>(q, Q_STATE) == QUEUE_RUNNING;
      const hasWork = runs && arm(q);
      // A driver without a kick expects to be polled.
      if (!hasWork && (!runs || load<i32>(q, Q_KICK_FD) >= 0)) {
        store<u32>(q, HEAT_COLD, Q_HEAT);
        continue;
      }
      if (hasWork) working++;
      disarm(q);
    }
    store<u32>(context + HOT_LIST + kept * 4, <u32> q);
    kept++;
  }
  store<u32>(c, kept, CTL_HOT_COUNT);
  store<u32>(c, load<u32>(c, CTL_COLD_COUNT) + count - kept, CTL_COLD_COUNT);
  return working;
}

/**
 * Whether the driver of `q` has buffers waiting. A cold queue without any is armed again: its kick may have come for what
 * had been seen before it went cold, and a device that interrupts does so once for each time that it is asked.
 */
export function hasWork(q: usize): bool {
  if (load<u32>(q, Q_STATE) != QUEUE_RUNNING) return false;
  return load<u32>(q, Q_HEAT) == HEAT_COLD ? arm(q) : pending(q) != 0;
}
