/**
 * Queues that wait for the uplink's line, in the order of their turns. Q_HELD_PASS says that a queue is listed, and when it
 * waited last: one that did not in a whole pass is not waiting any more, whatever became of it, and is taken off.
 */
import {
  CTL_HELD_FROM,
  CTL_HELD_TO,
  HELD_COUNT,
  HELD_LIST,
  P_CREDITED_PASS,
  P_HELD,
  Q_HELD_PASS,
  Q_POOL,
} from "../../../shared/layout/nic.ts";
import { context, control, poolAt } from "../context.ts";

/** Entries that one look takes off. */
const STALE_MOST: u32 = 16;

/** The pass in which queue `q` is visited. */
@inline
export function passOf(q: usize): u32 {
  return load<u32>(poolAt(load<u32>(q, Q_POOL)), P_CREDITED_PASS);
}

/** What Q_HELD_PASS is of a queue that waits in pass `pass`. */
@inline
export function heldIn(pass: u32): u32 {
  return max(1, pass);
}

@inline
function entryAt(i: u32): usize {
  return context + HELD_LIST + (i & (HELD_COUNT - 1)) * 4;
}

/** Lists queue `q`, before the others or behind them. False if it is listed, or there is no place. */
export function list(q: usize, isFirst: bool): bool {
  const c = control();
  const from = load<u32>(c, CTL_HELD_FROM);
  const to = load<u32>(c, CTL_HELD_TO);
  // Queues that were stopped and started may be listed twice. Who finds no place tries again at its next visit.
  if (load<u32>(q, Q_HELD_PASS) != 0 || to - from == <u32> HELD_COUNT) return false;
  const p = poolAt(load<u32>(q, Q_POOL));
  store<u32>(q, heldIn(passOf(q)), Q_HELD_PASS);
  store<u32>(p, load<u32>(p, P_HELD) + 1, P_HELD);
  if (isFirst) {
    store<u32>(entryAt(from - 1), <u32> q);
    store<u32>(c, from - 1, CTL_HELD_FROM);
  } else {
    store<u32>(entryAt(to), <u32> q);
    store<u32>(c, to + 1, CTL_HELD_TO);
  }
  return true;
}

/** Takes the first entry, which is `q`, off. */
export function unlist(q: usize): void {
  const c = control();
  const p = poolAt(load<u32>(q, Q_POOL));
  store<u32>(c, load<u32>(c, CTL_HELD_FROM) + 1, CTL_HELD_FROM);
  store<u32>(p, load<u32>(p, P_HELD) - 1, P_HELD);
  store<u32>(q, 0, Q_HELD_PASS);
}

/** The queue whose turn it is in pass `pass`; 0: nobody waits. Takes off who has not waited in this pass or the one before. */
export function firstWaiting(pass: u32): usize {
  const c = control();
  for (let i: u32 = 0; i < STALE_MOST; i++) {
    const from = load<u32>(c, CTL_HELD_FROM);
    if (from == load<u32>(c, CTL_HELD_TO)) return 0;
    const q: usize = load<u32>(entryAt(from));
    const seen = load<u32>(q, Q_HELD_PASS);
    if (seen != 0 && heldIn(pass) - seen <= 1) return q;
    unlist(q);
  }
  return 0;
}
