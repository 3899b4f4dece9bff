/**
 * Frames into captures' rings, as enhanced packet blocks of pcapng (draft-ietf-opsawg-pcapng §4.3): direction, frames lost
 * before, and comments as options. A block lies in one piece. Nobody is waited for: what has no room is lost, and counted.
 */
import {
  CAPTURE_OPTION_STRIDE,
  CAPTURE_OPTIONS,
  CAPTURE_POOL_STRIDE,
  CAPTURE_RING_BYTES,
  CAPTURE_STRIDE,
  CAPTURES,
  HEAD_MASK,
  O_HEADER,
  OPTION_PARTIAL,
  OPTION_TO_BE_CUT,
  R_DATA,
  R_FLAGS,
  R_LENGTH,
  RECORD_F_OFFLOAD,
  RECORD_F_PLAIN,
  X_END,
  X_EPOCH_NS,
  X_FILTER,
  X_NEXT,
  X_POOLS,
  X_READ,
  X_RING,
  X_SNAP,
  X_STEPS,
  X_WRITE,
  XP_INTERFACE,
  XP_LOST,
  XP_LOST_TOTAL,
} from "../../../shared/layout/nic.ts";
import { VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_TYPE } from "../../../shared/layout/virtio.ts";
import { copyBytes } from "../../lib/copy.ts";
import { headCopyAt } from "../batch/record.ts";
import { context } from "../context.ts";
import { outLength, peekFrame } from "../deliver/head.ts";
import { UNITS_BYTES_SHIFT, UNITS_FRAME } from "../schedule/cost.ts";
import { isWanted, noteMeta, readHead, taken } from "./filter.ts";

const ENHANCED_PACKET: u32 = 6;
const OPT_EPB_FLAGS: u32 = 2 | (4 << 16);
const OPT_EPB_DROPCOUNT: u32 = 4 | (8 << 16);
/** Bytes before the frame; the flags' option and the end of options; the count's option; the length at the end. */
const BEFORE_BYTES: u32 = 28;
const FLAGS_BYTES: u32 = 8;
const COUNT_BYTES: u32 = 12;
const END_BYTES: u32 = 8;
/** Of a frame that is looked at by a filter, or copied, beside its bytes. */
const UNITS_FILTERED: u32 = 40;
/** A comparison of a filter: whoever captures writes as many as 512. */
const UNITS_STEP: u32 = 3;

/** Units that were spent since whoever asks set it to 0. */
export let captureUnits: u32 = 0;

// The capture in hand.
let capture: usize = 0;
let filter: usize = 0;
let steps: u32 = 0;
let snap: u32 = 0;
let next: u32 = 0;
let read: u32 = 0;
let stampNs: u64 = 0;

/** Begins to count what is spent. */
export function beginUnits(): void {
  captureUnits = 0;
}

/** Begins to write into capture `n`, at time `now`. */
export function openCapture(n: u32, now: f64): void {
  capture = context + CAPTURES + n * CAPTURE_STRIDE;
  filter = load<u32>(capture, X_FILTER);
  steps = load<u32>(capture, X_STEPS);
  snap = load<u32>(capture, X_SNAP);
  next = load<u32>(capture, X_NEXT);
  read = atomic.load<u32>(capture + X_READ);
  stampNs = load<u64>(capture, X_EPOCH_NS) + <u64> now;
}

/** Publishes what was written. */
export function closeCapture(): void {
  store<u32>(capture, next, X_NEXT);
  atomic.store<u32>(capture + X_WRITE, next);
}

/** What the capture in hand knows of `pool`. */
@inline
function poolOf(pool: u32): usize {
  return <usize> load<u32>(capture, X_POOLS) + pool * CAPTURE_POOL_STRIDE;
}

/** Counts `n` frames of `pool` that capture in hand loses. */
export function lose(pool: u32, n: u32): void {
  const at = poolOf(pool);
  store<u32>(at, load<u32>(at, XP_LOST) + n, XP_LOST);
  store<u64>(at, load<u64>(at, XP_LOST_TOTAL) + n, XP_LOST_TOTAL);
}

/** Room for `bytes` bytes in one piece; 0: there is none. */
function reserve(bytes: u32): usize {
  const place = next & (CAPTURE_RING_BYTES - 1);
  const tail = <u32> CAPTURE_RING_BYTES - place;
  const wanted = bytes <= tail ? bytes : tail + bytes;
  if (<u32> CAPTURE_RING_BYTES - (next - read) < wanted) {
    read = atomic.load<u32>(capture + X_READ);
    if (<u32> CAPTURE_RING_BYTES - (next - read) < wanted) return 0;
  }
  const ring: usize = load<u32>(capture, X_RING);
  if (bytes <= tail) {
    next += bytes;
    if (bytes == tail) atomic.store<u32>(capture + X_END, next);
    return ring + place;
  }
  atomic.store<u32>(capture + X_END, next);
  next += tail + bytes;
  return ring;
}

/** The comment on what a record's sender has left to be finished: OPTION_*, 0: none. */
@inline
function commentOf(record: usize): u32 {
  if ((load<u16>(record, R_FLAGS) & RECORD_F_OFFLOAD) == 0) return 0;
  const header = headCopyAt(record) + O_HEADER;
  if (<u32> load<u8>(header, VIRTIO_NET_HDR_GSO_TYPE) != 0) return OPTION_TO_BE_CUT;
  return <u32> load<u8>(header) & VIRTIO_NET_HDR_F_NEEDS_CSUM ? OPTION_PARTIAL : 0;
}

/** Writes options of CAPTURE_OPTIONS to `at`; answers where they end. */
function putOptions(at: usize, option: u32): usize {
  const from = context + CAPTURE_OPTIONS + option * CAPTURE_OPTION_STRIDE;
  const bytes = load<u32>(from);
  copyBytes(at, from + 4, bytes);
  return at + bytes;
}

@inline
function optionBytes(option: u32): u32 {
  return option == 0 ? 0 : load<u32>(context + CAPTURE_OPTIONS + option * CAPTURE_OPTION_STRIDE);
}

/**
 * Writes the frame of `record` as `pool` has it (`head`: HEAD_*, and the tag that is put in << 32) if the capture in hand
 * wants it. `reason`: the counter that tells why it was dropped, 0: it was not. False if there is no room: it is not
 * counted yet.
 */
export function putBlock(pool: u32, record: usize, head: u64, direction: u32, reason: u32): bool {
  const what = <u32> head & 0xffff;
  const tag = <u32> (head >> 32);
  const length = outLength(what, load<u32>(record, R_LENGTH));
  if (steps != 0) {
    noteMeta(pool, direction, reason);
    readHead(record, what, tag, length);
    const wanted = isWanted(filter, steps);
    captureUnits += UNITS_FILTERED + taken * UNITS_STEP;
    if (!wanted) return true;
  }
  const kept = min(length, snap);
  const known = poolOf(pool);
  const lost = load<u32>(known, XP_LOST);
  const comment = commentOf(record);
  const padded = (kept + 3) & ~3;
  const options = FLAGS_BYTES + (lost != 0 ? COUNT_BYTES : 0) + optionBytes(reason >> 3) + optionBytes(comment);
  const bytes = BEFORE_BYTES + padded + options + END_BYTES;
  const block = reserve(bytes);
  if (block == 0) return false;
  captureUnits += UNITS_FRAME + (kept >> UNITS_BYTES_SHIFT);
  store<u32>(block, ENHANCED_PACKET);
  store<u32>(block, bytes, 4);
  store<u32>(block, load<u32>(known, XP_INTERFACE), 8);
  store<u32>(block, <u32> (stampNs >> 32), 12);
  store<u32>(block, <u32> stampNs, 16);
  store<u32>(block, kept, 20);
  store<u32>(block, length, 24);
  putKept(block + BEFORE_BYTES, record, what, tag, kept);
  let at = block + BEFORE_BYTES + padded;
  store<u32>(at, OPT_EPB_FLAGS);
  store<u32>(at, direction, 4);
  at += FLAGS_BYTES;
  if (lost != 0) {
    store<u32>(at, OPT_EPB_DROPCOUNT);
    store<u64>(at, lost, 4);
    store<u32>(known, 0, XP_LOST);
    at += COUNT_BYTES;
  }
  if (reason != 0) at = putOptions(at, reason >> 3);
  if (comment != 0) at = putOptions(at, comment);
  store<u32>(at, 0);
  store<u32>(at, bytes, 4);
  return true;
}

/**
 * Copies the first `kept` bytes of a record's frame as its port has it. A plain one has more than 16. What is
 * behind them is written next.
 */
function putKept(at: usize, record: usize, what: u32, tag: u32, kept: u32): void {
  store<u32>(at + (kept & ~3), 0);
  if ((what & HEAD_MASK) != 0 || (load<u16>(record, R_FLAGS) & RECORD_F_PLAIN) == 0) {
    peekFrame(record, what, tag, kept, at);
    return;
  }
  v128.store(at, v128.load(record));
  copyBytes(at + 16, <usize> load<u32>(record, R_DATA) + 16, kept - 16);
}
