/** Where a descriptor of a driver pair's ring lies, and the buffer that is its own. */
import { ADV_DESC_BYTES } from "../../../shared/layout/advanced.ts";
import { Q_BUFFERS, Q_BUFFERS_IOVA, Q_DESC, DRIVER_BUFFER_BYTES } from "../../../shared/layout/nic.ts";

/** The descriptor in a slot. */
@inline
export function descriptorOf(q: usize, slot: u32): usize {
  return load<u32>(q, Q_DESC) + slot * ADV_DESC_BYTES;
}

/** Its buffer. */
@inline
export function bufferOf(q: usize, slot: u32): usize {
  return load<u32>(q, Q_BUFFERS) + slot * DRIVER_BUFFER_BYTES;
}

/** Where the device finds the buffer. */
@inline
export function iovaOf(q: usize, slot: u32): u64 {
  return load<u64>(q, Q_BUFFERS_IOVA) + <u64> (slot * DRIVER_BUFFER_BYTES);
}
