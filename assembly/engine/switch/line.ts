/**
 * The uplink's line pushes back. A NIC stops fetching descriptors while its transmit FIFO is full; so does this one while
 * the uplink's driver has no buffer: a queue whose next frame is for the uplink waits, with that frame in its ring, and
 * nothing is copied or dropped for it. Frames behind that one wait too, as in hardware: to go round it would put a
 * driver's frames out of order. Other queues go on.
 *
 * Queues that wait are in a list and have turns, in its order: a turn is TURN_BYTES, by the pool's weight, cut into parts
 * for the queues of the pool that wait. The head of the list has its turn as soon as there is room; who does not come for
 * it in a pass is taken off. Copies of frames for many never wait, since their other receivers would wait with them:
 * what has no room is dropped. A part of the ring is for them alone, and while others wait they get a part of the line.
 *
 * Nobody waits for a line that is dead: if the uplink's driver has offered no buffer for STALL_NS while somebody waited,
 * frames for it are dropped at once and counted, until it does.
 */
import {
  C_TX_HELD,
  CTL_NOW_NS,
  FLAVOUR_SPLIT,
  HOLD_BUFFER_BYTES,
  P_BUFFER,
  P_COPY_CREDIT,
  P_FULL_MARK,
  P_FULL_SINCE_NS,
  P_HELD,
  P_QUANTUM,
  P_RX_COUNT,
  P_RX_QUEUES,
  POOL_UPLINK,
  Q_FLAGS,
  Q_FLAVOUR,
  Q_HELD_PASS,
  Q_POOL,
  Q_SIZE,
  Q_STATE,
  QUEUE_F_HOLD,
  QUEUE_RUNNING,
  R_LENGTH,
} from "../../../shared/layout/nic.ts";
import { segmentsOf, takesAsIs } from "../batch/offload.ts";
import { control, poolAt } from "../context.ts";
import { count } from "../deliver/results.ts";
import { endOfOffer, offersMore } from "../queue/format.ts";
import { isBufferEmpty } from "../queue/packet_buffer.ts";
import { armAhead, pendingSplit } from "../queue/split.ts";
import { isOwn } from "../schedule/rate.ts";
import { QUANTUM } from "../schedule/share.ts";
import { firstWaiting, heldIn, list, passOf, unlist } from "./held.ts";

/** There is no line that pushes back: no queue lies there. */
export const NO_LINE: usize = 1;

// What `enter` answers.
export const ENTERS: u32 = 0;
export const WAITS: u32 = 1;
export const STALLED: u32 = 2;

const STALL_NS: f64 = 500_000_000;
/** What a queue may put into the line while others wait, a frame's own cost included. */
const TURN_BYTES: i32 = 65536;
const FRAME_COST: i32 = 512;
const ANY_TURN: i32 = i32.MAX_VALUE;
/** One descriptor in 2^n of the line is for copies of frames for many. */
const RESERVE_SHIFT: u32 = 3;
/** While others wait a copy takes the place that so many frames have earned, of at most so much. */
const COPY_COST: u32 = 8;
const COPY_CREDIT_MAX: u32 = 256;

// The batch in hand, from its first frame for the line on.
let sender: usize = 0;
let hasLooked: bool = false;
/** Descriptors that the line has left, and those of them that are for copies alone. */
let left: u32 = 0;
let reserve: u32 = 0;
/** Whether others wait; whether the sender has to. */
let isContended: bool = false;
let mayTake: bool = false;
/** What the sender may still put in, and whether the visit is its turn, others waiting behind it. */
let turnLeft: i32 = 0;
let isItsTurn: bool = false;
/** The queue whose turn ended for want of room, and what was left of it. */
let cutOff: usize = 0;
let cutOffLeft: i32 = 0;

/** The uplink's receive queue, for frames of `pool`; NO_LINE if it has none that pushes back. */
function lineFor(pool: u32): usize {
  if (pool == POOL_UPLINK || isOwn) return NO_LINE;
  const uplink = poolAt(POOL_UPLINK);
  if (load<u32>(uplink, P_RX_COUNT) != 1) return NO_LINE;
  const rx: usize = load<u32>(uplink, P_RX_QUEUES);
  const pushesBack = load<u32>(rx, Q_FLAVOUR) == FLAVOUR_SPLIT && load<u32>(rx, Q_STATE) == QUEUE_RUNNING;
  return pushesBack ? rx : NO_LINE;
}

/** Descriptors that the line has; none while its packet buffer holds what comes first. */
function roomOf(line: usize): u32 {
  const buffer: usize = load<u32>(poolAt(POOL_UPLINK), P_BUFFER);
  if (buffer != 0 && !isBufferEmpty(buffer)) return 0;
  return min(pendingSplit(line), load<u32>(line, Q_SIZE));
}

@inline
function reserveOf(line: usize): u32 {
  return load<u32>(line, Q_SIZE) >> RESERVE_SHIFT;
}

/** Begins a batch of queue `q`; answers what `lineFor` does of its pool. */
@inline
export function beginLine(q: usize, pool: u32): usize {
  sender = q;
  hasLooked = false;
  return lineFor(pool);
}

/** The batch's first frame for the line. */
function look(line: usize): void {
  hasLooked = true;
  left = roomOf(line);
  reserve = reserveOf(line);
  const head = firstWaiting(passOf(sender));
  isContended = head != 0;
  mayTake = isItsTurn || head == 0 || head == sender;
  if (!isItsTurn) turnLeft = ANY_TURN;
}

/** Descriptors of the line that the frame of `record` takes; those of a hold are short, and others are as long as need be. */
function needOf(line: usize, record: usize): u32 {
  if (load<u32>(line, Q_FLAGS) & QUEUE_F_HOLD) return (load<u32>(record, R_LENGTH) + 16) / <u32> HOLD_BUFFER_BYTES + 1;
  return takesAsIs(line, record) ? 1 : max(1, segmentsOf(record));
}

/** Whether the frame of `record` goes into the line now; if it has to wait, so does its queue. */
export function enter(line: usize, record: usize): u32 {
  if (!hasLooked) look(line);
  const need = min(needOf(line, record), load<u32>(line, Q_SIZE) - reserve);
  if (left < need + reserve) {
    if (isStalled(line)) return STALLED;
  } else if (mayTake && turnLeft > 0) {
    took(need, load<u32>(record, R_LENGTH));
    return ENTERS;
  }
  hold(sender);
  return WAITS;
}

/** How many frames like that of `record`, which has gone in, may follow it at once. */
export function alikeMost(line: usize, record: usize): u32 {
  if ((load<u32>(line, Q_FLAGS) & QUEUE_F_HOLD) != 0 || left <= reserve || turnLeft <= 0) return 0;
  return min(left - reserve, <u32> turnLeft / (load<u32>(record, R_LENGTH) + FRAME_COST) + 1);
}

/** Frames that take `descriptors` of the line, `bytes` long together, have gone in. */
export function took(descriptors: u32, bytes: u32): void {
  left -= descriptors;
  turnLeft -= <i32> (bytes + descriptors * FRAME_COST);
  const uplink = poolAt(POOL_UPLINK);
  store<f64>(uplink, 0, P_FULL_SINCE_NS);
  store<u32>(uplink, min(load<u32>(uplink, P_COPY_CREDIT) + descriptors, COPY_CREDIT_MAX), P_COPY_CREDIT);
}

/** Whether a copy for the uplink of the frame of `record`, which `pool` sends to many, has room. It is never waited for. */
export function admitsCopy(pool: u32, record: usize): bool {
  const line = lineFor(pool);
  if (line == NO_LINE) return true;
  if (!hasLooked) look(line);
  const need = needOf(line, record);
  if (left < need) return false;
  if (isContended) {
    const uplink = poolAt(POOL_UPLINK);
    const credit = load<u32>(uplink, P_COPY_CREDIT);
    if (credit < COPY_COST * need) return false;
    store<u32>(uplink, credit - COPY_COST * need, P_COPY_CREDIT);
  }
  left -= need;
  return true;
}

/** Whether somebody has waited, and the driver of the line has offered nothing, for so long that it counts as dead. */
function isStalled(line: usize): bool {
  const uplink = poolAt(POOL_UPLINK);
  const now = load<f64>(control(), CTL_NOW_NS);
  const since = load<f64>(uplink, P_FULL_SINCE_NS);
  if (since != 0 && !offersMore(line, load<u32>(uplink, P_FULL_MARK))) return now - since >= STALL_NS;
  store<u32>(uplink, endOfOffer(line), P_FULL_MARK);
  store<f64>(uplink, now, P_FULL_SINCE_NS);
  return false;
}

/** The sender waits from now on: behind the others, or before them if its turn is not over. */
function hold(q: usize): void {
  const goesOn = isItsTurn && turnLeft > 0;
  isItsTurn = false;
  if (!list(q, goesOn)) return;
  if (!goesOn) {
    count(poolAt(load<u32>(q, Q_POOL)), C_TX_HELD, 1);
    return;
  }
  cutOff = q;
  cutOffLeft = turnLeft;
}

/** Whether queue `q`, which is in the list, waits on in pass `pass`. If not, it has its turn, or there is no line. */
export function staysHeld(q: usize, pass: u32): bool {
  const line = lineFor(load<u32>(q, Q_POOL));
  const isFull = line != NO_LINE && roomOf(line) <= reserveOf(line);
  if (line == NO_LINE || (isFull && isStalled(line))) {
    // Its entry is taken off when it comes to it.
    store<u32>(q, 0, Q_HELD_PASS);
    return false;
  }
  store<u32>(q, heldIn(pass), Q_HELD_PASS);
  if (isFull) return true;
  const head = firstWaiting(pass);
  return head != 0 && head != q;
}

/** The visit to queue `q`, which was in the list and does not wait on, begins. */
export function beginTurn(q: usize): void {
  const pass = passOf(q);
  if (firstWaiting(pass) != q) return;
  turnLeft = q == cutOff ? cutOffLeft : turnOf(poolAt(load<u32>(q, Q_POOL)));
  cutOff = 0;
  unlist(q);
  isItsTurn = firstWaiting(pass) != 0;
}

/** What a queue of pool `p` may put in at a turn. */
function turnOf(p: usize): i32 {
  const weight = load<i32>(p, P_QUANTUM);
  const bytes = weight == 0 ? TURN_BYTES : <i32> (<i64> TURN_BYTES * weight / QUANTUM);
  return max(1, bytes / max(1, load<i32>(p, P_HELD)));
}

/** A visit has ended, and with it the turn that it may have been. */
@inline
export function endTurn(): void {
  isItsTurn = false;
}

/**
 * Has the uplink's driver kick when five eighths of the line are free, if somebody waits for it; before the worker sleeps,
 * in pass number `pass`. Answers whether there is room already, or nothing to wait for. With half of it, a worker beside
 * the uplink's on one CPU sleeps a third more often; with three quarters there is no gain any more.
 */
export function armLine(pass: u32): bool {
  const first = firstWaiting(pass);
  if (first == 0) return false;
  const line = lineFor(load<u32>(first, Q_POOL));
  if (line == NO_LINE) return true;
  armAhead(line, (load<u32>(line, Q_SIZE) * 5) >> 3);
  return roomOf(line) > reserveOf(line);
}
