/**
 * UDP (RFC 768): an echo service, and the probes of a generator. A sum that the data path fills in is not computed here;
 * datagrams that came together are taken in one by one.
 */
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
import { datagramBytes, isChecked, isPartial } from "./arrival.ts";
import { count } from "./buffers.ts";
import { copyBytes } from "../lib/copy.ts";
import { fold, sum } from "../lib/checksum.ts";
import { noteProbe } from "./flow.ts";
import { beginPacket, endPacket, fits, leaveDatagrams, leaveSum, PROTOCOL_UDP } from "./packet.ts";
import { cuts, sums } from "./path.ts";

export const UDP_BYTES: u32 = 8;
export const UDP_CHECKSUM: u32 = 6;
/** Datagrams that come together at the most: as many as a device may make one of. */
const DATAGRAMS_MAX: u32 = 2048;

/** Sum of the pseudo header: addresses as they lie in the IPv4 header, protocol, length. */
@inline
function pseudo(source: u32, destination: u32, n: u32): u64 {
  return <u64> source + destination + (PROTOCOL_UDP << 8) + bswap<u16>(<u16> n);
}

@inline
function ports(sourcePort: u32, port: u32): u32 {
  return <u32> bswap<u16>(<u16> sourcePort) | (<u32> bswap<u16>(<u16> port) << 16);
}

@inline
function ownPseudo(to: u32, n: u32): u64 {
  return pseudo(bswap<u32>(load<u32>(GC, GC_IP)), bswap<u32>(to), n);
}

/** Writes the header of a datagram of `n` bytes to `to`, whose payload sums to `payload`. */
export function writeUdpHeader(at: usize, to: u32, sourcePort: u32, port: u32, n: u32, payload: u64): void {
  const both = ports(sourcePort, port);
  const length: u32 = bswap<u16>(<u16> n);
  const checksum = fold(payload + both + length + ownPseudo(to, n));
  store<u32>(at, both);
  store<u32>(at, length | ((checksum == 0 ? 0xffff : checksum) << 16), 4);
}

/** As `writeUdpHeader`, of a datagram that leaves its sum to the data path: the pseudo header's is there. */
export function writeOpenUdpHeader(at: usize, to: u32, sourcePort: u32, port: u32, n: u32): void {
  store<u32>(at, ports(sourcePort, port));
  store<u32>(at, <u32> bswap<u16>(<u16> n) | ((fold(ownPseudo(to, n)) ^ 0xffff) << 16), 4);
}

/** Takes a datagram at `at`, of the packet whose header is at `ip`; `n` bytes are there. */
export function udpInput(at: usize, n: u32, ip: usize, src: u64, from: u32): void {
  if (n < UDP_BYTES) return count(G_RX_BAD, 1);
  const length: u32 = bswap<u16>(load<u16>(at, 4));
  if (length < UDP_BYTES || length > n) return count(G_RX_BAD, 1);
  const good = load<u16>(at, UDP_CHECKSUM) == 0 || isChecked(at, UDP_CHECKSUM) ||
    fold(sum(at, length, pseudo(load<u32>(ip, 12), load<u32>(ip, 16), length))) == 0;
  if (!good) return count(G_RX_CHECKSUM, 1);
  // Not what everybody got: one question would have as many answers as there are hosts.
  const mine = bswap<u32>(load<u32>(ip, 16)) == load<u32>(GC, GC_IP);
  const payload = length - UDP_BYTES;
  const size = datagramBytes == 0 ? payload : datagramBytes;
  const together: u32 = payload <= size ? 1 : (payload + size - 1) / size;
  if (together > DATAGRAMS_MAX) return count(G_RX_BAD, 1);
  count(G_UDP_RX, together);
  if (<u32> bswap<u16>(load<u16>(at, 2)) == <u32> UDP_ECHO_PORT) {
    if (mine) echoAll(at, length, size, src, from);
    return;
  }
  for (let done: u32 = 0; done < payload; done += size) {
    const bytes = min(size, payload - done);
    const probe = at + UDP_BYTES + done;
    if (bytes >= <u32> PROBE_BYTES && load<u32>(probe) == <u32> PROBE_MAGIC) noteProbe(probe, UDP_BYTES + bytes, from);
  }
}

/** Sends datagrams with `size` bytes of payload each, that came together, back to where they came from (RFC 862). */
function echoAll(at: usize, length: u32, size: u32, src: u64, from: u32): void {
  const payload = length - UDP_BYTES;
  if (!fits(UDP_BYTES + min(size, payload))) return;
  if (payload <= size) return echo(at, length, src, from);
  const own: u32 = bswap<u16>(load<u16>(at, 2));
  const its: u32 = bswap<u16>(load<u16>(at));
  if (cuts()) {
    const out = beginPacket(src, from, PROTOCOL_UDP, length);
    if (out == 0) return;
    memory.copy(out + UDP_BYTES, at + UDP_BYTES, payload);
    writeOpenUdpHeader(out, from, own, its, length);
    const together = (payload + size - 1) / size;
    leaveDatagrams(UDP_CHECKSUM, size, UDP_BYTES, together);
    endPacket(length);
    return count(G_UDP_ECHOES, together);
  }
  const open = sums();
  for (let done: u32 = 0; done < payload; done += size) {
    const n = UDP_BYTES + min(size, payload - done);
    const data = at + UDP_BYTES + done;
    const out = beginPacket(src, from, PROTOCOL_UDP, n);
    if (out == 0) return;
    copyBytes(out + UDP_BYTES, data, n - UDP_BYTES);
    if (open) writeOpenUdpHeader(out, from, own, its, n);
    else writeUdpHeader(out, from, own, its, n, sum(data, n - UDP_BYTES, 0));
    if (open) leaveSum(UDP_CHECKSUM);
    endPacket(n);
    count(G_UDP_ECHOES, 1);
  }
}

/** Sends a datagram back: one that came alone. */
function echo(at: usize, length: u32, src: u64, from: u32): void {
  const out = beginPacket(src, from, PROTOCOL_UDP, length);
  if (out == 0) return;
  copyBytes(out, at, length);
  // Addresses and ports change places, which changes no sum: the checksum stays what it was, finished or not.
  store<u16>(out, load<u16>(at, 2));
  store<u16>(out, load<u16>(at), 2);
  if (isPartial(at, UDP_CHECKSUM)) {
    if (sums()) leaveSum(UDP_CHECKSUM);
    else finish(out, length);
  }
  endPacket(length);
  count(G_UDP_ECHOES, 1);
}

/** Fills in the checksum of a datagram of `n` bytes, in whose field the pseudo header's sum is. */
function finish(at: usize, n: u32): void {
  const checksum = fold(sum(at, n, 0));
  store<u16>(at, <u16> (checksum == 0 ? 0xffff : checksum), UDP_CHECKSUM);
}
