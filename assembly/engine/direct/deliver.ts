/**
 * Frames in slots that have the guest's buffers. If the NIC has used the buffer, the frame is where it belongs, virtio-net
 * header included, and only has to be given back. If it was quicker than the offer, or the headers lie apart, that is
 * copied to where the book says.
 */
import {
  ADV_DIRECT_STAT_MARK,
  ADV_RXD_STAT_DD,
  ADV_RXD_STAT_EOP,
} from "../../../shared/layout/advanced.ts";
import {
  DIRECT_RX_COPIED,
  DIRECT_RX_FRAMES,
  DIRECT_RX_QUEUE,
  Q_LAST_AVAIL,
  Q_SIZE,
} from "../../../shared/layout/nic.ts";
import { markDirty } from "../queue/interrupts.ts";
import { spend, UNITS_FRAME } from "../schedule/cost.ts";
import { giveBackFilled, isWritable, repost, rxBook, stateOf } from "./books.ts";
import { apartOf, doneAt, lengthOf } from "./host.ts";
import { offered } from "./offer.ts";
import { place } from "./place.ts";
import { deliverSpanning } from "./spanning.ts";

/** Gives the guest up to `most` frames; answers how many. */
export function deliverOffered(rx: usize, most: u32): u32 {
  const state = stateOf(rx);
  const mask = load<u32>(rx, Q_SIZE) - 1;
  const q: usize = load<u32>(state, DIRECT_RX_QUEUE);
  let left = offered(rx);
  let n: u32 = 0;
  if (left == 0) return 0;
  const open = isWritable(q);
  for (; n < most && left != 0; n++) {
    const slot = load<u32>(rx, Q_LAST_AVAIL);
    const done = doneAt(rx, slot);
    if ((<u32> done & ADV_RXD_STAT_DD) == 0) break;
    if ((<u32> done & ADV_RXD_STAT_EOP) == 0 || !open) {
      const slots = deliverSpanning(rx, q, left);
      if (slots == 0) break;
      left = slots < left ? left - slots : 0;
      continue;
    }
    if (!deliverOne(rx, q, slot, done)) break;
    repost(rx, slot);
    store<u32>(rx, (slot + 1) & mask, Q_LAST_AVAIL);
    left--;
  }
  spend(n * UNITS_FRAME);
  if (n != 0 && open) markDirty(q, n);
  return n;
}

/** A frame in one slot. False if its descriptor is not sound. */
@inline
function deliverOne(rx: usize, q: usize, slot: u32, done: u64): bool {
  const state = stateOf(rx);
  const book = rxBook(state, slot);
  const bytes = load<u32>(book, 4);
  if (!place(rx, slot, done)) return false;
  const counter = state + (isDirectOne(done) ? DIRECT_RX_FRAMES : DIRECT_RX_COPIED);
  store<u64>(counter, load<u64>(counter) + 1);
  const length = min(lengthOf(done), bytes);
  giveBackFilled(q, book, length, length);
  store<u32>(book, 0);
  return true;
}

/** Whether the NIC has put more than headers where it belongs. */
@inline
function isDirectOne(done: u64): bool {
  return (<u32> done & ADV_DIRECT_STAT_MARK) != 0 && apartOf(done) < lengthOf(done);
}
