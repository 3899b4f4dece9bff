/**
 * Frames that the NIC has put into several slots, the first of which has a buffer of the guest's. To a guest with
 * mergeable buffers they go as they are, each slot's bytes in the slot's buffer; what lies in host buffers, because the
 * guest had no more when the frame came, goes into the buffers that it has now. To a guest without they go into the first
 * buffer, if it is large enough; the others come back empty, since their turn has come.
 */
import {
  ADV_DIRECT_CHAIN_MAX,
  ADV_DIRECT_STAT_MARK,
  ADV_RXD_STAT_DD,
  ADV_RXD_STAT_EOP,
} from "../../../shared/layout/advanced.ts";
import {
  B_CHAINS,
  BAD_DESCRIPTOR,
  C_RX_NO_BUFFER,
  C_RX_QUEUE_ERROR,
  C_RX_TOO_SMALL,
  DIRECT_HOST_BYTES,
  DIRECT_OFFERED,
  DIRECT_RX_COPIED,
  DIRECT_RX_FRAMES,
  DIRECT_RX_QUEUE,
  Q_FLAGS,
  Q_LAST_AVAIL,
  Q_POOL,
  Q_SIZE,
  QUEUE_F_MRG_RXBUF,
} from "../../../shared/layout/nic.ts";
import { VIRTIO_NET_HDR_NUM_BUFFERS } from "../../../shared/layout/virtio.ts";
import { copyBytes } from "../../lib/copy.ts";
import { put, rewindOut } from "../batch/segments.ts";
import { batch, poolAt } from "../context.ts";
import { count } from "../deliver/results.ts";
import { putVirtioHeader } from "../deliver/virtio_header.ts";
import { isLogged, logPointer } from "../queue/dirty_log.ts";
import { failQueue } from "../queue/interrupts.ts";
import { giveBack, reserve } from "../queue/receive_chains.ts";
import { lookAgain } from "../schedule/again.ts";
import { spend, UNITS_BYTES_SHIFT, UNITS_DESCRIPTOR, UNITS_UNUSUAL } from "../schedule/cost.ts";
import { FRONT } from "../queue/direct_receive.ts";
import { giveBackFilled, hostBuffer, isWritable, postedBytes, repost, rxBook, stateOf } from "./books.ts";
import { doneAt, isSound, lengthOf } from "./host.ts";
import { place } from "./place.ts";

// The frame in hand: its slots, its bytes, those of them in slots without a buffer of the guest's, and how many slots of
// the others the NIC has filled itself.
let slots: u32 = 0;
let bytes: u32 = 0;
let rest: u32 = 0;
let marked: u32 = 0;

/**
 * Gives guest's queue `q` the frame in the next slots of receive ring `rx`, of which the first `own` at the most have
 * buffers of the guest's. Answers how many slots it took; 0: it is not all there, or waits for buffers.
 */
export function deliverSpanning(rx: usize, q: usize, own: u32): u32 {
  if (!measure(rx, own)) return 0;
  const theirs = min(slots, own);
  spend(UNITS_UNUSUAL + slots * UNITS_DESCRIPTOR);
  if (!isWritable(q)) {
    count(poolAt(load<u32>(rx, Q_POOL)), C_RX_QUEUE_ERROR, 1);
  } else if ((load<u32>(q, Q_FLAGS) & QUEUE_F_MRG_RXBUF) != 0) {
    let chains: u32 = 0;
    const refused = rest == 0 ? 0 : reserve(q, rest);
    if (refused == C_RX_NO_BUFFER) {
      lookAgain();
      return 0;
    }
    if (refused != 0) {
      giveBackEmpty(rx, q, 0, theirs);
    } else {
      if (rest != 0) chains = load<u32>(batch(), B_CHAINS);
      if (!merge(rx, q, theirs, chains)) return 0;
    }
  } else if (!gatherInFirst(rx, q)) {
    giveBackEmpty(rx, q, 0, theirs);
  } else {
    giveBackEmpty(rx, q, 1, theirs);
  }
  close(rx);
  return slots;
}

/** Drops the frame in the next slots if the NIC has put part of it into some of the `own` buffers of the guest's there. */
export function dropSpanning(rx: usize, own: u32): bool {
  if (!measure(rx, own) || marked == 0) return false;
  const state = stateOf(rx);
  const q: usize = load<u32>(state, DIRECT_RX_QUEUE);
  for (let i: u32 = 0; isLogged(q) && i < min(slots, own); i++) {
    logPointer(q, load<u32>(rxBook(state, slotAt(rx, i))), writtenBy(rx, i));
  }
  count(poolAt(load<u32>(rx, Q_POOL)), C_RX_NO_BUFFER, 1);
  close(rx);
  return true;
}

@inline
function slotAt(rx: usize, i: u32): u32 {
  return (load<u32>(rx, Q_LAST_AVAIL) + i) & (load<u32>(rx, Q_SIZE) - 1);
}

/** Bytes that the NIC has written into the guest's buffer of the frame's slot `i`. */
@inline
function writtenBy(rx: usize, i: u32): u32 {
  const done = doneAt(rx, slotAt(rx, i));
  return (<u32> done & ADV_DIRECT_STAT_MARK) != 0 ? lengthOf(done) : 0;
}

/** Looks at the frame's slots, `own` of which have a buffer of the guest's. False if it is not all there. */
function measure(rx: usize, own: u32): bool {
  slots = bytes = rest = marked = 0;
  let isEnd = false;
  while (!isEnd) {
    const slot = slotAt(rx, slots);
    const done = doneAt(rx, slot);
    if ((<u32> done & ADV_RXD_STAT_DD) == 0) return false;
    const isMarked = (<u32> done & ADV_DIRECT_STAT_MARK) != 0;
    const isOwn = slots < own;
    const length = lengthOf(done);
    const room = isOwn && isMarked ? postedBytes(rxBook(stateOf(rx), slot)) : DIRECT_HOST_BYTES;
    if (slots == <u32> ADV_DIRECT_CHAIN_MAX || isMarked && !isOwn || !isSound(done, room)) {
      failQueue(rx, BAD_DESCRIPTOR, slot);
      return false;
    }
    slots++;
    bytes += length;
    if (!isOwn) rest += length;
    if (isMarked) marked++;
    isEnd = (<u32> done & ADV_RXD_STAT_EOP) != 0;
  }
  return true;
}

/** Each slot's bytes in its buffer, and the rest in the `chains` that are reserved for it. */
function merge(rx: usize, q: usize, theirs: u32, chains: u32): bool {
  const state = stateOf(rx);
  for (let i: u32 = 0; i < theirs; i++) if (!place(rx, slotAt(rx, i), doneAt(rx, slotAt(rx, i)))) return false;
  const first: usize = load<u32>(rxBook(state, slotAt(rx, 0)));
  if (theirs + chains != slots) store<u16>(first, <u16> (theirs + chains), VIRTIO_NET_HDR_NUM_BUFFERS);
  for (let i: u32 = 0; i < theirs; i++) {
    const book = rxBook(state, slotAt(rx, i));
    const length = min(lengthOf(doneAt(rx, slotAt(rx, i))), load<u32>(book, 4));
    giveBackFilled(q, book, length, length);
  }
  if (rest != 0) {
    rewindOut();
    for (let i = theirs; i < slots; i++) put(hostBuffer(rx, slotAt(rx, i)), lengthOf(doneAt(rx, slotAt(rx, i))));
    giveBack(q, chains, rest);
    spend(rest >> UNITS_BYTES_SHIFT);
  }
  const counter = state + (marked == slots ? DIRECT_RX_FRAMES : DIRECT_RX_COPIED);
  store<u64>(counter, load<u64>(counter) + 1);
  return true;
}

/** All of the frame into the first slot's buffer; false if it does not fit. */
function gatherInFirst(rx: usize, q: usize): bool {
  const state = stateOf(rx);
  const mask = load<u32>(rx, Q_SIZE) - 1;
  const ahead = (load<u32>(state, DIRECT_OFFERED) - load<u32>(rx, Q_LAST_AVAIL)) & mask;
  const book = rxBook(state, slotAt(rx, 0));
  if (bytes > load<u32>(book, 4)) return false;
  const buffer: usize = load<u32>(book);
  if (!place(rx, slotAt(rx, 0), doneAt(rx, slotAt(rx, 0)))) return false;
  let at = lengthOf(doneAt(rx, slotAt(rx, 0)));
  for (let i: u32 = 1; i < slots; i++) {
    const slot = slotAt(rx, i);
    const done = doneAt(rx, slot);
    const isMarked = i < ahead && (<u32> done & ADV_DIRECT_STAT_MARK) != 0;
    const from: usize = isMarked ? <usize> load<u32>(rxBook(state, slot)) : hostBuffer(rx, slot);
    copyBytes(buffer + at, from, lengthOf(done));
    at += lengthOf(done);
  }
  store<u16>(buffer, 1, VIRTIO_NET_HDR_NUM_BUFFERS);
  giveBackFilled(q, book, bytes, bytes);
  spend(bytes >> UNITS_BYTES_SHIFT);
  store<u64>(state, load<u64>(state, DIRECT_RX_COPIED) + 1, DIRECT_RX_COPIED);
  return true;
}

/** Gives slots `from` … `end`-1 of the frame back with nothing in them but a header: drivers drop such frames. */
function giveBackEmpty(rx: usize, q: usize, from: u32, end: u32): void {
  if (from == 0) count(poolAt(load<u32>(rx, Q_POOL)), C_RX_TOO_SMALL, 1);
  for (let i = from; i < end; i++) {
    const book = rxBook(stateOf(rx), slotAt(rx, i));
    putVirtioHeader(load<u32>(book), FRONT, 1);
    giveBackFilled(q, book, FRONT, max(FRONT, writtenBy(rx, i)));
  }
}

/** The frame's slots are the device's again. */
function close(rx: usize): void {
  const state = stateOf(rx);
  const mask = load<u32>(rx, Q_SIZE) - 1;
  const ahead = (load<u32>(state, DIRECT_OFFERED) - load<u32>(rx, Q_LAST_AVAIL)) & mask;
  for (let i: u32 = 0; i < slots; i++) {
    store<u32>(rxBook(state, slotAt(rx, i)), 0);
    repost(rx, slotAt(rx, i));
  }
  const next = slotAt(rx, slots);
  store<u32>(rx, next, Q_LAST_AVAIL);
  if (slots > ahead) store<u32>(state, next, DIRECT_OFFERED);
}
