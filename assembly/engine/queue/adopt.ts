/**
 * Queues of an engine that has ended, perhaps in the middle of a batch. Its state lies in memory that outlives it, so its
 * successor goes on with the same queues at the same positions: everything of a batch that was being published
 * (B_COMMIT) is published to its end, and nothing of any other batch has happened.
 *
 * The successor has other windows, so what points into one is found again: rings by their addresses, staged descriptors by
 * their distance from the ring.
 */
import { ADV_REG_HEAD, ADV_REG_POSITION } from "../../../shared/layout/advanced.ts";
import {
  B_COMMIT,
  B_COMMIT_BUFFER,
  B_DIRTY,
  B_GROUPS,
  B_STAGED,
  B_WRITING,
  BAD_DESCRIPTOR,
  FLAVOUR_ADVANCED,
  FLAVOUR_DRIVER_RX,
  FLAVOUR_DRIVER_TX,
  FLAVOUR_PACKED,
  HEAT_NONE,
  OK,
  Q_CALL_PENDING,
  Q_DEFERRED_AT,
  Q_DEFERRED_FRAMES,
  Q_DEFERRED_UNTIL_NS,
  Q_DESC,
  Q_DIRTY,
  Q_FIRST_SLOT,
  Q_FIRST_USED,
  Q_FLAVOUR,
  Q_GROUP,
  Q_HEAT,
  Q_LAST_AVAIL,
  Q_REGISTERS,
  Q_SIGNALLED,
  Q_SIZE,
  Q_STATE,
  Q_USED,
  Q_USED_IDX,
  QUEUE_RUNNING,
  RING_UNMAPPED,
  STAGED,
  STAGED_STRIDE,
} from "../../../shared/layout/nic.ts";
import { VIRTQ_DESC_BYTES, VIRTQ_PACKED_DESC_LEN, VIRTQ_USED_IDX } from "../../../shared/layout/virtio.ts";
import { batch, context } from "../context.ts";
import { forgetRegions } from "./domain.ts";
import { adoptDriver } from "./driver.ts";
import { disarm } from "./format.ts";
import { NO_SLOT, positionPacked } from "./packed.ts";
import { bindRings, startPacked } from "./start.ts";

/**
 * Has queue `q` of an engine that has ended go on. OK; RING_UNMAPPED if its rings are not in its domain; BAD_DESCRIPTOR
 * if the engine ended while an advanced ring's descriptors were being written back, one by one: how far its driver has
 * seen them nobody knows, and it has to begin anew.
 */
export function adoptQueue(q: usize): u32 {
  const isCommitted = load<u32>(batch(), B_COMMIT) != 0 && load<u32>(q, Q_DIRTY) != 0;
  const ringBefore = load<u32>(q, Q_DESC);
  store<u32>(q, 0, Q_DIRTY);
  store<u32>(q, 0, Q_GROUP);
  store<u32>(q, 0, Q_CALL_PENDING);
  store<f64>(q, 0, Q_DEFERRED_UNTIL_NS);
  store<u64>(q, 0, Q_DEFERRED_FRAMES);
  store<u32>(q, 0, Q_DEFERRED_AT);
  store<u32>(q, HEAT_NONE, Q_HEAT);
  const flavour = load<u32>(q, Q_FLAVOUR);
  if (flavour == FLAVOUR_DRIVER_RX || flavour == FLAVOUR_DRIVER_TX) {
    adoptDriver(q, isCommitted);
    return OK;
  }
  forgetRegions(q);
  if (bindRings(q) != OK) return RING_UNMAPPED;
  if (load<u32>(q, Q_STATE) != QUEUE_RUNNING) return OK;
  if (flavour == FLAVOUR_ADVANCED) return adoptAdvanced(q);
  if (flavour == FLAVOUR_PACKED) return adoptPacked(q, ringBefore, isCommitted);
  adoptSplit(q, isCommitted);
  return OK;
}

/** What the engine takes of a split ring it gives back in the same batch, so one index is both positions. */
function adoptSplit(q: usize, isCommitted: bool): void {
  const usedIdx: usize = load<u32>(q, Q_USED) + VIRTQ_USED_IDX;
  if (isCommitted) atomic.store<u16>(usedIdx, <u16> load<u32>(q, Q_USED_IDX));
  const position: u32 = atomic.load<u16>(usedIdx);
  store<u32>(q, position, Q_LAST_AVAIL);
  store<u32>(q, position, Q_USED_IDX);
  store<u32>(q, position, Q_SIGNALLED);
  disarm(q);
}

/** The position of a packed ring is kept where it was published last: in its register, or in the device's area. */
function adoptPacked(q: usize, ringBefore: u32, isCommitted: bool): u32 {
  if (isCommitted) {
    publishStaged(q, ringBefore);
    return startPacked(q, positionPacked(q));
  }
  const registers: usize = load<u32>(q, Q_REGISTERS);
  if (registers != 0) return startPacked(q, load<u32>(registers, ADV_REG_POSITION));
  const half: u32 = load<u16>(load<u32>(q, Q_USED));
  return startPacked(q, half | (half << 16));
}

/** Writes the used descriptors of `q` that were still kept, the first one of its burst last. */
function publishStaged(q: usize, ringBefore: u32): void {
  const ring: usize = load<u32>(q, Q_DESC);
  const bytes = load<u32>(q, Q_SIZE) * VIRTQ_DESC_BYTES;
  const n = load<u32>(batch(), B_STAGED);
  let entry = context + STAGED;
  for (let i: u32 = 0; i < n; i++, entry += STAGED_STRIDE) {
    const distance = load<u32>(entry) - ringBefore;
    if (distance < bytes) store<u64>(ring + distance, load<u64>(entry, 8));
  }
  const first = load<u32>(q, Q_FIRST_SLOT);
  if (first == NO_SLOT) return;
  atomic.store<u64>(ring + first * VIRTQ_DESC_BYTES + VIRTQ_PACKED_DESC_LEN, load<u64>(q, Q_FIRST_USED));
  store<u32>(q, NO_SLOT, Q_FIRST_SLOT);
}

/** An advanced ring's driver has seen what was written back; the head register may lag behind. */
function adoptAdvanced(q: usize): u32 {
  if (load<u32>(batch(), B_WRITING) == <u32> q) return BAD_DESCRIPTOR;
  const head = load<u32>(q, Q_LAST_AVAIL);
  atomic.store<u32>(load<u32>(q, Q_REGISTERS) + ADV_REG_HEAD, head);
  store<u32>(q, head, Q_SIGNALLED);
  disarm(q);
  return OK;
}

/** All queues go on: the batch in which the engine ended is over. */
export function endAdoption(): void {
  store<u64>(batch(), 0, B_GROUPS);
  store<u32>(batch(), 0, B_DIRTY);
  store<u32>(batch(), 0, B_STAGED);
  store<u32>(batch(), 0, B_WRITING);
  store<u32>(batch(), 0, B_COMMIT_BUFFER);
  store<u32>(batch(), 0, B_COMMIT);
}
