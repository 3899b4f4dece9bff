/** IPv4 (RFC 791), as much as a host on one subnet needs: no options sent, no fragments taken. ICMP echo with it. */
import {
  G_ICMP_ECHOES,
  G_RX_BAD,
  G_RX_CHECKSUM,
  G_RX_NOT_MINE,
  GC,
  GC_IP,
  GC_IP_ID,
  GC_MASK,
  GC_MTU,
} from "../../shared/layout/guest.ts";
import { count } from "./buffers.ts";
import { fold, sum } from "./checksum.ts";
import { beginFrame, endFrame, linkHeaderBytes, writeLinkHeader } from "./frame.ts";
import { echoReply } from "./ping.ts";
import { udpInput } from "./udp.ts";

export const IPV4_BYTES: u32 = 20;
export const PROTOCOL_ICMP: u32 = 1;
export const PROTOCOL_UDP: u32 = 17;
const ETHERTYPE_IPV4: u32 = 0x0008;
const VERSION_IHL: u32 = 0x0045;
const DONT_FRAGMENT: u32 = 0x0040;
const TTL: u32 = 64;
const ICMP_BYTES: u32 = 8;

/** Bytes of a frame that carries `payload` bytes of IPv4. */
@inline
export function frameBytesOf(payload: u32): u32 {
  return linkHeaderBytes() + IPV4_BYTES + payload;
}

/** Whether a packet of `payload` bytes may go out. */
@inline
export function fits(payload: u32): bool {
  return IPV4_BYTES + payload <= load<u32>(GC, GC_MTU);
}

/** Begins a packet of `payload` bytes; answers where they are to be written, 0 if there is no room. */
export function beginPacket(dst: u64, to: u32, protocol: u32, payload: u32): usize {
  if (beginFrame(frameBytesOf(payload)) == 0) return 0;
  const at = writeLinkHeader(dst, ETHERTYPE_IPV4);
  const id = load<u32>(GC, GC_IP_ID);
  store<u32>(GC, id + 1, GC_IP_ID);
  const length: u32 = bswap<u16>(<u16> (IPV4_BYTES + payload));
  const versionLength = VERSION_IHL | (length << 16);
  const idFragment = <u32> bswap<u16>(<u16> id) | (DONT_FRAGMENT << 16);
  const ttlProtocol = TTL | (protocol << 8);
  const source = bswap<u32>(load<u32>(GC, GC_IP));
  const destination = bswap<u32>(to);
  const checksum = fold(<u64> versionLength + idFragment + ttlProtocol + source + destination);
  store<u32>(at, versionLength);
  store<u32>(at, idFragment, 4);
  store<u32>(at, ttlProtocol | (checksum << 16), 8);
  store<u32>(at, source, 12);
  store<u32>(at, destination, 16);
  return at + IPV4_BYTES;
}

@inline
export function endPacket(payload: u32): void {
  endFrame(frameBytesOf(payload));
}

/** Takes a packet of `n` bytes that came from `src`. */
export function ipv4Input(at: usize, n: u32, src: u64): void {
  if (n < IPV4_BYTES) return count(G_RX_BAD, 1);
  const headerBytes = (<u32> load<u8>(at) & 15) << 2;
  const length: u32 = bswap<u16>(load<u16>(at, 2));
  if (load<u8>(at) >> 4 != 4 || headerBytes < IPV4_BYTES || length < headerBytes || length > n) return count(G_RX_BAD, 1);
  if (fold(sum(at, headerBytes, 0)) != 0) return count(G_RX_CHECKSUM, 1);
  const ours = load<u32>(GC, GC_IP);
  const to = bswap<u32>(load<u32>(at, 16));
  if (to != ours && to != 0xffffffff && to != (ours | ~load<u32>(GC, GC_MASK))) return count(G_RX_NOT_MINE, 1);
  if (load<u16>(at, 6) & 0xff3f) return count(G_RX_BAD, 1);
  const from = bswap<u32>(load<u32>(at, 12));
  const payload = at + headerBytes;
  const protocol: u32 = load<u8>(at, 9);
  if (protocol == PROTOCOL_UDP) udpInput(payload, length - headerBytes, at, src, from);
  else if (protocol == PROTOCOL_ICMP && to == ours) icmpInput(payload, length - headerBytes, src, from);
}

function icmpInput(at: usize, n: u32, src: u64, from: u32): void {
  if (n < ICMP_BYTES) return count(G_RX_BAD, 1);
  if (fold(sum(at, n, 0)) != 0) return count(G_RX_CHECKSUM, 1);
  const type = load<u8>(at);
  if (type == 0) return echoReply(at, n, from);
  // What would need fragments is not answered.
  if (type != 8 || !fits(n)) return;
  const out = beginPacket(src, from, PROTOCOL_ICMP, n);
  if (out == 0) return;
  memory.copy(out, at, n);
  store<u32>(out, 0);
  store<u16>(out, <u16> fold(sum(out, n, 0)), 2);
  endPacket(n);
  count(G_ICMP_ECHOES, 1);
}
