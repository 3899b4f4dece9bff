/**
 * Plain frames, in two steps. A ring's format *locates* a run of them: checks their descriptors, notes where each lies,
 * and reads the first lines of short ones. Another CPU has just written those lines, so each is a wait; asked for
 * together they come together, asked for one by one by whoever needs them each is waited for. Wasm has no prefetch
 * instruction: the lines are read, and what was read is kept. Then they are *taken*, whatever the format.
 *
 * Long frames are not read ahead: the lines of 32 of them push each other out of the first-level cache, and have to be
 * read again when they are copied (plain 1518 B between two CPUs: 3 % slower with it).
 */
import {
  B_BYTES,
  B_UNITS,
  FRAME_BYTES_MAX,
  Q_HDR_BYTES,
  Q_OFFLOADS,
  R_DATA,
  R_LENGTH,
  RECORD_STRIDE,
} from "../../../shared/layout/nic.ts";
import { batch } from "../context.ts";
import { spend, UNITS_BYTES_SHIFT, UNITS_FRAME } from "../schedule/cost.ts";
import { noHead, noteSame, RECORD_HEAD_BYTES, recordAt, recordPlain, SHORT_FRAME_BYTES } from "./record.ts";
import { recordWhole } from "./unusual.ts";

/** How many frames are located at a time. */
export const RUN_FRAMES: u32 = 32;

/** Whether a frame of this length can be a plain record. */
@inline
export function isPlainLength(frameBytes: u32): bool {
  return frameBytes - RECORD_HEAD_BYTES <= <u32> FRAME_BYTES_MAX - RECORD_HEAD_BYTES;
}

/**
 * Notes in `record` that its frame lies at `frame`, behind a header of `hdrBytes`. Answers a value made of
 * what was read ahead, which the caller stores: else the compiler would leave the reading out.
 */
@inline
export function locate(record: usize, frame: usize, frameBytes: u32, hdrBytes: u32): u64 {
  store<u64>(record, <u64> (<u32> frame) | (<u64> frameBytes << 32), R_DATA);
  return frameBytes <= SHORT_FRAME_BYTES ? load<u64>(frame) + load<u16>(frame - hdrBytes) : 0;
}

/** Whether the batch may grow: it stops behind `byteLimit` bytes, or when it has cost `unitLimit`. */
@inline
export function mayGrow(byteLimit: u32, unitLimit: u32): bool {
  return load<u32>(batch(), B_BYTES) < byteLimit && load<u32>(batch(), B_UNITS) < unitLimit;
}

/** Adds a frame that was recorded otherwise to what the batch holds and costs. */
export function addFrame(record: usize): void {
  const bytes = load<u32>(record, R_LENGTH);
  store<u32>(batch(), load<u32>(batch(), B_BYTES) + bytes, B_BYTES);
  spend(UNITS_FRAME + (bytes >> UNITS_BYTES_SHIFT));
}

/**
 * Makes records of the batch of up to `there` located frames of queue `q` from record `first` on, as long as it may grow;
 * answers how many. What they take of their ring is noted already.
 */
export function take(q: usize, first: u32, there: u32, byteLimit: u32, unitLimit: u32): u32 {
  const hdrBytes = load<u32>(q, Q_HDR_BYTES);
  let record = recordAt(first);
  let before = first == 0 ? noHead() : v128.load(record - RECORD_STRIDE);
  let bytes = load<u32>(batch(), B_BYTES);
  let units = load<u32>(batch(), B_UNITS);
  let n: u32 = 0;
  for (; n < there && bytes < byteLimit && units < unitLimit; n++, record += RECORD_STRIDE) {
    const frame: usize = load<u32>(record, R_DATA);
    const frameBytes = load<u32>(record, R_LENGTH);
    if (hdrBytes == 0 || load<u16>(frame - hdrBytes) == 0) {
      before = recordPlain(record, frame, frameBytes, before);
    } else {
      store<u32>(batch(), units, B_UNITS);
      recordWhole(record, frame, frameBytes, hdrBytes, <u32> load<u16>(q, Q_OFFLOADS));
      before = noteSame(record, before);
      units = load<u32>(batch(), B_UNITS);
    }
    bytes += frameBytes;
    units += UNITS_FRAME + (frameBytes >> UNITS_BYTES_SHIFT);
  }
  store<u32>(batch(), bytes, B_BYTES);
  store<u32>(batch(), units, B_UNITS);
  return n;
}
