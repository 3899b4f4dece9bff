/** One frame into a driver pair's transmit ring. */
import {
  ADV_CHAIN_MAX,
  ADV_REG_HEAD,
  ADV_TXD_DCMD_DEXT,
  ADV_TXD_DCMD_EOP,
  ADV_TXD_DCMD_IFCS,
  ADV_TXD_DCMD_TSE,
  ADV_TXD_DTYP_DATA,
  ADV_TXD_PAYLEN_SHIFT,
} from "../../../shared/layout/advanced.ts";
import {
  C_RX_NO_BUFFER,
  C_RX_TOO_SMALL,
  C_TX_BAD_OFFLOAD,
  Q_LAST_AVAIL,
  Q_REGISTERS,
  Q_SIZE,
  R_DROP,
  R_LENGTH,
  RX_SEGMENTS,
  DRIVER_BUFFER_BYTES,
} from "../../../shared/layout/nic.ts";
import { appendSegment, rewindOut } from "../batch/segments.ts";
import { context } from "../context.ts";
import { kindOf, outLength, putFrame, putTagged } from "../deliver/head.ts";
import { HEAD_F_PLAIN, OUT_VIRTIO_HDR, Q_OFFLOADS } from "../../../shared/layout/nic.ts";
import { VIRTIO_NET_HDR_BYTES } from "../../../shared/layout/virtio.ts";
import { put } from "../batch/segments.ts";
import { putOffload, putOneBufferHeader, putVirtioHeader, virtioHeader } from "../deliver/virtio_header.ts";
import { bufferOf, descriptorOf, iovaOf } from "./driver_ring.ts";

/** Descriptors that the driver may fill. */
@inline
export function freeToSend(q: usize): u32 {
  const mask = load<u32>(q, Q_SIZE) - 1;
  return (atomic.load<u32>(load<u32>(q, Q_REGISTERS) + ADV_REG_HEAD) - load<u32>(q, Q_LAST_AVAIL) - 1) & mask;
}

/**
 * Puts one frame into the ring, behind a virtio-net header that says what is left to do; 0, or the counter that tells why
 * it did not go in. A frame that asks for what its sender may not is marked in the ring's own words (TSE without a
 * context), so that the NIC refuses and counts it.
 */
export function sendDriver(tx: usize, record: usize, head: u32, tag: u32): u32 {
  const mask = load<u32>(tx, Q_SIZE) - 1;
  const bytes: u32 = <u32> VIRTIO_NET_HDR_BYTES + outLength(head, load<u32>(record, R_LENGTH));
  const count: u32 = (bytes + <u32> DRIVER_BUFFER_BYTES - 1) / <u32> DRIVER_BUFFER_BYTES;
  if (count > <u32> ADV_CHAIN_MAX) return C_RX_TOO_SMALL;
  const tail = load<u32>(tx, Q_LAST_AVAIL);
  if (count > freeToSend(tx)) return C_RX_NO_BUFFER;
  if (count == 1 && kindOf(record) == HEAD_F_PLAIN) {
    const buffer = bufferOf(tx, tail);
    putOneBufferHeader(buffer, virtioHeader(VIRTIO_NET_HDR_BYTES), VIRTIO_NET_HDR_BYTES, bytes);
    putTagged(buffer + VIRTIO_NET_HDR_BYTES, record, head, tag);
  } else {
    for (let i: u32 = 0; i < count; i++) {
      appendSegment(context + RX_SEGMENTS, i, bufferOf(tx, (tail + i) & mask), DRIVER_BUFFER_BYTES);
    }
    rewindOut();
    const header = context + OUT_VIRTIO_HDR;
    putVirtioHeader(header, VIRTIO_NET_HDR_BYTES, 1);
    putOffload(header, record, head, <u32> load<u16>(tx, Q_OFFLOADS));
    put(header, VIRTIO_NET_HDR_BYTES);
    putFrame(record, head, tag);
  }
  let command: u32 = ADV_TXD_DTYP_DATA | ADV_TXD_DCMD_DEXT | ADV_TXD_DCMD_IFCS;
  if (load<u32>(record, R_DROP) == C_TX_BAD_OFFLOAD) command |= <u32> ADV_TXD_DCMD_TSE;
  describe(tx, tail, count, bytes, command);
  store<u32>(tx, (tail + count) & mask, Q_LAST_AVAIL);
  return 0;
}

/** Fills `count` descriptors from slot `tail` on, whose buffers hold `bytes`. */
function describe(tx: usize, tail: u32, count: u32, bytes: u32, command: u32): void {
  const mask = load<u32>(tx, Q_SIZE) - 1;
  let left = bytes;
  for (let i: u32 = 0; i < count; i++) {
    const slot = (tail + i) & mask;
    const length = min(left, <u32> DRIVER_BUFFER_BYTES);
    left -= length;
    const end: u32 = i + 1 == count ? ADV_TXD_DCMD_EOP : 0;
    const status: u64 = i == 0 ? <u64> bytes << ADV_TXD_PAYLEN_SHIFT : 0;
    store<u64>(descriptorOf(tx, slot), iovaOf(tx, slot));
    store<u64>(descriptorOf(tx, slot), <u64> (command | end | length) | (status << 32), 8);
  }
}
