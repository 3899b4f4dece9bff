/**
 * Packed queues after the death of the engine that served them. Their position lies in the register page, which outlives
 * it: POSITION is where the driver looks next, NEXT where the burst ends that was being published.
 */
import { BAD_AVAIL_IDX, OK, Q_DESC, Q_HDR_BYTES, Q_INFLIGHT, Q_SIZE, Q_USED } from "../../../shared/layout/nic.ts";
import {
  VIRTQ_DESC_BYTES,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
  VIRTQ_PACKED_BASE_INITIAL,
  VIRTQ_PACKED_DESC_F_USED,
  VIRTQ_PACKED_DESC_LEN,
} from "../../../shared/layout/virtio.ts";
import { INFLIGHT_PACKED_POSITION } from "../../../shared/layout/inflight.ts";
import { hasPosition } from "./inflight.ts";
import { isUsedAt, metaOf, OWNER_FLAGS, positionAfter } from "./packed.ts";
import { bindRings, startPacked } from "./start.ts";

/**
 * Starts the packed queue `q` of an engine that died. There are three cases:
 *
 * 1. The descriptor at POSITION is used: the burst was published, and the queue goes on at NEXT.
 * 2. None between POSITION and NEXT is used: nothing was written, and the queue goes on at POSITION.
 * 3. Some are, but not the first: the rest is written as empty frames, the first one last, and the queue goes on at NEXT.
 *    Otherwise the driver would meet used descriptors where this engine is going to put others.
 */
export function continueQueue(q: usize, position: u32, next: u32): u32 {
  const verdict = bindRings(q);
  if (verdict != OK) return verdict;
  const size = load<u32>(q, Q_SIZE);
  const first = usedHalf(position);
  const end = usedHalf(next);
  if ((first & 0xffff) >= size || (end & 0xffff) >= size) return BAD_AVAIL_IDX;
  if (!isUsedAt(q, first)) {
    if (!isBegun(q, first, end)) return startPacked(q, position);
    finish(q, first, end);
  }
  return startPacked(q, next);
}

/**
 * Starts the packed queue `q` of a front-end that lost its back-end. QEMU says where the ring began when it was started
 * last (`base`), not where it is. `kept` is the position that the last engine kept, as SET_VRING_BASE has it; -1: it
 * lies in the device area. It is in force if the ring contradicts `base` and not `kept`. A driver that has begun its
 * ring anew has no descriptor in it with the USED bit.
 */
export function resumeQueue(q: usize, base: u32, kept: i32): u32 {
  const verdict = bindRings(q);
  if (verdict != OK) return verdict;
  const given = base >> 16 == 0 && (base & 0x8000) != 0 ? base & 0xffff : base >> 16;
  const half: u32 = kept == -1 ? <u32> load<u16>(load<u32>(q, Q_USED)) : <u32> kept >> 16;
  return startPacked(q, !isLikely(q, given) && isPossible(q, half) ? half | (half << 16) : base);
}

/**
 * As `resumeQueue`, for a front-end that has kept inflight memory: the last engine has left in it where the ring stood
 * before the burst that it was publishing, and behind it. Each is in force if the ring can be there.
 */
export function resumeInflight(q: usize, base: u32, kept: i32): u32 {
  const verdict = bindRings(q);
  if (verdict != OK) return verdict;
  const inflight: usize = load<u32>(q, Q_INFLIGHT);
  if (!hasPosition(inflight)) return resumeQueue(q, base, kept);
  // At its beginning: the driver has begun it anew, or this is the end of an even lap, which is the same position.
  if (!hasUsedBit(q, 0, load<u32>(q, Q_SIZE))) return startPacked(q, <u32> VIRTQ_PACKED_BASE_INITIAL);
  const position = load<u64>(inflight, INFLIGHT_PACKED_POSITION);
  const before = halfOf(<u32> (position >> 16) & 0xffff, <u32> (position >> 40) & 0xff);
  const behind = halfOf(<u32> position & 0xffff, <u32> (position >> 32) & 0xff);
  if (isPossible(q, before)) return continueQueue(q, before | (before << 16), behind | (behind << 16));
  if (isPossible(q, behind)) return startPacked(q, behind | (behind << 16));
  return resumeQueue(q, base, kept);
}

/** A slot, which may be none, and its wrap counter in bit 15. */
function halfOf(slot: u32, wrap: u32): u32 {
  return (slot & 0x7fff) | (wrap != 0 ? 0x8000 : 0);
}

/** Whether a descriptor from slot `from` to `end` has its USED bit. */
function hasUsedBit(q: usize, from: u32, end: u32): bool {
  for (let at = from; at < end; at++) {
    if ((<u32> (metaOf(q, at) >> 48) & VIRTQ_PACKED_DESC_F_USED) != 0) return true;
  }
  return false;
}

/**
 * Whether a ring looks as it does at `half`: a slot, and its wrap counter in bit 15. At its beginning nothing has been
 * used. Later some descriptor before the slot has been, with wrap counter 1; with 0, some from the slot on was in the lap
 * before; and the one at the slot is not used yet.
 */
function isLikely(q: usize, half: u32): bool {
  const size = load<u32>(q, Q_SIZE);
  const slot = half & 0x7fff;
  if (slot >= size) return false;
  const wrap = half >> 15 != 0;
  if (wrap && slot == 0) return !hasUsedBit(q, 0, size);
  const isUsed = (<u32> (metaOf(q, slot) >> 48) & VIRTQ_PACKED_DESC_F_USED) != 0;
  return isUsed != wrap && hasUsedBit(q, wrap ? 0 : slot, wrap ? slot : size);
}

/** Whether a ring can be at `half`: it was not begun anew, and the descriptor there is not used yet. */
function isPossible(q: usize, half: u32): bool {
  const size = load<u32>(q, Q_SIZE);
  const slot = half & 0x7fff;
  return slot < size && hasUsedBit(q, 0, size) && !isUsedAt(q, slot | ((half >> 15) << 16));
}

/** The used half of a position as SET_VRING_BASE has it: a slot, and its wrap counter << 16. */
@inline
function usedHalf(position: u32): u32 {
  return ((position >> 16) & 0x7fff) | ((position >> 31) << 16);
}

/** Whether a descriptor between the first one and the end of the burst is used. */
function isBegun(q: usize, first: u32, end: u32): bool {
  if (first == end) return false;
  const size = load<u32>(q, Q_SIZE);
  let at = positionAfter(q, first, 1);
  for (let i: u32 = 0; i < size && at != end; i++) {
    if (isUsedAt(q, at)) return true;
    at = positionAfter(q, at, 1);
  }
  return false;
}

/**
 * Gives back what the burst had not yet: as frames that hold nothing, since their lengths are lost, which drivers drop.
 * The first descriptor comes last: it hides the others.
 */
function finish(q: usize, first: u32, end: u32): void {
  const size = load<u32>(q, Q_SIZE);
  let firstElement: u64 = 0;
  let at = first;
  for (let i: u32 = 0; i < size && at != end;) {
    if (at != first && isUsedAt(q, at)) {
      at = positionAfter(q, at, 1);
      i++;
      continue;
    }
    let last = at;
    let n: u32 = 1;
    while ((<u32> (metaOf(q, last & 0xffff) >> 48) & VIRTQ_DESC_F_NEXT) != 0 && i + n < size) {
      last = positionAfter(q, last, 1);
      n++;
    }
    const element = emptied(q, at, <u32> (metaOf(q, last & 0xffff) >> 32) & 0xffff);
    if (at == first) firstElement = element;
    else atomic.store<u64>(metaAt(q, at), element);
    at = positionAfter(q, at, n);
    i += n;
  }
  atomic.store<u64>(metaAt(q, first), firstElement);
}

/** The used descriptor that gives the chain `id`, which begins at `at`, back with nothing in it but a header. */
function emptied(q: usize, at: u32, id: u32): u64 {
  const writable = <u32> (metaOf(q, at & 0xffff) >> 48) & VIRTQ_DESC_F_WRITE;
  const owner: u32 = at >> 16 != 0 ? OWNER_FLAGS : 0;
  const length: u32 = writable != 0 ? load<u32>(q, Q_HDR_BYTES) : 0;
  return <u64> length | (<u64> id << 32) | (<u64> (owner | writable) << 48);
}

@inline
function metaAt(q: usize, at: u32): usize {
  return load<u32>(q, Q_DESC) + (at & 0xffff) * VIRTQ_DESC_BYTES + VIRTQ_PACKED_DESC_LEN;
}
