/**
 * Records of frames that lie in several pieces, or whose virtio-net header asks for something. Each field of the header
 * is read once, into a copy.
 */
import {
  B_CHAIN_SEGMENTS,
  B_SEGMENTS,
  C_TX_BAD_OFFLOAD,
  C_TX_OVERSIZE,
  C_TX_RUNT,
  FRAME_BYTES_MAX,
  FRAME_BYTES_MIN,
  FRAME_HEAD,
  FRAME_OUT_BYTES_MAX,
  GSO_FRAME_BYTES_MAX,
  R_DATA,
  R_DROP,
  R_FLAGS,
  R_LENGTH,
  R_SEGMENTS,
  RECORD_F_COPIED,
  RECORD_F_PLAIN,
  RECORD_F_WHOLE,
  SEGMENT_STRIDE,
  TX_SEGMENTS,
} from "../../../shared/layout/nic.ts";
import { isTag } from "../../lib/ethernet.ts";
import { batch, context } from "../context.ts";
import { spend, UNITS_UNUSUAL } from "../schedule/cost.ts";
import { asks, isToBeCut, noteOffload } from "./offload.ts";
import { RECORD_HEAD_BYTES } from "./record.ts";
import { peek } from "./segments.ts";

/**
 * Fills a record with the frame whose segments begin at entry `start` of TX_SEGMENTS and end at B_CHAIN_SEGMENTS:
 * `bytes` bytes, the first `hdrBytes` of them a virtio-net header. `allowed`: OFFLOAD_F_* that its sender may ask for.
 */
export function recordSegments(record: usize, start: u32, bytes: u64, hdrBytes: u32, allowed: u32): void {
  recordPieces(record, start, bytes, hdrBytes);
  judge(record, hdrBytes == 0 || !asks() || noteOffload(record, allowed));
}

/**
 * As `recordSegments`, of a frame of RECORD_HEAD_BYTES or more that lies at `frame` in one piece, with its virtio-net header
 * of `hdrBytes` in front.
 */
export function recordWhole(record: usize, frame: usize, frameBytes: u32, hdrBytes: u32, allowed: u32): void {
  const header = context + FRAME_HEAD;
  store<u64>(header, load<u64>(frame - hdrBytes));
  store<u16>(header, load<u16>(frame - hdrBytes, 8), 8);
  v128.store(record, v128.load(frame));
  store<u64>(record, <u64> (<u32> frame) | (<u64> frameBytes << 32), R_DATA);
  store<u64>(record, 1, R_SEGMENTS);
  judge(record, !asks() || noteOffload(record, allowed));
}

/** As `recordSegments`, but for what the frame asks for: its header is at FRAME_HEAD, and `judge` is still to come. */
export function recordPieces(record: usize, start: u32, bytes: u64, hdrBytes: u32): void {
  spend(UNITS_UNUSUAL);
  const end = load<u32>(batch(), B_CHAIN_SEGMENTS);
  store<u32>(batch(), end, B_SEGMENTS);
  let segment: usize = context + TX_SEGMENTS + start * SEGMENT_STRIDE;
  let count = end - start;
  if (hdrBytes != 0) peek(segment, 0, hdrBytes, context + FRAME_HEAD);
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
  const length = <u32> min(bytes - hdrBytes, <u64> FRAME_OUT_BYTES_MAX + 1);
  v128.store(record, i64x2.splat(0));
  peek(segment, 0, min(length, 16), record);
  const whole = length == 0 || load<u32>(segment, 4) >= length;
  store<u32>(record, whole ? load<u32>(segment) : <u32> segment, R_DATA);
  store<u32>(record, length, R_LENGTH);
  store<u32>(record, whole ? 1 : count, R_SEGMENTS);
}

/** Says in `record` what is wrong with its frame, and whether it is plain, or whole. `granted`: it asks for what it may, or nothing. */
export function judge(record: usize, granted: bool): void {
  if (!granted) store<u16>(record, 0, R_FLAGS);
  const length = load<u32>(record, R_LENGTH);
  const fault = faultOf(record, length, granted);
  store<u32>(record, fault, R_DROP);
  if (<u32> load<u16>(record, R_SEGMENTS) != 1 || fault != 0 || length < RECORD_HEAD_BYTES) return;
  const flags: u32 = load<u16>(record, R_FLAGS);
  if (flags == 0) store<u16>(record, RECORD_F_PLAIN, R_FLAGS);
  else if ((flags & RECORD_F_COPIED) != 0 && !isToBeCut(record)) store<u16>(record, <u16> (flags | RECORD_F_WHOLE), R_FLAGS);
}

/** The counter of what is wrong with a frame whatever its addresses, 0 for nothing. */
function faultOf(record: usize, length: u32, granted: bool): u32 {
  if (length > <u32> (isToBeCut(record) ? GSO_FRAME_BYTES_MAX : FRAME_BYTES_MAX)) return C_TX_OVERSIZE;
  if (!granted) return C_TX_BAD_OFFLOAD;
  if (length < <u32> FRAME_BYTES_MIN) return C_TX_RUNT;
  // A tagged frame has at least its tag and the EtherType behind it.
  if (isTag(load<u16>(record, 12)) && length < <u32> FRAME_BYTES_MIN + 4) return C_TX_RUNT;
  return 0;
}
