/**
 * Holding a pool: while its driver changes hands, frames for it go into a ring of the NIC's own, as they would wait in
 * a hardware NIC's packet buffer, and are delivered in order when the next driver is there. The ring is a split one
 * with mergeable buffers, so the switch fills it as any other; here it is emptied.
 */
import {
  C_RX_BYTES,
  C_RX_FRAMES,
  C_RX_NO_QUEUE,
  FRAME_BYTES_MIN,
  OUT_HEAD,
  POOL_STRIDE,
  POOLS,
  Q_DESC,
  Q_SIZE,
  Q_USED,
  Q_USED_IDX,
  Q_REGION_WINDOW,
  SPLIT_HEAD,
  SPLIT_HEAD_BYTES,
  TX_SEGMENTS,
} from "../../shared/layout/nic.ts";
import { VIRTIO_NET_HDR_BYTES, VIRTQ_DESC_BYTES, VIRTQ_USED_ELEM_BYTES, VIRTQ_USED_RING } from "../../shared/layout/virtio.ts";
import { count, deliver } from "../lib/deliver.ts";
import { publishTouched } from "../lib/ring.ts";
import { appendSegment, clearSegments, peek } from "../lib/segments.ts";
import { flowHash, steer } from "./steer.ts";

/**
 * Delivers what the hold ring `hold` of `pool` has taken to the pool's receive queues, in order; answers how many
 * frames. They were counted when they came: what is delivered or dropped now is counted in their place.
 */
export function releaseHeld(hold: usize, pool: u32): u32 {
  const p: usize = POOLS + pool * POOL_STRIDE;
  const end = load<u32>(hold, Q_USED_IDX);
  const mask = load<u32>(hold, Q_SIZE) - 1;
  const used: usize = load<u32>(hold, Q_USED) + VIRTQ_USED_RING;
  let frames: u32 = 0;
  for (let i: u32 = 0; i < end;) {
    clearSegments();
    const first = bufferOf(hold, load<u32>(used + (i & mask) * VIRTQ_USED_ELEM_BYTES));
    const buffers: u32 = load<u16>(first, 10);
    let bytes: u32 = 0;
    for (let k: u32 = 0; k < buffers && i < end; k++, i++) {
      const element = used + (i & mask) * VIRTQ_USED_ELEM_BYTES;
      const length = load<u32>(element, 4);
      appendSegment(TX_SEGMENTS, bufferOf(hold, load<u32>(element)), length);
      bytes += length;
    }
    const frameBytes = bytes - VIRTIO_NET_HDR_BYTES;
    count(p, C_RX_FRAMES, -1);
    count(p, C_RX_BYTES, -(<i64> frameBytes));
    const known = min(frameBytes, <u32> SPLIT_HEAD_BYTES);
    peek(TX_SEGMENTS, VIRTIO_NET_HDR_BYTES, known, SPLIT_HEAD);
    const rx = steer(pool, flowHash(SPLIT_HEAD, known));
    if (rx == 0) {
      count(p, C_RX_NO_QUEUE, 1);
      continue;
    }
    v128.store(OUT_HEAD, v128.load(SPLIT_HEAD));
    const skip = VIRTIO_NET_HDR_BYTES + FRAME_BYTES_MIN;
    if (deliver(p, rx, OUT_HEAD, FRAME_BYTES_MIN, TX_SEGMENTS, skip, frameBytes - FRAME_BYTES_MIN)) frames++;
  }
  publishTouched();
  return frames;
}

@inline
function bufferOf(hold: usize, id: u32): usize {
  const address = load<u64>(load<u32>(hold, Q_DESC) + id * VIRTQ_DESC_BYTES);
  return load<u32>(hold, Q_REGION_WINDOW) + <u32> address;
}
