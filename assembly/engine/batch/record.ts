/**
 * Frame records: what a gather makes of a frame, whatever its ring's format, and all that the rest of the engine ever
 * sees of it. The first bytes are a copy that was read once: what is checked is what is sent on, so a guest that
 * rewrites its frame meanwhile gains nothing.
 */
import {
  B_BYTES,
  B_SEGMENTS,
  FRAME_HEAD,
  HEAD_BYTES_MAX,
  HEAD_COPIES,
  O_COPIED,
  R_DATA,
  R_DESCRIPTORS,
  R_FLAGS,
  R_ID,
  R_LENGTH,
  R_SEGMENTS,
  RECORD_F_COPIED,
  RECORD_F_PLAIN,
  RECORD_F_SAME,
  RECORD_F_WHOLE,
  RECORD_STRIDE,
  RECORDS,
} from "../../../shared/layout/nic.ts";
import { copyBytes } from "../../lib/copy.ts";
import { batch, context } from "../context.ts";
import { spend, UNITS_UNUSUAL } from "../schedule/cost.ts";
import { peek } from "./segments.ts";

/** Bytes that a plain record's frame has at the least: addresses, a tag, and the type behind it. */
export const RECORD_HEAD_BYTES: u32 = 20;

/** Frames up to this length are short: their first lines are most of what moves between CPUs. */
export const SHORT_FRAME_BYTES: u32 = 512;

/** Record `i` of the batch. */
@inline
export function recordAt(i: u32): usize {
  return context + RECORDS + i * RECORD_STRIDE;
}

/** Begins a batch: no segments, no bytes. */
@inline
export function beginGather(): void {
  store<u32>(batch(), 0, B_SEGMENTS);
  store<u32>(batch(), 0, B_BYTES);
}

/**
 * Fills a record with a frame of one piece at `frame`, of RECORD_HEAD_BYTES or more, that asks for nothing; what it takes
 * of the ring is the caller's to note. `before`: the first bytes of the record before. Answers the frame's own.
 */
@inline
export function recordPlain(record: usize, frame: usize, frameBytes: u32, before: v128): v128 {
  const head = v128.load(frame);
  const kind = v128.any_true(v128.xor(head, before)) ? PLAIN : PLAIN_AND_SAME;
  v128.store(record, head);
  const where = <u64> (<u32> frame) | (<u64> frameBytes << 32);
  v128.store(record, i64x2.replace_lane(i64x2.splat(kind), 0, where), R_DATA);
  return head;
}

/** Notes of a record that is whole whether it begins as the record before, `before`; answers its own first bytes. */
export function noteSame(record: usize, before: v128): v128 {
  const head = v128.load(record);
  const flags: u32 = load<u16>(record, R_FLAGS);
  if ((flags & RECORD_F_WHOLE) != 0 && !v128.any_true(v128.xor(head, before))) {
    store<u16>(record, <u16> (flags | RECORD_F_SAME), R_FLAGS);
  }
  return head;
}

/** R_SEGMENTS, R_FLAGS and R_DROP of a plain record, and of one that is as the one before. */
const PLAIN: u64 = 1 | (<u64> RECORD_F_PLAIN << 16);
const PLAIN_AND_SAME: u64 = 1 | (<u64> (RECORD_F_PLAIN | RECORD_F_SAME) << 16);
/** RECORD_F_SAME in those. */
export const SAME: u64 = <u64> RECORD_F_SAME << 16;

/** What stands for the first bytes of the record before the first one, which is never taken for the same. */
@inline
export function noHead(): v128 {
  return i64x2.splat(-1);
}

/** What a frame's descriptors are: how many, and what is given back for them. */
@inline
export function recordDescriptors(record: usize, count: u32, id: u32): void {
  store<u32>(record, count, R_DESCRIPTORS);
  store<u32>(record, id, R_ID);
}

/** Copies `n` bytes of a record's frame, as its sender has it, from byte `skip` on to `dst`. */
function peekFrame(record: usize, skip: u32, n: u32, dst: usize): void {
  const data: usize = load<u32>(record, R_DATA);
  if (<u32> load<u16>(record, R_SEGMENTS) == 1) copyBytes(dst, data + skip, n);
  else peek(data, skip, n, dst);
}

/** Where the copy of a record's head lies, if it has one; O_* behind it. */
@inline
export function headCopyAt(record: usize): usize {
  const first = context + RECORDS;
  return context + HEAD_COPIES + ((record - first) << 2);
}

/** Whether the frame's head goes on from its copy. */
@inline
export function isCopied(record: usize): bool {
  return (load<u16>(record, R_FLAGS) & RECORD_F_COPIED) != 0;
}

/** How many bytes of a frame's head its copy has. */
@inline
export function headCopyBytes(record: usize): u32 {
  return load<u32>(headCopyAt(record), O_COPIED);
}

/**
 * Copies a frame's head, once, for who decides by what is behind its first bytes, or changes it: the copy is what is
 * looked at, and what is sent on. It has `most` bytes, up to HEAD_COPY_BYTES_MAX, or the whole frame. Answers where it is.
 */
export function copiedHead(record: usize, most: u32): usize {
  const copy = headCopyAt(record);
  const copied = isCopied(record);
  const known: u32 = copied ? headCopyBytes(record) : 16;
  const wanted = min(load<u32>(record, R_LENGTH), most);
  if (copied && wanted <= known) return copy;
  spend(UNITS_UNUSUAL);
  // What was read before is not read again.
  if (!copied) v128.store(copy, v128.load(record));
  if (wanted > known) peekFrame(record, known, wanted - known, copy + known);
  store<u32>(copy, wanted, O_COPIED);
  const flags: u32 = load<u16>(record, R_FLAGS);
  const kind: u32 = (flags & RECORD_F_PLAIN) != 0 ? RECORD_F_COPIED | RECORD_F_WHOLE : RECORD_F_COPIED;
  store<u16>(record, <u16> ((flags & ~(RECORD_F_PLAIN | RECORD_F_SAME)) | kind), R_FLAGS);
  return copy;
}

/** Where the frame's first bytes can be read, and how many (HEAD_BYTES_MAX at the most): a hint, not to be trusted. */
@inline
export function headOf(record: usize): usize {
  if (<u32> load<u16>(record, R_SEGMENTS) == 1) return load<u32>(record, R_DATA);
  peekFrame(record, 0, min(load<u32>(record, R_LENGTH), <u32> HEAD_BYTES_MAX), context + FRAME_HEAD);
  return context + FRAME_HEAD;
}
