/**
 * The device side of an advanced ring (82599 datasheet §7.1.5, §7.2.3): doorbells, completions, interrupts. The driver
 * owns the doorbell and may write anything there at any time; it is read once and checked.
 */
import {
  ADV_DESC_BYTES,
  ADV_REG_ARMED,
  ADV_REG_HEAD,
  ADV_REG_INTERRUPT,
  ADV_REG_TAIL,
  ADV_TXD_STAT_DD,
} from "../../../shared/layout/advanced.ts";
import {
  Q_DESC,
  Q_LAST_AVAIL,
  Q_REGISTERS,
  Q_SIGNALLED,
  Q_SIZE,
  R_CONTEXTS,
  R_DESCRIPTORS,
  R_REPORT,
  RECORD_STRIDE,
} from "../../../shared/layout/nic.ts";
import { recordAt } from "../batch/record.ts";
import { setContexts } from "./advanced_context.ts";
import { interrupt } from "./coalesce.ts";

/** What `pendingAdvanced` answers for a doorbell beyond the ring. */
export const TAIL_INVALID: u32 = 0xffffffff;

/** The driver's doorbell, which may hold anything. */
@inline
export function tailOf(q: usize): u32 {
  return atomic.load<u32>(load<u32>(q, Q_REGISTERS) + ADV_REG_TAIL);
}

/** Descriptors between head and tail, or TAIL_INVALID. */
@inline
export function pendingAdvanced(q: usize): u32 {
  const tail = tailOf(q);
  const size = load<u32>(q, Q_SIZE);
  if (tail >= size) return TAIL_INVALID;
  return (tail - load<u32>(q, Q_LAST_AVAIL)) & (size - 1);
}

/** Gives the descriptors of the batch's first `n` frames back: those that asked for it say so (DD). */
export function completeAdvanced(q: usize, n: u32): void {
  const mask = load<u32>(q, Q_SIZE) - 1;
  const ring: usize = load<u32>(q, Q_DESC);
  let head = load<u32>(q, Q_LAST_AVAIL);
  let record = recordAt(0);
  for (let i: u32 = 0; i < n; i++, record += RECORD_STRIDE) {
    const contexts = load<u32>(record, R_CONTEXTS);
    if (contexts != 0) setContexts(q, head, contexts);
    let report = load<u64>(record, R_REPORT);
    for (; report != 0; report &= report - 1) {
      // The driver may look at any moment: what it reads next must not be older than this.
      atomic.store<u32>(ring + ((head + <u32> ctz(report)) & mask) * ADV_DESC_BYTES, ADV_TXD_STAT_DD, 12);
    }
    head += load<u32>(record, R_DESCRIPTORS);
  }
  store<u32>(q, head & mask, Q_LAST_AVAIL);
}

/** Moves the head register, and sees to the interrupt that the driver may have asked for, once a burst. */
export function publishAdvanced(q: usize): void {
  atomic.store<u32>(load<u32>(q, Q_REGISTERS) + ADV_REG_HEAD, load<u32>(q, Q_LAST_AVAIL));
  const given = wantedAdvanced(q);
  if (given != 0 && interrupt(q, given)) interruptedAdvanced(q);
}

/** Descriptors for which the driver wants an interrupt that it has not had; 0 if it wants none. Only a 1 counts. */
export function wantedAdvanced(q: usize): u32 {
  const head = load<u32>(q, Q_LAST_AVAIL);
  const given = (head - load<u32>(q, Q_SIGNALLED)) & (load<u32>(q, Q_SIZE) - 1);
  if (atomic.load<u32>(load<u32>(q, Q_REGISTERS) + ADV_REG_INTERRUPT) == 1) return given;
  store<u32>(q, head, Q_SIGNALLED);
  return 0;
}

/** The driver has been interrupted for all that is published. It arms again after each interrupt (auto-mask, §7.3.1.4). */
@inline
export function interruptedAdvanced(q: usize): void {
  atomic.store<u32>(load<u32>(q, Q_REGISTERS) + ADV_REG_INTERRUPT, 0);
  store<u32>(q, load<u32>(q, Q_LAST_AVAIL), Q_SIGNALLED);
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
