/**
 * What a device must refuse of a virtio-net header: a plain reference, slow and by the text of VIRTIO 1.2 §5.1.6.2, that
 * the engine is held against. A guest writes the header and the frame, so neither is believed.
 */
import {
  ETHERNET_BYTES,
  ETHERTYPE_ARP,
  ETHERTYPE_LEAST,
  type Ip,
  ipOf,
  linkOf,
  payloadOf,
  PROTOCOL_ICMPV6,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  viewOf,
} from "./reference_packet.ts";

export const NEEDS_CSUM = 1;
export const GSO_NONE = 0;
export const GSO_TCPV4 = 1;
export const GSO_TCPV6 = 4;
export const GSO_UDP_L4 = 5;
export const GSO_ECN = 0x80;

/** Link layer, IP and transport headers of a frame that is to be segmented, all together. */
export const HEADERS_BYTES_MAX = 192;
/** Where the checksum lies in a TCP, a UDP and an ICMPv6 header. */
export const TCP_CHECKSUM = 16;
export const UDP_CHECKSUM = 6;
const ICMPV6_CHECKSUM = 2;

/** struct virtio_net_hdr without num_buffers. */
export interface NetHeader {
  flags: number;
  gsoType: number;
  hdrLen: number;
  gsoSize: number;
  csumStart: number;
  csumOffset: number;
}

/** What one side has agreed to: what a sender may ask for, or what a receiver takes as it is. */
export interface Offloads {
  csum: boolean;
  tso4: boolean;
  tso6: boolean;
  ecn: boolean;
  /** Segmentation of UDP over IPv4 and IPv6; senders have one feature bit for both. */
  uso4: boolean;
  uso6: boolean;
}

export const EVERYTHING: Offloads = { csum: true, tso4: true, tso6: true, ecn: true, uso4: true, uso6: true };
export const NOTHING: Offloads = { csum: false, tso4: false, tso6: false, ecn: false, uso4: false, uso6: false };

/** Why a frame is refused. */
export type Refusal =
  | "runt"
  | "checksum not negotiated"
  | "checksum in the Ethernet header"
  | "checksum beyond the frame"
  | "checksum over a header that policy reads"
  | "unknown segmentation"
  | "segmentation not negotiated"
  | "ECN not negotiated"
  | "segmentation without checksum"
  | "segment size 0"
  | "segmentation of another protocol"
  | "IP header broken"
  | "segmentation of a fragment"
  | "IP length lies"
  | "transport header broken"
  | "UDP length lies"
  | "checksum elsewhere than in the transport header"
  | "headers too long"
  | "nothing to segment";

/** Why a device must refuse a frame of a sender that has agreed to `offloads`; `undefined` if it must not. */
export function validate(frame: Uint8Array, header: NetHeader, offloads: Offloads): Refusal | undefined {
  if (frame.length < ETHERNET_BYTES) return "runt";
  const needsChecksum = (header.flags & NEEDS_CSUM) !== 0;
  const refusal = needsChecksum ? validateChecksum(frame, header, offloads) : undefined;
  if (refusal) return refusal;
  if (header.gsoType === GSO_NONE) return undefined;
  return validateSegmentation(frame, header, offloads);
}

/**
 * The field lies in the frame, behind the Ethernet header with its tags: whoever could place a sum there would choose a
 * VLAN after it was checked. The same holds for what source policy reads above Ethernet: IP headers, ARP, LLC, and the
 * target of a neighbour advertisement. Deeper inside, as in a tunnel, the sum may be anywhere.
 */
function validateChecksum(frame: Uint8Array, header: NetHeader, offloads: Offloads): Refusal | undefined {
  const { csumStart, csumOffset } = header;
  if (!offloads.csum) return "checksum not negotiated";
  const link = linkOf(frame);
  if (csumStart < link.bytes) return "checksum in the Ethernet header";
  if (csumStart + csumOffset + 2 > frame.length) return "checksum beyond the frame";
  const isRead = link.etherType === ETHERTYPE_ARP || (link.etherType >= 0 && link.etherType < ETHERTYPE_LEAST);
  if (isRead) return "checksum over a header that policy reads";
  const ip = ipOf(frame);
  if (ip === "not-ip") return undefined;
  if (ip === "ip-header") return "IP header broken";
  const isAtTransport = csumStart === ip.transportAt;
  const isBehind = csumStart >= ip.transportAt;
  const isAllowed = ip.protocol === PROTOCOL_ICMPV6 ? isAtTransport && csumOffset === ICMPV6_CHECKSUM : isBehind;
  return isAllowed ? undefined : "checksum over a header that policy reads";
}

function validateSegmentation(frame: Uint8Array, header: NetHeader, offloads: Offloads): Refusal | undefined {
  const { gsoType, flags, gsoSize } = header;
  const type = gsoType & ~GSO_ECN;
  const hasEcn = (gsoType & GSO_ECN) !== 0;
  const isKnown = [GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4].includes(type);
  // The bit says that a TCP segment carries ECN's bits.
  if (!isKnown || (hasEcn && type === GSO_UDP_L4)) return "unknown segmentation";
  const isAgreed = { [GSO_TCPV4]: offloads.tso4, [GSO_TCPV6]: offloads.tso6, [GSO_UDP_L4]: offloads.uso4 }[type];
  if (!isAgreed) return "segmentation not negotiated";
  if (hasEcn && !offloads.ecn) return "ECN not negotiated";
  if ((flags & NEEDS_CSUM) === 0) return "segmentation without checksum";
  if (gsoSize === 0) return "segment size 0";
  const ip = ipOf(frame);
  if (ip === "not-ip") return "segmentation of another protocol";
  if (ip === "ip-header") return "IP header broken";
  const isType = {
    [GSO_TCPV4]: ip.version === 4 && ip.protocol === PROTOCOL_TCP,
    [GSO_TCPV6]: ip.version === 6 && ip.protocol === PROTOCOL_TCP,
    [GSO_UDP_L4]: ip.protocol === PROTOCOL_UDP,
  }[type];
  if (ip.isFragment) return "segmentation of a fragment";
  if (!isType) return "segmentation of another protocol";
  if (ip.end !== frame.length) return "IP length lies";
  return validateTransport(frame, header, ip);
}

function validateTransport(frame: Uint8Array, header: NetHeader, ip: Ip): Refusal | undefined {
  const isUdp = ip.protocol === PROTOCOL_UDP;
  const payloadAt = payloadOf(frame, ip);
  if (payloadAt === undefined) return "transport header broken";
  if (isUdp && viewOf(frame).getUint16(ip.transportAt + 4) !== frame.length - ip.transportAt) return "UDP length lies";
  if (header.csumStart !== ip.transportAt || header.csumOffset !== (isUdp ? UDP_CHECKSUM : TCP_CHECKSUM)) {
    return "checksum elsewhere than in the transport header";
  }
  if (payloadAt > HEADERS_BYTES_MAX) return "headers too long";
  return payloadAt === frame.length ? "nothing to segment" : undefined;
}
