/**
 * The device side of an advanced ring (82599 datasheet §7.1.5, §7.2.3). The driver owns the doorbell and the read
 * format of its descriptors and may rewrite both at any time: each field is loaded once, checked, and the copy is used.
 * The tail moves over whole frames: one without an end at the tail is malformed, not unfinished.
 */
import {
  ADV_CHAIN_MAX,
  ADV_DESC_BYTES,
  ADV_REG_ARMED,
  ADV_REG_HEAD,
  ADV_REG_INTERRUPT,
  ADV_REG_TAIL,
  ADV_TXD_DCMD_DEXT,
  ADV_TXD_DCMD_EOP,
  ADV_TXD_DCMD_RS,
  ADV_TXD_DCMD_TSE,
  ADV_TXD_DCMD_VLE,
  ADV_TXD_DTALEN_MASK,
  ADV_TXD_DTYP_CTXT,
  ADV_TXD_DTYP_DATA,
  ADV_TXD_DTYP_MASK,
  ADV_TXD_POPTS_MASK,
  ADV_TXD_STAT_DD,
} from "../../shared/layout/advanced.ts";
import {
  BAD_ADDRESS,
  BAD_CHAIN_LENGTH,
  BAD_DESCRIPTOR,
  OK,
  PERM_READ,
  Q_DESC,
  Q_LAST_AVAIL,
  Q_REGISTERS,
  Q_SIZE,
} from "../../shared/layout/nic.ts";
import { raiseCall } from "./interrupts.ts";
import { appendBuffer, setBadDetail } from "./segments.ts";

/** What `pendingAdvanced` answers for a doorbell beyond the ring. */
export const TAIL_INVALID: u32 = 0xffffffff;

/** Descriptors between head and tail, or TAIL_INVALID. */
@inline
export function pendingAdvanced(q: usize): u32 {
  const tail = atomic.load<u32>(load<u32>(q, Q_REGISTERS) + ADV_REG_TAIL);
  const size = load<u32>(q, Q_SIZE);
  if (tail >= size) return TAIL_INVALID;
  return (tail - load<u32>(q, Q_LAST_AVAIL)) & (size - 1);
}

/** What the last `gatherAdvanced` found: descriptors, bytes, which of them want a report, whether it asks for offloads. */
export let advancedLength: u32 = 0;
export let advancedBytes: u64 = 0;
export let advancedOffload: bool = false;
let reportMask: u64 = 0;

/**
 * Appends the segments of the frame at the head to `list`, of at most `pending` descriptors. Answers OK or the reason
 * to stop the queue. Context descriptors are taken and have no effect: a frame that wants what they set is refused.
 */
export function gatherAdvanced(q: usize, list: usize, pending: u32): u32 {
  const mask = load<u32>(q, Q_SIZE) - 1;
  const ring: usize = load<u32>(q, Q_DESC);
  const head = load<u32>(q, Q_LAST_AVAIL);
  advancedLength = 0;
  advancedBytes = 0;
  advancedOffload = false;
  reportMask = 0;
  while (advancedLength < pending) {
    if (advancedLength == <u32> ADV_CHAIN_MAX) return BAD_CHAIN_LENGTH;
    const index = (head + advancedLength) & mask;
    const descriptor = ring + index * ADV_DESC_BYTES;
    const iova = load<u64>(descriptor);
    const meta = load<u64>(descriptor, 8);
    const command = <u32> meta;
    const type = command & <u32> ADV_TXD_DTYP_MASK;
    setBadDetail(index);
    if (command & ADV_TXD_DCMD_RS) reportMask |= <u64> 1 << <u64> advancedLength;
    advancedLength++;
    if ((command & ADV_TXD_DCMD_DEXT) == 0) return BAD_DESCRIPTOR;
    if (type == <u32> ADV_TXD_DTYP_CTXT) continue;
    if (type != <u32> ADV_TXD_DTYP_DATA) return BAD_DESCRIPTOR;
    if ((command & <u32> (ADV_TXD_DCMD_TSE | ADV_TXD_DCMD_VLE)) != 0) advancedOffload = true;
    if (<u32> (meta >> 32) & ADV_TXD_POPTS_MASK) advancedOffload = true;
    const length = command & ADV_TXD_DTALEN_MASK;
    if (!appendBuffer(q, list, iova, length, PERM_READ)) {
      setBadDetail(iova);
      return BAD_ADDRESS;
    }
    advancedBytes += length;
    if (command & ADV_TXD_DCMD_EOP) return OK;
  }
  return BAD_DESCRIPTOR;
}

/** Gives the descriptors of the gathered frame back: those that asked for it say so (DD). */
export function completeAdvanced(q: usize): void {
  const mask = load<u32>(q, Q_SIZE) - 1;
  const ring: usize = load<u32>(q, Q_DESC);
  const head = load<u32>(q, Q_LAST_AVAIL);
  for (let i: u32 = 0; i < advancedLength; i++) {
    if (((reportMask >> <u64> i) & 1) == 0) continue;
    store<u32>(ring + ((head + i) & mask) * ADV_DESC_BYTES, ADV_TXD_STAT_DD, 12);
  }
  store<u32>(q, (head + advancedLength) & mask, Q_LAST_AVAIL);
}

/** Moves the head register and raises the interrupt that the driver asked for, once a burst. */
export function publishAdvanced(q: usize): void {
  const registers: usize = load<u32>(q, Q_REGISTERS);
  atomic.store<u32>(registers + ADV_REG_HEAD, load<u32>(q, Q_LAST_AVAIL));
  // Only a 1 counts; the driver arms again after each interrupt (auto-mask, §7.3.1.4).
  if (atomic.load<u32>(registers + ADV_REG_INTERRUPT) != 1) return;
  atomic.store<u32>(registers + ADV_REG_INTERRUPT, 0);
  raiseCall(q);
}

/** Asks the driver to kick at its next doorbell; true if it has moved the tail meanwhile. */
export function armAdvanced(q: usize): bool {
  atomic.store<u32>(load<u32>(q, Q_REGISTERS) + ADV_REG_ARMED, 1);
  return pendingAdvanced(q) != 0;
}

/** Tells the driver that its doorbells are seen without kicks. */
export function disarmAdvanced(q: usize): void {
  atomic.store<u32>(load<u32>(q, Q_REGISTERS) + ADV_REG_ARMED, 0);
}
