/** The virtio-net header of a frame that a receiver gets (virtio 1.2 §5.1.6.4): no offload, and its number of buffers. */
import { VIRTIO_NET_HDR_BYTES } from "../../../shared/layout/virtio.ts";

/**
 * A header of one buffer as 16 bytes, of which those behind `hdrBytes` are the frame's and are written after it: one move
 * for the header of a frame that goes into one buffer.
 */
@inline
export function virtioHeader(hdrBytes: u32): v128 {
  return i64x2.replace_lane(i64x2.splat(0), 1, hdrBytes == VIRTIO_NET_HDR_BYTES ? 1 << 16 : 0);
}

/** Writes a header of `hdrBytes` (12, or 10 without num_buffers) to `dst`. */
@inline
export function putVirtioHeader(dst: usize, hdrBytes: u32, buffers: u32): void {
  store<u64>(dst, 0);
  if (hdrBytes == VIRTIO_NET_HDR_BYTES) store<u32>(dst, buffers << 16, 8);
  else store<u16>(dst, 0, 8);
}
