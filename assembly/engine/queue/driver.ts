/**
 * The driver side of an advanced queue pair: how an engine that is a driver itself (the vhost service's) is connected to
 * the NIC. Frames are delivered to its transmit ring and taken from its receive ring; each has a virtio-net header in
 * front. Each descriptor keeps a buffer of its own, so there is nothing to allocate and nothing to look up. The device at
 * the other end is the NIC, but what it writes is checked all the same: a wrong index would lead out of the buffers.
 */
import {
  ADV_CHAIN_MAX,
  ADV_REG_ARMED,
  ADV_REG_HEAD,
  ADV_REG_INTERRUPT,
  ADV_REG_TAIL,
  ADV_RXD_STAT_DD,
  ADV_RXD_STAT_EOP,
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
  N_COUNT,
  N_NEXT,
  N_RECORD,
  OK,
  FLAVOUR_DRIVER_RX,
  Q_DIRECT,
  Q_FLAVOUR,
  Q_LAST_AVAIL,
  Q_REGISTERS,
  Q_SIZE,
  Q_USED_IDX,
  R_DESCRIPTORS,
  R_LENGTH,
  RECORD_STRIDE,
  DRIVER_BUFFER_BYTES,
  TX_SEGMENTS,
} from "../../../shared/layout/nic.ts";
import { noHead, recordAt, recordPlain } from "../batch/record.ts";
import { appendSegment } from "../batch/segments.ts";
import { batch, context } from "../context.ts";
import { UNITS_BYTES_SHIFT, UNITS_FRAME } from "../schedule/cost.ts";
import { raiseCall } from "./coalesce.ts";
import { failQueue } from "./interrupts.ts";
import { isPlainLength } from "../batch/take.ts";
import { VIRTIO_NET_HDR_BYTES } from "../../../shared/layout/virtio.ts";
import { put } from "../batch/segments.ts";
import { bufferOf, descriptorOf, iovaOf } from "./driver_ring.ts";
import { BAD_HEADER, OFFLOADS_ALL } from "../../../shared/layout/nic.ts";
import { freeToSend } from "./driver_send.ts";
import { receive } from "./receive.ts";
import { recordSegments } from "../batch/unusual.ts";

/** Frames of the receive ring looked ahead for; a burst takes no more at a time. */
const LOOK_AHEAD: u32 = 128;

// The transmit ring -------------------------------------------------------------------------------------------------

/** As `scatterSplit`, into the transmit ring of a device. */
export function scatterDriver(tx: usize, first: usize, wait: bool): u32 {
  let at = first;
  let record: usize = load<u32>(at, N_RECORD);
  let left: u32 = load<u16>(at, N_COUNT);
  for (;;) {
    if (!receive(tx, at, record, left, wait)) break;
    record += RECORD_STRIDE;
    if (--left != 0) continue;
    at = load<u32>(at, N_NEXT);
    if (at == 0) break;
    record = load<u32>(at, N_RECORD);
    left = load<u16>(at, N_COUNT);
  }
  return load<u32>(batch(), B_DONE);
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
    const filled = <u32> (meta >> 32) & 0xffff;
    const buffer = bufferOf(rx, slot);
    const length = filled - VIRTIO_NET_HDR_BYTES;
    const isWhole = (<u32> meta & ADV_RXD_STAT_EOP) != 0 && filled <= <u32> DRIVER_BUFFER_BYTES;
    if (isWhole && isPlainLength(length) && load<u16>(buffer) == 0) {
      before = recordPlain(record, buffer + VIRTIO_NET_HDR_BYTES, length, before);
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
    if (bytes < <u64> VIRTIO_NET_HDR_BYTES) return BAD_HEADER;
    recordSegments(record, start, bytes, VIRTIO_NET_HDR_BYTES, OFFLOADS_ALL);
    store<u32>(record, i + 1, R_DESCRIPTORS);
    return OK;
  }
  return BAD_CHAIN_LENGTH;
}

/**
 * Gives the descriptors of the batch's first `n` frames back to the device, with the batch's publication: until then
 * whoever takes over from this engine finds the frames where they are.
 */
export function completeDriver(rx: usize, n: u32): void {
  let next = load<u32>(rx, Q_LAST_AVAIL);
  let record = recordAt(0);
  for (let i: u32 = 0; i < n; i++, record += RECORD_STRIDE) next += load<u32>(record, R_DESCRIPTORS);
  store<u32>(rx, next & (load<u32>(rx, Q_SIZE) - 1), Q_USED_IDX);
}

/** Gives back what `completeDriver` has noted. Whoever finishes a publication that was cut short may do it again. */
function giveBack(rx: usize): void {
  const mask = load<u32>(rx, Q_SIZE) - 1;
  const end = load<u32>(rx, Q_USED_IDX);
  for (let next = load<u32>(rx, Q_LAST_AVAIL); next != end; next = (next + 1) & mask) {
    // One descriptor is always the driver's: what is given back is that one, and the frame's takes its place.
    post(rx, (next - 1) & mask);
    // Its turn comes with the next frame; until then it must not look filled.
    store<u64>(descriptorOf(rx, next), 0, 8);
  }
  store<u32>(rx, end, Q_LAST_AVAIL);
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
  store<u32>(rx, 0, Q_USED_IDX);
  publishDriverRx(rx);
}

/** Moves the receive ring's tail: everything up to the descriptor before the next one is the device's. */
export function publishDriverRx(rx: usize): void {
  if (load<u32>(rx, Q_DIRECT) == 0) giveBack(rx);
  const mask = load<u32>(rx, Q_SIZE) - 1;
  atomic.store<u32>(load<u32>(rx, Q_REGISTERS) + ADV_REG_TAIL, (load<u32>(rx, Q_LAST_AVAIL) - 1) & mask);
}

/**
 * Has a ring of an engine that has ended go on, whose places in this arena are written: what was published when it ended
 * is published to its end, and of anything else nothing has happened.
 */
export function adoptDriver(q: usize, isCommitted: bool): void {
  if (load<u32>(q, Q_FLAVOUR) == FLAVOUR_DRIVER_RX) {
    if (isCommitted) publishDriverRx(q);
    else store<u32>(q, load<u32>(q, Q_LAST_AVAIL), Q_USED_IDX);
    return;
  }
  const registers: usize = load<u32>(q, Q_REGISTERS);
  if (isCommitted) publishDriverTx(q);
  else store<u32>(q, atomic.load<u32>(registers + ADV_REG_TAIL), Q_LAST_AVAIL);
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
