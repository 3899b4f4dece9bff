/**
 * What the engine asks of a queue whatever its format: is there work, make records of it, give them back, put frames in,
 * publish, wake me. The format is looked at once a batch, so that each format's own loops stay plain.
 */
import {
  B_COMMIT,
  B_COMMIT_BUFFER,
  B_COMMIT_RELEASED,
  B_DIRTY,
  B_WRITING,
  BAD_AVAIL_IDX,
  BAD_TAIL,
  CTL_NOW_NS,
  DIRTY_LIST,
  FLAVOUR_ADVANCED,
  FLAVOUR_PACKED,
  FLAVOUR_DRIVER_TX,
  FLAVOUR_SPLIT,
  N_COUNT,
  Q_DIRTY,
  Q_FLAVOUR,
  Q_FRAMES,
  Q_PUBLISHED_NS,
  Q_RELEASED,
  Q_SIZE,
  Q_STATE,
  QUEUE_RUNNING,
} from "../../../shared/layout/nic.ts";
import { batch, context, control } from "../context.ts";
import { failRest } from "../deliver/results.ts";
import {
  armAdvanced,
  completeAdvanced,
  disarmAdvanced,
  interruptedAdvanced,
  pendingAdvanced,
  publishAdvanced,
  TAIL_INVALID,
  tailOf,
  wantedAdvanced,
} from "./advanced.ts";
import { gatherAdvanced } from "./advanced_gather.ts";
import { scatterAdvanced } from "./advanced_scatter.ts";
import {
  armDriver,
  completeDriver,
  disarmDriver,
  gatherDriver,
  pendingDriver,
  publishDriverRx,
  publishDriverTx,
  scatterDriver,
} from "./driver.ts";
import { isLogged, logEvents } from "./dirty_log.ts";
import { isDirect } from "./direct_receive.ts";
import { scatterDirect } from "./direct_scatter.ts";
import { armSent, pendingSent } from "./driver_sent.ts";
import { failQueue } from "./interrupts.ts";
import {
  announcePacked,
  armPacked,
  completePacked,
  countPacked,
  disarmPacked,
  endOfPacked,
  isAvailable,
  pendingPacked,
  publishPacked,
  writeStaged,
} from "./packed.ts";
import { interruptedPacked, wantedPacked } from "./packed_events.ts";
import { gatherPacked } from "./packed_gather.ts";
import { scatterPacked } from "./packed_scatter.ts";
import { armSplit, availIdx, completeSplit, disarmSplit, interruptedSplit, pendingSplit, publishSplit, wantedSplit } from "./split.ts";
import { gatherSplit } from "./split_gather.ts";
import { scatterSplit } from "./split_scatter.ts";

/**
 * Descriptors that the other side has made available and nobody has taken; larger than the ring if it lies. Of a packed
 * ring, 1 stands for one or more.
 */
@inline
export function pending(q: usize): u32 {
  const flavour = load<u32>(q, Q_FLAVOUR);
  if (flavour == FLAVOUR_SPLIT) return pendingSplit(q);
  if (flavour == FLAVOUR_PACKED) return pendingPacked(q);
  if (flavour == FLAVOUR_ADVANCED) return pendingAdvanced(q);
  return flavour == FLAVOUR_DRIVER_TX ? pendingSent(q) : pendingDriver(q);
}

/** Descriptors that wait, `most` at the most. */
export function pendingUpTo(q: usize, most: u32): u32 {
  return load<u32>(q, Q_FLAVOUR) == FLAVOUR_PACKED ? countPacked(q, most) : min(pending(q), most);
}

/** Descriptors that are counted of a packed ring's offer. */
const OFFER_COUNTED: u32 = 1024;

/** How far the driver of receive queue `q` has offered buffers, for `offersMore`. */
export function endOfOffer(q: usize): u32 {
  const flavour = load<u32>(q, Q_FLAVOUR);
  if (flavour == FLAVOUR_SPLIT) return availIdx(q);
  if (flavour == FLAVOUR_PACKED) return endOfPacked(q, OFFER_COUNTED);
  return flavour == FLAVOUR_ADVANCED ? tailOf(q) : 0;
}

/** Whether it has offered more since `endOfOffer` answered `mark`. */
export function offersMore(q: usize, mark: u32): bool {
  const flavour = load<u32>(q, Q_FLAVOUR);
  if (flavour == FLAVOUR_SPLIT) return availIdx(q) != mark;
  if (flavour == FLAVOUR_PACKED) return isAvailable(q, mark);
  return flavour != FLAVOUR_ADVANCED || tailOf(q) != mark;
}

/** Whether `n`, as `pending` answered it, can be; if not, the queue stops with its reason. */
@inline
export function checkPending(q: usize, n: u32): bool {
  if (n <= load<u32>(q, Q_SIZE)) return true;
  const tail = n == TAIL_INVALID && load<u32>(q, Q_FLAVOUR) == FLAVOUR_ADVANCED;
  failQueue(q, tail ? BAD_TAIL : BAD_AVAIL_IDX, n);
  return false;
}

/**
 * Makes records of what waits in a queue (`waiting`, as `pending` said): at most `limit` frames, no more behind `byteLimit`
 * bytes, or when the batch has cost `unitLimit`. Answers how many; they stay in the ring until `complete`.
 */
export function gather(q: usize, waiting: u32, limit: u32, byteLimit: u32, unitLimit: u32): u32 {
  const flavour = load<u32>(q, Q_FLAVOUR);
  const most = min(waiting, limit);
  if (flavour == FLAVOUR_SPLIT) return gatherSplit(q, most, byteLimit, unitLimit);
  if (flavour == FLAVOUR_PACKED) return gatherPacked(q, limit, byteLimit, unitLimit);
  if (flavour == FLAVOUR_ADVANCED) return gatherAdvanced(q, most, byteLimit, unitLimit);
  return gatherDriver(q, most, byteLimit, unitLimit);
}

/** Gives the batch's first `n` frames, at least one, back to the ring they came from. */
export function complete(q: usize, n: u32): void {
  const flavour = load<u32>(q, Q_FLAVOUR);
  if (flavour == FLAVOUR_SPLIT) completeSplit(q, n);
  else if (flavour == FLAVOUR_PACKED) completePacked(q, n);
  else if (flavour == FLAVOUR_ADVANCED) completeVisibly(q, n);
  else completeDriver(q, n);
}

/** An advanced ring's driver sees each descriptor at once: what the batch has put in is to be seen too, come what may. */
function completeVisibly(q: usize, n: u32): void {
  store<u32>(batch(), 1, B_COMMIT);
  store<u32>(batch(), <u32> q, B_WRITING);
  completeAdvanced(q, n);
  store<u32>(batch(), 0, B_WRITING);
}

/** As `scatter`, into an advanced ring, whose driver sees each descriptor at once. */
function scatterVisibly(rx: usize, first: usize, wait: bool): u32 {
  store<u32>(batch(), <u32> rx, B_WRITING);
  const done = isDirect(rx) ? scatterDirect(rx, first, wait) : scatterAdvanced(rx, first, wait);
  store<u32>(batch(), 0, B_WRITING);
  return done;
}

/**
 * Puts a group's deliveries from `first` on into receive queue `rx`; answers how many are done with. `wait`: it stops at
 * the first for which there is no room, instead of dropping it.
 */
export function scatter(rx: usize, first: usize, wait: bool): u32 {
  if (load<u32>(rx, Q_STATE) != QUEUE_RUNNING) return failRest(first, load<u16>(first, N_COUNT));
  const flavour = load<u32>(rx, Q_FLAVOUR);
  if (flavour == FLAVOUR_SPLIT) return scatterSplit(rx, first, wait);
  if (flavour == FLAVOUR_PACKED) return scatterPacked(rx, first, wait);
  if (flavour != FLAVOUR_ADVANCED) return scatterDriver(rx, first, wait);
  return scatterVisibly(rx, first, wait);
}

/** Makes what was given back, or put in, visible to the other side, and interrupts or kicks it if it asked. */
function publish(q: usize): void {
  const flavour = load<u32>(q, Q_FLAVOUR);
  if (flavour == FLAVOUR_SPLIT) publishSplit(q);
  else if (flavour == FLAVOUR_PACKED) publishPacked(q);
  else if (flavour == FLAVOUR_ADVANCED) publishAdvanced(q);
  else if (flavour == FLAVOUR_DRIVER_TX) publishDriverTx(q);
  else publishDriverRx(q);
}

/** Descriptors for which the driver of a guest's queue wants an interrupt that it has not had; 0 if it wants none. */
export function wanted(q: usize): u32 {
  const flavour = load<u32>(q, Q_FLAVOUR);
  if (flavour == FLAVOUR_SPLIT) return wantedSplit(q);
  return flavour == FLAVOUR_PACKED ? wantedPacked(q) : wantedAdvanced(q);
}

/** Its driver has been interrupted for all that is published. */
export function interrupted(q: usize): void {
  const flavour = load<u32>(q, Q_FLAVOUR);
  if (flavour == FLAVOUR_SPLIT) interruptedSplit(q);
  else if (flavour == FLAVOUR_PACKED) interruptedPacked(q);
  else interruptedAdvanced(q);
}

/**
 * Publishes every queue that was marked dirty: once, and with at most one interrupt. From the mark B_COMMIT on, whoever
 * takes over from this engine finishes that; before it, nothing of the batch has happened.
 */
export function publishDirty(): void {
  const count = load<u32>(batch(), B_DIRTY);
  if (count == 0) return;
  store<u32>(batch(), 1, B_COMMIT);
  for (let i: u32 = 0; i < count; i++) {
    const q: usize = load<u32>(context + DIRTY_LIST + i * 4);
    if (load<u32>(q, Q_FLAVOUR) == FLAVOUR_PACKED) announcePacked(q);
  }
  writeStaged();
  for (let i: u32 = 0; i < count; i++) {
    const q: usize = load<u32>(context + DIRTY_LIST + i * 4);
    store<u64>(q, load<u64>(q, Q_FRAMES) + load<u32>(q, Q_DIRTY), Q_FRAMES);
    publish(q);
    store<u32>(q, 0, Q_DIRTY);
    store<f64>(q, load<f64>(control(), CTL_NOW_NS), Q_PUBLISHED_NS);
  }
  store<u32>(batch(), 0, B_DIRTY);
  const buffer: usize = load<u32>(batch(), B_COMMIT_BUFFER);
  if (buffer != 0) store<u32>(buffer, load<u32>(batch(), B_COMMIT_RELEASED), Q_RELEASED);
  store<u32>(batch(), 0, B_COMMIT);
}

/** Asks the other side for a kick; true if there is work already. */
export function arm(q: usize): bool {
  const hasWork = armAny(q);
  if (isLogged(q)) logEvents(q);
  return hasWork;
}

function armAny(q: usize): bool {
  const flavour = load<u32>(q, Q_FLAVOUR);
  if (flavour == FLAVOUR_SPLIT) return armSplit(q);
  if (flavour == FLAVOUR_PACKED) return armPacked(q);
  if (flavour == FLAVOUR_ADVANCED) return armAdvanced(q);
  return flavour == FLAVOUR_DRIVER_TX ? armSent(q) : armDriver(q);
}

/** Tells the other side that it is polled. */
export function disarm(q: usize): void {
  const flavour = load<u32>(q, Q_FLAVOUR);
  if (flavour == FLAVOUR_SPLIT) disarmSplit(q);
  else if (flavour == FLAVOUR_PACKED) disarmPacked(q);
  else if (flavour == FLAVOUR_ADVANCED) disarmAdvanced(q);
  else disarmDriver(q);
  if (isLogged(q)) logEvents(q);
}
