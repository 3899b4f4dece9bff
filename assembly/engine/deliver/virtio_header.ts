/** The virtio-net header of a frame that a receiver gets (virtio 1.2 §5.1.6.4): no offload, and its number of buffers. */
import { VIRTIO_NET_HDR_BYTES } from "../../../shared/layout/virtio.ts";

/** Writes a header of `hdrBytes` (12, or 10 without num_buffers) to `dst`. */
@inline
export function putVirtioHeader(dst: usize, hdrBytes: u32, buffers: u32): void {
  store<u64>(dst, 0);
  if (hdrBytes == VIRTIO_NET_HDR_BYTES) store<u32>(dst, buffers << 16, 8);
  else store<u16>(dst, 0, 8);
}
