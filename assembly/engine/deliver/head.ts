/**
 * A frame as its receiver gets it: tag put in, taken out, or kept. Addresses, tag and the type behind it come from the
 * record, which was checked; the rest from the sender's memory.
 */
import {
  HEAD_AS_IS,
  HEAD_INSERT,
  HEAD_KEEP_TAG,
  HEAD_MASK,
  HEAD_STRIP,
  N_HEAD,
  N_RECORD,
  N_TAG,
  ONE_SEGMENT,
  OUT_HEAD,
  R_DATA,
  R_HEAD2,
  R_LENGTH,
  R_SEGMENTS,
} from "../../../shared/layout/nic.ts";
import { copyBytes } from "../../lib/copy.ts";
import { RECORD_HEAD_BYTES } from "../batch/record.ts";
import { peek, put, putFrom } from "../batch/segments.ts";
import { context } from "../context.ts";

const TAG_BYTES: u32 = 4;

/** Bytes of a frame of `length` bytes at its receiver. */
@inline
export function outLength(head: u32, length: u32): u32 {
  const what = head & HEAD_MASK;
  return what == HEAD_INSERT ? length + TAG_BYTES : what == HEAD_STRIP ? length - TAG_BYTES : length;
}

/** Whether the frame of delivery `at` can be written with `putPlain`: it lies in one piece and is not tiny. */
@inline
export function isPlain(record: usize): bool {
  return load<u32>(record, R_SEGMENTS) == 1 && load<u32>(record, R_LENGTH) >= RECORD_HEAD_BYTES;
}

/** Writes the frame of delivery `at` to `dst`, where there is room for all of it. */
export function putPlain(dst: usize, at: usize): void {
  const record: usize = load<u32>(at, N_RECORD);
  const data: usize = load<u32>(record, R_DATA);
  const length = load<u32>(record, R_LENGTH);
  const what = load<u32>(at, N_HEAD) & HEAD_MASK;
  v128.store(dst, v128.load(record));
  if (what == HEAD_AS_IS) {
    copyBytes(dst + 16, data + 16, length - 16);
  } else if (what == HEAD_INSERT) {
    store<u32>(dst, load<u32>(at, N_TAG), 12);
    store<u32>(dst, load<u32>(record, 12), 16);
    copyBytes(dst + 20, data + 16, length - 16);
  } else if (what == HEAD_STRIP) {
    store<u32>(dst, load<u32>(record, R_HEAD2), 12);
    copyBytes(dst + 16, data + 20, length - 20);
  } else {
    store<u32>(dst, load<u32>(record, R_HEAD2), 16);
    copyBytes(dst + 20, data + 20, length - 20);
  }
}

/** Writes the head of delivery `at` to `out`: its length, and how many bytes of the frame it stands for, << 8. */
function buildHead(at: usize, out: usize): u32 {
  const record: usize = load<u32>(at, N_RECORD);
  const length = load<u32>(record, R_LENGTH);
  const what = load<u32>(at, N_HEAD) & HEAD_MASK;
  v128.store(out, v128.load(record));
  if (what == HEAD_INSERT) {
    const known = min(length, 16);
    store<u32>(out, load<u32>(at, N_TAG), 12);
    store<u32>(out, load<u32>(record, 12), 16);
    return (known + TAG_BYTES) | (known << 8);
  }
  const known = min(length, RECORD_HEAD_BYTES);
  if (what == HEAD_STRIP) {
    store<u32>(out, load<u32>(record, R_HEAD2), 12);
    return (known - TAG_BYTES) | (known << 8);
  }
  if (what == HEAD_KEEP_TAG) {
    store<u32>(out, load<u32>(record, R_HEAD2), 16);
    return known | (known << 8);
  }
  return min(length, 16) | (min(length, 16) << 8);
}

/** The segments of a record's frame, also if it lies in one piece. */
export function segmentsOf(record: usize): usize {
  if (load<u32>(record, R_SEGMENTS) != 1) return load<u32>(record, R_DATA);
  const one = context + ONE_SEGMENT;
  store<u32>(one, load<u32>(record, R_DATA));
  store<u32>(one, load<u32>(record, R_LENGTH), 4);
  return one;
}

/** Writes the frame of delivery `at` behind what was put into RX_SEGMENTS, which have room for it. */
export function putFrame(at: usize): void {
  const record: usize = load<u32>(at, N_RECORD);
  const out = context + OUT_HEAD;
  const built = buildHead(at, out);
  put(out, built & 0xff);
  const skip = built >> 8;
  putFrom(segmentsOf(record), skip, load<u32>(record, R_LENGTH) - skip);
}

/**
 * Copies the first `n` bytes of the frame of delivery `at` as its receiver gets it to `dst`; what follows is put with
 * `putRest`.
 */
export function peekFrame(at: usize, n: u32, dst: usize): void {
  const record: usize = load<u32>(at, N_RECORD);
  const out = context + OUT_HEAD;
  const built = buildHead(at, out);
  const headBytes = built & 0xff;
  memory.copy(dst, out, min(headBytes, n));
  if (n > headBytes) peek(segmentsOf(record), built >> 8, n - headBytes, dst + headBytes);
}

/** Puts the frame of delivery `at` as its receiver gets it, from its byte `from` on, which lies behind the head. */
export function putRest(at: usize, from: u32): void {
  const record: usize = load<u32>(at, N_RECORD);
  const length = load<u32>(record, R_LENGTH);
  const skip = from + length - outLength(load<u32>(at, N_HEAD), length);
  putFrom(segmentsOf(record), skip, length - skip);
}
