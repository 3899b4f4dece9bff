/** The virtio-net header of a frame that a receiver gets (virtio 1.2 §5.1.6.4): what is left to do, its number of buffers. */
import { HEAD_MASK, O_HEADER, OFFLOAD_F_CSUM, R_FLAGS, RECORD_F_OFFLOAD } from "../../../shared/layout/nic.ts";
import {
  VIRTIO_NET_HDR_BYTES,
  VIRTIO_NET_HDR_CSUM_START,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_TYPE,
  VIRTIO_NET_HDR_HDR_LEN,
} from "../../../shared/layout/virtio.ts";
import { headCopyAt, SHORT_FRAME_BYTES } from "../batch/record.ts";
import { outLength } from "./head.ts";

/**
 * A header of one buffer as 16 bytes, of which those behind `hdrBytes` are the frame's and are written after it: one move
 * for the header of a frame that goes into one buffer.
 */
@inline
export function virtioHeader(hdrBytes: u32): v128 {
  return i64x2.replace_lane(i64x2.splat(0), 1, hdrBytes == VIRTIO_NET_HDR_BYTES ? 1 << 16 : 0);
}

/**
 * Writes `header`, as `virtioHeader` made it, to `buffer`, for `need` bytes in all; with a short frame, unless it is
 * there: drivers use their buffers again, and a line that nobody writes stays in both CPUs' caches. Between long frames
 * it does not stay in any: reading it first would be one more wait.
 */
@inline
export function putOneBufferHeader(buffer: usize, header: v128, hdrBytes: u32, need: u32): void {
  if (need <= SHORT_FRAME_BYTES && load<u64>(buffer) == 0) {
    const rest = load<u32>(buffer, 8) ^ v128.extract_lane<u32>(header, 2);
    if ((hdrBytes == VIRTIO_NET_HDR_BYTES ? rest : rest & 0xffff) == 0) return;
  }
  v128.store(buffer, header);
}

/** Writes a header of `hdrBytes` (12, or 10 without num_buffers) to `dst`. */
@inline
export function putVirtioHeader(dst: usize, hdrBytes: u32, buffers: u32): void {
  store<u64>(dst, 0);
  if (hdrBytes == VIRTIO_NET_HDR_BYTES) store<u32>(dst, buffers << 16, 8);
  else store<u16>(dst, 0, 8);
}

/**
 * Writes into the header at `dst` what a record's frame leaves its receiver to do. `accepts`: OFFLOAD_F_* of the
 * receiver. A tag that is put in or taken out, as `head` says, moves what lies behind it.
 */
export function putOffload(dst: usize, record: usize, head: u32, accepts: u32): void {
  if ((load<u16>(record, R_FLAGS) & RECORD_F_OFFLOAD) == 0 || (accepts & OFFLOAD_F_CSUM) == 0) return;
  const from = headCopyAt(record) + O_HEADER;
  store<u64>(dst, load<u64>(from));
  store<u16>(dst, load<u16>(from, 8), 8);
  if ((<u32> load<u8>(from) & VIRTIO_NET_HDR_F_NEEDS_CSUM) == 0 || (head & HEAD_MASK) == 0) return;
  move(dst, VIRTIO_NET_HDR_CSUM_START, head);
  if (load<u8>(from, VIRTIO_NET_HDR_GSO_TYPE) != 0) move(dst, VIRTIO_NET_HDR_HDR_LEN, head);
}

@inline
function move(dst: usize, field: usize, head: u32): void {
  store<u16>(dst + field, <u16> outLength(head, load<u16>(dst + field)));
}
