/**
 * Offloads, held against a reference that was written from the texts alone (tests/support/reference_offload.ts): any frame
 * that a guest may send, in any pieces, to a receiver that accepts any of the offloads, in any ring format; and any frame
 * that it may not.
 */
import fc from "fast-check";
import { assert, assertEquals } from "@std/assert";
import {
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
import { EngineRig, type VirtioRigGuest } from "../support/engine_rig.ts";
import { type VirtqueueName, VIRTQUEUES } from "../support/formats.ts";
import { hostileFrame, lawfulFrame, type Sent } from "../support/offload_frames.ts";
import {
  EVERYTHING,
  GSO_NONE,
  NEEDS_CSUM,
  type NetHeader,
  type Offloads,
  validate,
} from "../support/reference_offload.ts";
import { type Ip, ipOf, payloadOf, viewOf } from "../support/reference_packet.ts";
import { deliveries, type Delivery, pseudoSum } from "../support/reference_segments.ts";

const RUNS = 150;
const HEADER_BYTES = 12;
const DATA_VALID = 2;
/** Headers that the engine looks through, and segments that it cuts: what is beyond is refused, lawful or not. */
const CHECKSUM_END_MAX = 216;
const SEGMENTS_MAX = 2048;
/** A frame that is not to be cut is at most 64 KiB long. */
const LIMITS = { segmentsMax: 90, payloadBytesMax: 65_300 };
/** The PF's address in rigs, and a sender's. */
const ADDRESSES = [0x02, 0, 0, 0, 0, 0xff, 0x02, 0x66, 0, 0, 0, 0x01];

const accepts: fc.Arbitrary<Offloads> = fc.record({
  csum: fc.constantFrom(true, true, false),
  tso4: fc.boolean(),
  tso6: fc.boolean(),
  ecn: fc.boolean(),
  uso4: fc.boolean(),
  uso6: fc.boolean(),
});

const formats = fc.constantFrom(...Object.keys(VIRTQUEUES) as VirtqueueName[]);

function bitsOf({ csum, tso4, tso6, ecn, uso4, uso6 }: Offloads): number {
  if (!csum) return 0;
  return OFFLOAD_F_CSUM | (tso4 ? OFFLOAD_F_TSO4 : 0) | (tso6 ? OFFLOAD_F_TSO6 : 0) | (ecn ? OFFLOAD_F_ECN : 0) |
    (uso4 ? OFFLOAD_F_USO4 : 0) | (uso6 ? OFFLOAD_F_USO6 : 0);
}

function headerBytes({ flags, gsoType, hdrLen, gsoSize, csumStart, csumOffset }: NetHeader): Uint8Array {
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
function world(from: VirtqueueName, to: VirtqueueName, accepted: Offloads) {
  const rig = new EngineRig(1);
  const sender = rig.attachVirtqueues(from, POOL_UPLINK, { queueSize: 16, bufferBytes: 66_000 });
  const options = { queueSize: 128, bufferBytes: 4096 };
  const receiver = rig.attachVirtqueues(to, POOL_PF, options, QUEUE_F_INDIRECT | QUEUE_F_MRG_RXBUF);
  rig.view.setUint32(sender.queuePointer(1) + Q_OFFLOADS, bitsOf(EVERYTHING), true);
  rig.view.setUint32(receiver.queuePointer(0) + Q_OFFLOADS, bitsOf(accepted), true);
  receiver.fill(120);
  return { rig, sender, receiver };
}

function send(sender: VirtioRigGuest, { frame, header }: Sent, cuts: readonly number[]): void {
  sender.sendPieces(frame, cuts, { header: headerBytes(header) });
}

/** Checks that what has arrived is what the reference says. */
function checkArrived(receiver: VirtioRigGuest, { frame, header }: Sent, accepted: Offloads): void {
  const arrived = receiver.receiveWhole();
  const wanted = deliveries(frame, header, accepted);
  assertEquals(arrived.length, wanted.length);
  const asked = (header.flags & NEEDS_CSUM) !== 0;
  arrived.forEach((one, i) => {
    const want = wanted[i] as Delivery;
    assertEquals(one.frame, want.frame, `frame ${i} of ${wanted.length}`);
    assertEquals(one.header.slice(0, 10), headerOf(want, asked, accepted).slice(0, 10), `header ${i}`);
  });
}

function addressed(sent: Sent): Sent {
  const frame = sent.frame.slice();
  frame.set(ADDRESSES.slice(0, Math.min(12, frame.length)));
  return { ...sent, frame };
}

Deno.test("every lawful frame arrives as its receiver accepts it: as it was sent, with its checksum, or in segments", () => {
  const cuts = fc.array(fc.oneof(fc.nat(120), fc.nat(66_000)), { maxLength: 12 });
  fc.assert(
    fc.property(formats, formats, accepts, lawfulFrame(LIMITS), cuts, (from, to, accepted, sent, cuts) => {
      const { rig, sender, receiver } = world(from, to, accepted);
      const one = addressed(sent);
      send(sender, one, cuts);
      rig.run();
      checkArrived(receiver, one, accepted);
    }),
    { numRuns: RUNS },
  );
});

/** Whether a frame is beyond what the engine looks through or cuts. */
function isBeyond({ frame, header }: Sent): boolean {
  if (header.csumStart + header.csumOffset + 2 > CHECKSUM_END_MAX) return true;
  if (header.gsoType !== GSO_NONE && frame.length / header.gsoSize > SEGMENTS_MAX) return true;
  return false;
}

/** Whether a frame to be cut has its pseudo header's sum: the segments of one that has not are the sender's affair. */
function isSummed({ frame, header }: Sent): boolean {
  if (header.gsoType === GSO_NONE) return true;
  const ip = ipOf(frame) as Ip;
  const sum = pseudoSum(frame, ip, frame.length - ip.transportAt);
  return viewOf(frame).getUint16(header.csumStart + header.csumOffset) % 0xffff === sum % 0xffff;
}

Deno.test("a frame that asks for what it may not, or for what does not fit it, is dropped and counted", () => {
  let [refused, granted] = [0, 0];
  fc.assert(
    fc.property(formats, formats, accepts, hostileFrame(LIMITS), (from, to, accepted, sent) => {
      const { rig, sender, receiver } = world(from, to, accepted);
      const one = addressed(sent);
      send(sender, one, []);
      rig.run();
      assertEquals(sender.unsent(), 0, "its buffer comes back");
      const bad = rig.counters(POOL_UPLINK).tx_bad_offload;
      if (validate(one.frame, one.header, EVERYTHING) !== undefined) {
        refused++;
        assertEquals(receiver.receive().length, 0, `refused: ${validate(one.frame, one.header, EVERYTHING)}`);
        return;
      }
      if (bad !== 0) {
        assert(isBeyond(one), "refused without a reason");
        return;
      }
      // Its tag may be one that the switch does not take.
      if (rig.counters(POOL_PF).rx_frames === 0) return;
      granted++;
      if (rig.counters(POOL_PF).rx_no_buffer === 0 && isSummed(one)) checkArrived(receiver, one, accepted);
    }),
    { numRuns: 2 * RUNS },
  );
  assert(refused > RUNS / 4 && granted > RUNS / 10, `${refused} refused, ${granted} granted`);
});
