/**
 * Lists of {pointer u32, length u32}: where a frame's bytes lie, or where they are to go, once every address has been
 * translated and checked. The frames of a batch share TX_SEGMENTS; RX_SEGMENTS is filled anew for each frame.
 */
import { B_CONTIGUOUS, RX_SEGMENTS, SEGMENT_STRIDE, SEGMENTS_MAX } from "../../../shared/layout/nic.ts";
import { copyBytes } from "../../lib/copy.ts";
import { batch, context } from "../context.ts";
import { remembered, translate } from "../queue/domain.ts";
import { spend, UNITS_DESCRIPTOR } from "../schedule/cost.ts";

/** What `appendBuffer` answers if a part of the buffer has no translation, or the list is full. */
export const NOT_APPENDED: u32 = 0xffffffff;

/**
 * Appends the segments of one buffer of queue `q` to `list`, which has `count` of them. Answers how many it has now,
 * or NOT_APPENDED.
 */
export function appendBuffer(q: usize, list: usize, count: u32, iova: u64, length: u32, perm: u32): u32 {
  let n = count;
  let at = iova;
  let left = length;
  while (left > 0) {
    if (n == SEGMENTS_MAX) return NOT_APPENDED;
    let part = left;
    let pointer = remembered(q, at, left);
    if (pointer == 0) {
      pointer = translate(q, at, left, perm);
      if (pointer == 0) return NOT_APPENDED;
      part = load<u32>(batch(), B_CONTIGUOUS);
    }
    appendSegment(list, n++, pointer, part);
    left -= part;
    at += part;
    // A buffer that wraps past 2^64 would start again at address 0.
    if (left > 0 && at == 0) return NOT_APPENDED;
  }
  spend((n - count) * UNITS_DESCRIPTOR);
  return n;
}

/** Writes segment `n` of a list: a pointer that is known to be good. */
@inline
export function appendSegment(list: usize, n: u32, pointer: usize, length: u32): void {
  const segment = list + n * SEGMENT_STRIDE;
  store<u32>(segment, <u32> pointer);
  store<u32>(segment, length, 4);
}

// Where the next byte goes in RX_SEGMENTS.
let outSegment: usize = 0;
let outOffset: u32 = 0;

/** Begins to fill RX_SEGMENTS. */
@inline
export function rewindOut(): void {
  outSegment = context + RX_SEGMENTS;
  outOffset = 0;
}

/** Writes `n` bytes at `src` behind what was written before. The segments are known to have room. */
export function put(src: usize, n: u32): void {
  let from = src;
  let left = n;
  while (left > 0) {
    const room = load<u32>(outSegment, 4) - outOffset;
    const part = left < room ? left : room;
    copyBytes(load<u32>(outSegment) + outOffset, from, part);
    from += part;
    left -= part;
    outOffset += part;
    if (part == room) {
      outSegment += SEGMENT_STRIDE;
      outOffset = 0;
    }
  }
}

/** Writes `n` bytes of the frame whose segments are in `list`, from `skip` bytes into it on. */
export function putFrom(list: usize, skip: u32, n: u32): void {
  let segment = list;
  let pass = skip;
  let left = n;
  while (left > 0) {
    const length = load<u32>(segment, 4);
    if (length > pass) {
      const part = min(length - pass, left);
      put(load<u32>(segment) + pass, part);
      left -= part;
      pass = 0;
    } else {
      pass -= length;
    }
    segment += SEGMENT_STRIDE;
  }
}

/** Copies `n` bytes of the frame whose segments are in `list`, from `skip` bytes into it on, to `dst`. */
export function peek(list: usize, skip: u32, n: u32, dst: usize): void {
  let segment = list;
  let pass = skip;
  let at = dst;
  let left = n;
  while (left > 0) {
    const length = load<u32>(segment, 4);
    if (length > pass) {
      const part = min(length - pass, left);
      copyBytes(at, load<u32>(segment) + pass, part);
      at += part;
      left -= part;
      pass = 0;
    } else {
      pass -= length;
    }
    segment += SEGMENT_STRIDE;
  }
}
