/**
 * Frames of packet sockets: messages of two parts, the kernel's virtio-net header of ten bytes and the frame. The kernel
 * has taken the outermost tag out of a frame that it hands over, and says so beside it: it is put in again, before
 * which the header's offsets mean the frame without it.
 */
import * as N from "../../shared/layout/netdev.ts";
import * as V from "../../shared/layout/virtio.ts";
import { native } from "./state.ts";
import { rxBuffer, txBuffer } from "./virtqueues.ts";

const TAG_BYTES: u32 = 4;
const ADDRESSES_BYTES: u32 = 12;

// linux/if_packet.h
const SOL_PACKET: u32 = 263;
const PACKET_AUXDATA: u32 = 8;
const TP_STATUS_VLAN_VALID: u32 = 1 << 4;
const TP_STATUS_VLAN_TPID_VALID: u32 = 1 << 6;
const ETH_P_8021Q: u32 = 0x8100;
/**
 * struct cmsghdr {len u64, level i32, type i32}, then struct tpacket_auxdata {status u32, len u32, snaplen u32, mac u16,
 * net u16, vlan_tci u16, vlan_tpid u16}.
 */
const AUXDATA: u32 = 16;
const AUXDATA_TCI: u32 = AUXDATA + 16;
const AUXDATA_TPID: u32 = AUXDATA + 18;
const AUXDATA_BYTES: u64 = 36;

const MSG_TRUNC: u32 = 0x20;

// Offsets in a virtio-net header
const HDR_LEN: u32 = 2;
const CSUM_START: u32 = 6;

/** Messages of receive buffers (which are sent) come first, those of transmit buffers (which are read into) after them. */
@inline
function sendMessage(id: u32): usize {
  return N.ND_MESSAGES + id * N.MESSAGE_STRIDE;
}

@inline
function readMessage(id: u32): usize {
  return N.ND_MESSAGES + (N.ND_QUEUE_SIZE + id) * N.MESSAGE_STRIDE;
}

/** Writes a message's vectors: the header and the frame of the buffer at `buffer`. */
function layOutMessage(message: usize, buffer: usize): void {
  memory.fill(message, 0, N.MESSAGE_STRIDE);
  store<u64>(message, native(message + N.MESSAGE_VECTORS), N.MSGHDR_VECTORS);
  store<u64>(message, 2, N.MSGHDR_VECTOR_COUNT);
  store<u64>(message, native(buffer), N.MESSAGE_VECTORS);
  store<u64>(message, V.VIRTIO_NET_HDR_LEGACY_BYTES, N.MESSAGE_VECTORS + 8);
  store<u64>(message, native(buffer + V.VIRTIO_NET_HDR_BYTES), N.MESSAGE_VECTORS + 16);
}

export function layOutMessages(): void {
  for (let id: u32 = 0; id < <u32> N.ND_QUEUE_SIZE; id++) {
    layOutMessage(sendMessage(id), rxBuffer(id));
    const message = readMessage(id);
    layOutMessage(message, txBuffer(id));
    store<u64>(message, native(message + N.MESSAGE_CONTROL), N.MSGHDR_CONTROL);
    store<u64>(message, N.ND_BUFFER_ROOM - V.VIRTIO_NET_HDR_BYTES, N.MESSAGE_VECTORS + 24);
  }
}

/** Makes the message of receive buffer `id` ready to be sent: `bytes` bytes with the ring's header. Answers where it is. */
export function readySend(id: u32, bytes: u32): usize {
  const message = sendMessage(id);
  store<u64>(message, bytes - V.VIRTIO_NET_HDR_BYTES, N.MESSAGE_VECTORS + 24);
  return message;
}

/** Makes the message of transmit buffer `id` ready to be read into: the kernel has written over it. Answers where it is. */
export function readyRead(id: u32): usize {
  const message = readMessage(id);
  store<u64>(message, N.MESSAGE_CONTROL_BYTES, N.MSGHDR_CONTROL_BYTES);
  store<u32>(message, 0, N.MSGHDR_FLAGS);
  store<u64>(message, 0, N.MESSAGE_CONTROL);
  return message;
}

/** Whether the kernel has cut off a frame's end. */
export function isCutOff(id: u32): bool {
  return (load<u32>(readMessage(id), N.MSGHDR_FLAGS) & MSG_TRUNC) != 0;
}

/** The tag that the kernel took out of the frame read into buffer `id`, as it is on the wire; 0: none. */
export function takenTag(id: u32): u32 {
  const control = readMessage(id) + N.MESSAGE_CONTROL;
  if (load<u64>(control) < AUXDATA_BYTES) return 0;
  if (load<u32>(control, 8) != SOL_PACKET || load<u32>(control, 12) != PACKET_AUXDATA) return 0;
  const status = load<u32>(control, AUXDATA);
  if ((status & TP_STATUS_VLAN_VALID) == 0) return 0;
  const tpid: u32 = (status & TP_STATUS_VLAN_TPID_VALID) != 0 ? load<u16>(control, AUXDATA_TPID) : ETH_P_8021Q;
  return bswap<u32>((tpid << 16) | <u32> load<u16>(control, AUXDATA_TCI));
}

/**
 * Puts a tag into the frame of `buffer`, which has room before it: the header and both addresses move. Answers where the
 * header is now.
 */
export function putTag(buffer: usize, tag: u32): usize {
  const at = buffer - TAG_BYTES;
  memory.copy(at, buffer, V.VIRTIO_NET_HDR_BYTES + ADDRESSES_BYTES);
  store<u32>(at, tag, V.VIRTIO_NET_HDR_BYTES + ADDRESSES_BYTES);
  if ((load<u8>(at) & V.VIRTIO_NET_HDR_F_NEEDS_CSUM) != 0) {
    store<u16>(at, load<u16>(at, CSUM_START) + <u16> TAG_BYTES, CSUM_START);
  }
  if (load<u16>(at, HDR_LEN) != 0) store<u16>(at, load<u16>(at, HDR_LEN) + <u16> TAG_BYTES, HDR_LEN);
  return at;
}
