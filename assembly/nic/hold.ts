/**
 * Holding a pool: while its driver changes hands, frames for it go into a ring of the NIC's own, as they would wait in
 * a hardware NIC's packet buffer, and are delivered in order when the next driver is there. The ring is a split one
 * with mergeable buffers, so the switch fills it as any other; here it is emptied.
 */
import {
  C_RX_BYTES,
  C_RX_FRAMES,
  C_RX_NO_BUFFER,
  C_RX_NO_QUEUE,
  FRAME_BYTES_MIN,
  OUT_HEAD,
  P_FLAGS,
  P_QOS,
  P_RX_COUNT,
  P_RX_QUEUES,
  P_VLAN,
  POOL_F_FALLBACK_PF,
  POOL_PF,
  POOL_STRIDE,
  POOLS,
  Q_AVAIL,
  Q_DESC,
  QUEUE_PAIRS_MAX,
  Q_RELEASED,
  Q_SIZE,
  Q_USED,
  Q_USED_IDX,
  Q_REGION_WINDOW,
  SPLIT_HEAD,
  SPLIT_HEAD_BYTES,
  TX_SEGMENTS,
  VLAN_KEY_AD,
} from "../../shared/layout/nic.ts";
import {
  VIRTIO_NET_HDR_BYTES,
  VIRTQ_AVAIL_IDX,
  VIRTQ_DESC_BYTES,
  VIRTQ_USED_ELEM_BYTES,
  VIRTQ_USED_RING,
} from "../../shared/layout/virtio.ts";
import { count, receive } from "../lib/deliver.ts";
import { TPID_C, TPID_S } from "../lib/ethernet.ts";
import { pending, publishTouched, touch } from "../lib/ring.ts";
import { appendSegment, clearSegments, peek } from "../lib/segments.ts";
import { flowHash, steer } from "./steer.ts";

/**
 * Delivers what the hold ring `hold` of `pool` has taken to the pool's receive queues, in order, at most `most` frames;
 * answers how many buffers are left. Frames were counted when they came: what is delivered or dropped now is counted in
 * their place. A receiver without buffers is waited for, unless this is the `last` time.
 */
export function releaseHeld(hold: usize, pool: u32, most: u32, last: bool): u32 {
  const p: usize = POOLS + pool * POOL_STRIDE;
  const end = load<u32>(hold, Q_USED_IDX);
  const mask = load<u32>(hold, Q_SIZE) - 1;
  const used: usize = load<u32>(hold, Q_USED) + VIRTQ_USED_RING;
  let next = load<u32>(hold, Q_RELEASED);
  for (let frames: u32 = 0; frames < most && next != end; frames++) {
    clearSegments();
    const first = bufferOf(hold, load<u32>(used + (next & mask) * VIRTQ_USED_ELEM_BYTES));
    const buffers = min(<u32> load<u16>(first, 10), end - next);
    let bytes: u32 = 0;
    for (let k: u32 = 0; k < buffers; k++) {
      const element = used + ((next + k) & mask) * VIRTQ_USED_ELEM_BYTES;
      const length = load<u32>(element, 4);
      appendSegment(TX_SEGMENTS, bufferOf(hold, load<u32>(element)), length);
      bytes += length;
    }
    const frameBytes = bytes - VIRTIO_NET_HDR_BYTES;
    const known = min(frameBytes, <u32> SPLIT_HEAD_BYTES);
    peek(TX_SEGMENTS, VIRTIO_NET_HDR_BYTES, known, SPLIT_HEAD);
    const rx = steer(pool, flowHash(SPLIT_HEAD, known));
    const refused = rx == 0 && (load<u32>(p, P_FLAGS) & POOL_F_FALLBACK_PF) != 0 && (load<u8>(SPLIT_HEAD) & 1) == 0
      ? hand(steer(POOL_PF, 0), frameBytes, load<u32>(p, P_VLAN), load<u32>(p, P_QOS))
      : hand(rx, frameBytes, 0, 0);
    if (refused == C_RX_NO_BUFFER && !last) break;
    next += buffers;
    if (refused == 0) continue;
    count(p, C_RX_FRAMES, -1);
    count(p, C_RX_BYTES, -(<i64> frameBytes));
    count(p, refused, 1);
  }
  store<u32>(hold, next, Q_RELEASED);
  // The buffers are in use in their own order: what has been handed on may be filled again.
  store<u16>(load<u32>(hold, Q_AVAIL) + VIRTQ_AVAIL_IDX, <u16> (next + mask + 1));
  publishTouched();
  return end - next;
}

/** Whether every receive queue of `pool` has half of its descriptors free: room for what comes while its driver wakes up. */
export function hasRoom(pool: u32): bool {
  const p: usize = POOLS + pool * POOL_STRIDE;
  const queues = min(load<u32>(p, P_RX_COUNT), <u32> QUEUE_PAIRS_MAX);
  for (let i: u32 = 0; i < queues; i++) {
    const rx: usize = load<u32>(p + i * 4, P_RX_QUEUES);
    if (pending(rx) < load<u32>(rx, Q_SIZE) >> 1) return false;
  }
  return true;
}

/**
 * The frame whose head is at SPLIT_HEAD into receive queue `rx`, with the tag of `vlan` if that is not 0; answers 0, or
 * the counter that tells why not.
 */
function hand(rx: usize, frameBytes: u32, vlan: u32, qos: u32): u32 {
  if (rx == 0) return C_RX_NO_QUEUE;
  v128.store(OUT_HEAD, v128.load(SPLIT_HEAD));
  let headBytes: u32 = FRAME_BYTES_MIN;
  if (vlan != 0) {
    const tci = (qos << 13) | (vlan & 0xfff);
    const tpid = vlan & VLAN_KEY_AD ? TPID_S : TPID_C;
    store<u32>(OUT_HEAD, tpid | (<u32> bswap<u16>(<u16> tci) << 16), 12);
    store<u16>(OUT_HEAD, load<u16>(SPLIT_HEAD, 12), 16);
    headBytes += 4;
  }
  const skip = VIRTIO_NET_HDR_BYTES + FRAME_BYTES_MIN;
  const refused = receive(rx, OUT_HEAD, headBytes, TX_SEGMENTS, skip, frameBytes - FRAME_BYTES_MIN);
  if (refused == 0) touch(rx);
  return refused;
}

@inline
function bufferOf(hold: usize, id: u32): usize {
  const address = load<u64>(load<u32>(hold, Q_DESC) + id * VIRTQ_DESC_BYTES);
  return load<u32>(hold, Q_REGION_WINDOW) + <u32> address;
}
