/**
 * What a network card makes of a frame whose sender left work to it: the checksum filled in, the frame cut into
 * segments as they are on the wire. A plain reference that the engine is held against (RFC 1071, 791, 8200, 9293, 768).
 * Frames must be ones that `validate` (reference_offload.ts) has let through.
 */
import {
  GSO_ECN,
  GSO_NONE,
  GSO_TCPV4,
  GSO_TCPV6,
  NEEDS_CSUM,
  type NetHeader,
  type Offloads,
  TCP_CHECKSUM,
  UDP_CHECKSUM,
} from "./reference_offload.ts";
import { type Ip, ipOf, payloadOf, PROTOCOL_UDP, viewOf } from "./reference_packet.ts";

const TCP_SEQUENCE = 4;
const TCP_FLAGS = 13;
const FIN = 0x01;
const PSH = 0x08;
const CWR = 0x80;

/** The sum of big-endian words, an odd last byte being the upper half of one, with all carries added (RFC 1071). */
export function sumOf(bytes: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i++) sum += (bytes[i] ?? 0) * (i % 2 === 0 ? 256 : 1);
  while (sum > 0xffff) sum = (sum % 0x10000) + Math.floor(sum / 0x10000);
  return sum;
}

/** Sums as one. */
function addSums(...sums: number[]): number {
  const sum = sums.reduce((all, one) => all + one, 0);
  return sum > 0xffff ? addSums(sum % 0x10000, Math.floor(sum / 0x10000)) : sum;
}

/** The sum of the pseudo-header of what an IP packet carries, `bytes` long (RFC 9293 §3.1, RFC 8200 §8.1). */
export function pseudoSum(frame: Uint8Array, ip: Ip, bytes: number): number {
  const addresses = ip.version === 4 ? frame.subarray(ip.at + 12, ip.at + 20) : frame.subarray(ip.at + 8, ip.at + 40);
  return addSums(sumOf(addresses), bytes, ip.protocol);
}

/** A sum as a checksum. UDP has no checksum 0: that would say that there is none (RFC 768). */
function checksumOf(sum: number, isUdp: boolean): number {
  const checksum = 0xffff - sum;
  return checksum === 0 && isUdp ? 0xffff : checksum;
}

/** The frame with the checksum that its header asks for. The sender has put the pseudo-header's sum into the field. */
export function finishChecksum(frame: Uint8Array, { csumStart, csumOffset }: NetHeader): Uint8Array {
  const finished = frame.slice();
  const checksum = checksumOf(sumOf(frame.subarray(csumStart)), csumOffset === UDP_CHECKSUM);
  viewOf(finished).setUint16(csumStart + csumOffset, checksum);
  return finished;
}

/** The frames that a segmentation makes, in their order. */
export function segment(frame: Uint8Array, { gsoSize }: NetHeader): Uint8Array[] {
  const ip = ipOf(frame) as Ip;
  const payloadAt = payloadOf(frame, ip) as number;
  const segments: Uint8Array[] = [];
  for (let from = payloadAt; from < frame.length; from += gsoSize) {
    const payload = frame.subarray(from, from + gsoSize);
    const one = new Uint8Array(payloadAt + payload.length);
    one.set(frame.subarray(0, payloadAt));
    one.set(payload, payloadAt);
    const isLast = from + gsoSize >= frame.length;
    writeIp(one, ip, segments.length);
    if (ip.protocol === PROTOCOL_UDP) viewOf(one).setUint16(ip.transportAt + 4, one.length - ip.transportAt);
    else writeTcp(one, ip.transportAt, from - payloadAt, isLast);
    writeChecksum(one, ip);
    segments.push(one);
  }
  return segments;
}

/** The IP header of segment `index`: its length, and in IPv4 its identification and checksum. */
function writeIp(one: Uint8Array, ip: Ip, index: number): void {
  const view = viewOf(one);
  if (ip.version === 6) return view.setUint16(ip.at + 4, one.length - ip.at - 40);
  view.setUint16(ip.at + 2, one.length - ip.at);
  view.setUint16(ip.at + 4, (view.getUint16(ip.at + 4) + index) % 0x10000);
  view.setUint16(ip.at + 10, 0);
  view.setUint16(ip.at + 10, 0xffff - sumOf(one.subarray(ip.at, ip.transportAt)));
}

/** The TCP header of the segment whose payload begins at byte `offset` of the whole. */
function writeTcp(one: Uint8Array, at: number, offset: number, isLast: boolean): void {
  const view = viewOf(one);
  view.setUint32(at + TCP_SEQUENCE, (view.getUint32(at + TCP_SEQUENCE) + offset) % 2 ** 32);
  let flags = view.getUint8(at + TCP_FLAGS);
  if (!isLast) flags &= ~(FIN | PSH);
  if (offset > 0) flags &= ~CWR;
  view.setUint8(at + TCP_FLAGS, flags);
}

function writeChecksum(one: Uint8Array, ip: Ip): void {
  const isUdp = ip.protocol === PROTOCOL_UDP;
  const at = ip.transportAt + (isUdp ? UDP_CHECKSUM : TCP_CHECKSUM);
  viewOf(one).setUint16(at, 0);
  const transport = one.subarray(ip.transportAt);
  viewOf(one).setUint16(at, checksumOf(addSums(pseudoSum(one, ip, transport.length), sumOf(transport)), isUdp));
}

/** A frame as a receiver gets it. */
export interface Delivery {
  frame: Uint8Array;
  /** The sender's header, if the receiver is to do the sender's work; otherwise the frame is finished. */
  header?: NetHeader;
}

/** Whether a receiver that has agreed to `offloads` takes the frame as its sender left it. */
function isTakenAsItIs(frame: Uint8Array, header: NetHeader, offloads: Offloads): boolean {
  if ((header.flags & NEEDS_CSUM) === 0) return true;
  if (!offloads.csum) return false;
  if (header.gsoType === GSO_NONE) return true;
  if ((header.gsoType & GSO_ECN) !== 0 && !offloads.ecn) return false;
  const type = header.gsoType & ~GSO_ECN;
  if (type === GSO_TCPV4) return offloads.tso4;
  if (type === GSO_TCPV6) return offloads.tso6;
  return (ipOf(frame) as Ip).version === 4 ? offloads.uso4 : offloads.uso6;
}

/** What a receiver that has agreed to `offloads` gets of a frame, in this order. */
export function deliveries(frame: Uint8Array, header: NetHeader, offloads: Offloads): Delivery[] {
  if (isTakenAsItIs(frame, header, offloads)) {
    return [(header.flags & NEEDS_CSUM) === 0 ? { frame } : { frame, header }];
  }
  const finished = header.gsoType === GSO_NONE ? [finishChecksum(frame, header)] : segment(frame, header);
  return finished.map((one) => ({ frame: one }));
}
