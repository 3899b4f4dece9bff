/**
 * Where the layers of a frame lie: Ethernet with up to two tags, IPv4 or IPv6 with its extension headers, TCP or UDP. A
 * plain reader for the reference implementation of offloads (reference_offload.ts): slow, and by the text of the RFCs.
 */

export const ETHERTYPE_IPV4 = 0x0800;
export const ETHERTYPE_ARP = 0x0806;
export const ETHERTYPE_IPV6 = 0x86dd;
/** Below it an EtherType is a length, and what follows is an LLC header (IEEE 802.3, §3.2.6). */
export const ETHERTYPE_LEAST = 0x0600;
export const PROTOCOL_TCP = 6;
export const PROTOCOL_UDP = 17;
export const PROTOCOL_ICMPV6 = 58;
/** IPv6 extension headers that the engine looks through. */
export const EXTENSIONS_MAX = 4;
export const ETHERNET_BYTES = 14;
export const IPV6_HEADER_BYTES = 40;
/** Hop-by-hop options, routing, destination options: each says in its second byte how long it is (RFC 8200 §4). */
const EXTENSIONS: readonly number[] = [0, 43, 60];

const TAGS: readonly number[] = [0x8100, 0x88a8];
const TAG_BYTES = 4;
const TAGS_MAX = 2;
const UDP_HEADER_BYTES = 8;
const TCP_HEADER_BYTES = 20;

/** Big-endian fields of bytes. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** A frame's EtherType behind its tags, and where what it names begins. */
export interface Link {
  etherType: number;
  /** Bytes of addresses, tags and EtherType. */
  bytes: number;
}

/** The link layer of a frame of at least 14 bytes. `etherType` is -1 where the frame ends inside a tag. */
export function linkOf(frame: Uint8Array): Link {
  const view = viewOf(frame);
  let bytes = ETHERNET_BYTES;
  let etherType = view.getUint16(12);
  for (let tags = 0; tags < TAGS_MAX && TAGS.includes(etherType); tags++) {
    bytes += TAG_BYTES;
    etherType = bytes <= frame.length ? view.getUint16(bytes - 2) : -1;
  }
  return { etherType, bytes };
}

/** An IP packet's header in a frame. */
export interface Ip {
  version: 4 | 6;
  /** Where its header begins. */
  at: number;
  /** Where what it carries begins: behind options or extension headers. */
  transportAt: number;
  /** IPv6 extension headers before that. */
  extensions: number;
  /** What it carries. */
  protocol: number;
  isFragment: boolean;
  /** Where it says that it ends. */
  end: number;
}

/** The IP header of a frame, or what is wrong with it: another protocol, or a header that is not whole. */
export function ipOf(frame: Uint8Array): Ip | "not-ip" | "ip-header" {
  const { etherType, bytes: at } = linkOf(frame);
  if (etherType === ETHERTYPE_IPV4) return ipv4Of(frame, at);
  if (etherType === ETHERTYPE_IPV6) return ipv6Of(frame, at);
  return "not-ip";
}

/** RFC 791 §3.1. */
function ipv4Of(frame: Uint8Array, at: number): Ip | "ip-header" {
  const view = viewOf(frame);
  if (frame.length < at + 20) return "ip-header";
  const version = view.getUint8(at) >> 4;
  const headerBytes = (view.getUint8(at) & 0xf) * 4;
  if (version !== 4 || headerBytes < 20 || frame.length < at + headerBytes) return "ip-header";
  const flagsAndOffset = view.getUint16(at + 6);
  const hasMoreFragments = (flagsAndOffset & 0x2000) !== 0;
  const fragmentOffset = flagsAndOffset & 0x1fff;
  return {
    version: 4,
    at,
    transportAt: at + headerBytes,
    extensions: 0,
    protocol: view.getUint8(at + 9),
    isFragment: hasMoreFragments || fragmentOffset !== 0,
    end: at + view.getUint16(at + 2),
  };
}

/** RFC 8200 §3 and §4. A fragment header is not walked over: what is behind it is a fragment. */
function ipv6Of(frame: Uint8Array, at: number): Ip | "ip-header" {
  const view = viewOf(frame);
  if (frame.length < at + IPV6_HEADER_BYTES || view.getUint8(at) >> 4 !== 6) return "ip-header";
  let protocol = view.getUint8(at + 6);
  let transportAt = at + IPV6_HEADER_BYTES;
  let extensions = 0;
  for (; EXTENSIONS.includes(protocol); extensions++) {
    if (frame.length < transportAt + 8) return "ip-header";
    protocol = view.getUint8(transportAt);
    transportAt += (view.getUint8(transportAt + 1) + 1) * 8;
    if (frame.length < transportAt) return "ip-header";
  }
  const FRAGMENT = 44;
  return {
    version: 6,
    at,
    transportAt,
    extensions,
    protocol,
    isFragment: protocol === FRAGMENT,
    end: at + IPV6_HEADER_BYTES + view.getUint16(at + 4),
  };
}

/** Where the payload of a TCP segment or UDP datagram begins; `undefined` if its header is not whole. */
export function payloadOf(frame: Uint8Array, ip: Ip): number | undefined {
  const at = ip.transportAt;
  if (ip.protocol === PROTOCOL_UDP) return at + UDP_HEADER_BYTES <= frame.length ? at + UDP_HEADER_BYTES : undefined;
  if (at + TCP_HEADER_BYTES > frame.length) return undefined;
  const headerBytes = (viewOf(frame).getUint8(at + 12) >> 4) * 4;
  return headerBytes >= TCP_HEADER_BYTES && at + headerBytes <= frame.length ? at + headerBytes : undefined;
}
