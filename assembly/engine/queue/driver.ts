/**
 * The driver side of an advanced queue pair: how an engine that is a driver itself (the vhost service's) is connected to
 * the NIC. Frames are delivered to its transmit ring and taken from its receive ring. Each descriptor keeps a buffer of
 * its own, so there is nothing to allocate and nothing to look up. The device at the other end is the NIC, but what it
 * writes is checked all the same: a wrong index would lead out of the buffers.
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
} from "../../../shared/layout/advanced.ts";
import {
  B_BAD_DETAIL,
  B_BYTES,
  B_CHAIN_SEGMENTS,
  B_DONE,
  B_SEGMENTS,
  B_UNITS,
  BAD_CHAIN_LENGTH,
  BAD_DESCRIPTOR,
  C_RX_NO_BUFFER,
  C_RX_TOO_SMALL,
  C_TX_BAD_OFFLOAD,
  N_COUNT,
  N_HEAD,
  N_NEXT,
  N_RECORD,
  N_TAG,
  OK,
  Q_BUFFERS,
  Q_BUFFERS_IOVA,
  Q_DESC,
  Q_LAST_AVAIL,
  Q_REGISTERS,
  Q_SIZE,
  R_DESCRIPTORS,
  R_DROP,
  R_LENGTH,
  RECORD_STRIDE,
  RX_SEGMENTS,
  DRIVER_BUFFER_BYTES,
  TX_SEGMENTS,
} from "../../../shared/layout/nic.ts";
import { noHead, recordAt, recordPlain, recordSegments } from "../batch/record.ts";
import { appendSegment, rewindOut } from "../batch/segments.ts";
import { batch, context } from "../context.ts";
import { isPlain, outLength, putFrame, putTagged } from "../deliver/head.ts";
import { settle } from "../deliver/results.ts";
import { UNITS_BYTES_SHIFT, UNITS_FRAME } from "../schedule/cost.ts";
import { failQueue, raiseCall } from "./interrupts.ts";
import { isPlainLength } from "../batch/take.ts";

/** Frames of the receive ring looked ahead for; a burst takes no more at a time. */
const LOOK_AHEAD: u32 = 128;

@inline
function descriptorOf(q: usize, slot: u32): usize {
  return load<u32>(q, Q_DESC) + slot * ADV_DESC_BYTES;
}

@inline
function bufferOf(q: usize, slot: u32): usize {
  return load<u32>(q, Q_BUFFERS) + slot * DRIVER_BUFFER_BYTES;
}

@inline
function iovaOf(q: usize, slot: u32): u64 {
  return load<u64>(q, Q_BUFFERS_IOVA) + <u64> (slot * DRIVER_BUFFER_BYTES);
}

// The transmit ring -------------------------------------------------------------------------------------------------

/** Descriptors that the driver may fill. */
@inline
function freeToSend(q: usize): u32 {
  const mask = load<u32>(q, Q_SIZE) - 1;
  return (atomic.load<u32>(load<u32>(q, Q_REGISTERS) + ADV_REG_HEAD) - load<u32>(q, Q_LAST_AVAIL) - 1) & mask;
}

/** As `scatterSplit`, into the transmit ring of a device. */
export function scatterDriver(tx: usize, first: usize, wait: bool): u32 {
  let at = first;
  let record: usize = load<u32>(at, N_RECORD);
  let head: u32 = load<u16>(at, N_HEAD);
  let left: u32 = load<u16>(at, N_COUNT);
  for (;;) {
    const length = outLength(head, load<u32>(record, R_LENGTH));
    if (!settle(send(tx, record, head, load<u32>(at, N_TAG), length), at, left, length, wait)) break;
    record += RECORD_STRIDE;
    if (--left != 0) continue;
    at = load<u32>(at, N_NEXT);
    if (at == 0) break;
    record = load<u32>(at, N_RECORD);
    head = load<u16>(at, N_HEAD);
    left = load<u16>(at, N_COUNT);
  }
  return load<u32>(batch(), B_DONE);
}

/**
 * Puts one frame of `frameBytes` into the ring; 0, or the counter that tells why it did not go in. An offload that nobody
 * negotiated is asked for in the ring's own words (TSE), so that the NIC refuses and counts it.
 */
function send(tx: usize, record: usize, head: u32, tag: u32, frameBytes: u32): u32 {
  const mask = load<u32>(tx, Q_SIZE) - 1;
  const count = max(1, (frameBytes + DRIVER_BUFFER_BYTES - 1) / DRIVER_BUFFER_BYTES);
  if (count > <u32> ADV_CHAIN_MAX) return C_RX_TOO_SMALL;
  const tail = load<u32>(tx, Q_LAST_AVAIL);
  if (count > freeToSend(tx)) return C_RX_NO_BUFFER;
  if (count == 1 && isPlain(record)) {
    putTagged(bufferOf(tx, tail), record, head, tag);
  } else {
    for (let i: u32 = 0; i < count; i++) {
      appendSegment(context + RX_SEGMENTS, i, bufferOf(tx, (tail + i) & mask), DRIVER_BUFFER_BYTES);
    }
    rewindOut();
    putFrame(record, head, tag);
  }
  let command: u32 = ADV_TXD_DTYP_DATA | ADV_TXD_DCMD_DEXT | ADV_TXD_DCMD_IFCS;
  if (load<u32>(record, R_DROP) == C_TX_BAD_OFFLOAD) command |= <u32> ADV_TXD_DCMD_TSE;
  let left = frameBytes;
  for (let i: u32 = 0; i < count; i++) {
    const slot = (tail + i) & mask;
    const length = min(left, <u32> DRIVER_BUFFER_BYTES);
    left -= length;
    const end: u32 = i + 1 == count ? ADV_TXD_DCMD_EOP : 0;
    const status: u64 = i == 0 ? <u64> frameBytes << ADV_TXD_PAYLEN_SHIFT : 0;
    store<u64>(descriptorOf(tx, slot), iovaOf(tx, slot));
    store<u64>(descriptorOf(tx, slot), <u64> (command | end | length) | (status << 32), 8);
  }
  store<u32>(tx, (tail + count) & mask, Q_LAST_AVAIL);
  return 0;
}

/** Rings the transmit ring's doorbell, and kicks the device if it sleeps. */
export function publishDriverTx(tx: usize): void {
  const registers: usize = load<u32>(tx, Q_REGISTERS);
  atomic.store<u32>(registers + ADV_REG_TAIL, load<u32>(tx, Q_LAST_AVAIL));
  if (atomic.load<u32>(registers + ADV_REG_ARMED)) raiseCall(tx);
}

/** Whether the transmit ring has no room for even the longest frame's worth of descriptors. */
export function isDriverTxFull(tx: usize): bool {
  return freeToSend(tx) < <u32> ADV_CHAIN_MAX;
}

/** Whether the device has taken everything that was put into the transmit ring. */
export function isDriverTxEmpty(tx: usize): bool {
  return atomic.load<u32>(load<u32>(tx, Q_REGISTERS) + ADV_REG_HEAD) == load<u32>(tx, Q_LAST_AVAIL);
}

// The receive ring --------------------------------------------------------------------------------------------------

/** Descriptors that the device has filled, as far as a burst looks. */
export function pendingDriver(rx: usize): u32 {
  const mask = load<u32>(rx, Q_SIZE) - 1;
  const next = load<u32>(rx, Q_LAST_AVAIL);
  let n: u32 = 0;
  // The slot behind the tail is the driver's own, and never done.
  while (n < LOOK_AHEAD && n < mask) {
    if ((atomic.load<u32>(descriptorOf(rx, (next + n) & mask), 8) & ADV_RXD_STAT_DD) == 0) break;
    n++;
  }
  return n;
}

/** As `gatherSplit`, from the receive ring of a device. A frame whose last descriptor is not there yet is waited for. */
export function gatherDriver(rx: usize, most: u32, byteLimit: u32, unitLimit: u32): u32 {
  const mask = load<u32>(rx, Q_SIZE) - 1;
  const next = load<u32>(rx, Q_LAST_AVAIL);
  const there = pendingDriver(rx);
  let bytes: u32 = 0;
  let units = load<u32>(batch(), B_UNITS);
  let taken: u32 = 0;
  let n: u32 = 0;
  let before = noHead();
  let record = recordAt(0);
  for (; n < most && taken < there && bytes < byteLimit && units < unitLimit; n++, record += RECORD_STRIDE) {
    const slot = (next + taken) & mask;
    const meta = load<u64>(descriptorOf(rx, slot), 8);
    const length = <u32> (meta >> 32) & 0xffff;
    if ((<u32> meta & ADV_RXD_STAT_EOP) != 0 && length <= <u32> DRIVER_BUFFER_BYTES && isPlainLength(length)) {
      before = recordPlain(record, bufferOf(rx, slot), length, before);
      store<u32>(record, 1, R_DESCRIPTORS);
      bytes += length;
      taken++;
      units += UNITS_FRAME + (length >> UNITS_BYTES_SHIFT);
      continue;
    }
    store<u32>(batch(), units, B_UNITS);
    const verdict = gatherBuffers(rx, slot, there - taken, record);
    if (verdict != OK) {
      if (n == 0 && verdict != BAD_CHAIN_LENGTH) failQueue(rx, verdict, load<u64>(batch(), B_BAD_DETAIL));
      break;
    }
    before = v128.load(record);
    bytes += load<u32>(record, R_LENGTH);
    taken += load<u32>(record, R_DESCRIPTORS);
    units = load<u32>(batch(), B_UNITS) + UNITS_FRAME;
  }
  store<u32>(batch(), units, B_UNITS);
  store<u32>(batch(), bytes, B_BYTES);
  return n;
}

/** Any other frame, of at most `there` descriptors from slot `first` on. */
function gatherBuffers(rx: usize, first: u32, there: u32, record: usize): u32 {
  const mask = load<u32>(rx, Q_SIZE) - 1;
  const start = load<u32>(batch(), B_SEGMENTS);
  let bytes: u64 = 0;
  for (let i: u32 = 0; i < there; i++) {
    const slot = (first + i) & mask;
    const meta = load<u64>(descriptorOf(rx, slot), 8);
    const length = <u32> (meta >> 32) & 0xffff;
    store<u64>(batch(), slot, B_BAD_DETAIL);
    if (length > <u32> DRIVER_BUFFER_BYTES) return BAD_DESCRIPTOR;
    appendSegment(context + TX_SEGMENTS, start + i, bufferOf(rx, slot), length);
    bytes += length;
    if ((<u32> meta & ADV_RXD_STAT_EOP) == 0) continue;
    store<u32>(batch(), start + i + 1, B_CHAIN_SEGMENTS);
    recordSegments(record, start, bytes, 0, false);
    store<u32>(record, i + 1, R_DESCRIPTORS);
    return OK;
  }
  return BAD_CHAIN_LENGTH;
}

/** Gives the descriptors of the batch's first `n` frames back to the device; it sees them after `publishDriverRx`. */
export function completeDriver(rx: usize, n: u32): void {
  const mask = load<u32>(rx, Q_SIZE) - 1;
  let next = load<u32>(rx, Q_LAST_AVAIL);
  let record = recordAt(0);
  for (let i: u32 = 0; i < n; i++, record += RECORD_STRIDE) {
    for (let k = load<u32>(record, R_DESCRIPTORS); k > 0; k--, next++) {
      // One descriptor is always the driver's: what is given back is that one, and the frame's takes its place.
      post(rx, (next - 1) & mask);
      // Its turn comes with the next frame; until then it must not look filled.
      store<u64>(descriptorOf(rx, next & mask), 0, 8);
    }
  }
  store<u32>(rx, next & mask, Q_LAST_AVAIL);
}

@inline
function post(rx: usize, slot: u32): void {
  store<u64>(descriptorOf(rx, slot), iovaOf(rx, slot));
  store<u64>(descriptorOf(rx, slot), 0, 8);
}

/** Hands all of the receive ring to the device but the one descriptor that stays the driver's. */
export function fillDriverRx(rx: usize): void {
  const size = load<u32>(rx, Q_SIZE);
  for (let slot: u32 = 0; slot < size; slot++) post(rx, slot);
  store<u32>(rx, 0, Q_LAST_AVAIL);
  publishDriverRx(rx);
}

/** Moves the receive ring's tail: everything up to the descriptor before the next one is the device's. */
export function publishDriverRx(rx: usize): void {
  const mask = load<u32>(rx, Q_SIZE) - 1;
  atomic.store<u32>(load<u32>(rx, Q_REGISTERS) + ADV_REG_TAIL, (load<u32>(rx, Q_LAST_AVAIL) - 1) & mask);
}

/** Asks the device for an interrupt; true if there are frames already. */
export function armDriver(rx: usize): bool {
  atomic.store<u32>(load<u32>(rx, Q_REGISTERS) + ADV_REG_INTERRUPT, 1);
  return pendingDriver(rx) != 0;
}

/** Tells the device that the receive ring is polled. */
export function disarmDriver(rx: usize): void {
  atomic.store<u32>(load<u32>(rx, Q_REGISTERS) + ADV_REG_INTERRUPT, 0);
}
