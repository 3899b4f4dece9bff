/**
 * The driver side of an advanced queue pair: how an engine that is a driver itself (the vhost service's) is connected to
 * the NIC. The sink is a transmit ring, to which frames are delivered; the source is a receive ring, from which they
 * are taken. Each descriptor keeps a buffer of its own, so there is nothing to allocate and nothing to look up. The
 * device at the other end is the NIC, but what it writes is checked all the same: a wrong index would lead out of the
 * buffers.
 */
import {
  ADV_CHAIN_MAX,
  ADV_DESC_BYTES,
  ADV_REG_ARMED,
  ADV_REG_HEAD,
  ADV_REG_INTERRUPT,
  ADV_REG_TAIL,
  ADV_RXD_STAT_DD,
  ADV_RXD_STAT_EOP,
  ADV_TXD_DCMD_DEXT,
  ADV_TXD_DCMD_EOP,
  ADV_TXD_DCMD_IFCS,
  ADV_TXD_DCMD_TSE,
  ADV_TXD_DTYP_DATA,
  ADV_TXD_PAYLEN_SHIFT,
} from "../../shared/layout/advanced.ts";
import {
  BAD_CHAIN_LENGTH,
  BAD_DESCRIPTOR,
  C_RX_NO_BUFFER,
  C_RX_TOO_SMALL,
  OK,
  Q_BUFFERS,
  Q_BUFFERS_IOVA,
  Q_DESC,
  Q_LAST_AVAIL,
  Q_REGISTERS,
  Q_SIZE,
  RX_SEGMENTS,
  TRUNK_BUFFER_BYTES,
} from "../../shared/layout/nic.ts";
import { raiseCall } from "./interrupts.ts";
import { appendSegment, clearSegments, put, putFrom, rewindOut, setBadDetail } from "./segments.ts";

/** Frames of a source looked ahead for; a burst takes no more at a time. */
const LOOK_AHEAD: u32 = 64;

@inline
function descriptorOf(t: usize, slot: u32): usize {
  return load<u32>(t, Q_DESC) + slot * ADV_DESC_BYTES;
}

@inline
function bufferOf(t: usize, slot: u32): usize {
  return load<u32>(t, Q_BUFFERS) + slot * TRUNK_BUFFER_BYTES;
}

@inline
function iovaOf(t: usize, slot: u32): u64 {
  return load<u64>(t, Q_BUFFERS_IOVA) + <u64> (slot * TRUNK_BUFFER_BYTES);
}

/**
 * Puts a frame into sink `t`: `headBytes` at `head`, then `payloadBytes` of `segments`, `skip` bytes into them. An
 * offload that nobody negotiated is asked for in its own words (TSE), so that the NIC refuses and counts it. Answers 0,
 * or the counter that tells why it did not go in.
 */
export function sendTrunk(
  t: usize,
  head: usize,
  headBytes: u32,
  segments: usize,
  skip: u32,
  payloadBytes: u32,
  offload: bool,
): u32 {
  const mask = load<u32>(t, Q_SIZE) - 1;
  const frameBytes = headBytes + payloadBytes;
  const count = max(1, (frameBytes + TRUNK_BUFFER_BYTES - 1) / TRUNK_BUFFER_BYTES);
  if (count > <u32> ADV_CHAIN_MAX) return C_RX_TOO_SMALL;
  const tail = load<u32>(t, Q_LAST_AVAIL);
  const free = (atomic.load<u32>(load<u32>(t, Q_REGISTERS) + ADV_REG_HEAD) - tail - 1) & mask;
  if (count > free) return C_RX_NO_BUFFER;
  clearSegments();
  for (let i: u32 = 0; i < count; i++) appendSegment(RX_SEGMENTS, bufferOf(t, (tail + i) & mask), TRUNK_BUFFER_BYTES);
  rewindOut();
  if (headBytes != 0) put(head, headBytes);
  putFrom(segments, skip, payloadBytes);
  let left = frameBytes;
  let command: u32 = ADV_TXD_DTYP_DATA | ADV_TXD_DCMD_DEXT | ADV_TXD_DCMD_IFCS;
  if (offload) command |= <u32> ADV_TXD_DCMD_TSE;
  for (let i: u32 = 0; i < count; i++) {
    const slot = (tail + i) & mask;
    const length = min(left, <u32> TRUNK_BUFFER_BYTES);
    left -= length;
    const end: u32 = i + 1 == count ? ADV_TXD_DCMD_EOP : 0;
    const status: u64 = i == 0 ? <u64> frameBytes << ADV_TXD_PAYLEN_SHIFT : 0;
    store<u64>(descriptorOf(t, slot), iovaOf(t, slot));
    store<u64>(descriptorOf(t, slot), <u64> (command | end | length) | (status << 32), 8);
  }
  store<u32>(t, (tail + count) & mask, Q_LAST_AVAIL);
  return 0;
}

/** Rings the sink's doorbell, and kicks the device if it sleeps. */
export function publishSink(t: usize): void {
  const registers: usize = load<u32>(t, Q_REGISTERS);
  atomic.store<u32>(registers + ADV_REG_TAIL, load<u32>(t, Q_LAST_AVAIL));
  if (atomic.load<u32>(registers + ADV_REG_ARMED)) raiseCall(t);
}

/** Whether sink `t` has no room for even the longest frame's worth of descriptors. */
export function isSinkFull(t: usize): bool {
  const mask = load<u32>(t, Q_SIZE) - 1;
  const free = (atomic.load<u32>(load<u32>(t, Q_REGISTERS) + ADV_REG_HEAD) - load<u32>(t, Q_LAST_AVAIL) - 1) & mask;
  return free < <u32> ADV_CHAIN_MAX;
}

/** Whether the device has taken everything that was put into sink `t`. */
export function isSinkEmpty(t: usize): bool {
  return atomic.load<u32>(load<u32>(t, Q_REGISTERS) + ADV_REG_HEAD) == load<u32>(t, Q_LAST_AVAIL);
}

/** Descriptors of source `t` that the device has filled, as far as a burst looks. */
export function pendingSource(t: usize): u32 {
  const mask = load<u32>(t, Q_SIZE) - 1;
  const next = load<u32>(t, Q_LAST_AVAIL);
  let n: u32 = 0;
  // The slot behind the tail is the driver's own, and never done.
  while (n < LOOK_AHEAD && n < mask) {
    if ((atomic.load<u32>(descriptorOf(t, (next + n) & mask), 8) & ADV_RXD_STAT_DD) == 0) break;
    n++;
  }
  return n;
}

/** What the last `gatherSource` found. */
export let sourceLength: u32 = 0;
export let sourceBytes: u32 = 0;

/** Appends the segments of the next frame of source `t`, of at most `waiting` descriptors, to `list`. */
export function gatherSource(t: usize, list: usize, waiting: u32): u32 {
  const mask = load<u32>(t, Q_SIZE) - 1;
  const next = load<u32>(t, Q_LAST_AVAIL);
  sourceLength = 0;
  sourceBytes = 0;
  while (sourceLength < waiting) {
    const slot = (next + sourceLength) & mask;
    const meta = load<u64>(descriptorOf(t, slot), 8);
    const length = <u32> (meta >> 32) & 0xffff;
    setBadDetail(slot);
    if (length > <u32> TRUNK_BUFFER_BYTES) return BAD_DESCRIPTOR;
    appendSegment(list, bufferOf(t, slot), length);
    sourceBytes += length;
    sourceLength++;
    if (<u32> meta & ADV_RXD_STAT_EOP) return OK;
  }
  return BAD_CHAIN_LENGTH;
}

/** Gives the descriptors of the gathered frame back to the device; it sees them after `publishSource`. */
export function completeSource(t: usize): void {
  const mask = load<u32>(t, Q_SIZE) - 1;
  const next = load<u32>(t, Q_LAST_AVAIL);
  for (let i: u32 = 0; i < sourceLength; i++) {
    // One descriptor is always the driver's: what is given back is that one, and the frame's takes its place.
    postSource(t, (next + i - 1) & mask);
    // Its turn comes with the next frame; until then it must not look filled.
    store<u64>(descriptorOf(t, (next + i) & mask), 0, 8);
  }
  store<u32>(t, (next + sourceLength) & mask, Q_LAST_AVAIL);
}

@inline
function postSource(t: usize, slot: u32): void {
  store<u64>(descriptorOf(t, slot), iovaOf(t, slot));
  store<u64>(descriptorOf(t, slot), 0, 8);
}

/** Hands all of source `t` to the device but the one descriptor that stays the driver's. */
export function fillSource(t: usize): void {
  const size = load<u32>(t, Q_SIZE);
  for (let slot: u32 = 0; slot < size; slot++) postSource(t, slot);
  store<u32>(t, 0, Q_LAST_AVAIL);
  publishSource(t);
}

/** Moves the source's tail: everything up to the descriptor before the next one is the device's. */
export function publishSource(t: usize): void {
  const mask = load<u32>(t, Q_SIZE) - 1;
  atomic.store<u32>(load<u32>(t, Q_REGISTERS) + ADV_REG_TAIL, (load<u32>(t, Q_LAST_AVAIL) - 1) & mask);
}

/** Asks the device for an interrupt; true if there are frames already. */
export function armSource(t: usize): bool {
  atomic.store<u32>(load<u32>(t, Q_REGISTERS) + ADV_REG_INTERRUPT, 1);
  return pendingSource(t) != 0;
}

/** Tells the device that the source is polled. */
export function disarmSource(t: usize): void {
  atomic.store<u32>(load<u32>(t, Q_REGISTERS) + ADV_REG_INTERRUPT, 0);
}
