/**
 * Where a queue's rings lie and where it begins. Only called while the engine stands still, so nothing here is quick;
 * all that a driver says is checked before a queue runs.
 */
import {
  ADV_DESC_ALIGN,
  ADV_DESC_BYTES,
  ADV_REG_HEAD,
} from "../../shared/layout/advanced.ts";
import {
  BAD_AVAIL_IDX,
  BAD_TAIL,
  OK,
  PERM_READ,
  PERM_WRITE,
  Q_AVAIL,
  Q_AVAIL_IOVA,
  Q_DESC,
  Q_DESC_IOVA,
  Q_LAST_AVAIL,
  Q_REGION_SIZE,
  Q_REGISTERS,
  Q_RUN_RX,
  Q_SIGNALLED,
  Q_SIZE,
  Q_STATE,
  Q_USED,
  Q_USED_IDX,
  Q_USED_IOVA,
  QUEUE_RUNNING,
  RING_UNMAPPED,
} from "../../shared/layout/nic.ts";
import {
  VIRTQ_AVAIL_ALIGN,
  VIRTQ_AVAIL_RING,
  VIRTQ_DESC_ALIGN,
  VIRTQ_DESC_BYTES,
  VIRTQ_USED_ALIGN,
  VIRTQ_USED_ELEM_BYTES,
  VIRTQ_USED_IDX,
  VIRTQ_USED_RING,
} from "../../shared/layout/virtio.ts";
import { disarmAdvanced, pendingAdvanced } from "./advanced_ring.ts";
import { translateWhole } from "./domain.ts";
import { isAdvanced } from "./ring.ts";
import { availIdx, disarmKickAtStart } from "./split_ring.ts";

/** Finds the rings of `q` from their IOVAs: OK, or RING_UNMAPPED with nothing changed. */
export function bindRings(q: usize): u32 {
  const size = load<u32>(q, Q_SIZE);
  if (isAdvanced(q)) {
    const ring = translateWhole(q, load<u64>(q, Q_DESC_IOVA), size * ADV_DESC_BYTES, PERM_READ | PERM_WRITE);
    if (ring == 0 || ring % ADV_DESC_ALIGN != 0) return RING_UNMAPPED;
    store<u32>(q, <u32> ring, Q_DESC);
    return OK;
  }
  const desc = translateWhole(q, load<u64>(q, Q_DESC_IOVA), size * VIRTQ_DESC_BYTES, PERM_READ);
  // Both rings end with an event index, which is there only with EVENT_IDX but is accounted for always.
  const avail = translateWhole(q, load<u64>(q, Q_AVAIL_IOVA), VIRTQ_AVAIL_RING + size * 2 + 2, PERM_READ);
  const usedBytes = VIRTQ_USED_RING + size * VIRTQ_USED_ELEM_BYTES + 2;
  const used = translateWhole(q, load<u64>(q, Q_USED_IOVA), usedBytes, PERM_READ | PERM_WRITE);
  if (desc == 0 || avail == 0 || used == 0) return RING_UNMAPPED;
  if (desc % VIRTQ_DESC_ALIGN != 0 || avail % VIRTQ_AVAIL_ALIGN != 0 || used % VIRTQ_USED_ALIGN != 0) {
    return RING_UNMAPPED;
  }
  store<u32>(q, <u32> desc, Q_DESC);
  store<u32>(q, <u32> avail, Q_AVAIL);
  store<u32>(q, <u32> used, Q_USED);
  return OK;
}

/**
 * Starts `q`, whose size, flavour, ring IOVAs, flags and header size are set, at `position`. The used index is
 * the ring's own: it is where the driver expects the next element (virtio 1.2 §2.7.8). With -1 the queue goes on there
 * too, which is right after a crash, since the engine returns what it takes in the same burst. An advanced ring has its
 * position in the head register, which its driver could have written: it is checked like everything else.
 */
export function startQueue(q: usize, position: i32): u32 {
  const verdict = bindRings(q);
  if (verdict != OK) return verdict;
  return isAdvanced(q) ? startAdvanced(q, position) : startSplit(q, position);
}

function startSplit(q: usize, position: i32): u32 {
  const usedIdx: u32 = atomic.load<u16>(load<u32>(q, Q_USED) + VIRTQ_USED_IDX);
  const base: u32 = position < 0 ? usedIdx : position;
  store<u32>(q, base & 0xffff, Q_LAST_AVAIL);
  store<u32>(q, usedIdx, Q_USED_IDX);
  store<u32>(q, usedIdx, Q_SIGNALLED);
  store<u32>(q, 0, Q_RUN_RX);
  if (((availIdx(q) - base) & 0xffff) > load<u32>(q, Q_SIZE)) return BAD_AVAIL_IDX;
  disarmKickAtStart(q);
  atomic.store<u32>(q + Q_STATE, QUEUE_RUNNING);
  return OK;
}

function startAdvanced(q: usize, position: i32): u32 {
  const registers: usize = load<u32>(q, Q_REGISTERS);
  const size = load<u32>(q, Q_SIZE);
  const head: u32 = position < 0 ? atomic.load<u32>(registers + ADV_REG_HEAD) : position;
  if (head >= size) return BAD_TAIL;
  store<u32>(q, head, Q_LAST_AVAIL);
  store<u32>(q, 0, Q_RUN_RX);
  if (pendingAdvanced(q) >= size) return BAD_TAIL;
  atomic.store<u32>(registers + ADV_REG_HEAD, head);
  disarmAdvanced(q);
  atomic.store<u32>(q + Q_STATE, QUEUE_RUNNING);
  return OK;
}

/** Forgets which region translated last, when the domain's memory changes. */
export function forgetRegion(q: usize): void {
  store<u64>(q, 0, Q_REGION_SIZE);
  store<u32>(q, 0, Q_RUN_RX);
}
