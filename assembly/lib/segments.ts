/**
 * Lists of {pointer u32, length u32}: where a frame's bytes lie, or where they are to go, once every address has been
 * translated and checked. One list is built at a time.
 */
import {
  Q_REGION_IOVA,
  Q_REGION_SIZE,
  Q_REGION_WINDOW,
  RX_SEGMENTS,
  SEGMENT_STRIDE,
  SEGMENTS_MAX,
} from "../../shared/layout/nic.ts";
import { copyBytes } from "./copy.ts";
import { contiguous, translate } from "./domain.ts";

/** Segments in the list so far. */
export let segmentCount: u32 = 0;
/** What was wrong: a descriptor's index, or an address. */
export let badDetail: u64 = 0;

/** Starts a new list of segments. */
@inline
export function clearSegments(): void {
  segmentCount = 0;
}

@inline
export function setBadDetail(detail: u64): void {
  badDetail = detail;
}

/** Appends the segments of one buffer of queue `q`; false if any part of it has no translation. */
export function appendBuffer(q: usize, list: usize, iova: u64, length: u32, perm: u32): bool {
  let at = iova;
  let left = length;
  while (left > 0) {
    if (segmentCount == SEGMENTS_MAX) return false;
    let pointer: usize;
    let n = left;
    const offset = at - load<u64>(q, Q_REGION_IOVA);
    const size = load<u64>(q, Q_REGION_SIZE);
    if (offset < size && <u64> left <= size - offset) {
      pointer = load<u32>(q, Q_REGION_WINDOW) + <u32> offset;
    } else {
      pointer = translate(q, at, left, perm);
      if (pointer == 0) return false;
      n = contiguous;
    }
    appendSegment(list, pointer, n);
    left -= n;
    at += n;
    // A buffer that wraps past 2^64 would start again at address 0.
    if (left > 0 && at == 0) return false;
  }
  return true;
}

/** Appends a pointer that is known to be good. */
@inline
export function appendSegment(list: usize, pointer: usize, length: u32): void {
  const segment = list + segmentCount * SEGMENT_STRIDE;
  store<u32>(segment, <u32> pointer);
  store<u32>(segment, length, 4);
  segmentCount++;
}

// Where the next byte goes in RX_SEGMENTS.
let outSegment: usize = 0;
let outOffset: u32 = 0;

/** Begins to fill RX_SEGMENTS. */
@inline
export function rewindOut(): void {
  outSegment = RX_SEGMENTS;
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
