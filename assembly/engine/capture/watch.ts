/**
 * Where captures look at frames: a batch that a pool has sent, a group that a pool has received, and frames that were
 * dropped between the two. Nothing here runs for a pool that nobody captures: whoever calls has looked at P_WATCH.
 */
import {
  CAPTURE_IN,
  CAPTURE_OUT,
  CAPTURES_MAX,
  N_COUNT,
  N_HEAD,
  N_NEXT,
  N_RECORD,
  P_WATCH,
  POOL_UPLINK,
  R_DROP,
  RECORD_STRIDE,
  WATCH_ALL,
  WATCH_DROPPED_SHIFT,
} from "../../../shared/layout/nic.ts";
import { recordAt } from "../batch/record.ts";
import { poolAt } from "../context.ts";
import { nowNs } from "../schedule/clock.ts";
import { mayCapture, payCapture } from "./budget.ts";
import { beginUnits, captureUnits, closeCapture, lose, openCapture, putBlock } from "./block.ts";

/** What reading the clock costs, and opening and closing a capture. */
const UNITS_HOOK: u32 = 60;

/** Captures that want all frames of the pool `p`, and those that want the dropped ones alone, a bit each. */
@inline
function allOf(p: usize): u32 {
  return load<u32>(p, P_WATCH) & WATCH_ALL;
}

@inline
function droppedOf(p: usize): u32 {
  return (load<u32>(p, P_WATCH) >> WATCH_DROPPED_SHIFT) & WATCH_ALL;
}

/** Of the port that is pool `pool`, what it sends goes out of it; the uplink's port is the other end of a cable. */
@inline
function directionOf(pool: u32, isSent: bool): u32 {
  return isSent == (pool == POOL_UPLINK) ? CAPTURE_IN : CAPTURE_OUT;
}

/** Counts `n` frames of `pool` that the captures `captures` lose without having looked at them. */
function loseAll(captures: u32, pool: u32, n: u32): void {
  for (let i: u32 = 0; n != 0 && i < <u32> CAPTURES_MAX; i++) {
    if (((captures >> i) & 1) == 0) continue;
    openCapture(i, 0);
    lose(pool, n);
  }
}

/** How many of the batch's first `n` records were sent in vain. */
function droppedIn(n: u32): u32 {
  let dropped: u32 = 0;
  for (let i: u32 = 0; i < n; i++) dropped += <u32> (load<u32>(recordAt(i), R_DROP) != 0);
  return dropped;
}

/** The batch's first `n` records, which `pool` has sent, some in vain: R_DROP says why. Their frames are as they were sent. */
export function captureSent(pool: u32, n: u32): void {
  const p = poolAt(pool);
  const all = allOf(p);
  const dropped: u32 = droppedOf(p) != 0 ? droppedIn(n) : 0;
  const few: u32 = dropped != 0 ? droppedOf(p) : 0;
  if ((all | few) == 0) return;
  if (!mayCapture()) {
    loseAll(all, pool, n);
    loseAll(few, pool, dropped);
    return;
  }
  const now = nowNs();
  beginUnits();
  const direction = directionOf(pool, true);
  for (let i: u32 = 0; i < <u32> CAPTURES_MAX; i++) {
    if ((((all | few) >> i) & 1) == 0) continue;
    const isAll = ((all >> i) & 1) != 0;
    openCapture(i, now);
    let left: u32 = isAll ? n : dropped;
    for (let k: u32 = 0; k < n && left != 0; k++) {
      const record = recordAt(k);
      const reason = load<u32>(record, R_DROP);
      if (!isAll && reason == 0) continue;
      if (!putBlock(pool, record, 0, direction, reason)) break;
      left--;
    }
    if (left != 0) lose(pool, left);
    closeCapture();
  }
  payCapture(captureUnits + UNITS_HOOK);
}

/**
 * The first `n` records of the deliveries from `first` on, which were put into a receive queue of `pool`, unless they
 * are marked as `refused` (R_DROP says why). `isTaken`: whether the pool has got the others; else they wait somewhere.
 */
export function captureReceived(pool: u32, first: usize, n: u32, refused: u32, isTaken: bool): void {
  const p = poolAt(pool);
  const all = allOf(p);
  const few = droppedOf(p);
  const wanted = isTaken ? n : refused;
  if (wanted != 0 && (all | few) != 0) {
    if (!mayCapture()) {
      loseAll(all, pool, wanted);
      loseAll(few, pool, refused);
    } else {
      const now = nowNs();
      beginUnits();
      for (let i: u32 = 0; i < <u32> CAPTURES_MAX; i++) {
        if ((((all | few) >> i) & 1) == 0) continue;
        openCapture(i, now);
        const isAll = isTaken && ((all >> i) & 1) != 0;
        const left = putGroup(pool, first, n, isAll ? n : refused, isAll);
        if (left != 0) lose(pool, left);
        closeCapture();
      }
      payCapture(captureUnits + UNITS_HOOK);
    }
  }
  if (refused != 0) unmark(first, n);
}

/** Writes `wanted` of a group's first `n` frames into the capture in hand; answers how many of them had no room. */
function putGroup(pool: u32, first: usize, n: u32, wanted: u32, isAll: bool): u32 {
  const direction = directionOf(pool, false);
  let left = wanted;
  let behind = n;
  for (let at = first; at != 0 && left != 0 && behind != 0; at = load<u32>(at, N_NEXT)) {
    const head = load<u64>(at, N_HEAD);
    let record: usize = load<u32>(at, N_RECORD);
    for (let k: u32 = load<u16>(at, N_COUNT); k != 0 && left != 0 && behind != 0; k--, record += RECORD_STRIDE) {
      behind--;
      const reason = load<u32>(record, R_DROP);
      if (!isAll && reason == 0) continue;
      if (!putBlock(pool, record, head, direction, reason)) return left;
      left--;
    }
  }
  return left;
}

/** Takes the marks off a group's first `n` records: those who get the same frames are told for themselves. */
function unmark(first: usize, n: u32): void {
  let left = n;
  for (let at = first; at != 0 && left != 0; at = load<u32>(at, N_NEXT)) {
    let record: usize = load<u32>(at, N_RECORD);
    for (let k: u32 = load<u16>(at, N_COUNT); k != 0 && left != 0; k--, left--, record += RECORD_STRIDE) {
      store<u32>(record, 0, R_DROP);
    }
  }
}

/** A frame for `pool` that was dropped before it came to a queue; `head`: how it would have been delivered. */
export function captureDropped(pool: u32, record: usize, head: u64, reason: u32): void {
  const p = poolAt(pool);
  const captures = allOf(p) | droppedOf(p);
  if (!mayCapture()) return loseAll(captures, pool, 1);
  const now = nowNs();
  beginUnits();
  for (let i: u32 = 0; i < <u32> CAPTURES_MAX; i++) {
    if (((captures >> i) & 1) == 0) continue;
    openCapture(i, now);
    if (!putBlock(pool, record, head, directionOf(pool, false), reason)) lose(pool, 1);
    closeCapture();
  }
  payCapture(captureUnits + UNITS_HOOK);
}
