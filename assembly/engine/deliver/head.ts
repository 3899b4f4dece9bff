/**
 * A frame as its receiver gets it: tag put in, taken out, or kept. The first 16 bytes come from the record, which was
 * checked; a head that was looked into, or changed, comes from its copy; the rest comes from the sender's memory.
 */
import {
  HEAD_F_OFFLOAD,
  HEAD_F_PLAIN,
  HEAD_F_WHOLE,
  HEAD_INSERT,
  HEAD_MASK,
  HEAD_STRIP,
  ONE_SEGMENT,
  OUT_HEAD,
  R_DATA,
  R_FLAGS,
  R_LENGTH,
  R_SEGMENTS,
  RECORD_F_OFFLOAD,
  RECORD_F_PLAIN,
  RECORD_F_WHOLE,
} from "../../../shared/layout/nic.ts";
import { copyBytes } from "../../lib/copy.ts";
import { headCopyAt, headCopyBytes, isCopied } from "../batch/record.ts";
import { peek, put, putFrom } from "../batch/segments.ts";
import { context } from "../context.ts";

const TAG_BYTES: u32 = 4;

/** Bytes of a frame of `length` bytes at its receiver. */
@inline
export function outLength(head: u32, length: u32): u32 {
  const what = head & HEAD_MASK;
  if (what == 0) return length;
  return what == HEAD_INSERT ? length + TAG_BYTES : what == HEAD_STRIP ? length - TAG_BYTES : length;
}

/** What a delivery of this record says of it: HEAD_F_PLAIN, HEAD_F_WHOLE with or without HEAD_F_OFFLOAD, or nothing. */
@inline
export function kindOf(record: usize): u32 {
  const flags: u32 = load<u16>(record, R_FLAGS);
  if ((flags & RECORD_F_PLAIN) != 0) return HEAD_F_PLAIN;
  if ((flags & RECORD_F_WHOLE) == 0) return 0;
  return (flags & RECORD_F_OFFLOAD) != 0 ? HEAD_F_WHOLE | HEAD_F_OFFLOAD : HEAD_F_WHOLE;
}

/** Writes a plain record's frame to `dst`, where there is room for all of it, as it is. */
@inline
export function putPlain(dst: usize, record: usize): void {
  const data: usize = load<u32>(record, R_DATA);
  v128.store(dst, v128.load(record));
  copyBytes(dst + 16, data + 16, load<u32>(record, R_LENGTH) - 16);
}

/** As `putPlain`, with what `head` says done to its tag. */
export function putTagged(dst: usize, record: usize, head: u32, tag: u32): void {
  const data: usize = load<u32>(record, R_DATA);
  const length = load<u32>(record, R_LENGTH);
  const what = head & HEAD_MASK;
  v128.store(dst, v128.load(record));
  if (what == HEAD_INSERT) {
    store<u32>(dst, tag, 12);
    store<u32>(dst, load<u32>(record, 12), 16);
    copyBytes(dst + 20, data + 16, length - 16);
  } else if (what == HEAD_STRIP) {
    // What is behind the tag nobody has looked at, as with all that follows.
    copyBytes(dst + 12, data + 16, length - 16);
  } else {
    copyBytes(dst + 16, data + 16, length - 16);
  }
}

/** Writes a frame's head to `out`: its length, and how many bytes of the frame it stands for, << 8. */
function buildHead(record: usize, head: u32, tag: u32, out: usize): u32 {
  const what = head & HEAD_MASK;
  const copied = isCopied(record);
  const from = copied ? headCopyAt(record) : record;
  const known = copied ? headCopyBytes(record) : min(load<u32>(record, R_LENGTH), 16);
  v128.store(out, v128.load(from));
  if (what == HEAD_INSERT) {
    store<u32>(out, tag, 12);
    memory.copy(out + 16, from + 12, known - 12);
    return (known + TAG_BYTES) | (known << 8);
  }
  if (what == HEAD_STRIP) {
    memory.copy(out + 12, from + 16, known - 16);
    return (known - TAG_BYTES) | (known << 8);
  }
  if (copied) memory.copy(out, from, known);
  return known | (known << 8);
}

/** The segments of a record's frame, also if it lies in one piece. */
export function segmentsOf(record: usize): usize {
  if (<u32> load<u16>(record, R_SEGMENTS) != 1) return load<u32>(record, R_DATA);
  const one = context + ONE_SEGMENT;
  store<u32>(one, load<u32>(record, R_DATA));
  store<u32>(one, load<u32>(record, R_LENGTH), 4);
  return one;
}

/** Writes a frame behind what was put into RX_SEGMENTS, which have room for it. */
export function putFrame(record: usize, head: u32, tag: u32): void {
  const out = context + OUT_HEAD;
  const built = buildHead(record, head, tag, out);
  put(out, built & 0xff);
  const skip = built >> 8;
  putFrom(segmentsOf(record), skip, load<u32>(record, R_LENGTH) - skip);
}

/** Copies the first `n` bytes of a frame as its receiver gets it to `dst`; what follows is put with `putRest`. */
export function peekFrame(record: usize, head: u32, tag: u32, n: u32, dst: usize): void {
  const out = context + OUT_HEAD;
  const built = buildHead(record, head, tag, out);
  const headBytes = built & 0xff;
  memory.copy(dst, out, min(headBytes, n));
  if (n > headBytes) peek(segmentsOf(record), built >> 8, n - headBytes, dst + headBytes);
}

/** Puts a frame as its receiver gets it, from its byte `from` on, which lies behind the head. */
export function putRest(record: usize, head: u32, from: u32): void {
  const length = load<u32>(record, R_LENGTH);
  let skip = from + length - outLength(head, length);
  if (isCopied(record) && skip < headCopyBytes(record)) {
    put(headCopyAt(record) + skip, headCopyBytes(record) - skip);
    skip = headCopyBytes(record);
  }
  putFrom(segmentsOf(record), skip, length - skip);
}
