/**
 * Frames with virtio-net headers, for property tests: lawful ones of TCP and UDP over IPv4 and IPv6 with options, tags and
 * extension headers, up to the longest that there is, and what a hostile guest makes of them. A frame is described by
 * numbers, so that fast-check can shrink it.
 */
import fc from "fast-check";
import {
  GSO_ECN,
  GSO_NONE,
  GSO_TCPV4,
  GSO_TCPV6,
  GSO_UDP_L4,
  HEADERS_BYTES_MAX,
  NEEDS_CSUM,
  type NetHeader,
  TCP_CHECKSUM,
  UDP_CHECKSUM,
} from "./reference_offload.ts";
import {
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  type Ip,
  ipOf,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  viewOf,
} from "./reference_packet.ts";
import { pseudoSum, sumOf } from "./reference_segments.ts";
import { madeBytes } from "./made_bytes.ts";

/** A frame and what its sender asks for. */
export interface Sent {
  frame: Uint8Array;
  header: NetHeader;
}

/** Longest IP packet. */
const IP_BYTES_MAX = 65_535;
const TAG_BYTES = 4;
/** The sender's and the receiver's addresses of a frame unless a test puts its own there. */
const MACS = [0x02, 0x66, 0, 0, 0, 0x02, 0x02, 0x66, 0, 0, 0, 0x01];

/** What a lawful frame is made of. */
export interface Shape {
  version: 4 | 6;
  isTcp: boolean;
  /** EtherType and VLAN of each tag, the outer one first. */
  tags: { type: number; tci: number }[];
  /** Words of IPv4 options, or blocks of 8 bytes of each IPv6 extension header. */
  ipOptions: number;
  extensions: { type: number; blocks: number }[];
  tcpOptions: number;
  tcpFlags: number;
  sequence: number;
  id: number;
  dontFragment: boolean;
  payloadBytes: number;
  /** Makes the payload. */
  seed: number;
  /** 0: the frame is not segmented. */
  gsoSize: number;
  isEcn: boolean;
  hdrLen: number;
}

/** Bytes that look like any: a generator of Park and Miller's. */
function noise(bytes: number, seed: number): Uint8Array {
  let state = seed % 2147483646 + 1;
  return madeBytes(bytes, () => {
    state = (state * 48271) % 2147483647;
    return state & 0xff;
  });
}

function word(value: number): number[] {
  return [value >> 8 & 0xff, value & 0xff];
}

function ipv4Header(shape: Shape, carried: number): number[] {
  const headerBytes = 20 + shape.ipOptions * 4;
  const header = [
    ...[0x40 | headerBytes / 4, 0x02, ...word(headerBytes + carried), ...word(shape.id)],
    ...[shape.dontFragment ? 0x40 : 0, 0, 64, shape.isTcp ? PROTOCOL_TCP : PROTOCOL_UDP, 0, 0],
    ...[10, 0, 0, 1, 10, 0, 0, 2],
    // No operation, and the end of the list.
    ...Array.from({ length: shape.ipOptions * 4 }, (_, i) => i === shape.ipOptions * 4 - 1 ? 0 : 1),
  ];
  header.splice(10, 2, ...word(0xffff - sumOf(Uint8Array.from(header))));
  return header;
}

function ipv6Header(shape: Shape, carried: number): number[] {
  const protocol = shape.isTcp ? PROTOCOL_TCP : PROTOCOL_UDP;
  const types = [...shape.extensions.map(({ type }) => type), protocol];
  const extensions = shape.extensions.flatMap(({ type, blocks }, i) => {
    const options = blocks * 8 - 4;
    const ROUTING = 43;
    // A routing header of type 0 with no segments left, or a PadN option that fills the rest (RFC 8200 §4.2).
    const body = type === ROUTING ? [0, 0] : [1, options];
    return [types[i + 1] ?? protocol, blocks - 1, ...body, ...Array<number>(options).fill(0)];
  });
  const address = (last: number) => [0xfd, ...Array<number>(14).fill(0), last];
  return [
    ...[0x60, 0x21, 0x23, 0x45, ...word(extensions.length + carried), types[0] ?? protocol, 64],
    ...[...address(1), ...address(2), ...extensions],
  ];
}

function transportHeader(shape: Shape): number[] {
  if (!shape.isTcp) return [...word(5001), ...word(5002), ...word(8 + shape.payloadBytes), 0, 0];
  const headerBytes = 20 + shape.tcpOptions * 4;
  return [
    ...[...word(5001), ...word(5002), ...word(shape.sequence >>> 16), ...word(shape.sequence & 0xffff)],
    ...[0, 0, 0x12, 0x34, headerBytes / 4 << 4, shape.tcpFlags, ...word(0x2000), 0, 0, 0, 0],
    ...Array<number>(shape.tcpOptions * 4).fill(1),
  ];
}

/** The frame of a shape, and its header as a guest's stack makes it: the pseudo-header's sum is in the checksum field. */
export function frameOf(shape: Shape): Sent {
  const transport = transportHeader(shape);
  const carried = transport.length + shape.payloadBytes;
  const ipBytes = shape.version === 4 ? ipv4Header(shape, carried) : ipv6Header(shape, carried);
  const etherType = shape.version === 4 ? ETHERTYPE_IPV4 : ETHERTYPE_IPV6;
  const tags = shape.tags.flatMap(({ type, tci }) => [...word(type), ...word(tci)]);
  const headers = [...MACS, ...tags, ...word(etherType), ...ipBytes, ...transport];
  const frame = new Uint8Array(headers.length + shape.payloadBytes);
  frame.set(headers);
  frame.set(noise(shape.payloadBytes, shape.seed), headers.length);
  const csumStart = headers.length - transport.length;
  const csumOffset = shape.isTcp ? TCP_CHECKSUM : UDP_CHECKSUM;
  viewOf(frame).setUint16(csumStart + csumOffset, pseudoSum(frame, ipOf(frame) as Ip, carried));
  const type = shape.isTcp ? shape.version === 4 ? GSO_TCPV4 : GSO_TCPV6 : GSO_UDP_L4;
  const gsoType = shape.gsoSize === 0 ? GSO_NONE : type | (shape.isTcp && shape.isEcn ? GSO_ECN : 0);
  const { gsoSize, hdrLen } = shape;
  return { frame, header: { flags: NEEDS_CSUM, gsoType, hdrLen, gsoSize, csumStart, csumOffset } };
}

/** Bytes of a shape's headers, the Ethernet header's included, and of those that count as the IP packet's. */
function headerBytesOf(shape: Shape): { all: number; ip: number } {
  const ip = shape.version === 4
    ? 20 + shape.ipOptions * 4
    : 40 + shape.extensions.reduce((sum, { blocks }) => sum + blocks * 8, 0);
  const transport = shape.isTcp ? 20 + shape.tcpOptions * 4 : 8;
  return { all: 14 + shape.tags.length * TAG_BYTES + ip + transport, ip: ip + transport };
}

/** What bounds lawful frames. */
export interface LawfulLimits {
  /** Segments of one frame. */
  segmentsMax: number;
  /** Bytes behind the headers; the longest IP packet bounds them too. */
  payloadBytesMax: number;
}

const tag = fc.record({ type: fc.constantFrom(0x8100, 0x88a8), tci: fc.integer({ min: 1, max: 4094 }) });

/** At most one of each kind, hop-by-hop options being the first (RFC 8200 §4.1). */
const extensions = fc.tuple(fc.subarray([0, 43, 60]), fc.integer({ min: 1, max: 3 })).map(([types, blocks]) =>
  types.map((type) => ({ type, blocks }))
);

const shape: fc.Arbitrary<Shape> = fc.record({
  version: fc.constantFrom<4 | 6>(4, 6),
  isTcp: fc.boolean(),
  tags: fc.array(tag, { maxLength: 2 }),
  ipOptions: fc.oneof(fc.constant(0), fc.nat(10)),
  extensions,
  tcpOptions: fc.oneof(fc.constant(3), fc.nat(10)),
  // ACK alone, with PSH, FIN, ECE or CWR, or any at all.
  tcpFlags: fc.oneof(fc.constantFrom(0x10, 0x18, 0x19, 0x90, 0xd9), fc.nat(0xff)),
  sequence: fc.oneof(fc.nat(0xffffffff), fc.integer({ min: 0xffff0000, max: 0xffffffff })),
  id: fc.oneof(fc.nat(0xffff), fc.integer({ min: 0xfff0, max: 0xffff })),
  dontFragment: fc.boolean(),
  payloadBytes: fc.oneof(fc.integer({ min: 1, max: 100 }), fc.integer({ min: 1, max: 4000 }), fc.nat(IP_BYTES_MAX)),
  seed: fc.nat(),
  gsoSize: fc.oneof(
    fc.constant(0),
    fc.constantFrom(536, 1448, 1460, 8948, IP_BYTES_MAX),
    fc.integer({ min: 1, max: 1500 }),
  ),
  isEcn: fc.boolean(),
  hdrLen: fc.oneof(fc.constantFrom(0, 1, 54, 0xffff), fc.nat(0xffff)),
});

/** The shape within the limits: shorter where it is too long, in larger segments where there are too many. */
function within(one: Shape, { segmentsMax, payloadBytesMax }: LawfulLimits): Shape {
  const bytesMax = Math.min(payloadBytesMax, IP_BYTES_MAX - headerBytesOf(one).ip);
  const payloadBytes = Math.max(1, Math.min(one.payloadBytes, bytesMax));
  const gsoSize = one.gsoSize === 0 ? 0 : Math.max(one.gsoSize, Math.ceil(payloadBytes / segmentsMax));
  return { ...one, payloadBytes, gsoSize };
}

/** What a lawful frame must not be: without payload, or with more headers than a device looks through. */
const unlawful: fc.Arbitrary<Shape> = fc.tuple(shape, fc.boolean()).map(([one, isEmpty]) =>
  isEmpty
    ? { ...one, payloadBytes: 0 }
    : { ...one, version: 6, extensions: [{ type: 60, blocks: 20 }], payloadBytes: Math.min(one.payloadBytes, 2000) }
);

/** Shapes of frames that a device that offers everything must take. */
export function lawfulShape(limits: Partial<LawfulLimits> = {}): fc.Arbitrary<Shape> {
  const all = { segmentsMax: 300, payloadBytesMax: IP_BYTES_MAX, ...limits };
  return shape.filter((one) => headerBytesOf(one).all <= HEADERS_BYTES_MAX).map((one) => within(one, all));
}

/** Frames that a device that offers everything must take. */
export function lawfulFrame(limits: Partial<LawfulLimits> = {}): fc.Arbitrary<Sent> {
  return lawfulShape(limits).map(frameOf);
}

/** One thing that a hostile guest changes. */
export type Tampering =
  | { what: "header"; field: keyof NetHeader; value: number }
  | { what: "byte"; at: number; value: number }
  | { what: "length"; bytes: number };

/** Fields that lie to the device, as distances from where they are. */
const NEAR = [-20, -8, -4, -2, -1, 1, 2, 4, 8, 20];

/** The edges of a frame, at which its header's fields are tried. */
function edgesOf({ frame, header }: Sent): number[] {
  const edges = [0, 12, 14, 16, 18, 22, header.csumStart, header.csumStart + header.csumOffset, frame.length];
  return [...new Set([...edges, ...edges.flatMap((edge) => NEAR.map((by) => edge + by)), 0xfffe, 0xffff])]
    .filter((edge) => edge >= 0 && edge <= 0xffff);
}

function tamperingOf(sent: Sent): fc.Arbitrary<Tampering> {
  const edge = fc.constantFrom(...edgesOf(sent));
  const headerBytes = Math.min(sent.frame.length, sent.header.csumStart + 24);
  const header = (field: keyof NetHeader, values: fc.Arbitrary<number>) =>
    values.map((value): Tampering => ({ what: "header", field, value }));
  return fc.oneof(
    header("flags", fc.constantFrom(0, 1, 2, 3, 4, 0xff)),
    header("gsoType", fc.constantFrom(0, 1, 2, 3, 4, 5, 6, 0x80, 0x81, 0x83, 0x84, 0x85, 0xff)),
    header("hdrLen", edge),
    header("gsoSize", fc.oneof(edge, fc.constantFrom(0, 1))),
    header("csumStart", edge),
    header("csumOffset", fc.oneof(edge, fc.constantFrom(0, 2, 6, 16))),
    // Versions, lengths, flags, protocols and the rest of what the device reads.
    fc.record({
      what: fc.constant("byte" as const),
      at: fc.integer({ min: 12, max: Math.max(12, headerBytes - 1) }),
      value: fc.oneof(fc.constantFrom(0, 1, 6, 17, 43, 44, 58, 60, 0xff), fc.nat(0xff)),
    }),
    fc.record({ what: fc.constant("length" as const), bytes: edge }),
  );
}

/** What is left of a frame and its header when somebody has been at them. */
function tamper({ frame, header }: Sent, tamperings: readonly Tampering[]): Sent {
  const changed: Sent = { frame: frame.slice(), header: { ...header } };
  for (const one of tamperings) {
    if (one.what === "header") changed.header[one.field] = one.value;
    else if (one.what === "byte") changed.frame[one.at] = one.value;
    else changed.frame = changed.frame.slice(0, Math.max(1, one.bytes));
  }
  return changed;
}

/** Frames of which one to three things are not what they were: some are lawful still, most are not. */
export function hostileFrame(limits: Partial<LawfulLimits> = {}): fc.Arbitrary<Sent> {
  const tampered = lawfulFrame(limits).chain((sent) =>
    fc.array(tamperingOf(sent), { minLength: 1, maxLength: 3 }).map((tamperings) => tamper(sent, tamperings))
  );
  return fc.oneof({ arbitrary: tampered, weight: 20 }, { arbitrary: unlawful.map(frameOf), weight: 1 });
}
