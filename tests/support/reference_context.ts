/**
 * Offloads in the words of the 82599 datasheet (§7.2.3.2.3 context descriptors, §7.2.4 segmentation, §7.2.5 checksums): what
 * a driver writes for a frame, and what a device makes of what it finds. A plain reference, beside the one for virtio-net
 * headers (reference_offload.ts), into whose words a context is put.
 */
import {
  EVERYTHING,
  GSO_ECN,
  GSO_NONE,
  GSO_TCPV4,
  GSO_TCPV6,
  GSO_UDP_L4,
  NEEDS_CSUM,
  TCP_CHECKSUM,
  UDP_CHECKSUM,
  validate,
} from "./reference_offload.ts";
import type { Asking } from "./advanced_guest.ts";
import type { Sent } from "./offload_frames.ts";
import { type Ip, ipOf, payloadOf, PROTOCOL_TCP, PROTOCOL_UDP, viewOf } from "./reference_packet.ts";
import { sumOf } from "./reference_segments.ts";

const L4T_UDP = 0;
const L4T_TCP = 1;
const TCP_FLAGS = 13;
const CWR = 0x80;

/** A context descriptor's fields, and what the frame's first data descriptor asks for. */
export interface Context {
  maclen: number;
  iplen: number;
  isIpv4: boolean;
  l4t: number;
  l4len: number;
  mss: number;
  index: number;
  /** TSE, POPTS.IXSM, POPTS.TXSM. */
  tse: boolean;
  ixsm: boolean;
  txsm: boolean;
}

/** A frame as it lies in a driver's memory, and what its descriptors say. */
export interface Described {
  frame: Uint8Array;
  context: Context;
}

/** What a driver makes of a frame that a network stack hands it: `header` asks for a checksum, or for segments. */
export function describe({ frame, header }: Sent, index: number): Described {
  const ip = ipOf(frame) as Ip;
  const tse = header.gsoType !== GSO_NONE;
  const isTcp = ip.protocol === PROTOCOL_TCP;
  const context: Context = {
    maclen: ip.at,
    iplen: ip.transportAt - ip.at,
    isIpv4: ip.version === 4,
    l4t: isTcp ? L4T_TCP : L4T_UDP,
    l4len: (payloadOf(frame, ip) as number) - ip.transportAt,
    mss: header.gsoSize,
    index,
    tse,
    ixsm: ip.version === 4,
    txsm: true,
  };
  const described = frame.slice();
  const view = viewOf(described);
  if (ip.version === 4) view.setUint16(ip.at + 10, 0);
  if (!tse) return { frame: described, context };
  // The card fills in lengths, and adds them to the sum that is in the checksum field.
  view.setUint16(ip.at + (ip.version === 4 ? 2 : 4), 0);
  const field = header.csumStart + header.csumOffset;
  const withoutLength = view.getUint16(field) + 0xffff - (frame.length - ip.transportAt);
  view.setUint16(field, withoutLength > 0xffff ? withoutLength - 0xffff : withoutLength);
  return { frame: described, context };
}

/** The descriptors' words of a context. */
export function asking(context: Context): Asking {
  const { maclen, iplen, isIpv4, l4t, l4len, mss, index, tse, ixsm, txsm } = context;
  const low = BigInt(maclen << 9 | iplen);
  const type = 0x2020_0000 | (isIpv4 ? 0x400 : 0) | l4t << 11;
  const last = BigInt(mss) << 16n | BigInt(l4len << 8 | index << 4);
  return {
    contexts: [[low, last << 32n | BigInt(type)]],
    command: tse ? 0x8000_0000 : 0,
    status: index << 4 | (ixsm ? 0x100 : 0) | (txsm ? 0x200 : 0),
  };
}

/** The frame and the virtio-net header that a described frame means; `undefined` if a card must refuse it. */
export function meaning({ frame, context }: Described): Sent | undefined {
  const { maclen, iplen, l4t, mss, index, tse, ixsm, txsm } = context;
  const nothing = { flags: 0, gsoType: GSO_NONE, hdrLen: 0, gsoSize: 0, csumStart: 0, csumOffset: 0 };
  if (!tse && !ixsm && !txsm) return { frame, header: nothing };
  if (index > 1 || (tse && !txsm)) return undefined;
  const complete = frame.slice();
  const csumStart = maclen + iplen;
  const gsoType = tse ? segmentation(complete, context) : GSO_NONE;
  if (gsoType === undefined) return undefined;
  if ((tse || ixsm) && !sumIpHeader(complete, context)) return undefined;
  if (!txsm) return { frame: complete, header: nothing };
  if (l4t !== L4T_TCP && l4t !== L4T_UDP) return undefined;
  const csumOffset = l4t === L4T_TCP ? TCP_CHECKSUM : UDP_CHECKSUM;
  const header = { flags: NEEDS_CSUM, gsoType, hdrLen: 0, gsoSize: tse ? mss : 0, csumStart, csumOffset };
  if (validate(complete, header, EVERYTHING) !== undefined) return undefined;
  return isHeaderLength(complete, context) ? { frame: complete, header } : undefined;
}

/** The headers of a frame, if they lie where the context says. */
function headersOf(frame: Uint8Array, { maclen, iplen }: Context): Ip | undefined {
  const ip = ipOf(frame);
  if (typeof ip === "string" || ip.at !== maclen || ip.transportAt !== maclen + iplen) return undefined;
  return ip;
}

/** Fills in the lengths of a frame to be cut; its segmentation type, `undefined` if it is of no kind that is. */
function segmentation(frame: Uint8Array, context: Context): number | undefined {
  const ip = headersOf(frame, context);
  if (!ip || (ip.version === 4) !== context.isIpv4) return undefined;
  const isTcp = ip.protocol === PROTOCOL_TCP;
  if (!isTcp && ip.protocol !== PROTOCOL_UDP) return undefined;
  if (context.l4t !== (isTcp ? L4T_TCP : L4T_UDP)) return undefined;
  const field = ip.transportAt + (isTcp ? TCP_CHECKSUM : UDP_CHECKSUM);
  const packet = frame.length - ip.at - (ip.version === 6 ? 40 : 0);
  if (field + 2 > frame.length || packet > 0xffff) return undefined;
  const view = viewOf(frame);
  view.setUint16(ip.at + (ip.version === 4 ? 2 : 4), packet);
  const carried = frame.length - ip.transportAt;
  const sum = view.getUint16(field) + carried;
  view.setUint16(field, sum > 0xffff ? sum - 0xffff : sum);
  if (!isTcp) {
    view.setUint16(ip.transportAt + 4, carried);
    return GSO_UDP_L4;
  }
  const hasCwr = (view.getUint8(ip.transportAt + TCP_FLAGS) & CWR) !== 0;
  return (ip.version === 4 ? GSO_TCPV4 : GSO_TCPV6) | (hasCwr ? GSO_ECN : 0);
}

/** Fills in the IPv4 header's checksum; false if there is none where the context says. */
function sumIpHeader(frame: Uint8Array, context: Context): boolean {
  const ip = headersOf(frame, context);
  if (!ip) return false;
  if (ip.version === 6) return !context.ixsm;
  viewOf(frame).setUint16(ip.at + 10, 0);
  viewOf(frame).setUint16(ip.at + 10, 0xffff - sumOf(frame.subarray(ip.at, ip.transportAt)));
  return true;
}

/** Whether a frame to be cut has the transport header that the context says. */
function isHeaderLength(frame: Uint8Array, { tse, l4len }: Context): boolean {
  if (!tse) return true;
  const ip = ipOf(frame) as Ip;
  return payloadOf(frame, ip) === ip.transportAt + l4len;
}
