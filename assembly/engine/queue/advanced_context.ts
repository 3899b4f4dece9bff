/**
 * Offloads of an advanced transmit queue (82599 datasheet §7.2.3.2.3, §7.2.4, §7.2.5). Its driver describes a frame's
 * headers in one of two contexts, which stay until they are set again, and a frame's first descriptor names a context and
 * what is to be done. This is put into the words of a virtio-net header and checked as one (batch/offload.ts), against
 * the copy of the frame's headers that goes on. In that copy the lengths are filled in that a driver leaves out of a
 * frame to be cut: the IP header's, and the one in the pseudo header's sum.
 *
 * A context is set when the frame behind it is given back: a batch may end before it, and the frame is gathered again.
 */
import {
  ADV_DESC_BYTES,
  ADV_TXC_IPLEN_MASK,
  ADV_TXC_L4LEN_SHIFT,
  ADV_TXC_MACLEN_MASK,
  ADV_TXC_MACLEN_SHIFT,
  ADV_TXC_MSS_SHIFT,
  ADV_TXC_TUCMD_IPV4,
  ADV_TXC_TUCMD_L4T_MASK,
  ADV_TXC_TUCMD_L4T_TCP,
  ADV_TXC_TUCMD_L4T_UDP,
  ADV_TXC_TUCMD_MASK,
  ADV_TXD_DCMD_TSE,
  ADV_TXD_DCMD_VLE,
  ADV_TXD_IDX_MASK,
  ADV_TXD_IDX_SHIFT,
  ADV_TXD_POPTS_IXSM,
  ADV_TXD_POPTS_MASK,
  ADV_TXD_POPTS_TXSM,
} from "../../../shared/layout/advanced.ts";
import {
  FRAME_HEAD,
  HEAD_COPY_BYTES,
  HEAD_COPY_BYTES_MAX,
  O_PAYLOAD,
  OFFLOAD_CONTEXTS,
  Q_DESC,
  Q_SIZE,
  QUEUES,
  R_LENGTH,
} from "../../../shared/layout/nic.ts";
import {
  VIRTIO_NET_HDR_CSUM_OFFSET,
  VIRTIO_NET_HDR_CSUM_START,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_SIZE,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_TYPE,
  VIRTIO_NET_HDR_GSO_UDP_L4,
} from "../../../shared/layout/virtio.ts";
import { fold, sum } from "../../lib/checksum.ts";
import { noteOffload } from "../batch/offload.ts";
import { copiedHead, headCopyAt, headCopyBytes } from "../batch/record.ts";
import { isIpv6, network, protocol, PROTOCOL_TCP, PROTOCOL_UDP, transportOf } from "../batch/transport.ts";
import { context } from "../context.ts";

// A context in a word: where the IP and the transport header begin, TUCMD above them, L4LEN and MSS as in the descriptor.
const START_SHIFT: u32 = 8;
const START_MASK: u32 = 0x3ff;
/** TUCMD keeps its distance to the bits of the third dword. */
const TUCMD_SHIFT: u32 = 11;
const MSS_L4LEN_SHIFT: u32 = 32;

const TCP_CHECKSUM: u32 = 16;
const TCP_FLAGS: u32 = 13;
const TCP_CWR: u32 = 0x80;
const UDP_CHECKSUM: u32 = 6;
const UDP_LENGTH: u32 = 4;

/** Contexts 0 and 1 as they are for the frame that is gathered. */
let context0: u64 = 0;
let context1: u64 = 0;

@inline
function contextsOf(q: usize): usize {
  return context + OFFLOAD_CONTEXTS + ((q - context - QUEUES) >> 4);
}

/** Begins a batch of queue `q` with the contexts that are set. */
@inline
export function beginContexts(q: usize): void {
  const at = contextsOf(q);
  context0 = load<u64>(at);
  context1 = load<u64>(at, 8);
}

/** Forgets the contexts of queue `q`: it starts. */
export function clearContexts(q: usize): void {
  store<u64>(contextsOf(q), 0);
  store<u64>(contextsOf(q), 0, 8);
}

/** Takes a context descriptor. One for a context that does not exist has no effect. */
export function takeContext(low: u64, high: u64): void {
  const lengths = <u32> low;
  const networkAt = (lengths >> ADV_TXC_MACLEN_SHIFT) & ADV_TXC_MACLEN_MASK;
  const start = networkAt + (lengths & ADV_TXC_IPLEN_MASK);
  const command = (<u32> high & ADV_TXC_TUCMD_MASK) << TUCMD_SHIFT;
  const last = <u32> (high >> 32);
  const mssL4len = <u64> (last & ~<u32> ADV_TXD_IDX_MASK) << MSS_L4LEN_SHIFT;
  const taken = <u64> (networkAt | (start << START_SHIFT) | command) | mssL4len;
  const index = (last & ADV_TXD_IDX_MASK) >> ADV_TXD_IDX_SHIFT;
  if (index == 0) context0 = taken;
  else if (index == 1) context1 = taken;
}

/** Sets what the first `n` descriptors from ring position `position` of queue `q` on say: their frame is given back. */
export function setContexts(q: usize, position: u32, n: u32): void {
  const mask = load<u32>(q, Q_SIZE) - 1;
  const ring: usize = load<u32>(q, Q_DESC);
  beginContexts(q);
  for (let i: u32 = 0; i < n; i++) {
    const descriptor = ring + ((position + i) & mask) * ADV_DESC_BYTES;
    takeContext(load<u64>(descriptor), load<u64>(descriptor, 8));
  }
  store<u64>(contextsOf(q), context0);
  store<u64>(contextsOf(q), context1, 8);
}

/**
 * Notes in `record`, which is complete, what the first of its data descriptors asks for: `command` is its third dword,
 * `status` its fourth. `allowed`: OFFLOAD_F_* that its sender may ask for. False if it cannot be.
 */
export function noteContext(record: usize, command: u32, status: u32, allowed: u32): bool {
  const options: u32 = status & ADV_TXD_POPTS_MASK;
  const segmented = (command & ADV_TXD_DCMD_TSE) != 0;
  const sums = (options & ADV_TXD_POPTS_TXSM) != 0;
  if (!segmented && options == 0) return (command & ADV_TXD_DCMD_VLE) == 0;
  const index = (status & ADV_TXD_IDX_MASK) >> ADV_TXD_IDX_SHIFT;
  const set = index == 0 ? context0 : context1;
  // Tags are put in by nobody, nor is IPsec done.
  if ((command & ADV_TXD_DCMD_VLE) != 0 || (options & ~<u32> (ADV_TXD_POPTS_IXSM | ADV_TXD_POPTS_TXSM)) != 0) return false;
  if (index > 1 || (segmented && !sums)) return false;
  const start = (<u32> set >> START_SHIFT) & START_MASK;
  const ipSum = (options & ADV_TXD_POPTS_IXSM) != 0;
  if ((segmented || ipSum) && !findHeaders(record, set, segmented)) return false;
  let gso: u32 = 0;
  if (segmented) {
    gso = fillLengths(record, set);
    if (gso == 0) return false;
  }
  if ((segmented || ipSum) && !writeIpChecksum(record, start, ipSum)) return false;
  if (!sums) return true;
  const kind = (<u32> set >> TUCMD_SHIFT) & ADV_TXC_TUCMD_L4T_MASK;
  if (kind != ADV_TXC_TUCMD_L4T_TCP && kind != ADV_TXC_TUCMD_L4T_UDP) return false;
  const mssL4len = <u32> (set >> MSS_L4LEN_SHIFT);
  const header = context + FRAME_HEAD;
  store<u8>(header, VIRTIO_NET_HDR_F_NEEDS_CSUM);
  store<u8>(header, <u8> gso, VIRTIO_NET_HDR_GSO_TYPE);
  store<u16>(header, <u16> (mssL4len >> ADV_TXC_MSS_SHIFT), VIRTIO_NET_HDR_GSO_SIZE);
  store<u16>(header, <u16> start, VIRTIO_NET_HDR_CSUM_START);
  const field = kind == ADV_TXC_TUCMD_L4T_TCP ? TCP_CHECKSUM : UDP_CHECKSUM;
  store<u16>(header, <u16> field, VIRTIO_NET_HDR_CSUM_OFFSET);
  if (!noteOffload(record, allowed)) return false;
  const l4len = (mssL4len >> ADV_TXC_L4LEN_SHIFT) & 0xff;
  return !segmented || <u32> load<u16>(headCopyAt(record), O_PAYLOAD) - start == l4len;
}

/** Copies the frame's head; whether its IP and transport headers begin where context `set` says. */
function findHeaders(record: usize, set: u64, segmented: bool): bool {
  const head = copiedHead(record, segmented ? HEAD_COPY_BYTES_MAX : HEAD_COPY_BYTES);
  const start = (<u32> set >> START_SHIFT) & START_MASK;
  const known = headCopyBytes(record);
  const networkAt = <u32> set & ADV_TXC_MACLEN_MASK;
  return start <= known && transportOf(head, known) == start && network == networkAt;
}

/**
 * Fills in what a driver leaves out of a frame to be cut, whose headers have been found: the length of the IP packet and
 * of the UDP datagram, and the length in the pseudo header's sum. Answers the frame's virtio segmentation type, 0 if it
 * is of no kind that is cut.
 */
function fillLengths(record: usize, set: u64): u32 {
  const head = headCopyAt(record);
  const tucmd = <u32> set >> TUCMD_SHIFT;
  const isTcp = protocol == PROTOCOL_TCP;
  if (!isTcp && protocol != PROTOCOL_UDP) return 0;
  if (((tucmd & ADV_TXC_TUCMD_IPV4) != 0) == isIpv6) return 0;
  if (((tucmd & ADV_TXC_TUCMD_L4T_MASK) == ADV_TXC_TUCMD_L4T_TCP) != isTcp) return 0;
  const start = (<u32> set >> START_SHIFT) & START_MASK;
  const length = load<u32>(record, R_LENGTH);
  const field = start + (isTcp ? TCP_CHECKSUM : UDP_CHECKSUM);
  if (field + 2 > headCopyBytes(record)) return 0;
  const packet = length - network - (isIpv6 ? 40 : 0);
  if (packet > 0xffff) return 0;
  store<u16>(head + network + (isIpv6 ? 4 : 2), bswap<u16>(<u16> packet));
  const carried: u32 = bswap<u16>(<u16> (length - start));
  store<u16>(head + field, <u16> (fold(<u64> load<u16>(head + field) + carried) ^ 0xffff));
  if (!isTcp) {
    store<u16>(head + start, <u16> carried, UDP_LENGTH);
    return VIRTIO_NET_HDR_GSO_UDP_L4;
  }
  const ecn: u32 = <u32> load<u8>(head + start, TCP_FLAGS) & TCP_CWR ? VIRTIO_NET_HDR_GSO_ECN : 0;
  return (isIpv6 ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4) | ecn;
}

/** Fills in the checksum of the IPv4 header, which ends at `end`. IPv6 has none: false if it is `asked` for. */
function writeIpChecksum(record: usize, end: u32, asked: bool): bool {
  if (isIpv6) return !asked;
  const ip = headCopyAt(record) + network;
  store<u16>(ip, 0, 10);
  store<u16>(ip, <u16> fold(sum(ip, end - network, 0)), 10);
  return true;
}
