/**
 * Where the transport header of a frame begins, in a copy of its head. Every length is checked against the bytes that
 * are there, and IPv6 extension headers are followed up to a bound.
 */
import { ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, isLlcLength, isTag } from "../../lib/ethernet.ts";

/** What `transportOf` answers of a frame that is not IP; and of one whose headers lie, or are those of ARP or LLC. */
export const NOT_IP: u32 = 0;
export const NO_TRANSPORT: u32 = 0xffffffff;

export const PROTOCOL_TCP: u32 = 6;
export const PROTOCOL_UDP: u32 = 17;
export const PROTOCOL_ICMPV6: u32 = 58;
const HOP_BY_HOP: u32 = 0;
const ROUTING: u32 = 43;
const DESTINATION: u32 = 60;
/** Extension headers that are followed: RFC 8200 §4.1 has each kind once, and destination options twice. */
const EXTENSIONS_MAX: u32 = 4;
const TAGS_MAX: u32 = 2;

/** Of the frame that was asked for last: where its Ethernet header, with its tags, ends; whether it is IPv6. */
export let network: u32 = 0;
export let isIpv6: bool = false;
/** The protocol behind its IP headers, whether it is a fragment, and where it ends by its IP header. */
export let protocol: u32 = 0;
export let isFragment: bool = false;
export let packetEnd: u32 = 0;

/** Where the transport header of the frame at `frame`, of which `known` bytes are there, begins. */
export function transportOf(frame: usize, known: u32): u32 {
  let at: u32 = 12;
  for (let tags: u32 = 0; tags < TAGS_MAX && at + 6 <= known && isTag(load<u16>(frame + at)); tags++) at += 4;
  network = at + 2;
  if (network > known) return NO_TRANSPORT;
  const type: u32 = load<u16>(frame + at);
  isIpv6 = type == ETHERTYPE_IPV6;
  isFragment = false;
  if (type == ETHERTYPE_IPV4) return behindIpv4(frame, known);
  if (isIpv6) return behindIpv6(frame, known);
  return type == ETHERTYPE_ARP || isLlcLength(type) ? NO_TRANSPORT : NOT_IP;
}

function behindIpv4(frame: usize, known: u32): u32 {
  if (network + 20 > known) return NO_TRANSPORT;
  const ip = frame + network;
  const first: u32 = load<u8>(ip);
  const headerBytes = (first & 15) << 2;
  if (first >> 4 != 4 || headerBytes < 20) return NO_TRANSPORT;
  packetEnd = network + <u32> bswap<u16>(load<u16>(ip, 2));
  // More fragments, or an offset: as loaded.
  isFragment = (<u32> load<u16>(ip, 6) & 0xff3f) != 0;
  protocol = load<u8>(ip, 9);
  return network + headerBytes;
}

function behindIpv6(frame: usize, known: u32): u32 {
  if (network + 40 > known || load<u8>(frame + network) >> 4 != 6) return NO_TRANSPORT;
  packetEnd = network + 40 + <u32> bswap<u16>(load<u16>(frame + network, 4));
  protocol = load<u8>(frame + network, 6);
  let at = network + 40;
  for (let n: u32 = 0; protocol == HOP_BY_HOP || protocol == ROUTING || protocol == DESTINATION; n++) {
    if (n == EXTENSIONS_MAX || at + 8 > known) return NO_TRANSPORT;
    protocol = load<u8>(frame + at);
    at += (<u32> load<u8>(frame + at, 1) + 1) << 3;
  }
  return at;
}
