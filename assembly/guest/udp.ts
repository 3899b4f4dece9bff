/** UDP (RFC 768): an echo service, and the probes of a generator. */
import {
  G_RX_BAD,
  G_RX_CHECKSUM,
  G_UDP_ECHOES,
  G_UDP_RX,
  GC,
  GC_IP,
  PROBE_BYTES,
  PROBE_MAGIC,
  UDP_ECHO_PORT,
} from "../../shared/layout/guest.ts";
import { count } from "./buffers.ts";
import { copyBytes } from "../lib/copy.ts";
import { fold, sum } from "../lib/checksum.ts";
import { noteProbe } from "./flow.ts";
import { beginPacket, endPacket, fits, PROTOCOL_UDP } from "./packet.ts";

export const UDP_BYTES: u32 = 8;

/** Sum of the pseudo header: addresses as they lie in the IPv4 header, protocol, length. */
@inline
function pseudo(source: u32, destination: u32, n: u32): u64 {
  return <u64> source + destination + (PROTOCOL_UDP << 8) + bswap<u16>(<u16> n);
}

/** Writes the header of a datagram of `n` bytes to `to`, whose payload sums to `payload`. */
export function writeUdpHeader(at: usize, to: u32, sourcePort: u32, port: u32, n: u32, payload: u64): void {
  const ports = <u32> bswap<u16>(<u16> sourcePort) | (<u32> bswap<u16>(<u16> port) << 16);
  const length: u32 = bswap<u16>(<u16> n);
  const checksum = fold(payload + ports + length + pseudo(bswap<u32>(load<u32>(GC, GC_IP)), bswap<u32>(to), n));
  store<u32>(at, ports);
  store<u32>(at, length | ((checksum == 0 ? 0xffff : checksum) << 16), 4);
}

/** Takes a datagram at `at`, of the packet whose header is at `ip`; `n` bytes are there. */
export function udpInput(at: usize, n: u32, ip: usize, src: u64, from: u32): void {
  if (n < UDP_BYTES) return count(G_RX_BAD, 1);
  const length: u32 = bswap<u16>(load<u16>(at, 4));
  if (length < UDP_BYTES || length > n) return count(G_RX_BAD, 1);
  const good = load<u16>(at, 6) == 0 || fold(sum(at, length, pseudo(load<u32>(ip, 12), load<u32>(ip, 16), length))) == 0;
  if (!good) return count(G_RX_CHECKSUM, 1);
  count(G_UDP_RX, 1);
  const port: u32 = bswap<u16>(load<u16>(at, 2));
  if (port == <u32> UDP_ECHO_PORT) {
    // Not what everybody got: one question would have as many answers as there are hosts.
    const mine = bswap<u32>(load<u32>(ip, 16)) == load<u32>(GC, GC_IP);
    if (mine && fits(length)) echo(at, length, src, from);
    return;
  }
  if (length >= UDP_BYTES + PROBE_BYTES && load<u32>(at, UDP_BYTES) == <u32> PROBE_MAGIC) noteProbe(at + UDP_BYTES, length, from);
}

/** Sends a datagram back to where it came from (RFC 862). */
function echo(at: usize, length: u32, src: u64, from: u32): void {
  const out = beginPacket(src, from, PROTOCOL_UDP, length);
  if (out == 0) return;
  copyBytes(out, at, length);
  // Addresses and ports change places, which changes no sum: the checksum stays what it was.
  store<u16>(out, load<u16>(at, 2));
  store<u16>(out, load<u16>(at), 2);
  endPacket(length);
  count(G_UDP_ECHOES, 1);
}
