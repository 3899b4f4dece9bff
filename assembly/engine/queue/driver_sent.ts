/**
 * What the device has done with a driver pair's transmit ring, for a pair that has something to give back then: one of the
 * direct path. The head register says it; the descriptors need not be looked at.
 */
import { ADV_REG_HEAD, ADV_REG_INTERRUPT } from "../../../shared/layout/advanced.ts";
import { DIRECT_SENT, Q_DIRECT, Q_LAST_AVAIL, Q_REGISTERS, Q_SIZE } from "../../../shared/layout/nic.ts";

/** Slots that the device is done with, and that have not been looked at. */
export function pendingSent(tx: usize): u32 {
  const state: usize = load<u32>(tx, Q_DIRECT);
  if (state == 0) return 0;
  const mask = load<u32>(tx, Q_SIZE) - 1;
  const sent = load<u32>(state, DIRECT_SENT);
  const head = atomic.load<u32>(load<u32>(tx, Q_REGISTERS) + ADV_REG_HEAD);
  // What it has not got it cannot have done.
  return min((head - sent) & mask, (load<u32>(tx, Q_LAST_AVAIL) - sent) & mask);
}

/** Asks the device for an interrupt when it has sent more; true if it has already. */
export function armSent(tx: usize): bool {
  atomic.store<u32>(load<u32>(tx, Q_REGISTERS) + ADV_REG_INTERRUPT, 1);
  return pendingSent(tx) != 0;
}
