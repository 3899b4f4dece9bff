/**
 * The guest: an IPv4 host above, buffer bookkeeping below. Its worker calls `poll`, hands what is in the transmit queue
 * to the data path's plugin and what the plugin reports to `received`, some hundred frames at a time. What a plugin
 * says is checked here: a buffer it does not have, or a length that cannot be, is a fault, and the shell ends it.
 */
import {
  AREA_EXCHANGE,
  G_RX_BAD,
  G_RX_BYTES,
  G_RX_FRAMES,
  G_RX_NOT_MINE,
  GC,
  GC_ANNOUNCE,
  GC_LINK,
  GC_MAC,
  GC_NOW_NS,
  GC_PATH,
  GC_QUEUE_PAIRS,
  GC_RX_WANTED,
  GC_VLAN,
  OWNER_RX,
  OWNER_TX,
  PAIR_RX_HELD,
  PAIR_TX_HELD,
  PAIR_TX_IN,
  PAIR_TX_OUT,
  PLUGIN_AREA,
  POSTED,
  RX_SCRATCH,
  TX_QUEUE_ENTRIES,
  TX_QUEUE_STRIDE,
  TX_QUEUES,
  VIRTIO_AREA,
} from "../../shared/layout/guest.ts";
import {
  ENTRY_BUFFER,
  ENTRY_BYTES,
  ENTRY_EOP,
  ENTRY_FLAGS,
  ENTRY_LENGTH,
  ENTRY_OFFSET,
  LIST_DONE,
  LIST_MAX,
  LIST_POST,
  LIST_RX,
  LIST_TX,
  PLUGIN_BUFFER_BYTES,
  PLUGIN_BUFFER_COUNT,
  PLUGIN_EXCHANGE,
} from "../../shared/layout/plugin.ts";
import { announce, arpInput, forgetAddresses } from "./arp.ts";
import { bufferAt, count, giveBuffer, ownerOf, pairOf, resetBuffers, setOwner, takeBuffer } from "./buffers.ts";
import { capture } from "./capture.ts";
import { setOutPair } from "./frame.ts";
import { pollGenerators } from "./generate.ts";
import { ipv4Input } from "./ipv4.ts";
import { pollPings } from "./ping.ts";

export { reclaim } from "./buffers.ts";

/** Frames whose first lines are asked for at once, and how much of each. */
const TOUCH_ENTRIES: u32 = 16;
const TOUCH_BYTES: u32 = 192;
/** What was read ahead. Exported, or the compiler would see that nobody needs it and not read at all. */
export let touched: u64 = 0;

const RX_SCRATCH_BYTES: u32 = 0x4000;
const ETHERTYPE_IPV4: u32 = 0x0008;
const ETHERTYPE_ARP: u32 = 0x0608;
const TPID: u32 = 0x0081;

/** Clears the host's state, once, when the guest boots. */
export function boot(): void {
  resetBuffers();
  forgetAddresses();
}

/** Does what is due at `now`; answers the time at which something is due next, Infinity if nothing is. */
export function poll(now: f64): f64 {
  store<f64>(GC, now, GC_NOW_NS);
  if (load<u32>(GC, GC_LINK) != 0 && atomic.load<u32>(GC + GC_ANNOUNCE) != 0) {
    atomic.store<u32>(GC + GC_ANNOUNCE, 0);
    announce();
  }
  return min(pollPings(now), pollGenerators(now));
}

@inline
function list(at: u32): usize {
  const area: u32 = load<u32>(GC, GC_PATH) == 0 ? VIRTIO_AREA : PLUGIN_AREA;
  return area + AREA_EXCHANGE + (at - PLUGIN_EXCHANGE);
}

/** Who the receive buffers of the data path in use belong to, and where it is noted how many there are. */
@inline
function rxOwner(): u32 {
  return OWNER_RX + load<u32>(GC, GC_PATH);
}

@inline
function rxHeldAt(pair: u32): usize {
  return pairOf(pair) + PAIR_RX_HELD + load<u32>(GC, GC_PATH) * 4;
}

/** Copies the front of the transmit queue of `pair` into LIST_TX, whole frames; answers how many entries. */
export function prepareTx(pair: u32): u32 {
  const at = pairOf(pair);
  const out = load<u32>(at, PAIR_TX_OUT);
  const waiting = min(load<u32>(at, PAIR_TX_IN) - out, <u32> LIST_MAX);
  const queue: usize = TX_QUEUES + pair * TX_QUEUE_STRIDE;
  const to = list(LIST_TX);
  let whole: u32 = 0;
  for (let i: u32 = 0; i < waiting; i++) {
    const entry = queue + ((out + i) & (TX_QUEUE_ENTRIES - 1)) * ENTRY_BYTES;
    const lengthFlags = load<u64>(entry, ENTRY_LENGTH);
    store<u64>(to + i * ENTRY_BYTES, load<u64>(entry, ENTRY_BUFFER), ENTRY_BUFFER);
    store<u64>(to + i * ENTRY_BYTES, lengthFlags, ENTRY_LENGTH);
    if (<u32> (lengthFlags >> 32) & ENTRY_EOP) whole = i + 1;
  }
  return whole;
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

/** Puts buffers for the receive ring of `pair` into LIST_POST; answers how many. */
export function preparePost(pair: u32): u32 {
  const held = load<u32>(rxHeldAt(pair));
  const wanted = load<u32>(GC, GC_RX_WANTED);
  // A few at a time are not worth a doorbell.
  if (held + (wanted >> 3) > wanted) return 0;
  const n = min(wanted - held, <u32> LIST_MAX);
  const to = list(LIST_POST);
  for (let i: u32 = 0; i < n; i++) {
    const buffer = takeBuffer(rxOwner());
    if (buffer < 0) return i;
    store<u32>(to + i * 4, buffer);
    store<u32>(POSTED + i * 4, buffer);
  }
  return n;
}

/**
 * The data path has taken the first `taken` of the `n` buffers that `preparePost` gave it; the others come back. Which
 * they are is not read from LIST_POST, where the plugin may have written by now.
 */
export function posted(pair: u32, n: u32, taken: u32): void {
  const at = rxHeldAt(pair);
  for (let i = taken; i < n; i++) giveBuffer(load<u32>(POSTED + i * 4));
  store<u32>(at, load<u32>(at) + min(taken, n));
}

/**
 * Reads the first lines of what `n` entries name, before any is looked into: the device has just written them, and
 * waiting for all at once takes as long as waiting for one. What cannot be is left for `received` to find.
 */
function touchAhead(entries: usize, n: u32): void {
  let sum: u64 = 0;
  for (let i: u32 = 0; i < n; i++) {
    const entry = entries + i * ENTRY_BYTES;
    const buffer = load<u32>(entry, ENTRY_BUFFER) & (PLUGIN_BUFFER_COUNT - 1);
    const offset = min(load<u32>(entry, ENTRY_OFFSET), <u32> PLUGIN_BUFFER_BYTES - TOUCH_BYTES - 8);
    const at = bufferAt(buffer) + offset;
    for (let line: u32 = 0; line < TOUCH_BYTES; line += 64) sum += load<u64>(at + line);
  }
  touched = sum;
}

/** The data path reports `n` entries in LIST_RX; false if one of them cannot be. */
export function received(pair: u32, n: u32): bool {
  if (n > <u32> LIST_MAX) return false;
  const from = list(LIST_RX);
  const owner = rxOwner();
  let gathered: u32 = 0;
  for (let i: u32 = 0; i < n; i++) {
    if (i % TOUCH_ENTRIES == 0) touchAhead(from + i * ENTRY_BYTES, min(n - i, TOUCH_ENTRIES));
    const entry = from + i * ENTRY_BYTES;
    const buffer = load<u32>(entry, ENTRY_BUFFER);
    const offset = load<u32>(entry, ENTRY_OFFSET);
    const length = load<u32>(entry, ENTRY_LENGTH);
    const last = (load<u32>(entry, ENTRY_FLAGS) & ENTRY_EOP) != 0;
    if (buffer >= <u32> PLUGIN_BUFFER_COUNT || ownerOf(buffer) != owner) return false;
    if (offset > <u32> PLUGIN_BUFFER_BYTES || length > <u32> PLUGIN_BUFFER_BYTES - offset) return false;
    const data = bufferAt(buffer) + offset;
    if (last && gathered == 0) {
      input(pair, data, length);
    } else {
      if (gathered + length <= RX_SCRATCH_BYTES) memory.copy(RX_SCRATCH + gathered, data, length);
      gathered += length;
      if (last) {
        if (gathered <= RX_SCRATCH_BYTES) input(pair, RX_SCRATCH, gathered);
        else count(G_RX_BAD, 1);
        gathered = 0;
      }
    }
    giveBuffer(buffer);
  }
  const at = rxHeldAt(pair);
  store<u32>(at, load<u32>(at) - n);
  return true;
}

/** Takes a frame of `n` bytes. */
function input(pair: u32, at: usize, n: u32): void {
  if (n < 14) return count(G_RX_BAD, 1);
  capture(at, n, 0);
  count(G_RX_FRAMES, 1);
  count(G_RX_BYTES, n);
  const dst = load<u64>(at) & 0xffffffffffff;
  if ((dst & 1) == 0 && dst != load<u64>(GC, GC_MAC)) return count(G_RX_NOT_MINE, 1);
  if (load<u32>(GC, GC_LINK) == 0) return;
  const src = load<u64>(at, 6) & 0xffffffffffff;
  let type: u32 = load<u16>(at, 12);
  let header: u32 = 14;
  const vlan = load<u32>(GC, GC_VLAN);
  if (type == TPID && n >= 18) {
    const vid = <u32> bswap<u16>(load<u16>(at, 14)) & 0xfff;
    if (vid != 0 && vid != vlan) return count(G_RX_NOT_MINE, 1);
    if (vid == 0 && vlan != 0) return count(G_RX_NOT_MINE, 1);
    type = load<u16>(at, 16);
    header = 18;
  } else if (vlan != 0) {
    return count(G_RX_NOT_MINE, 1);
  }
  setOutPair(pair);
  if (type == ETHERTYPE_IPV4) ipv4Input(at + header, n - header, src);
  else if (type == ETHERTYPE_ARP) arpInput(at + header, n - header);
  else count(G_RX_NOT_MINE, 1);
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

export { forgetAddresses };
