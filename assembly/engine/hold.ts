/**
 * Holding a pool: while its driver changes hands, frames for it go into a ring of the NIC's own, as they would wait in
 * a hardware NIC's packet buffer, and are delivered in order when the next driver is there. The ring is a split one
 * with mergeable buffers, so the switch fills it as any other; here it is emptied, batch by batch.
 */
import {
  B_BYTES,
  B_CHAIN_SEGMENTS,
  B_COMMIT_BUFFER,
  B_COMMIT_RELEASED,
  B_DELIVERED,
  B_RECEIVE_SPENT,
  B_RECEIVE_UNITS,
  B_SEGMENTS,
  B_UNITS,
  B_WAITS_FOR,
  BATCH_FRAMES,
  C_RX_NO_BUFFER,
  C_RX_NO_QUEUE,
  HEAD_AS_IS,
  HEAD_INSERT,
  N_HEAD,
  N_RECORD,
  OFFLOADS_ALL,
  P_BUFFER,
  P_BUFFER_QUEUE,
  P_FLAGS,
  P_RX_COUNT,
  P_RX_QUEUES,
  P_NATIVE,
  P_VLAN,
  P_WATCH,
  POOL_F_FALLBACK_PF,
  POOL_PF,
  Q_AVAIL,
  Q_DESC,
  Q_REGION_WINDOW,
  Q_FLAGS,
  Q_RELEASED,
  Q_SEGMENTS_DONE,
  Q_SIZE,
  Q_USED,
  Q_USED_IDX,
  QUEUE_F_HOLD,
  QUEUE_PAIRS_MAX,
  R_DELIVERY,
  R_DESCRIPTORS,
  TX_SEGMENTS,
} from "../../shared/layout/nic.ts";
import {
  VIRTIO_NET_HDR_BYTES,
  VIRTQ_AVAIL_IDX,
  VIRTQ_DESC_BYTES,
  VIRTQ_USED_ELEM_BYTES,
  VIRTQ_USED_RING,
} from "../../shared/layout/virtio.ts";
import { isMulticast, isTag, MAC_MASK } from "../lib/ethernet.ts";
import { goOnInFrame, noteInFrame } from "./batch/offload.ts";
import { beginGather, recordAt } from "./batch/record.ts";
import { recordSegments } from "./batch/unusual.ts";
import { appendSegment } from "./batch/segments.ts";
import { batch, context, poolAt } from "./context.ts";
import { scatterSeen } from "./capture/scatter.ts";
import { captureDropped } from "./capture/watch.ts";
import { bookRefused, bookResults, count } from "./deliver/results.ts";
import { pendingUpTo, publishDirty } from "./queue/format.ts";
import { markDirty } from "./queue/interrupts.ts";
import { spend, UNITS_DESCRIPTOR, UNITS_FRAME } from "./schedule/cost.ts";
import { nativeTag, tagOf } from "./switch/admit.ts";
import { groupOf } from "./switch/decide.ts";
import { hashOf, steer } from "./switch/steer.ts";

/** The receive queue that had no room when something was handed on last; 0: none. */
export let blockedAt: usize = 0;
/** N_COUNT of a delivery of one record, beside its N_HEAD. */
const ONE_RECORD: u64 = 1 << 16;

/** Frames that are made records of at a time: what a receiver then has no room for is gathered again. */
const GATHERED: u32 = 8;
/** No limit of units: the engine stands still, and `most` bounds what is done. */
const ANY_UNITS: u32 = 0xffffffff;

/**
 * Delivers what the hold ring `hold` of `pool` has taken to the pool's receive queues, in order, at most `most` frames;
 * answers how many buffers are left. Frames are counted on the pool here, not when the hold takes them. A receiver
 * without buffers is waited for, unless this is the `last` time.
 */
export function releaseHeld(hold: usize, pool: u32, most: u32, last: bool): u32 {
  return handOn(hold, pool, most, ANY_UNITS, last);
}

/** As `releaseHeld`, until it has cost `unitLimit`; `blockedAt` says afterwards who had no room. */
export function handOn(hold: usize, pool: u32, most: u32, unitLimit: u32, last: bool): u32 {
  const end = load<u32>(hold, Q_USED_IDX);
  let next = load<u32>(hold, Q_RELEASED);
  // One budget of walks through the receiver's chains for all that is handed on at a time.
  store<u32>(batch(), 0, B_RECEIVE_UNITS);
  store<u32>(batch(), 0, B_RECEIVE_SPENT);
  store<u32>(batch(), 0, B_UNITS);
  blockedAt = 0;
  for (let frames: u32 = 0; frames < most && next != end && load<u32>(batch(), B_UNITS) < unitLimit;) {
    beginGather();
    const n = gatherHeld(hold, next, min(most - frames, GATHERED));
    goOnInFrame(hold);
    const done = hand(pool, n, ownerOf(hold, pool), !last);
    noteInFrame(hold, done, n);
    for (let i: u32 = 0; i < done; i++) next += load<u32>(recordAt(i), R_DESCRIPTORS);
    frames += done;
    // Handed on is handed on: this goes with the publication.
    store<u32>(batch(), next, B_COMMIT_RELEASED);
    store<u32>(batch(), <u32> hold, B_COMMIT_BUFFER);
    publishDirty();
    store<u32>(batch(), 0, B_COMMIT_BUFFER);
    if (done < n) break;
  }
  release(hold, next);
  return end - next;
}

/** Drops what the hold ring `hold` of `pool` has taken: it came in a VLAN that the pool has left. */
export function discardHeld(hold: usize, pool: u32): void {
  const end = load<u32>(hold, Q_USED_IDX);
  let next = load<u32>(hold, Q_RELEASED);
  while (next != end) {
    beginGather();
    const n = gatherHeld(hold, next, BATCH_FRAMES);
    for (let i: u32 = 0; i < n; i++) {
      next += load<u32>(recordAt(i), R_DESCRIPTORS);
      lost(pool, recordAt(i));
    }
  }
  store<u16>(hold, 0, Q_SEGMENTS_DONE);
  release(hold, next);
}

/** Counts a frame that was held for `pool`, and that no queue of it takes. */
function lost(pool: u32, record: usize): void {
  const p = poolAt(pool);
  count(p, C_RX_NO_QUEUE, 1);
  if (load<u32>(p, P_WATCH) != 0) captureDropped(pool, record, HEAD_AS_IS, C_RX_NO_QUEUE);
}

/** The buffers are in use in their own order: those before `next` may be filled again. */
function release(hold: usize, next: u32): void {
  store<u32>(hold, next, Q_RELEASED);
  store<u16>(load<u32>(hold, Q_AVAIL) + VIRTQ_AVAIL_IDX, <u16> (next + load<u32>(hold, Q_SIZE)));
}

/** Whether every receive queue of `pool` has half of its descriptors free: room for what comes while its driver wakes up. */
export function hasRoom(pool: u32): bool {
  const p = poolAt(pool);
  const queues = min(load<u32>(p, P_RX_COUNT), <u32> QUEUE_PAIRS_MAX);
  for (let i: u32 = 0; i < queues; i++) {
    const rx: usize = load<u32>(p + i * 4, P_RX_QUEUES);
    const half = load<u32>(rx, Q_SIZE) >> 1;
    if (pendingUpTo(rx, half) < half) return false;
  }
  return true;
}

/** Makes records of up to `most` held frames from used element `first` on; answers how many. */
function gatherHeld(hold: usize, first: u32, most: u32): u32 {
  const end = load<u32>(hold, Q_USED_IDX);
  const mask = load<u32>(hold, Q_SIZE) - 1;
  const used: usize = load<u32>(hold, Q_USED) + VIRTQ_USED_RING;
  let next = first;
  let n: u32 = 0;
  for (; n < most && next != end; n++) {
    const start = load<u32>(batch(), B_SEGMENTS);
    const head = bufferOf(hold, load<u32>(used + (next & mask) * VIRTQ_USED_ELEM_BYTES));
    const buffers = max(1, min(<u32> load<u16>(head, 10), end - next));
    let bytes: u64 = 0;
    for (let k: u32 = 0; k < buffers; k++) {
      const element = used + ((next + k) & mask) * VIRTQ_USED_ELEM_BYTES;
      const length = load<u32>(element, 4);
      appendSegment(context + TX_SEGMENTS, start + k, bufferOf(hold, load<u32>(element)), length);
      bytes += length;
    }
    store<u32>(batch(), start + buffers, B_CHAIN_SEGMENTS);
    recordSegments(recordAt(n), start, bytes, VIRTIO_NET_HDR_BYTES, OFFLOADS_ALL);
    store<u32>(recordAt(n), buffers, R_DESCRIPTORS);
    spend(UNITS_FRAME + buffers * UNITS_DESCRIPTOR);
    next += buffers;
  }
  store<u32>(batch(), 0, B_BYTES);
  return n;
}

/**
 * The receive queue of `pool` whose frames the ring `hold` has, if it is the packet buffer of a pool with several and that
 * one still runs; 0: each frame says itself where it belongs.
 */
function ownerOf(hold: usize, pool: u32): usize {
  const p = poolAt(pool);
  const queues = load<u32>(p, P_RX_COUNT);
  if (queues <= 1 || hold != <usize> load<u32>(p, P_BUFFER)) return 0;
  const owner = load<u32>(p, P_BUFFER_QUEUE);
  for (let i: u32 = 0; i < queues; i++) {
    if (load<u32>(p + i * 4, P_RX_QUEUES) == owner) return owner;
  }
  return 0;
}

/** Hands the batch's `n` records on to `owner`, or to where each belongs, one by one; answers how many are done with. */
function hand(pool: u32, n: u32, owner: usize, wait: bool): u32 {
  const p = poolAt(pool);
  for (let i: u32 = 0; i < n; i++) {
    const record = recordAt(i);
    const delivery = record + R_DELIVERY;
    let rx = owner != 0 ? owner : steer(pool, hashOf(record));
    store<u64>(delivery, <u32> record, N_RECORD);
    store<u64>(delivery, <u64> (HEAD_AS_IS | groupOf(load<u64>(record) & MAC_MASK)) | ONE_RECORD, N_HEAD);
    if (rx == 0 && (load<u32>(p, P_FLAGS) & POOL_F_FALLBACK_PF) != 0 && !isMulticast(load<u64>(record))) {
      // The guest is behind the PF's pool now, which is a trunk port: the frame carries the tag of the PF's VLAN there.
      rx = steer(POOL_PF, 0);
      const tag = tagBehindPf(p, record);
      if (tag != 0) store<u64>(delivery, <u64> HEAD_INSERT | ONE_RECORD | (<u64> tag << 32), N_HEAD);
    }
    if (rx == 0) {
      lost(pool, record);
    } else {
      const isHold = (load<u32>(rx, Q_FLAGS) & QUEUE_F_HOLD) != 0;
      const done = scatterSeen(pool, rx, delivery, wait, !isHold);
      if (isHold) bookRefused(p);
      else bookResults(p);
      // Segments of a frame that is not done with, too: their receiver may have no other buffers than those.
      const delivered = load<u32>(batch(), B_DELIVERED);
      if (delivered != 0) markDirty(rx, delivered);
      if (done == 0) {
        if (load<u32>(batch(), B_WAITS_FOR) == C_RX_NO_BUFFER) blockedAt = rx;
        return i;
      }
    }
  }
  return n;
}

/** The tag that a held frame of pool `p` carries behind the PF's pool; 0 if it has its own, or none. */
function tagBehindPf(p: usize, record: usize): u32 {
  if (load<u32>(p, P_VLAN) != 0) return tagOf(p);
  const native = load<u32>(p, P_NATIVE);
  return native != 0 && !isTag(load<u16>(record, 12)) ? nativeTag(native) : 0;
}

@inline
function bufferOf(hold: usize, id: u32): usize {
  const address = load<u64>(load<u32>(hold, Q_DESC) + id * VIRTQ_DESC_BYTES);
  return load<u32>(hold, Q_REGION_WINDOW) + <u32> address;
}
