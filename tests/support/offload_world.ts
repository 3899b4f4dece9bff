/** What property tests of offloads share: what receivers accept, guests of every format, and what has to arrive. */
import fc from "fast-check";
import { assertEquals } from "@std/assert";
import { ADV_RXD_ERR_IPE, ADV_RXD_STAT_IPCS, ADV_RXD_STAT_L4I } from "../../shared/layout/advanced.ts";
import {
  HEAD_COPY_BYTES,
  OFFLOAD_F_CSUM,
  OFFLOAD_F_ECN,
  OFFLOAD_F_TSO4,
  OFFLOAD_F_TSO6,
  OFFLOAD_F_USO4,
  OFFLOAD_F_USO6,
  POOL_PF,
  POOL_UPLINK,
  Q_OFFLOADS,
  QUEUE_F_INDIRECT,
  QUEUE_F_MRG_RXBUF,
} from "../../shared/layout/nic.ts";
import { AdvancedGuest, type AdvancedReceived } from "./advanced_guest.ts";
import { type AnyRigGuest, EngineRig, VIRTQUEUE_FORMATS } from "./engine_rig.ts";
import type { VirtqueueName } from "./formats.ts";
import type { Sent } from "./offload_frames.ts";
import { EVERYTHING, GSO_NONE, NEEDS_CSUM, type NetHeader, NOTHING, type Offloads } from "./reference_offload.ts";
import { EXTENSIONS_MAX, ipOf, payloadOf } from "./reference_packet.ts";
import { deliveries, type Delivery, sumOf } from "./reference_segments.ts";

const HEADER_BYTES = 12;
const DATA_VALID = 2;
/** The PF's address in rigs, and a sender's. */
const ADDRESSES = [0x02, 0, 0, 0, 0, 0xff, 0x02, 0x66, 0, 0, 0, 0x01];

/** A frame that is not to be cut is at most 64 KiB long. */
export const LIMITS = { segmentsMax: 90, payloadBytesMax: 65_300 };

/** What a receiver may accept. */
export const accepts: fc.Arbitrary<Offloads> = fc.record({
  csum: fc.constantFrom(true, true, false),
  tso4: fc.boolean(),
  tso6: fc.boolean(),
  ecn: fc.boolean(),
  uso4: fc.boolean(),
  uso6: fc.boolean(),
});

/** Formats whose frames have virtio-net headers: virtqueues, and advanced queues that are started so. */
export type HeaderFormat = VirtqueueName | "advanced with headers";
/** Every format. */
export type AnyFormat = HeaderFormat | "advanced";

/** The formats of senders and receivers that have headers, and all of them. */
export const headerFormats = fc.constantFrom<HeaderFormat>(...VIRTQUEUE_FORMATS, "advanced with headers");
export const allFormats = fc.constantFrom<AnyFormat>(...VIRTQUEUE_FORMATS, "advanced with headers", "advanced");

function bitsOf({ csum, tso4, tso6, ecn, uso4, uso6 }: Offloads): number {
  if (!csum) return 0;
  return OFFLOAD_F_CSUM | (tso4 ? OFFLOAD_F_TSO4 : 0) | (tso6 ? OFFLOAD_F_TSO6 : 0) | (ecn ? OFFLOAD_F_ECN : 0) |
    (uso4 ? OFFLOAD_F_USO4 : 0) | (uso6 ? OFFLOAD_F_USO6 : 0);
}

/** The bytes of a virtio-net header. */
export function headerBytes({ flags, gsoType, hdrLen, gsoSize, csumStart, csumOffset }: NetHeader): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES);
  const view = new DataView(bytes.buffer);
  bytes.set([flags, gsoType]);
  [hdrLen, gsoSize, csumStart, csumOffset].forEach((value, i) => view.setUint16(2 + 2 * i, value, true));
  return bytes;
}

/** What a receiver that accepts `accepted` finds in front of a frame, without num_buffers. */
function headerOf({ frame, header }: Delivery, asked: boolean, accepted: Offloads): Uint8Array {
  const nothing = { flags: 0, gsoType: 0, hdrLen: 0, gsoSize: 0, csumStart: 0, csumOffset: 0 };
  if (!header) return headerBytes({ ...nothing, flags: asked && accepted.csum ? DATA_VALID : 0 });
  if (header.gsoType === GSO_NONE) return headerBytes({ ...header, flags: NEEDS_CSUM, hdrLen: 0, gsoSize: 0 });
  const ip = ipOf(frame);
  const hdrLen = typeof ip === "string" ? undefined : payloadOf(frame, ip);
  return headerBytes({ ...header, flags: NEEDS_CSUM, hdrLen: hdrLen ?? 0 });
}

/** A guest that sends, at the uplink, and one that receives, the PF's: neither has a VLAN of its own. */
export interface OffloadWorld<S extends AnyRigGuest = AnyRigGuest> {
  rig: EngineRig;
  sender: S;
  receiver: AnyRigGuest;
  /** What the receiver accepts. */
  accepted: Offloads;
}

function attach(rig: EngineRig, format: AnyFormat, pool: number, options: { queueSize: number; bufferBytes: number }) {
  if (format === "advanced") return rig.attachAdvanced(pool, options);
  if (format === "advanced with headers") return rig.attachAdvanced(pool, { ...options, hdrBytes: HEADER_BYTES });
  return rig.attachVirtqueues(format, pool, options, QUEUE_F_INDIRECT | QUEUE_F_MRG_RXBUF);
}

/** Both guests; the receiver accepts `wished`, if its format leaves it the choice. */
export function offloadWorld(from: AnyFormat, to: AnyFormat, wished: Offloads): OffloadWorld {
  const rig = new EngineRig(1);
  // A descriptor of an advanced ring has at most 64 KiB - 1.
  const isAdvanced = from.startsWith("advanced");
  const sender = attach(rig, from, POOL_UPLINK, { queueSize: 16, bufferBytes: isAdvanced ? 33_000 : 66_000 });
  const receiver = attach(rig, to, POOL_PF, { queueSize: 128, bufferBytes: 4096 });
  if (!isAdvanced) rig.view.setUint16(sender.queuePointer(1) + Q_OFFLOADS, bitsOf(EVERYTHING), true);
  receiver.fill(120);
  if (to === "advanced") return { rig, sender, receiver, accepted: NOTHING };
  if (to === "advanced with headers") return { rig, sender, receiver, accepted: EVERYTHING };
  rig.view.setUint16(receiver.queuePointer(0) + Q_OFFLOADS, bitsOf(wished), true);
  return { rig, sender, receiver, accepted: wished };
}

/** Sends a frame behind its header. */
export function sendWithHeader(sender: AnyRigGuest, { frame, header }: Sent, cuts: readonly number[]): void {
  sender.sendPieces(frame, cuts, { header: headerBytes(header) });
}

/** Checks that what has arrived is what the reference says. */
export function checkArrived({ sender, receiver, accepted }: OffloadWorld, { frame, header }: Sent): void {
  const wanted = deliveries(frame, header, accepted);
  // The driver of an advanced queue with headers is a service: it is believed.
  const isBelieved = sender instanceof AdvancedGuest && (header.flags & DATA_VALID) !== 0;
  const asked = (header.flags & NEEDS_CSUM) !== 0;
  const arrived = receiver.receiveWhole();
  assertEquals(arrived.length, wanted.length);
  arrived.forEach((one, i) => {
    const want = wanted[i] as Delivery;
    assertEquals(one.frame, want.frame, `frame ${i} of ${wanted.length}`);
    if (receiver.options.hdrBytes === 0) return;
    assertEquals(one.header.slice(0, 10), headerOf(want, asked || isBelieved, accepted).slice(0, 10), `header ${i}`);
  });
  if (!(receiver instanceof AdvancedGuest)) return;
  const CHECKED = ADV_RXD_STAT_L4I | ADV_RXD_STAT_IPCS | ADV_RXD_ERR_IPE;
  for (const { frame, status } of arrived as AdvancedReceived[]) {
    const isKnown = (asked || isBelieved) && receiver.options.hdrBytes === 0;
    const wanted = isKnown ? statusOf(frame, asked ? header.csumStart : undefined) : 0;
    assertEquals((status & CHECKED) >>> 0, wanted >>> 0, "what the descriptor says of its checksums");
  }
}

/** What a card says of a frame whose sum from `csumStart` on it has finished; of the frame's own if that is not given. */
function statusOf(frame: Uint8Array, csumStart: number | undefined): number {
  const ip = ipOf(frame);
  if (typeof ip === "string" || ![6, 17].includes(ip.protocol) || ip.isFragment) return 0;
  if (ip.transportAt !== (csumStart ?? ip.transportAt)) return 0;
  // Of a frame that is believed the engine looks at so much only, and says nothing where that is not enough.
  const isBeyond = ip.transportAt > HEAD_COPY_BYTES || ip.extensions > EXTENSIONS_MAX;
  if (csumStart === undefined && isBeyond) return 0;
  if (ip.version === 6) return ADV_RXD_STAT_L4I;
  const isGood = sumOf(frame.subarray(ip.at, ip.transportAt)) === 0xffff;
  return ADV_RXD_STAT_L4I | ADV_RXD_STAT_IPCS | (isGood ? 0 : ADV_RXD_ERR_IPE);
}

/** The frame with the rigs' addresses. */
export function addressed(sent: Sent): Sent {
  const frame = sent.frame.slice();
  frame.set(ADDRESSES.slice(0, Math.min(12, frame.length)));
  return { ...sent, frame };
}
