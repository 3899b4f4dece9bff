/**
 * Where a queue's rings lie and where it begins. Only called while the engine stands still, so nothing here is quick;
 * all that a driver says is checked before a queue runs.
 */
import {
  ADV_DESC_ALIGN,
  ADV_DESC_BYTES,
  ADV_REG_HEAD,
  ADV_REG_NEXT,
  ADV_REG_POSITION,
} from "../../../shared/layout/advanced.ts";
import { forgetLatency } from "../schedule/latency.ts";
import {
  BAD_AVAIL_IDX,
  BAD_TAIL,
  FLAVOUR_ADVANCED,
  FLAVOUR_PACKED,
  OK,
  PERM_READ,
  PERM_WRITE,
  QUEUE_F_IN_ORDER,
  QUEUE_RUNNING,
  Q_AVAIL,
  Q_AVAIL_IOVA,
  Q_DESC,
  Q_DESC_IOVA,
  Q_FIRST_SLOT,
  Q_FLAVOUR,
  Q_FLAGS,
  Q_INFLIGHT,
  Q_INFLIGHT_IOVA,
  Q_LAST_AVAIL,
  Q_REGISTERS,
  Q_SIGNALLED,
  Q_SIZE,
  Q_STATE,
  Q_USED,
  Q_USED_IDX,
  Q_USED_IOVA,
  Q_WRAP,
  RING_UNMAPPED,
  WRAP_AVAIL,
  WRAP_SIGNALLED,
  WRAP_USED,
} from "../../../shared/layout/nic.ts";
import { INFLIGHT_PACKED_HEADER_BYTES, INFLIGHT_SPLIT_HEADER_BYTES } from "../../../shared/layout/inflight.ts";
import {
  VIRTQ_AVAIL_ALIGN,
  VIRTQ_AVAIL_RING,
  VIRTQ_DESC_ALIGN,
  VIRTQ_DESC_BYTES,
  VIRTQ_EVENT_ALIGN,
  VIRTQ_EVENT_BYTES,
  VIRTQ_USED_ALIGN,
  VIRTQ_USED_ELEM_BYTES,
  VIRTQ_USED_IDX,
  VIRTQ_USED_RING,
} from "../../../shared/layout/virtio.ts";
import { disarmAdvanced, pendingAdvanced } from "./advanced.ts";
import { clearContexts } from "./advanced_context.ts";
import { translateWhole } from "./domain.ts";
import { pending, pendingUpTo } from "./format.ts";
import { beginPacked, beginSplit } from "./inflight.ts";
import { disarmPacked, NO_SLOT, positionPacked } from "./packed.ts";
import { availIdx, disarmSplitAtStart } from "./split.ts";

/** Finds the rings of `q` from their IOVAs: OK, or RING_UNMAPPED with nothing changed. */
export function bindRings(q: usize): u32 {
  const size = load<u32>(q, Q_SIZE);
  const flavour = load<u32>(q, Q_FLAVOUR);
  if (flavour == FLAVOUR_ADVANCED) {
    const ring = translateWhole(q, load<u64>(q, Q_DESC_IOVA), size * ADV_DESC_BYTES, PERM_READ | PERM_WRITE);
    if (ring == 0 || ring % ADV_DESC_ALIGN != 0) return RING_UNMAPPED;
    store<u32>(q, <u32> ring, Q_DESC);
    return OK;
  }
  const packed = flavour == FLAVOUR_PACKED;
  const descPerm: u32 = packed ? PERM_READ | PERM_WRITE : PERM_READ;
  // A split ring's two rings end with an event index, which is there only with EVENT_IDX but is accounted for always.
  const availBytes = packed ? VIRTQ_EVENT_BYTES : VIRTQ_AVAIL_RING + size * 2 + 2;
  const usedBytes = packed ? VIRTQ_EVENT_BYTES : VIRTQ_USED_RING + size * VIRTQ_USED_ELEM_BYTES + 2;
  const desc = translateWhole(q, load<u64>(q, Q_DESC_IOVA), size * VIRTQ_DESC_BYTES, descPerm);
  const avail = translateWhole(q, load<u64>(q, Q_AVAIL_IOVA), availBytes, PERM_READ);
  const used = translateWhole(q, load<u64>(q, Q_USED_IOVA), usedBytes, PERM_READ | PERM_WRITE);
  if (desc == 0 || avail == 0 || used == 0) return RING_UNMAPPED;
  const availAlign = packed ? VIRTQ_EVENT_ALIGN : VIRTQ_AVAIL_ALIGN;
  const usedAlign = packed ? VIRTQ_EVENT_ALIGN : VIRTQ_USED_ALIGN;
  const inflightIova = load<u64>(q, Q_INFLIGHT_IOVA);
  const inflightBytes = packed ? INFLIGHT_PACKED_HEADER_BYTES : INFLIGHT_SPLIT_HEADER_BYTES;
  const inflight = inflightIova == 0 ? 0 : translateWhole(q, inflightIova, inflightBytes, PERM_READ | PERM_WRITE);
  if (inflightIova != 0 && inflight == 0) return RING_UNMAPPED;
  if (desc % VIRTQ_DESC_ALIGN != 0 || avail % availAlign != 0 || used % usedAlign != 0) return RING_UNMAPPED;
  store<u32>(q, <u32> desc, Q_DESC);
  store<u32>(q, <u32> avail, Q_AVAIL);
  store<u32>(q, <u32> used, Q_USED);
  store<u32>(q, <u32> inflight, Q_INFLIGHT);
  return OK;
}

/**
 * Starts `q`, whose size, flavour, ring IOVAs, flags and header size are set, at `position`. The used index of a split
 * ring is the ring's own: it is where the driver expects the next element (virtio 1.2 §2.7.8). With -1 the queue goes on
 * there too, which is right after a crash, since the engine returns what it takes in the same burst. An advanced ring
 * has its position in the head register, which its driver could have written: it is checked like everything else. A
 * packed ring's position is always given, as SET_VRING_BASE has it.
 */
export function startQueue(q: usize, position: i32): u32 {
  forgetLatency(q);
  const verdict = bindRings(q);
  if (verdict != OK) return verdict;
  const flavour = load<u32>(q, Q_FLAVOUR);
  if (flavour == FLAVOUR_ADVANCED) return startAdvanced(q, position);
  return flavour == FLAVOUR_PACKED ? startPacked(q, position) : startSplit(q, position);
}

function startSplit(q: usize, position: i32): u32 {
  const usedIdx: u32 = atomic.load<u16>(load<u32>(q, Q_USED) + VIRTQ_USED_IDX);
  const base: u32 = position < 0 ? usedIdx : position;
  store<u32>(q, base & 0xffff, Q_LAST_AVAIL);
  store<u32>(q, usedIdx, Q_USED_IDX);
  store<u32>(q, usedIdx, Q_SIGNALLED);
  beginSplit(q);
  if (((availIdx(q) - base) & 0xffff) > load<u32>(q, Q_SIZE)) return BAD_AVAIL_IDX;
  disarmSplitAtStart(q);
  atomic.store<u32>(q + Q_STATE, QUEUE_RUNNING);
  return OK;
}

/** Starts a packed queue whose rings are bound. */
export function startPacked(q: usize, position: u32): u32 {
  let avail = position & 0xffff;
  // DPDK's front-end sends the available half alone, and 0 above it. That cannot be slot 0 with wrap counter 0: with an
  // available wrap counter of 1 more descriptors would be in flight than there are.
  const used = position >> 16 == 0 && (avail & 0x8000) != 0 ? avail : position >> 16;
  // With IN_ORDER, descriptors that were taken and not returned are taken again.
  if ((load<u32>(q, Q_FLAGS) & QUEUE_F_IN_ORDER) != 0) avail = used;
  const size = load<u32>(q, Q_SIZE);
  if ((avail & 0x7fff) >= size || (used & 0x7fff) >= size) return BAD_AVAIL_IDX;
  store<u32>(q, avail & 0x7fff, Q_LAST_AVAIL);
  store<u32>(q, used & 0x7fff, Q_USED_IDX);
  store<u32>(q, used & 0x7fff, Q_SIGNALLED);
  const wraps: u32 = (avail & 0x8000 ? <u32> WRAP_AVAIL : 0) | (used & 0x8000 ? <u32> (WRAP_USED | WRAP_SIGNALLED) : 0);
  store<u32>(q, wraps, Q_WRAP);
  store<u32>(q, NO_SLOT, Q_FIRST_SLOT);
  const registers: usize = load<u32>(q, Q_REGISTERS);
  if (registers != 0) {
    store<u32>(registers, positionPacked(q), ADV_REG_NEXT);
    store<u32>(registers, positionPacked(q), ADV_REG_POSITION);
  }
  beginPacked(q);
  disarmPacked(q);
  atomic.store<u32>(q + Q_STATE, QUEUE_RUNNING);
  return OK;
}

function startAdvanced(q: usize, position: i32): u32 {
  const registers: usize = load<u32>(q, Q_REGISTERS);
  const size = load<u32>(q, Q_SIZE);
  const head: u32 = position < 0 ? atomic.load<u32>(registers + ADV_REG_HEAD) : position;
  if (head >= size) return BAD_TAIL;
  store<u32>(q, head, Q_LAST_AVAIL);
  store<u32>(q, head, Q_SIGNALLED);
  if (pendingAdvanced(q) >= size) return BAD_TAIL;
  atomic.store<u32>(registers + ADV_REG_HEAD, head);
  clearContexts(q);
  disarmAdvanced(q);
  atomic.store<u32>(q + Q_STATE, QUEUE_RUNNING);
  return OK;
}

/** Where a queue goes on: what `startQueue` takes. */
export function positionOf(q: usize): u32 {
  if (load<u32>(q, Q_FLAVOUR) == FLAVOUR_PACKED) return positionPacked(q);
  return load<u32>(q, Q_LAST_AVAIL) & 0xffff;
}

/** Descriptors that the driver of `q` has offered and nobody has taken; 0 if it lies. */
export function unfetched(q: usize): u32 {
  const size = load<u32>(q, Q_SIZE);
  return load<u32>(q, Q_STATE) != QUEUE_RUNNING || pending(q) > size ? 0 : pendingUpTo(q, size);
}
