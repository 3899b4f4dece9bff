/** IPv4 (RFC 791), as much as a host on one subnet needs: no options sent, no fragments taken. ICMP echo with it. */
import {
  G_ICMP_ECHOES,
  G_RX_BAD,
  G_RX_CHECKSUM,
  G_RX_NOT_MINE,
  GC,
  GC_IP,
  GC_MASK,
} from "../../shared/layout/guest.ts";
import { count } from "./buffers.ts";
import { fold, sum } from "../lib/checksum.ts";
import { beginPacket, endPacket, fits, IPV4_BYTES, PROTOCOL_ICMP, PROTOCOL_UDP } from "./packet.ts";
import { echoReply } from "./ping.ts";
import { udpInput } from "./udp.ts";

const ICMP_BYTES: u32 = 8;

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
