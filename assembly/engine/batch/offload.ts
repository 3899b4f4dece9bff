/**
 * What a sender leaves to be finished (virtio 1.2 §5.1.6.2): a checksum, or a frame that is to be cut into segments. It
 * is checked here, once, against a copy of the frame's headers, and that copy is what goes on: whoever receives the
 * frame, or finishes it, sees what was checked. `hdr_len` is a hint, and is not looked at.
 */
import {
  FRAME_HEAD,
  GSO_PIECES_MAX,
  GSO_SEGMENTS_MAX,
  HEAD_COPY_BYTES,
  HEAD_COPY_BYTES_MAX,
  O_DONE,
  O_HEADER,
  O_NEEDS,
  O_NETWORK,
  O_PAYLOAD,
  O_SEGMENTS,
  OFFLOAD_F_CSUM,
  OFFLOAD_F_ECN,
  OFFLOAD_F_TSO4,
  OFFLOAD_F_TSO6,
  OFFLOAD_F_USO4,
  OFFLOAD_F_USO6,
  OFFLOAD_F_VALID,
  Q_OFFLOADS,
  Q_SEGMENTS_DONE,
  R_FLAGS,
  R_LENGTH,
  R_SEGMENTS,
  RECORD_F_OFFLOAD,
} from "../../../shared/layout/nic.ts";
import {
  VIRTIO_NET_HDR_CSUM_OFFSET,
  VIRTIO_NET_HDR_CSUM_START,
  VIRTIO_NET_HDR_F_DATA_VALID,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_SIZE,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_TYPE,
  VIRTIO_NET_HDR_GSO_UDP_L4,
  VIRTIO_NET_HDR_HDR_LEN,
} from "../../../shared/layout/virtio.ts";
import { context } from "../context.ts";
import { spend, UNITS_DECISION, UNITS_SEGMENT } from "../schedule/cost.ts";
import { copiedHead, headCopyAt, headCopyBytes, recordAt } from "./record.ts";
import {
  isFragment,
  isIpv6,
  network,
  NO_TRANSPORT,
  NOT_IP,
  packetEnd,
  protocol,
  PROTOCOL_ICMPV6,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  transportOf,
} from "./transport.ts";

const TCP_BYTES: u32 = 20;
const UDP_BYTES: u32 = 8;
/** Where the checksum lies in its header. */
const TCP_CHECKSUM: u32 = 16;
const UDP_CHECKSUM: u32 = 6;
const ICMPV6_CHECKSUM: u32 = 2;
/** Headers of a frame to be cut, all together: Ethernet, two tags, IPv6 with extensions and a TCP header are less. */
const HEADERS_BYTES_MAX: u32 = 192;

/** Whether the frame of `record` is to be cut into segments for whoever does not take it whole. */
@inline
export function isToBeCut(record: usize): bool {
  if ((load<u16>(record, R_FLAGS) & RECORD_F_OFFLOAD) == 0) return false;
  return load<u8>(headCopyAt(record), O_HEADER + VIRTIO_NET_HDR_GSO_TYPE) != 0;
}

/** Segments into which the frame of `record` is to be cut for whoever does not take it whole; 0: it is not. */
@inline
export function segmentsOf(record: usize): u32 {
  return isToBeCut(record) ? load<u32>(headCopyAt(record), O_SEGMENTS) : 0;
}

/**
 * Whether receive queue `rx` accepts what the sender of a record's frame has left to be finished. A frame of which some
 * segments have been delivered goes on in segments.
 */
@inline
export function takesAsIs(rx: usize, record: usize): bool {
  if ((load<u16>(record, R_FLAGS) & RECORD_F_OFFLOAD) == 0) return true;
  const area = headCopyAt(record);
  return (load<u32>(area, O_NEEDS) & ~<u32> load<u16>(rx, Q_OFFLOADS)) == 0 && load<u32>(area, O_DONE) == 0;
}

/** Charges the batch in advance for segments that a record's frame will have to be cut into for `rx`. */
export function spendFinish(rx: usize, record: usize): void {
  if (takesAsIs(rx, record) || !isToBeCut(record)) return;
  spend(load<u32>(headCopyAt(record), O_SEGMENTS) * UNITS_SEGMENT);
}

/** The batch's first frame may be one of queue `q` of which some segments have been delivered: goes on behind these. */
export function goOnInFrame(q: usize): void {
  const done = <u32> load<u16>(q, Q_SEGMENTS_DONE);
  if (done == 0) return;
  const record = recordAt(0);
  if (isToBeCut(record)) store<u32>(headCopyAt(record), done, O_DONE);
}

/** Notes how far the first frame of queue `q` got that is not done with: `done` of the batch's `n` frames are. */
export function noteInFrame(q: usize, done: u32, n: u32): void {
  const record = recordAt(done);
  store<u16>(q, <u16> (done < n && isToBeCut(record) ? load<u32>(headCopyAt(record), O_DONE) : 0), Q_SEGMENTS_DONE);
}

/** Whether the virtio-net header at FRAME_HEAD asks for anything, or says anything of the frame's checksum. */
@inline
export function asks(): bool {
  const at = context + FRAME_HEAD;
  const flags: u32 = load<u8>(at);
  const both: u32 = VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID;
  return (flags & both) != 0 || load<u8>(at, VIRTIO_NET_HDR_GSO_TYPE) != 0;
}

/**
 * Notes in `record`, which is complete, what the virtio-net header at FRAME_HEAD asks for. `allowed`: OFFLOAD_F_* that
 * its sender may ask for. False if it may not, or if what it asks for does not fit the frame.
 */
export function noteOffload(record: usize, allowed: u32): bool {
  const header = context + FRAME_HEAD;
  const flags: u32 = load<u8>(header);
  const gso: u32 = load<u8>(header, VIRTIO_NET_HDR_GSO_TYPE);
  const area = headCopyAt(record);
  if ((flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) == 0) {
    if (gso != 0) return false;
    if ((allowed & OFFLOAD_F_VALID) != 0) begin(record, area, VIRTIO_NET_HDR_F_DATA_VALID, 0);
    return true;
  }
  if ((allowed & OFFLOAD_F_CSUM) == 0) return false;
  const start: u32 = load<u16>(header, VIRTIO_NET_HDR_CSUM_START);
  const offset: u32 = load<u16>(header, VIRTIO_NET_HDR_CSUM_OFFSET);
  const end = start + offset + 2;
  if (end > min(load<u32>(record, R_LENGTH), <u32> HEAD_COPY_BYTES_MAX)) return false;
  copiedHead(record, max(end, gso != 0 ? <u32> HEAD_COPY_BYTES_MAX : <u32> HEAD_COPY_BYTES));
  if (!maySum(area, headCopyBytes(record), start, offset)) return false;
  begin(record, area, VIRTIO_NET_HDR_F_NEEDS_CSUM, OFFLOAD_F_CSUM);
  store<u16>(area, <u16> start, O_HEADER + VIRTIO_NET_HDR_CSUM_START);
  store<u16>(area, <u16> offset, O_HEADER + VIRTIO_NET_HDR_CSUM_OFFSET);
  return gso == 0 || noteSegments(record, area, gso, allowed);
}

/**
 * Whether a sum from byte `start` on may be stored `offset` behind it: not in what policy reads, or whoever asks for it
 * could choose a VLAN or an address after it was checked. That is the Ethernet header, IP headers, ARP, LLC, and
 * what a neighbour advertisement says. Deeper inside, as in a tunnel, it may be anywhere.
 */
function maySum(head: usize, known: u32, start: u32, offset: u32): bool {
  transport = transportOf(head, known);
  if (transport == NOT_IP) return start >= network;
  if (transport == NO_TRANSPORT) return false;
  if (protocol == PROTOCOL_ICMPV6) return start == transport && offset == ICMPV6_CHECKSUM;
  return start >= transport;
}

/** Where the transport header begins of the frame that was looked at last. */
let transport: u32 = 0;

function begin(record: usize, area: usize, flags: u32, needs: u32): void {
  store<u64>(area, flags, O_HEADER);
  store<u32>(area, 0, O_HEADER + 8);
  store<u32>(area, needs, O_NEEDS);
  store<u32>(area, 0, O_DONE);
  store<u16>(record, load<u16>(record, R_FLAGS) | <u16> RECORD_F_OFFLOAD, R_FLAGS);
}

/** Notes that the frame is to be cut into segments. False if it cannot be. */
function noteSegments(record: usize, area: usize, gso: u32, allowed: u32): bool {
  spend(UNITS_DECISION);
  const length = load<u32>(record, R_LENGTH);
  const size: u32 = load<u16>(context + FRAME_HEAD, VIRTIO_NET_HDR_GSO_SIZE);
  const known = headCopyBytes(record);
  const start: u32 = load<u16>(area, O_HEADER + VIRTIO_NET_HDR_CSUM_START);
  if (size == 0 || transport != start || transport >= known || isFragment || packetEnd != length) return false;
  const needs = needsOf(gso);
  const isTcp = protocol == PROTOCOL_TCP;
  if (known - transport < UDP_BYTES) return false;
  const headerBytes = isTcp ? tcpHeaderBytes(area + transport, known - transport) : UDP_BYTES;
  const field = isTcp ? TCP_CHECKSUM : UDP_CHECKSUM;
  if (needs == 0 || (needs & ~allowed) != 0 || headerBytes == 0) return false;
  if (<u32> load<u16>(area, O_HEADER + VIRTIO_NET_HDR_CSUM_OFFSET) != field) return false;
  const payload = transport + headerBytes;
  if (!isTcp && <u32> bswap<u16>(load<u16>(area + transport, 4)) != length - transport) return false;
  if (payload >= length || payload > min(known, HEADERS_BYTES_MAX)) return false;
  if (<u32> load<u16>(record, R_SEGMENTS) > <u32> GSO_PIECES_MAX) return false;
  const segments = (length - payload + size - 1) / size;
  if (segments > <u32> GSO_SEGMENTS_MAX) return false;
  store<u8>(area, <u8> gso, O_HEADER + VIRTIO_NET_HDR_GSO_TYPE);
  store<u16>(area, <u16> payload, O_HEADER + VIRTIO_NET_HDR_HDR_LEN);
  store<u16>(area, <u16> size, O_HEADER + VIRTIO_NET_HDR_GSO_SIZE);
  store<u32>(area, needs | OFFLOAD_F_CSUM, O_NEEDS);
  store<u16>(area, <u16> network, O_NETWORK);
  store<u16>(area, <u16> payload, O_PAYLOAD);
  store<u32>(area, segments, O_SEGMENTS);
  return true;
}

/** OFFLOAD_F_* that a segmentation type takes of the frame that was parsed last; 0: it does not fit it, or is unknown. */
function needsOf(gso: u32): u32 {
  const type = gso & ~<u32> VIRTIO_NET_HDR_GSO_ECN;
  const ecn: u32 = gso & VIRTIO_NET_HDR_GSO_ECN ? OFFLOAD_F_ECN : 0;
  if (protocol == PROTOCOL_TCP) {
    if (type == VIRTIO_NET_HDR_GSO_TCPV4 && !isIpv6) return OFFLOAD_F_TSO4 | ecn;
    return type == VIRTIO_NET_HDR_GSO_TCPV6 && isIpv6 ? OFFLOAD_F_TSO6 | ecn : 0;
  }
  if (protocol != PROTOCOL_UDP || type != VIRTIO_NET_HDR_GSO_UDP_L4 || ecn != 0) return 0;
  return isIpv6 ? OFFLOAD_F_USO6 : OFFLOAD_F_USO4;
}

/** Bytes of the TCP header at `at`, of which `known` are there; 0 if its data offset lies. */
function tcpHeaderBytes(at: usize, known: u32): u32 {
  if (known < TCP_BYTES) return 0;
  const bytes = (<u32> load<u8>(at, 12) >> 4) << 2;
  return bytes < TCP_BYTES ? 0 : bytes;
}
