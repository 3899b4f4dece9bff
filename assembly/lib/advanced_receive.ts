/**
 * The receive side of an advanced ring: one frame into as many descriptors as it needs (82599 datasheet §7.1.6), whole
 * or with its headers apart (§7.1.10: SRRCTL.DESCTYPE 010). The header is parsed in a copy, and the copy is what is
 * delivered, so that a sender that rewrites its frame meanwhile gains nothing.
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
} from "../../shared/layout/advanced.ts";
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
  RX_SEGMENTS,
  SPLIT_HEAD,
  SPLIT_HEAD_BYTES,
} from "../../shared/layout/nic.ts";
import { copyBytes } from "./copy.ts";
import { ETHERTYPE_IPV4, ETHERTYPE_IPV6, isTag } from "./ethernet.ts";
import { pendingAdvanced } from "./advanced_ring.ts";
import { failQueue } from "./interrupts.ts";
import { appendBuffer, clearSegments, peek, put, putFrom, rewindOut } from "./segments.ts";

/** Packet type bits of the last `headerLength`. */
let packetType: u32 = 0;

/** Bytes of headers at SPLIT_HEAD, of which `n` are there; 0 if they are of no kind that is split. */
function headerLength(n: u32): u32 {
  packetType = 0;
  let at: u32 = 12;
  for (let tags = 0; tags < 2 && isTag(load<u16>(SPLIT_HEAD + at)); tags++) at += 4;
  const type: u32 = load<u16>(SPLIT_HEAD + at);
  at += 2;
  let protocol: u32;
  if (type == ETHERTYPE_IPV4 && at + 20 <= n) {
    packetType = ADV_RXD_PTYPE_IPV4;
    const fragment = <u32> load<u16>(SPLIT_HEAD + at, 6) & 0xff3f;
    protocol = fragment == 0 ? <u32> load<u8>(SPLIT_HEAD + at, 9) : 0;
    at += (<u32> load<u8>(SPLIT_HEAD + at) & 15) << 2;
  } else if (type == ETHERTYPE_IPV6 && at + 40 <= n) {
    packetType = ADV_RXD_PTYPE_IPV6;
    protocol = load<u8>(SPLIT_HEAD + at, 6);
    at += 40;
  } else {
    return 0;
  }
  if (protocol == 17 && at + 8 <= n) {
    packetType |= ADV_RXD_PTYPE_UDP;
    at += 8;
  } else if (protocol == 6 && at + 20 <= n) {
    packetType |= ADV_RXD_PTYPE_TCP;
    at += (<u32> load<u8>(SPLIT_HEAD + at, 12) >> 4) << 2;
  }
  return at <= n ? at : 0;
}

/**
 * Puts a frame into RX ring `rx`: `headBytes` at `head`, then `payloadBytes` of `segments`, `skip` bytes into them.
 * Answers 0, or the counter that tells why it did not go in.
 */
export function receiveAdvanced(
  rx: usize,
  head: usize,
  headBytes: u32,
  segments: usize,
  skip: u32,
  payloadBytes: u32,
): u32 {
  const mask = load<u32>(rx, Q_SIZE) - 1;
  const free = pendingAdvanced(rx);
  if (free > mask) {
    failQueue(rx, BAD_TAIL, free);
    return C_RX_QUEUE_ERROR;
  }
  const frameBytes = headBytes + payloadBytes;
  const packetBytes = load<u32>(rx, Q_PACKET_BYTES);
  const headerRoom = load<u32>(rx, Q_HEADER_BYTES);
  let split: u32 = 0;
  if (headerRoom != 0) {
    const known = min(frameBytes, SPLIT_HEAD_BYTES);
    copyBytes(SPLIT_HEAD, head, headBytes);
    peek(segments, skip, known - headBytes, SPLIT_HEAD + headBytes);
    split = headerLength(known);
    if (split > headerRoom) split = 0;
  }
  const rest = frameBytes - split;
  const count = max(1, (rest + packetBytes - 1) / packetBytes);
  if (count > <u32> ADV_CHAIN_MAX) return C_RX_TOO_SMALL;
  if (count > free) return C_RX_NO_BUFFER;

  const ring: usize = load<u32>(rx, Q_DESC);
  const first = load<u32>(rx, Q_LAST_AVAIL);
  clearSegments();
  for (let i: u32 = 0; i < count; i++) {
    const descriptor = ring + ((first + i) & mask) * ADV_DESC_BYTES;
    const packet = load<u64>(descriptor);
    const header = load<u64>(descriptor, 8);
    const good = (i != 0 || split == 0 || appendBuffer(rx, RX_SEGMENTS, header, split, PERM_WRITE)) &&
      appendBuffer(rx, RX_SEGMENTS, packet, packetBytes, PERM_WRITE);
    if (!good) {
      failQueue(rx, BAD_ADDRESS, packet);
      return C_RX_QUEUE_ERROR;
    }
  }
  rewindOut();
  if (split != 0) {
    put(SPLIT_HEAD, split);
    putFrom(segments, skip + split - headBytes, rest);
  } else {
    put(head, headBytes);
    putFrom(segments, skip, payloadBytes);
  }
  const info = split != 0 ? packetType | (split << ADV_RXD_HDRLEN_SHIFT) | ADV_RXD_SPH : 0;
  let left = rest;
  for (let i: u32 = 0; i < count; i++) {
    const descriptor = ring + ((first + i) & mask) * ADV_DESC_BYTES;
    const length = min(left, packetBytes);
    left -= length;
    const status: u32 = i + 1 == count ? ADV_RXD_STAT_DD | ADV_RXD_STAT_EOP : ADV_RXD_STAT_DD;
    store<u64>(descriptor, i == 0 ? info : 0);
    store<u64>(descriptor, <u64> status | (<u64> length << 32), 8);
  }
  store<u32>(rx, (first + count) & mask, Q_LAST_AVAIL);
  return 0;
}
