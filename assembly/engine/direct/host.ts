/**
 * Frames in host buffers, for which the guest had no buffer when they came, or none that could be offered: they become
 * records, and are copied to the guest as on the copying path.
 */
import {
  ADV_DIRECT_CHAIN_MAX,
  ADV_DIRECT_HEADER_SHIFT,
  ADV_DIRECT_STAT_MARK,
  ADV_RXD_STAT_DD,
  ADV_RXD_STAT_EOP,
} from "../../../shared/layout/advanced.ts";
import {
  B_CHAIN_SEGMENTS,
  B_SEGMENTS,
  B_UNITS,
  BAD_DESCRIPTOR,
  DIRECT_HEADER_AT,
  DIRECT_HEADER_BYTES,
  DIRECT_HOST_BYTES,
  DIRECT_OFFERED,
  DIRECT_RX_COPIED,
  OFFLOADS_ALL,
  Q_LAST_AVAIL,
  Q_SIZE,
  R_DESCRIPTORS,
  RECORD_STRIDE,
  TX_SEGMENTS,
} from "../../../shared/layout/nic.ts";
import { noHead, recordAt, recordPlain } from "../batch/record.ts";
import { appendSegment } from "../batch/segments.ts";
import { addFrame, isPlainLength } from "../batch/take.ts";
import { recordSegments } from "../batch/unusual.ts";
import { batch, context } from "../context.ts";
import { copyBytes } from "../../lib/copy.ts";
import { publishDriverRx } from "../queue/driver.ts";
import { failQueue } from "../queue/interrupts.ts";
import { FRONT } from "../queue/direct_receive.ts";
import { descriptorAt, hostBuffer, repost, stateOf } from "./books.ts";

/** The second half of a slot's descriptor. The device writes it as one. */
@inline
export function doneAt(rx: usize, slot: u32): u64 {
  return atomic.load<u64>(descriptorAt(rx, slot), 8);
}

/** What a done descriptor's second half holds: bytes in the slot's buffer, and those of them that lie in its header buffer. */
@inline
export function lengthOf(done: u64): u32 {
  return <u32> (done >> 32) & 0xffff;
}

@inline
export function apartOf(done: u64): u32 {
  return <u32> (done >> <u64> ADV_DIRECT_HEADER_SHIFT);
}

/** Whether the device can have put that into a buffer of `room` bytes: a wrong number would lead out of the buffers. */
@inline
export function isSound(done: u64, room: u32): bool {
  const apart = apartOf(done);
  return lengthOf(done) <= room && apart <= <u32> DIRECT_HEADER_BYTES && apart <= lengthOf(done);
}

/** Puts the headers of a slot's frame, if they lie apart, in front of the rest in its host buffer. */
function join(rx: usize, slot: u32, done: u64): usize {
  const buffer = hostBuffer(rx, slot);
  if (apartOf(done) != 0) copyBytes(buffer, buffer + DIRECT_HEADER_AT, apartOf(done));
  return buffer;
}

/** Makes records of up to `most` frames in host buffers, for at most `share` units; answers how many. */
export function gatherHost(rx: usize, most: u32, share: u32): u32 {
  const mask = load<u32>(rx, Q_SIZE) - 1;
  let slot = load<u32>(rx, Q_LAST_AVAIL);
  let before = noHead();
  let n: u32 = 0;
  for (; n < most && load<u32>(batch(), B_UNITS) < share; n++) {
    const record = recordAt(n);
    const done = doneAt(rx, slot);
    if ((<u32> done & ADV_RXD_STAT_DD) == 0) break;
    const length = lengthOf(done);
    const isWhole = (<u32> done & (ADV_RXD_STAT_EOP | ADV_DIRECT_STAT_MARK)) == ADV_RXD_STAT_EOP;
    if (isWhole && isSound(done, DIRECT_HOST_BYTES) && length >= FRONT && isPlainLength(length - FRONT)) {
      const buffer = join(rx, slot, done);
      if (load<u16>(buffer) == 0) {
        before = recordPlain(record, buffer + FRONT, length - FRONT, before);
        store<u32>(record, 1, R_DESCRIPTORS);
        addFrame(record);
        slot = (slot + 1) & mask;
        continue;
      }
    }
    if (!gatherSlots(rx, slot, record)) break;
    before = v128.load(record);
    addFrame(record);
    slot = (slot + load<u32>(record, R_DESCRIPTORS)) & mask;
  }
  return n;
}

/** Any other frame; false if it is not all there. */
function gatherSlots(rx: usize, first: u32, record: usize): bool {
  const mask = load<u32>(rx, Q_SIZE) - 1;
  const start = load<u32>(batch(), B_SEGMENTS);
  let bytes: u64 = 0;
  for (let i: u32 = 0; i < <u32> ADV_DIRECT_CHAIN_MAX; i++) {
    const slot = (first + i) & mask;
    const done = doneAt(rx, slot);
    if ((<u32> done & ADV_RXD_STAT_DD) == 0) return false;
    if ((<u32> done & ADV_DIRECT_STAT_MARK) != 0 || !isSound(done, DIRECT_HOST_BYTES)) break;
    appendSegment(context + TX_SEGMENTS, start + i, join(rx, slot, done), lengthOf(done));
    bytes += lengthOf(done);
    if ((<u32> done & ADV_RXD_STAT_EOP) == 0) continue;
    if (bytes < FRONT) break;
    store<u32>(batch(), start + i + 1, B_CHAIN_SEGMENTS);
    recordSegments(record, start, bytes, FRONT, OFFLOADS_ALL);
    store<u32>(record, i + 1, R_DESCRIPTORS);
    return true;
  }
  failQueue(rx, BAD_DESCRIPTOR, first);
  return false;
}

/** Gives the slots of the batch's first `n` frames back to the device. No slot has a buffer of the guest's. */
export function completeHost(rx: usize, n: u32): void {
  const mask = load<u32>(rx, Q_SIZE) - 1;
  let slot = load<u32>(rx, Q_LAST_AVAIL);
  let record = recordAt(0);
  for (let i: u32 = 0; i < n; i++, record += RECORD_STRIDE) {
    for (let k = load<u32>(record, R_DESCRIPTORS); k > 0; k--) {
      repost(rx, slot);
      slot = (slot + 1) & mask;
    }
  }
  const state = stateOf(rx);
  store<u32>(rx, slot, Q_LAST_AVAIL);
  store<u32>(state, slot, DIRECT_OFFERED);
  store<u64>(state, load<u64>(state, DIRECT_RX_COPIED) + n, DIRECT_RX_COPIED);
}

/** Hands all of the receive ring to the device but the one descriptor that stays the driver's. */
export function fillDirect(rx: usize): void {
  const size = load<u32>(rx, Q_SIZE);
  for (let slot: u32 = 0; slot < size; slot++) repost(rx, slot);
  store<u32>(rx, 0, Q_LAST_AVAIL);
  store<u32>(stateOf(rx), 0, DIRECT_OFFERED);
  publishDriverRx(rx);
}
