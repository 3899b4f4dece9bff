/**
 * The receive side: one frame into one RX queue, whatever its buffers look like. This is the general path (chains,
 * indirect tables, mergeable buffers, headers split over descriptors); `forward.ts` does the common case in a loop of
 * its own. A full receiver drops, it never blocks the sender.
 */
import {
  BAD_AVAIL_IDX,
  C_RX_FRAMES,
  C_RX_NO_BUFFER,
  C_RX_QUEUE_ERROR,
  C_RX_TOO_SMALL,
  OUT_VIRTIO_HDR,
  P_COUNTERS,
  Q_DIRTY,
  Q_FLAGS,
  Q_HDR_BYTES,
  Q_LAST_AVAIL,
  Q_SIZE,
  Q_STATE,
  QUEUE_F_MRG_RXBUF,
  QUEUE_RUNNING,
  RX_CHAINS,
  RX_CHAINS_MAX,
  RX_SEGMENTS,
  RX_WALK_MAX,
  SEGMENT_STRIDE,
  TOUCHED_LIST,
} from "../../shared/layout/nic.ts";
import { copyBytes } from "../lib/copy.ts";
import {
  availHead,
  availIdx,
  badDetail,
  chainBytes,
  chainLength,
  clearSegments,
  failQueue,
  gatherChain,
  publishUsed,
  pushUsed,
} from "../lib/split_ring.ts";

/** Adds `n` to the counter at `offset` of pool `p`. */
@inline
export function count(p: usize, offset: u32, n: u64): void {
  const at = p + P_COUNTERS + offset;
  store<u64>(at, load<u64>(at) + n);
}

let touchedCount: u32 = 0;

/** Notes that used elements of `rx` wait to be published. */
@inline
export function touch(rx: usize): void {
  if (load<u32>(rx, Q_DIRTY)) return;
  store<u32>(rx, 1, Q_DIRTY);
  store<u32>(TOUCHED_LIST + touchedCount * 4, <u32> rx);
  touchedCount++;
}

/** Publishes what the burst delivered: one index store, and at most one interrupt, for each RX queue. */
export function publishTouched(): void {
  for (let i: u32 = 0; i < touchedCount; i++) {
    const rx: usize = load<u32>(TOUCHED_LIST + i * 4);
    store<u32>(rx, 0, Q_DIRTY);
    publishUsed(rx);
  }
  touchedCount = 0;
}

// Where the next byte goes in RX_SEGMENTS.
let outSegment: usize = 0;
let outOffset: u32 = 0;

/** Writes `n` bytes at `src` behind what was written before. The segments are known to have room. */
function put(src: usize, n: u32): void {
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

let chainCount: u32 = 0;

/**
 * Gathers chains until `need` bytes fit. Answers 0, or the counter that tells why they do not. A receiver whose chains take
 * more than RX_WALK_MAX descriptors for one frame breaks the protocol: otherwise its neighbours would pay for the walk.
 */
function reserve(rx: usize, need: u32): u32 {
  const last = load<u32>(rx, Q_LAST_AVAIL);
  const free = (availIdx(rx) - last) & 0xffff;
  if (free > load<u32>(rx, Q_SIZE)) {
    failQueue(rx, BAD_AVAIL_IDX, free);
    return C_RX_QUEUE_ERROR;
  }
  const limit: u32 = load<u32>(rx, Q_FLAGS) & QUEUE_F_MRG_RXBUF ? RX_CHAINS_MAX : 1;
  let capacity: u64 = 0;
  let walked: u32 = 0;
  chainCount = 0;
  clearSegments();
  while (capacity < need) {
    if (chainCount == free) return C_RX_NO_BUFFER;
    if (chainCount == limit) return C_RX_TOO_SMALL;
    const head = availHead(rx, last + chainCount);
    const verdict = gatherChain(rx, head, RX_SEGMENTS, true, RX_WALK_MAX - walked);
    walked += chainLength;
    if (verdict != 0) {
      failQueue(rx, verdict, badDetail);
      return C_RX_QUEUE_ERROR;
    }
    if (chainCount == 0 && chainBytes < load<u32>(rx, Q_HDR_BYTES)) return C_RX_TOO_SMALL;
    const entry = RX_CHAINS + chainCount * 8;
    store<u32>(entry, head);
    store<u32>(entry, <u32> min(chainBytes, 0xffffffff), 4);
    capacity += chainBytes;
    chainCount++;
  }
  return 0;
}

/**
 * Delivers one frame: `headBytes` at `head`, then `payloadBytes` from the sender's segments, `skip` bytes into them.
 * Counts the delivery or the drop on pool `p`, and answers true if the frame went in.
 */
export function deliver(
  p: usize,
  rx: usize,
  head: usize,
  headBytes: u32,
  segments: usize,
  skip: u32,
  payloadBytes: u32,
): bool {
  if (load<u32>(rx, Q_STATE) != QUEUE_RUNNING) {
    count(p, C_RX_QUEUE_ERROR, 1);
    return false;
  }
  const hdrBytes = load<u32>(rx, Q_HDR_BYTES);
  const need = hdrBytes + headBytes + payloadBytes;
  const refused = reserve(rx, need);
  if (refused != 0) {
    count(p, refused, 1);
    return false;
  }
  outSegment = RX_SEGMENTS;
  outOffset = 0;
  store<u64>(OUT_VIRTIO_HDR, 0);
  store<u32>(OUT_VIRTIO_HDR + 8, chainCount << 16);
  put(OUT_VIRTIO_HDR, hdrBytes);
  put(head, headBytes);

  let segment = segments;
  let pass = skip;
  let left = payloadBytes;
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
  finish(rx, need);
  count(p, C_RX_FRAMES, 1);
  count(p, C_RX_FRAMES + 8, headBytes + payloadBytes);
  return true;
}

/** Turns the filled chains into used elements. */
function finish(rx: usize, bytes: u32): void {
  let left = bytes;
  for (let i: u32 = 0; i < chainCount; i++) {
    const entry = RX_CHAINS + i * 8;
    const used = min(load<u32>(entry, 4), left);
    pushUsed(rx, load<u32>(entry), used);
    left -= used;
  }
  store<u32>(rx, load<u32>(rx, Q_LAST_AVAIL) + chainCount, Q_LAST_AVAIL);
  touch(rx);
}
