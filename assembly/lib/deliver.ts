/**
 * The receive side: one frame into one RX queue, whatever its flavour and its buffers look like. This is the general
 * path (chains, indirect tables, mergeable buffers, headers split over descriptors); the NIC does the common case in
 * loops of its own. A full receiver drops, it never blocks the sender.
 */
import {
  BAD_AVAIL_IDX,
  C_RX_BYTES,
  C_RX_FRAMES,
  C_RX_NO_BUFFER,
  C_RX_QUEUE_ERROR,
  C_RX_TOO_SMALL,
  FLAVOUR_ADVANCED,
  FLAVOUR_SPLIT,
  OUT_VIRTIO_HDR,
  P_COUNTERS,
  Q_FLAGS,
  Q_FLAVOUR,
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
} from "../../shared/layout/nic.ts";
import { receiveAdvanced } from "./advanced_receive.ts";
import { failQueue } from "./interrupts.ts";
import { touch } from "./ring.ts";
import { badDetail, clearSegments, put, putFrom, rewindOut } from "./segments.ts";
import { availHead, availIdx, chainBytes, chainLength, gatherChain, pushUsed } from "./split_ring.ts";
import { sendTrunk } from "./trunk.ts";

/** Adds `n` to the counter at `offset` of pool `p`. */
@inline
export function count(p: usize, offset: u32, n: u64): void {
  const at = p + P_COUNTERS + offset;
  store<u64>(at, load<u64>(at) + n);
}

let chainCount: u32 = 0;
/** Descriptors that the last `deliver` walked to find room for its frame. */
export let receiveWork: u32 = 0;

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
  receiveWork = 0;
  clearSegments();
  while (capacity < need) {
    if (chainCount == free) return C_RX_NO_BUFFER;
    if (chainCount == limit) return C_RX_TOO_SMALL;
    const head = availHead(rx, last + chainCount);
    const verdict = gatherChain(rx, head, RX_SEGMENTS, true, RX_WALK_MAX - walked);
    walked += chainLength;
    receiveWork = walked;
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
  const refused = receive(rx, head, headBytes, segments, skip, payloadBytes);
  if (refused != 0) {
    count(p, refused, 1);
    return false;
  }
  touch(rx);
  count(p, C_RX_FRAMES, 1);
  count(p, C_RX_BYTES, headBytes + payloadBytes);
  return true;
}

/** As `deliver`, without the books: answers 0, or the counter that tells why the frame did not go in. */
export function receive(rx: usize, head: usize, headBytes: u32, segments: usize, skip: u32, payloadBytes: u32): u32 {
  receiveWork = 0;
  if (load<u32>(rx, Q_STATE) != QUEUE_RUNNING) return C_RX_QUEUE_ERROR;
  const flavour = load<u32>(rx, Q_FLAVOUR);
  if (flavour == FLAVOUR_SPLIT) return receiveSplit(rx, head, headBytes, segments, skip, payloadBytes);
  if (flavour == FLAVOUR_ADVANCED) return receiveAdvanced(rx, head, headBytes, segments, skip, payloadBytes);
  return sendTrunk(rx, head, headBytes, segments, skip, payloadBytes, false);
}

/** As `receiveAdvanced`, for a split ring. */
function receiveSplit(
  rx: usize,
  head: usize,
  headBytes: u32,
  segments: usize,
  skip: u32,
  payloadBytes: u32,
): u32 {
  const hdrBytes = load<u32>(rx, Q_HDR_BYTES);
  const need = hdrBytes + headBytes + payloadBytes;
  const refused = reserve(rx, need);
  if (refused != 0) return refused;
  rewindOut();
  store<u64>(OUT_VIRTIO_HDR, 0);
  store<u32>(OUT_VIRTIO_HDR + 8, chainCount << 16);
  put(OUT_VIRTIO_HDR, hdrBytes);
  put(head, headBytes);
  putFrom(segments, skip, payloadBytes);
  finish(rx, need);
  return 0;
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
}
