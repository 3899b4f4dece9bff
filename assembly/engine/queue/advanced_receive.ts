/**
 * One frame into an advanced receive ring: into as many descriptors as it needs (82599 datasheet §7.1.6), whole or with
 * its headers apart (§7.1.10: SRRCTL.DESCTYPE 010). The header is parsed in a copy, and the copy is what is delivered, so
 * that a sender that rewrites its frame meanwhile gains nothing.
 */
import {
  ADV_CHAIN_MAX,
  ADV_DESC_BYTES,
  ADV_RXD_HDRLEN_SHIFT,
  ADV_RXD_PTYPE_IPV4,
  ADV_RXD_PTYPE_IPV6,
  ADV_RXD_PTYPE_TCP,
  ADV_RXD_PTYPE_UDP,
  ADV_RXD_SPH,
  ADV_RXD_STAT_DD,
  ADV_RXD_STAT_EOP,
} from "../../../shared/layout/advanced.ts";
import {
  BAD_ADDRESS,
  BAD_TAIL,
  C_RX_NO_BUFFER,
  C_RX_QUEUE_ERROR,
  C_RX_TOO_SMALL,
  PERM_WRITE,
  Q_DESC,
  Q_HEADER_BYTES,
  Q_LAST_AVAIL,
  Q_PACKET_BYTES,
  Q_SIZE,
  R_LENGTH,
  RX_SEGMENTS,
  SPLIT_HEAD,
  SPLIT_HEAD_BYTES,
} from "../../../shared/layout/nic.ts";
import { ETHERTYPE_IPV4, ETHERTYPE_IPV6, isTag } from "../../lib/ethernet.ts";
import { appendBuffer, NOT_APPENDED, put, rewindOut } from "../batch/segments.ts";
import { context } from "../context.ts";
import { checkedStatus } from "../deliver/checked.ts";
import { outLength, peekFrame, putFrame, putRest } from "../deliver/head.ts";
import { spendReceive, UNITS_DESCRIPTOR, UNITS_UNUSUAL } from "../schedule/cost.ts";
import { pendingAdvanced } from "./advanced.ts";
import { failQueue } from "./interrupts.ts";
import { OUT_VIRTIO_HDR, Q_HDR_BYTES, Q_OFFLOADS } from "../../../shared/layout/nic.ts";
import { putOffload, putVirtioHeader } from "../deliver/virtio_header.ts";

/** Writes a descriptor back. Its status comes last: the driver may look at any moment. */
@inline
export function writeBack(descriptor: usize, info: u64, length: u32, status: u32): void {
  store<u64>(descriptor, info);
  atomic.store<u64>(descriptor, <u64> status | (<u64> length << 32), 8);
}

/** Puts one frame into as many descriptors as it needs; 0, or the counter that tells why not. */
export function receiveAdvanced(rx: usize, record: usize, head: u32, tag: u32): u32 {
  const frameBytes = outLength(head, load<u32>(record, R_LENGTH));
  const hdrBytes = load<u32>(rx, Q_HDR_BYTES);
  const mask = load<u32>(rx, Q_SIZE) - 1;
  const free = pendingAdvanced(rx);
  if (free > mask) {
    failQueue(rx, BAD_TAIL, free);
    return C_RX_QUEUE_ERROR;
  }
  const packetBytes = load<u32>(rx, Q_PACKET_BYTES);
  const headerRoom = load<u32>(rx, Q_HEADER_BYTES);
  let split: u32 = 0;
  if (headerRoom != 0) {
    const known = min(frameBytes, <u32> SPLIT_HEAD_BYTES);
    peekFrame(record, head, tag, known, context + SPLIT_HEAD);
    split = headerLength(known);
    if (split + hdrBytes > headerRoom) split = 0;
  }
  const apart = split == 0 ? 0 : hdrBytes + split;
  const rest = hdrBytes + frameBytes - apart;
  const count = max(1, (rest + packetBytes - 1) / packetBytes);
  spendReceive(UNITS_UNUSUAL + count * UNITS_DESCRIPTOR);
  if (count > <u32> ADV_CHAIN_MAX) return C_RX_TOO_SMALL;
  if (count > free) return C_RX_NO_BUFFER;
  if (!appendBuffers(rx, count, apart)) return C_RX_QUEUE_ERROR;
  rewindOut();
  if (hdrBytes != 0) {
    const header = context + OUT_VIRTIO_HDR;
    putVirtioHeader(header, hdrBytes, 1);
    putOffload(header, record, head, <u32> load<u16>(rx, Q_OFFLOADS));
    put(header, hdrBytes);
  }
  if (split != 0) {
    put(context + SPLIT_HEAD, split);
    putRest(record, head, split);
  } else {
    putFrame(record, head, tag);
  }
  const ring: usize = load<u32>(rx, Q_DESC);
  const first = load<u32>(rx, Q_LAST_AVAIL);
  const info: u64 = split != 0 ? packetType | (apart << ADV_RXD_HDRLEN_SHIFT) | ADV_RXD_SPH : 0;
  const checked: u32 = hdrBytes == 0 ? checkedStatus(record) : 0;
  let left = rest;
  for (let i: u32 = 0; i < count; i++) {
    const length = min(left, packetBytes);
    left -= length;
    const status: u32 = i + 1 == count ? checked | ADV_RXD_STAT_DD | ADV_RXD_STAT_EOP : ADV_RXD_STAT_DD;
    writeBack(ring + ((first + i) & mask) * ADV_DESC_BYTES, i == 0 ? info : 0, length, status);
  }
  store<u32>(rx, (first + count) & mask, Q_LAST_AVAIL);
  return 0;
}

/** Lists the buffers of the next `count` descriptors, and first a header buffer if `apart` bytes go there. */
function appendBuffers(rx: usize, count: u32, apart: u32): bool {
  const mask = load<u32>(rx, Q_SIZE) - 1;
  const ring: usize = load<u32>(rx, Q_DESC);
  const first = load<u32>(rx, Q_LAST_AVAIL);
  const list = context + RX_SEGMENTS;
  let segments: u32 = 0;
  for (let i: u32 = 0; i < count; i++) {
    const descriptor = ring + ((first + i) & mask) * ADV_DESC_BYTES;
    const packet = load<u64>(descriptor);
    const header = load<u64>(descriptor, 8);
    if (i == 0 && apart != 0) segments = appendBuffer(rx, list, 0, header, apart, PERM_WRITE);
    if (segments != NOT_APPENDED) {
      segments = appendBuffer(rx, list, segments, packet, load<u32>(rx, Q_PACKET_BYTES), PERM_WRITE);
    }
    if (segments == NOT_APPENDED) {
      failQueue(rx, BAD_ADDRESS, packet);
      return false;
    }
  }
  return true;
}

/** Packet type bits of the last `headerLength`. */
let packetType: u32 = 0;

/** Bytes of headers at SPLIT_HEAD, of which `n` are there; 0 if they are of no kind that is split. */
export function headerLength(n: u32): u32 {
  const head = context + SPLIT_HEAD;
  packetType = 0;
  let at: u32 = 12;
  for (let tags = 0; tags < 2 && isTag(load<u16>(head + at)); tags++) at += 4;
  const type: u32 = load<u16>(head + at);
  at += 2;
  let protocol: u32;
  if (type == ETHERTYPE_IPV4 && at + 20 <= n) {
    packetType = ADV_RXD_PTYPE_IPV4;
    const fragment = <u32> load<u16>(head + at, 6) & 0xff3f;
    protocol = fragment == 0 ? <u32> load<u8>(head + at, 9) : 0;
    at += (<u32> load<u8>(head + at) & 15) << 2;
  } else if (type == ETHERTYPE_IPV6 && at + 40 <= n) {
    packetType = ADV_RXD_PTYPE_IPV6;
    protocol = load<u8>(head + at, 6);
    at += 40;
  } else {
    return 0;
  }
  if (protocol == 17 && at + 8 <= n) {
    packetType |= ADV_RXD_PTYPE_UDP;
    at += 8;
  } else if (protocol == 6 && at + 20 <= n) {
    packetType |= ADV_RXD_PTYPE_TCP;
    at += (<u32> load<u8>(head + at, 12) >> 4) << 2;
  }
  return at <= n ? at : 0;
}
