/** Frames to the data path: what waits in a transmit queue is listed, and what the plugin says of it is held against the books. */
import {
  GC,
  GC_QUEUE_PAIRS,
  OWNER_TX,
  PAIR_TX_HELD,
  PAIR_TX_IN,
  PAIR_TX_OUT,
  TX_QUEUE_ENTRIES,
  TX_QUEUE_STRIDE,
  TX_QUEUES,
} from "../../shared/layout/guest.ts";
import {
  ENTRY_BUFFER,
  ENTRY_BYTES,
  ENTRY_EOP,
  ENTRY_FLAGS,
  ENTRY_LENGTH,
  ENTRY_NET_HDR,
  LIST_DONE,
  LIST_MAX,
  LIST_TX,
  PLUGIN_BUFFER_COUNT,
} from "../../shared/layout/plugin.ts";
import { giveBuffer, ownerOf, pairOf, setOwner } from "./buffers.ts";
import { cutFront, isDone, sumFrame } from "./finish.ts";
import { list } from "./path.ts";

/** What a plugin sees of an entry's flags. */
const SEEN: u64 = (<u64> (ENTRY_EOP | ENTRY_NET_HDR) << 32) | 0xffffffff;
const ASKS: u64 = <u64> ENTRY_NET_HDR << 32;
const ENDS: u64 = <u64> ENTRY_EOP << 32;

/**
 * Copies the front of the transmit queue of `pair` into LIST_TX, whole frames; answers how many entries. A frame that
 * leaves to the data path what that one does not do is finished here first: it was made for another one.
 */
export function prepareTx(pair: u32): u32 {
  const at = pairOf(pair);
  const queue: usize = TX_QUEUES + pair * TX_QUEUE_STRIDE;
  const to = list(LIST_TX);
  if (!isFrontReady(pair)) return 0;
  const out = load<u32>(at, PAIR_TX_OUT);
  const waiting = min(load<u32>(at, PAIR_TX_IN) - out, <u32> LIST_MAX);
  let whole: u32 = 0;
  for (let i: u32 = 0; i < waiting; i++) {
    const entry = queue + ((out + i) & (TX_QUEUE_ENTRIES - 1)) * ENTRY_BYTES;
    let lengthFlags = load<u64>(entry, ENTRY_LENGTH);
    if ((lengthFlags & ASKS) != 0 && !isDone(<u32> (lengthFlags >> 32))) {
      // One that is to be cut has to be the first.
      if (!sumFrame(queue, out + i)) return whole;
      lengthFlags &= ~ASKS;
    }
    store<u64>(to + i * ENTRY_BYTES, load<u64>(entry, ENTRY_BUFFER), ENTRY_BUFFER);
    store<u64>(to + i * ENTRY_BYTES, lengthFlags & SEEN, ENTRY_LENGTH);
    if ((lengthFlags & ENDS) != 0) whole = i + 1;
  }
  return whole;
}

/** Whether the first frame of the transmit queue of `pair` can be handed over: one that has to be cut is cut. */
function isFrontReady(pair: u32): bool {
  const at = pairOf(pair);
  const out = load<u32>(at, PAIR_TX_OUT);
  if (load<u32>(at, PAIR_TX_IN) == out) return false;
  const entry = TX_QUEUES + pair * TX_QUEUE_STRIDE + (out & (TX_QUEUE_ENTRIES - 1)) * ENTRY_BYTES;
  const flags = load<u32>(entry, ENTRY_FLAGS);
  return (flags & ENTRY_NET_HDR) == 0 || isDone(flags) || cutFront(pair);
}

/** The data path has taken `n` entries of `pair`: their buffers are the device's. False if they are not whole frames. */
export function txAccepted(pair: u32, n: u32): bool {
  if (n == 0) return true;
  const at = pairOf(pair);
  const out = load<u32>(at, PAIR_TX_OUT);
  const queue: usize = TX_QUEUES + pair * TX_QUEUE_STRIDE;
  const last = queue + ((out + n - 1) & (TX_QUEUE_ENTRIES - 1)) * ENTRY_BYTES;
  if ((load<u32>(last, ENTRY_FLAGS) & ENTRY_EOP) == 0) return false;
  for (let i: u32 = 0; i < n; i++) {
    setOwner(load<u32>(queue + ((out + i) & (TX_QUEUE_ENTRIES - 1)) * ENTRY_BYTES, ENTRY_BUFFER), OWNER_TX);
  }
  store<u32>(at, out + n, PAIR_TX_OUT);
  store<u32>(at, load<u32>(at, PAIR_TX_HELD) + n, PAIR_TX_HELD);
  return true;
}

/** The data path reports `n` buffers in LIST_DONE; false if it never had one of them. */
export function txCompleted(pair: u32, n: u32): bool {
  if (n > <u32> LIST_MAX) return false;
  const from = list(LIST_DONE);
  for (let i: u32 = 0; i < n; i++) {
    const buffer = load<u32>(from + i * 4);
    if (buffer >= <u32> PLUGIN_BUFFER_COUNT || ownerOf(buffer) != OWNER_TX) return false;
    giveBuffer(buffer);
  }
  const at = pairOf(pair);
  store<u32>(at, load<u32>(at, PAIR_TX_HELD) - n, PAIR_TX_HELD);
  return true;
}

/** Buffers that the data path has to send; what waits to be handed to it. */
export function txHeld(): u32 {
  let held: u32 = 0;
  for (let pair: u32 = 0; pair < load<u32>(GC, GC_QUEUE_PAIRS); pair++) held += load<u32>(pairOf(pair), PAIR_TX_HELD);
  return held;
}

export function txWaiting(): u32 {
  let waiting: u32 = 0;
  for (let pair: u32 = 0; pair < load<u32>(GC, GC_QUEUE_PAIRS); pair++) {
    const at = pairOf(pair);
    waiting += load<u32>(at, PAIR_TX_IN) - load<u32>(at, PAIR_TX_OUT);
  }
  return waiting;
}

