/**
 * Taking back what is outstanding, for a change of the guest's rings, memory or data path, and when the NIC dies. Only
 * called while this engine stands still. What the NIC has done is given back, what it has not is as if nobody had taken it:
 * each of the guest's buffers comes back once, or is taken again by whoever serves the ring next.
 */
import { ADV_REG_TAIL } from "../../../shared/layout/advanced.ts";
import {
  DIRECT_OFFERED,
  DIRECT_RX_QUEUE,
  DIRECT_SENT,
  DIRECT_STUCK,
  Q_LAST_AVAIL,
  Q_REGISTERS,
  Q_SIZE,
} from "../../../shared/layout/nic.ts";
import { pendingSent } from "../queue/driver_sent.ts";
import { publishDirty } from "../queue/format.ts";
import { markDirty } from "../queue/interrupts.ts";
import { descriptorAt, hostPlace, rxBook, stateOf, untake } from "./books.ts";
import { deliverOffered } from "./deliver.ts";
import { offered } from "./offer.ts";
import { closeBooks } from "./sent.ts";
import { dropSpanning } from "./spanning.ts";

/**
 * Ends the transmit ring `tx` at slot `head`, to where the NIC has come, which does not look at it now; -1: the head
 * register says it.
 */
export function settleSent(tx: usize, head: i32): void {
  const state = stateOf(tx);
  const mask = load<u32>(tx, Q_SIZE) - 1;
  const sent = load<u32>(state, DIRECT_SENT);
  const there = (load<u32>(tx, Q_LAST_AVAIL) - sent) & mask;
  const done = head < 0 ? pendingSent(tx) : min((<u32> head - sent) & mask, there);
  closeBooks(tx, done, true);
  const end = load<u32>(state, DIRECT_SENT);
  closeBooks(tx, there - done, false);
  store<u32>(state, end, DIRECT_SENT);
  store<u32>(tx, end, Q_LAST_AVAIL);
  atomic.store<u32>(load<u32>(tx, Q_REGISTERS) + ADV_REG_TAIL, end);
  publishDirty();
}

/**
 * Puts host buffers in the place of the guest's wherever the NIC has not been. It may still use a buffer that it has seen
 * before: until its engine has stood still.
 */
export function withdrawOffered(rx: usize): void {
  const mask = load<u32>(rx, Q_SIZE) - 1;
  const n = offered(rx);
  for (let i: u32 = 0; i < n; i++) {
    const slot = (load<u32>(rx, Q_LAST_AVAIL) + i) & mask;
    store<u64>(descriptorAt(rx, slot), hostPlace(rx, slot));
  }
}

/**
 * Gives the guest the frames for which it has buffers, and takes its other buffers out of receive ring `rx`. The NIC uses
 * none of them any more. A frame that waits for more of them than the guest has is dropped, if it is in some.
 */
export function settleReceived(rx: usize): void {
  const state = stateOf(rx);
  const mask = load<u32>(rx, Q_SIZE) - 1;
  const q: usize = load<u32>(state, DIRECT_RX_QUEUE);
  const taken = deliverOffered(rx, mask);
  const n = offered(rx);
  const dropped = n != 0 && dropSpanning(rx, n);
  const left = offered(rx);
  for (let i: u32 = 0; i < left; i++) store<u32>(rxBook(state, (load<u32>(rx, Q_LAST_AVAIL) + i) & mask), 0);
  if (n != 0) untake(q, n);
  store<u32>(state, load<u32>(rx, Q_LAST_AVAIL), DIRECT_OFFERED);
  store<u32>(state, 0, DIRECT_RX_QUEUE);
  store<u32>(state, 0, DIRECT_STUCK);
  if (taken != 0 || dropped) markDirty(rx, max(taken, 1));
  publishDirty();
}
