/** The direct path's completions: what the NIC has sent goes back to the guest, in order, and not before. */
import { DIRECT_SENT, Q_SIZE } from "../../../shared/layout/nic.ts";
import { markDirty } from "../queue/interrupts.ts";
import { pendingSent } from "../queue/driver_sent.ts";
import { spend, UNITS_DESCRIPTOR } from "../schedule/cost.ts";
import { giveBackOne, isWritable, stateOf, txBook, untake } from "./books.ts";

/** Gives back what the NIC is done with in transmit ring `tx`; answers how many slots those were. */
export function completeSent(tx: usize): u32 {
  const n = pendingSent(tx);
  closeBooks(tx, n, true);
  spend(n * UNITS_DESCRIPTOR);
  return n;
}

/**
 * Closes the books of the next `n` slots. What was sent is given back; what was not is as if nobody had taken it, for which
 * all that is behind it has to be closed likewise.
 */
export function closeBooks(tx: usize, n: u32, wasSent: bool): void {
  const state = stateOf(tx);
  const mask = load<u32>(tx, Q_SIZE) - 1;
  let slot = load<u32>(state, DIRECT_SENT);
  for (let i: u32 = 0; i < n; i++, slot = (slot + 1) & mask) {
    const book = txBook(state, slot);
    const q: usize = load<u32>(book);
    if (q == 0) continue;
    store<u32>(book, 0);
    if (!wasSent) {
      untake(q, 1);
    } else if (isWritable(q)) {
      giveBackOne(q, load<u32>(book, 4), 0, 0, load<u32>(book, 8));
      markDirty(q, 1);
    }
  }
  store<u32>(state, slot, DIRECT_SENT);
}
