/**
 * What the engines ask of a device-side queue whatever its flavour: is there work, publish what was done, wake me. The
 * flavour is looked at once a burst, so that each flavour's own loops stay plain.
 */
import {
  BAD_AVAIL_IDX,
  BAD_TAIL,
  FLAVOUR_ADVANCED,
  FLAVOUR_SINK,
  FLAVOUR_SOURCE,
  FLAVOUR_SPLIT,
  Q_DIRTY,
  Q_FLAVOUR,
  Q_LAST_AVAIL,
  Q_SIZE,
  TOUCHED_LIST,
} from "../../shared/layout/nic.ts";
import { armAdvanced, disarmAdvanced, pendingAdvanced, publishAdvanced, TAIL_INVALID } from "./advanced_ring.ts";
import { failQueue } from "./interrupts.ts";
import { armKick, availIdx, disarmKick, publishUsed } from "./split_ring.ts";
import { armSource, disarmSource, pendingSource, publishSink, publishSource } from "./trunk.ts";

@inline
export function isAdvanced(q: usize): bool {
  return load<u32>(q, Q_FLAVOUR) == FLAVOUR_ADVANCED;
}

/** Descriptors that the other side has made available and nobody has taken; larger than the ring if it lies. */
@inline
export function pending(q: usize): u32 {
  const flavour = load<u32>(q, Q_FLAVOUR);
  if (flavour == FLAVOUR_SPLIT) return (availIdx(q) - load<u32>(q, Q_LAST_AVAIL)) & 0xffff;
  return flavour == FLAVOUR_ADVANCED ? pendingAdvanced(q) : pendingSource(q);
}

/** Whether `n`, as `pending` answered it, can be; if not, the queue stops with its reason. */
@inline
export function checkPending(q: usize, n: u32): bool {
  if (n <= load<u32>(q, Q_SIZE)) return true;
  if (n == TAIL_INVALID && isAdvanced(q)) failQueue(q, BAD_TAIL, n);
  else failQueue(q, BAD_AVAIL_IDX, n);
  return false;
}

/** Makes what was returned, or put in, visible to the other side, and interrupts or kicks it if it asked. */
export function publish(q: usize): void {
  const flavour = load<u32>(q, Q_FLAVOUR);
  if (flavour == FLAVOUR_SPLIT) publishUsed(q);
  else if (flavour == FLAVOUR_ADVANCED) publishAdvanced(q);
  else if (flavour == FLAVOUR_SINK) publishSink(q);
  else publishSource(q);
}

/** Asks the other side for a kick; true if there is work already. */
export function arm(q: usize): bool {
  const flavour = load<u32>(q, Q_FLAVOUR);
  if (flavour == FLAVOUR_SOURCE) return armSource(q);
  return flavour == FLAVOUR_ADVANCED ? armAdvanced(q) : armKick(q);
}

/** Tells the other side that it is polled. */
export function disarm(q: usize): void {
  const flavour = load<u32>(q, Q_FLAVOUR);
  if (flavour == FLAVOUR_SOURCE) disarmSource(q);
  else if (flavour == FLAVOUR_ADVANCED) disarmAdvanced(q);
  else disarmKick(q);
}

let touchedCount: u32 = 0;

/** Notes that what was delivered to `rx` waits to be published. */
@inline
export function touch(rx: usize): void {
  if (load<u32>(rx, Q_DIRTY)) return;
  store<u32>(rx, 1, Q_DIRTY);
  store<u32>(TOUCHED_LIST + touchedCount * 4, <u32> rx);
  touchedCount++;
}

/** Publishes what the burst delivered: once, and at most one interrupt, for each RX queue. */
export function publishTouched(): void {
  for (let i: u32 = 0; i < touchedCount; i++) {
    const rx: usize = load<u32>(TOUCHED_LIST + i * 4);
    store<u32>(rx, 0, Q_DIRTY);
    publish(rx);
  }
  touchedCount = 0;
}
