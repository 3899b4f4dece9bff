/** IPv4 packets (RFC 791) on their way out: no options, no fragments. */
import { GC, GC_IP, GC_IP_ID, GC_MTU } from "../../shared/layout/guest.ts";
import { fold } from "../lib/checksum.ts";
import { beginFrame, endFrame, leave, linkHeaderBytes, writeLinkHeader } from "./frame.ts";

export const IPV4_BYTES: u32 = 20;
export const PROTOCOL_ICMP: u32 = 1;
export const PROTOCOL_UDP: u32 = 17;
const ETHERTYPE_IPV4: u32 = 0x0008;
const VERSION_IHL: u32 = 0x0045;
const DONT_FRAGMENT: u32 = 0x0040;
const TTL: u32 = 64;

/** Bytes of a frame that carries `payload` bytes of IPv4. */
@inline
function frameBytesOf(payload: u32): u32 {
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

/** The packet that was begun leaves its checksum to be filled in, `offset` bytes into its payload. */
@inline
export function leaveSum(offset: u32): void {
  leave(frameBytesOf(0), offset, 0, 0);
}

/**
 * The packet that was begun, whose payload has headers of `headerBytes`, is to be cut into `n` datagrams of `size` bytes
 * behind such headers. Each has an identification of its own.
 */
export function leaveDatagrams(offset: u32, size: u32, headerBytes: u32, n: u32): void {
  leave(frameBytesOf(0), offset, size, frameBytesOf(headerBytes));
  store<u32>(GC, load<u32>(GC, GC_IP_ID) + n - 1, GC_IP_ID);
}
