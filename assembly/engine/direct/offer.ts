/**
 * Offering the guest's receive buffers to the NIC: each goes into the next slot of the pair's receive ring, in place of the
 * slot's host buffer. Buffers are taken in the guest's order, and slots are filled in theirs, so what comes goes back in
 * order. A buffer is offered if it is one piece, and holds whatever the slot's host buffer would hold. One that is not ends
 * the offering: it, and what is behind it, waits for frames in host buffers.
 */
import {
  ADV_DIRECT_ADDRESS_BITS,
  ADV_DIRECT_MARK_SHIFT,
} from "../../../shared/layout/advanced.ts";
import {
  B_CHAIN_BYTES,
  B_CHAIN_DESCRIPTORS,
  B_CHAIN_ID,
  B_CHAIN_SEGMENTS,
  BAD_AVAIL_IDX,
  BATCH_FRAMES,
  DIRECT_HOST_BYTES,
  DIRECT_OFFERED,
  DIRECT_RX_QUEUE,
  DIRECT_STUCK,
  FLAVOUR_PACKED,
  HALT_RX,
  OK,
  P_RX_COUNT,
  P_RX_QUEUES,
  Q_DESC,
  Q_FLAVOUR,
  Q_HDR_BYTES,
  Q_LAST_AVAIL,
  Q_POOL,
  Q_SIZE,
  Q_STATE,
  Q_WRAP,
  QUEUE_RUNNING,
  RX_SEGMENTS,
  RX_WALK_MAX,
  WRAP_AVAIL,
} from "../../../shared/layout/nic.ts";
import { VIRTQ_DESC_BYTES, VIRTQ_DESC_F_WRITE } from "../../../shared/layout/virtio.ts";
import { batch, context, poolAt } from "../context.ts";
import { walk } from "../queue/chain.ts";
import { remembered } from "../queue/domain.ts";
import { failQueue } from "../queue/interrupts.ts";
import { advanceAvail, availableFlags, isAvailable, metaOf } from "../queue/packed.ts";
import { availHead, pendingSplit } from "../queue/split.ts";
import { spend, UNITS_DESCRIPTOR } from "../schedule/cost.ts";
import { FRONT } from "../queue/direct_receive.ts";
import { descriptorAt, isHalted, postedBytes, rxBook, stateOf } from "./books.ts";

const HOST_BYTES: u32 = DIRECT_HOST_BYTES;
const MARK: u64 = <u64> 1 << <u64> ADV_DIRECT_MARK_SHIFT;

/** Receive slots that have a buffer of the guest's. */
@inline
export function offered(rx: usize): u32 {
  return (load<u32>(stateOf(rx), DIRECT_OFFERED) - load<u32>(rx, Q_LAST_AVAIL)) & (load<u32>(rx, Q_SIZE) - 1);
}

/** Offers what the guest of receive ring `rx` has made available, as far as it can be. */
export function offer(rx: usize): void {
  const state = stateOf(rx);
  const p = poolAt(load<u32>(rx, Q_POOL));
  // Which of several queues a frame is for is known when it has come.
  if (isHalted(state, HALT_RX) || load<u32>(p, P_RX_COUNT) != 1) return;
  const q: usize = load<u32>(p, P_RX_QUEUES);
  if (load<u32>(q, Q_STATE) != QUEUE_RUNNING || load<u32>(q, Q_HDR_BYTES) != FRONT) return;
  const there = offered(rx);
  if (there == 0) store<u32>(state, <u32> q, DIRECT_RX_QUEUE);
  if (load<u32>(state, DIRECT_RX_QUEUE) != <u32> q) return;
  const room = min(load<u32>(rx, Q_SIZE) - 1 - there, <u32> BATCH_FRAMES);
  const n = load<u32>(q, Q_FLAVOUR) == FLAVOUR_PACKED ? offerPacked(rx, q, room) : offerSplit(rx, q, room);
  spend(n * UNITS_DESCRIPTOR);
}

/** Puts the guest's buffer into the next slot. Whoever has been quicker has put a frame into the slot's host buffer. */
@inline
function offerOne(rx: usize, pointer: usize, bytes: u32, id: u32, places: u32): void {
  const state = stateOf(rx);
  const slot = load<u32>(state, DIRECT_OFFERED);
  const book = rxBook(state, slot);
  store<u64>(book, <u64> (<u32> pointer) | (<u64> bytes << 32));
  store<u64>(book, <u64> id | (<u64> places << 32), 8);
  store<u64>(descriptorAt(rx, slot), <u64> pointer | (<u64> postedBytes(book) << <u64> ADV_DIRECT_ADDRESS_BITS) | MARK);
  store<u32>(state, (slot + 1) & (load<u32>(rx, Q_SIZE) - 1), DIRECT_OFFERED);
}

function offerSplit(rx: usize, q: usize, room: u32): u32 {
  const waiting = pendingSplit(q);
  if (waiting > load<u32>(q, Q_SIZE)) {
    failQueue(q, BAD_AVAIL_IDX, waiting);
    return 0;
  }
  const mask = load<u32>(q, Q_SIZE) - 1;
  const table: usize = load<u32>(q, Q_DESC);
  const last = load<u32>(q, Q_LAST_AVAIL);
  const most = min(waiting, room);
  let n: u32 = 0;
  for (; n < most; n++) {
    const head = availHead(q, last + n);
    const descriptor: usize = table + ((head & mask) << 4);
    const iova = load<u64>(descriptor);
    const meta = load<u64>(descriptor, 8);
    const bytes = <u32> meta;
    const isPlain = head <= mask && (<u32> (meta >> 32) & 0xffff) == VIRTQ_DESC_F_WRITE && bytes >= HOST_BYTES;
    const pointer = isPlain ? remembered(q, iova, bytes) : 0;
    if (pointer != 0) offerOne(rx, pointer, bytes, head, 1);
    else if (!offerChain(rx, q, last + n, (last + n) & 0xffff)) break;
  }
  store<u32>(q, last + n, Q_LAST_AVAIL);
  return n;
}

function offerPacked(rx: usize, q: usize, room: u32): u32 {
  const ring: usize = load<u32>(q, Q_DESC);
  let n: u32 = 0;
  for (; n < room; n++) {
    const slot = load<u32>(q, Q_LAST_AVAIL);
    const wrap = load<u32>(q, Q_WRAP) & WRAP_AVAIL;
    const position = slot | (wrap << 16);
    const meta = metaOf(q, slot);
    const bytes = <u32> meta;
    const isPlain = <u32> (meta >> 48) == (availableFlags(wrap) | VIRTQ_DESC_F_WRITE) && bytes >= HOST_BYTES;
    const pointer = isPlain ? remembered(q, load<u64>(ring + slot * VIRTQ_DESC_BYTES), bytes) : 0;
    if (pointer != 0) {
      offerOne(rx, pointer, bytes, <u32> (meta >> 32) & 0xffff, 1);
      advanceAvail(q, 1);
    } else {
      if (!isAvailable(q, position) || !offerChain(rx, q, position, position)) break;
      advanceAvail(q, load<u32>(batch(), B_CHAIN_DESCRIPTORS));
    }
  }
  return n;
}

/**
 * Offers the chain at `position`, if it is one piece that is large enough. `name` is the position's, for the memory that
 * it is not: so it is walked once, and not with every frame. What breaks the protocol is found out by the frame for it.
 */
function offerChain(rx: usize, q: usize, position: u32, name: u32): bool {
  const state = stateOf(rx);
  if (load<u32>(state, DIRECT_STUCK) == name + 1) return false;
  store<u32>(state, name + 1, DIRECT_STUCK);
  if (walk(q, position, 0, true, RX_WALK_MAX) != OK) return false;
  const bytes = load<u64>(batch(), B_CHAIN_BYTES);
  if (load<u32>(batch(), B_CHAIN_SEGMENTS) != 1 || bytes < HOST_BYTES) return false;
  if (load<u32>(batch(), B_CHAIN_DESCRIPTORS) > load<u32>(q, Q_SIZE)) return false;
  const pointer: usize = load<u32>(context + RX_SEGMENTS);
  offerOne(rx, pointer, <u32> bytes, load<u32>(batch(), B_CHAIN_ID), load<u32>(batch(), B_CHAIN_DESCRIPTORS));
  store<u32>(state, 0, DIRECT_STUCK);
  return true;
}
