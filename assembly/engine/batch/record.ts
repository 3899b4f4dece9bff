/**
 * Frame records: what a gather makes of a frame, whatever its ring's format, and all that the rest of the engine ever
 * sees of it. The first bytes are a copy that was read once: what is checked is what is sent on, so a guest that
 * rewrites its frame meanwhile gains nothing.
 */
import {
  B_BYTES,
  B_CHAIN_SEGMENTS,
  B_SEGMENTS,
  C_TX_BAD_OFFLOAD,
  C_TX_OVERSIZE,
  C_TX_RUNT,
  FRAME_BYTES_MAX,
  FRAME_BYTES_MIN,
  FRAME_OUT_BYTES_MAX,
  FRAME_HEAD,
  HEAD_BYTES_MAX,
  HEAD_COPIES,
  HEAD_COPY_BYTES,
  R_DATA,
  R_DESCRIPTORS,
  R_DROP,
  R_FLAGS,
  R_ID,
  R_LENGTH,
  R_SEGMENTS,
  RECORD_F_COPIED,
  RECORD_F_PLAIN,
  RECORD_F_SAME,
  RECORD_STRIDE,
  RECORDS,
  SEGMENT_STRIDE,
  TX_SEGMENTS,
} from "../../../shared/layout/nic.ts";
import { VIRTIO_NET_HDR_F_NEEDS_CSUM } from "../../../shared/layout/virtio.ts";
import { isTag } from "../../lib/ethernet.ts";
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

/** R_SEGMENTS, R_FLAGS and R_DROP of a plain record, and of one that is as the one before. */
const PLAIN: u64 = 1 | (<u64> RECORD_F_PLAIN << 16);
export const PLAIN_AND_SAME: u64 = 1 | (<u64> (RECORD_F_PLAIN | RECORD_F_SAME) << 16);

/** What stands for the first bytes of the record before the first one, which is never taken for the same. */
@inline
export function noHead(): v128 {
  return i64x2.splat(-1);
}

/**
 * Fills a record with the frame whose segments begin at entry `start` of TX_SEGMENTS and end at B_CHAIN_SEGMENTS:
 * `bytes` bytes, the first `hdrBytes` of them a virtio-net header. `offload`: it asks for what was not negotiated.
 */
export function recordSegments(record: usize, start: u32, bytes: u64, hdrBytes: u32, offload: bool): void {
  spend(UNITS_UNUSUAL);
  const end = load<u32>(batch(), B_CHAIN_SEGMENTS);
  store<u32>(batch(), end, B_SEGMENTS);
  let segment: usize = context + TX_SEGMENTS + start * SEGMENT_STRIDE;
  let count = end - start;
  let asks = offload;
  if (hdrBytes != 0) {
    const header = context + FRAME_HEAD;
    peek(segment, 0, hdrBytes, header);
    // No offload is negotiated: with NEEDS_CSUM and gso_type a driver asks for one (§5.1.6.2). Other flags are ignored.
    if ((load<u8>(header) & VIRTIO_NET_HDR_F_NEEDS_CSUM) != 0 || load<u8>(header, 1) != 0) asks = true;
  }
  let skip = hdrBytes;
  while (count > 1 && load<u32>(segment, 4) <= skip) {
    skip -= load<u32>(segment, 4);
    segment += SEGMENT_STRIDE;
    count--;
  }
  if (skip != 0) {
    store<u32>(segment, load<u32>(segment) + skip);
    store<u32>(segment, load<u32>(segment, 4) - skip, 4);
  }
  // What a hold has taken may have a tag more than what a guest may send.
  const length = <u32> min(bytes - hdrBytes, <u64> FRAME_OUT_BYTES_MAX + 1);
  v128.store(record, i64x2.splat(0));
  peek(segment, 0, min(length, 16), record);
  const whole = length == 0 || load<u32>(segment, 4) >= length;
  store<u32>(record, whole ? load<u32>(segment) : <u32> segment, R_DATA);
  store<u32>(record, length, R_LENGTH);
  const fault = faultOf(record, length, asks);
  const plain: u32 = whole && fault == 0 && length >= RECORD_HEAD_BYTES ? RECORD_F_PLAIN : 0;
  store<u32>(record, (whole ? 1 : count) | (plain << 16), R_SEGMENTS);
  store<u32>(record, fault, R_DROP);
}

/** The counter of what is wrong with a frame whatever its addresses, 0 for nothing. */
function faultOf(record: usize, length: u32, offload: bool): u32 {
  if (length > <u32> FRAME_BYTES_MAX) return C_TX_OVERSIZE;
  if (offload) return C_TX_BAD_OFFLOAD;
  if (length < <u32> FRAME_BYTES_MIN) return C_TX_RUNT;
  // A tagged frame has at least its tag and the EtherType behind it.
  if (isTag(load<u16>(record, 12)) && length < <u32> FRAME_BYTES_MIN + 4) return C_TX_RUNT;
  return 0;
}

/** What a frame's descriptors are: how many, and what is given back for them. */
@inline
export function recordDescriptors(record: usize, count: u32, id: u32): void {
  store<u32>(record, count, R_DESCRIPTORS);
  store<u32>(record, id, R_ID);
}

/** A copy of the frame's first bytes (HEAD_BYTES_MAX, if there are so many) for who looks into its headers. */
function copyHead(record: usize, dst: usize, most: u32): u32 {
  const n = min(load<u32>(record, R_LENGTH), most);
  const data: usize = load<u32>(record, R_DATA);
  if (<u32> load<u16>(record, R_SEGMENTS) == 1) memory.copy(dst, data, n);
  else peek(data, 0, n, dst);
  return n;
}

/** Where the copy of a record's head lies, if it has one. */
@inline
export function headCopyAt(record: usize): usize {
  const first = context + RECORDS;
  return context + HEAD_COPIES + ((record - first) << 1);
}

/** How many bytes of a frame's head its copy has. */
@inline
export function headCopyBytes(record: usize): u32 {
  return min(load<u32>(record, R_LENGTH), <u32> HEAD_COPY_BYTES);
}

/**
 * Copies a frame's head, once, for who decides by what is behind its first bytes: the copy is what is looked at, and what
 * is sent on. Answers where it is.
 */
export function copiedHead(record: usize): usize {
  const copy = headCopyAt(record);
  if ((load<u16>(record, R_FLAGS) & RECORD_F_COPIED) != 0) return copy;
  spend(UNITS_UNUSUAL);
  copyHead(record, copy, HEAD_COPY_BYTES);
  v128.store(copy, v128.load(record));
  store<u16>(record, RECORD_F_COPIED, R_FLAGS);
  return copy;
}

/** Where the frame's first bytes can be read, and how many (HEAD_BYTES_MAX at the most): a hint, not to be trusted. */
@inline
export function headOf(record: usize): usize {
  if (<u32> load<u16>(record, R_SEGMENTS) == 1) return load<u32>(record, R_DATA);
  copyHead(record, context + FRAME_HEAD, HEAD_BYTES_MAX);
  return context + FRAME_HEAD;
}
