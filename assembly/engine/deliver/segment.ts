/**
 * Cutting a frame into segments for a receiver that does not take it whole: what a NIC does that has segmentation
 * offload. Each segment has the frame's headers with its own lengths, IPv4 identification, sequence number, flags and
 * checksum, and the part of the payload that is its own, which lies where the sender put it. The segment stands in one
 * record of its own, so it is delivered as every frame is.
 */
import {
  BATCH_FRAMES,
  O_COPIED,
  O_DONE,
  O_HEADER,
  O_NEEDS,
  O_NETWORK,
  O_PAYLOAD,
  O_SEGMENTS,
  R_DATA,
  R_DROP,
  R_LENGTH,
  R_SEGMENTS,
  RECORD_F_COPIED,
  RECORD_F_OFFLOAD,
  SEGMENT_PIECES,
  SEGMENT_STRIDE,
} from "../../../shared/layout/nic.ts";
import {
  VIRTIO_NET_HDR_CSUM_OFFSET,
  VIRTIO_NET_HDR_CSUM_START,
  VIRTIO_NET_HDR_F_DATA_VALID,
  VIRTIO_NET_HDR_GSO_SIZE,
  VIRTIO_NET_HDR_GSO_TYPE,
  VIRTIO_NET_HDR_GSO_UDP_L4,
} from "../../../shared/layout/virtio.ts";
import { fold, sum } from "../../lib/checksum.ts";
import { headCopyAt, recordAt } from "../batch/record.ts";
import { appendSegment } from "../batch/segments.ts";
import { context } from "../context.ts";
import { storeChecksum } from "./finish.ts";
import { segmentsOf } from "./head.ts";

const TCP_FLAGS: u32 = 13;
const TCP_FIN_PSH: u32 = 0x09;
const TCP_CWR: u32 = 0x80;

// Where the next segment's payload begins: a piece of the frame, and how far into it.
let piece: usize = 0;
let pieceOffset: u32 = 0;

/** Prepares to cut the frame of `record`, from the segment on that is the first not yet delivered (O_DONE). */
export function beginSegments(record: usize): void {
  const area = headCopyAt(record);
  piece = segmentsOf(record);
  pieceOffset = 0;
  const size: u32 = load<u16>(area, O_HEADER + VIRTIO_NET_HDR_GSO_SIZE);
  skipPayload(<u32> load<u16>(area, O_PAYLOAD) + load<u32>(area, O_DONE) * size);
}

function skipPayload(n: u32): void {
  let left = n;
  for (;;) {
    const there = load<u32>(piece, 4) - pieceOffset;
    if (left < there) break;
    left -= there;
    piece += SEGMENT_STRIDE;
    pieceOffset = 0;
  }
  pieceOffset += left;
}

/** Lists the next `n` bytes of payload behind the headers' piece; answers how many pieces there are. */
function takePayload(list: usize, n: u32): u32 {
  let count: u32 = 1;
  let left = n;
  while (left > 0) {
    const there = load<u32>(piece, 4) - pieceOffset;
    if (there == 0) {
      piece += SEGMENT_STRIDE;
      pieceOffset = 0;
      continue;
    }
    const part = min(there, left);
    appendSegment(list, count++, load<u32>(piece) + pieceOffset, part);
    left -= part;
    pieceOffset += part;
  }
  return count;
}

/** Makes the record of the next segment of `record`'s frame, number `i`; answers it. It holds until the next call. */
export function nextSegment(record: usize, i: u32): usize {
  const area = headCopyAt(record);
  const headerBytes: u32 = load<u16>(area, O_PAYLOAD);
  const size: u32 = load<u16>(area, O_HEADER + VIRTIO_NET_HDR_GSO_SIZE);
  const segment = recordAt(BATCH_FRAMES);
  const head = headCopyAt(segment);
  const list = context + SEGMENT_PIECES;
  const length = min(headerBytes + size, load<u32>(record, R_LENGTH) - i * size);
  memory.copy(head, area, headerBytes);
  appendSegment(list, 0, head, headerBytes);
  const pieces = takePayload(list, length - headerBytes);
  v128.store(segment, v128.load(head));
  store<u32>(segment, <u32> list, R_DATA);
  store<u32>(segment, length, R_LENGTH);
  store<u32>(segment, pieces | (<u32> (RECORD_F_COPIED | RECORD_F_OFFLOAD) << 16), R_SEGMENTS);
  store<u32>(segment, 0, R_DROP);
  store<u32>(head, headerBytes, O_COPIED);
  writeHeaders(record, segment, i);
  store<u64>(head, VIRTIO_NET_HDR_F_DATA_VALID, O_HEADER);
  store<u32>(head, 0, O_HEADER + 8);
  store<u32>(head, 0, O_NEEDS);
  store<u32>(head, 0, O_DONE);
  return segment;
}

/** Makes the headers in the copy of a segment's head its own. */
function writeHeaders(record: usize, segment: usize, i: u32): void {
  const area = headCopyAt(record);
  const head = headCopyAt(segment);
  const network: u32 = load<u16>(area, O_NETWORK);
  const transport: u32 = load<u16>(area, O_HEADER + VIRTIO_NET_HDR_CSUM_START);
  const field = transport + <u32> load<u16>(area, O_HEADER + VIRTIO_NET_HDR_CSUM_OFFSET);
  const length = load<u32>(segment, R_LENGTH);
  const bytes = length - transport;
  writeNetwork(head + network, length - network, transport - network, i);
  const gso: u32 = load<u8>(area, O_HEADER + VIRTIO_NET_HDR_GSO_TYPE);
  if (gso == VIRTIO_NET_HDR_GSO_UDP_L4) store<u16>(head + transport, bswap<u16>(<u16> bytes), 4);
  else writeTcp(head + transport, area, i);
  // The sender has put the sum of the pseudo header there, which differs in the length alone.
  const whole = load<u32>(record, R_LENGTH) - transport;
  const pseudo = <u64> load<u16>(head + field) + <u64> bswap<u16>(<u16> bytes) + <u64> (bswap<u16>(<u16> whole) ^ 0xffff);
  store<u16>(head + field, <u16> (fold(pseudo) ^ 0xffff));
  storeChecksum(segment, head, transport, field);
}

/** The IP header at `ip`, of `headerBytes` with its extensions, of segment `i`, which has `bytes` from there on. */
function writeNetwork(ip: usize, bytes: u32, headerBytes: u32, i: u32): void {
  if (load<u8>(ip) >> 4 == 6) {
    store<u16>(ip, bswap<u16>(<u16> (bytes - 40)), 4);
    return;
  }
  store<u16>(ip, bswap<u16>(<u16> bytes), 2);
  store<u16>(ip, bswap<u16>(<u16> (<u32> bswap<u16>(load<u16>(ip, 4)) + i)), 4);
  store<u16>(ip, 0, 10);
  store<u16>(ip, <u16> fold(sum(ip, headerBytes, 0)), 10);
}

/** The TCP header at `tcp` of segment `i` of the frame with O_* in `area` (RFC 9293 §3.1, RFC 3168 §6.1.2). */
function writeTcp(tcp: usize, area: usize, i: u32): void {
  const size: u32 = load<u16>(area, O_HEADER + VIRTIO_NET_HDR_GSO_SIZE);
  store<u32>(tcp, bswap<u32>(bswap<u32>(load<u32>(tcp, 4)) + i * size), 4);
  let flags: u32 = load<u8>(tcp, TCP_FLAGS);
  if (i != 0) flags &= ~TCP_CWR;
  if (i + 1 != load<u32>(area, O_SEGMENTS)) flags &= ~TCP_FIN_PSH;
  store<u8>(tcp, <u8> flags, TCP_FLAGS);
}
