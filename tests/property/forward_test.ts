/**
 * Any frames, in any buffers, between guests of any ring formats: what arrives is what a model of the switch says, byte
 * for byte, and each sender's frames in their order. Senders' chains are cut at random places, receivers' buffers have random pieces, directly or
 * through indirect tables; rings are small, so that all this goes through their ends; receive buffers may be mergeable;
 * VFs have a VLAN, a list of VLANs, or none.
 */
import fc from "fast-check";
import { assertEquals } from "@std/assert";
import { QUEUE_F_EVENT_IDX, QUEUE_F_INDIRECT, QUEUE_F_MRG_RXBUF } from "../../shared/layout/nic.ts";
import { type AnyRigGuest, EngineRig, FORMATS, rigMac } from "../support/engine_rig.ts";
import type { FormatName } from "../support/formats.ts";
import { BROADCAST, frame } from "../support/mock_guest.ts";
import { madeBytes } from "../support/made_bytes.ts";

const RUNS = 150;
const VFS = 3;
const BUFFER_BYTES = 4096;
const PAYLOAD_BYTES_MAX = 3000;
/** Frames that are sent before the engine looks. Rings have room for them, however many pieces they have. */
const BURST_MAX = 3;
const RING_MIN = 15;
const HEADER_BYTES = 12;
/** VLANs that are in use; 0: untagged. */
const VLANS = [0, 5, 6];

/** A guest and its VF's VLANs: one that the PF sets, or a list. */
interface Side {
  format: FormatName;
  /** Ring sizes: for split and advanced rings, and for packed ones. */
  size: number;
  packedSize: number;
  mergeable: boolean;
  eventIdx: boolean;
  vlan: number;
  trunk: number[];
}

interface Sent {
  from: number;
  /** A VF, or all. */
  to: number;
  payloadBytes: number;
  etherType: number;
  /** The tag that the guest itself sends, 0 for none. */
  tag: number;
  pcp: number;
  cuts: number[];
  indirect: boolean;
}

/** Sizes of the pieces of a receive buffer. */
interface Room {
  pieces: number[];
  indirect: boolean;
}

const side: fc.Arbitrary<Side> = fc.record({
  format: fc.constantFrom(...FORMATS),
  size: fc.constantFrom(16, 64),
  packedSize: fc.integer({ min: RING_MIN, max: 70 }),
  mergeable: fc.boolean(),
  eventIdx: fc.boolean(),
  vlan: fc.constantFrom(0, 0, 5),
  trunk: fc.subarray([5, 6]),
});

const sent: fc.Arbitrary<Sent> = fc.record({
  from: fc.nat(VFS - 1),
  to: fc.nat(VFS),
  payloadBytes: fc.oneof(fc.integer({ min: 4, max: 128 }), fc.integer({ min: 4, max: PAYLOAD_BYTES_MAX })),
  etherType: fc.constantFrom(0x0800, 0x0806, 0x86dd, 0x88b5),
  tag: fc.constantFrom(0, 0, ...VLANS),
  pcp: fc.nat(7),
  cuts: fc.array(fc.nat(PAYLOAD_BYTES_MAX), { maxLength: 3 }),
  indirect: fc.boolean(),
});

const room: fc.Arbitrary<Room> = fc.record({
  // Pieces may be empty, or shorter than the header.
  pieces: fc.array(fc.oneof(fc.nat(30), fc.nat(400)), { maxLength: 3 }),
  indirect: fc.boolean(),
});

/** The VLAN in which a VF's frame with tag `tag` travels, or none if it may not be sent. */
function vlanOf({ vlan, trunk }: Side, tag: number): number | undefined {
  if (vlan !== 0) return tag === 0 ? vlan : undefined;
  return tag === 0 || trunk.includes(tag) ? tag : undefined;
}

/** The frame as a VF gets it that is in the VLAN. */
function asReceived({ vlan }: Side, one: Sent, travels: number, payload: Uint8Array): Uint8Array {
  const tags = vlan === 0 && travels !== 0 ? [{ vid: travels, pcp: one.tag === 0 ? 0 : one.pcp }] : [];
  return frame({ ...addresses(one), tags, etherType: one.etherType, payload });
}

function addresses({ from, to }: Sent): { dst: string; src: string } {
  return { dst: to === VFS ? BROADCAST : rigMac(to), src: rigMac(from) };
}

/** What each VF is to receive of a frame. */
function model(sides: readonly Side[], one: Sent, payload: Uint8Array): (Uint8Array | undefined)[] {
  const travels = vlanOf(sides[one.from] as Side, one.tag);
  return sides.map((side, vf) => {
    if (travels === undefined || vf === one.from || (one.to !== vf && one.to !== VFS)) return undefined;
    const isMember = side.vlan !== 0 ? side.vlan === travels : travels === 0 || side.trunk.includes(travels);
    return isMember ? asReceived(side, one, travels, payload) : undefined;
  });
}

function attach(rig: EngineRig, side: Side, vf: number): AnyRigGuest {
  const flags = QUEUE_F_INDIRECT | (side.mergeable ? QUEUE_F_MRG_RXBUF : 0) | (side.eventIdx ? QUEUE_F_EVENT_IDX : 0);
  const queueSize = side.format.startsWith("packed") ? side.packedSize : side.size;
  return rig.attachAs(side.format, vf, { queueSize, bufferBytes: BUFFER_BYTES }, flags);
}

/** Has room for the next frame in a guest's receive ring: one buffer, or merged ones of which every other is large. */
class Receiver {
  readonly #guest: AnyRigGuest;
  readonly #side: Side;
  #turns = 0;

  constructor(guest: AnyRigGuest, side: Side) {
    this.#guest = guest;
    this.#side = side;
  }

  makeRoom({ pieces, indirect }: Room): void {
    const { mergeable, format } = this.#side;
    const total = pieces.reduce((sum, piece) => sum + piece, 0);
    const small = total < HEADER_BYTES ? [...pieces, HEADER_BYTES - total] : pieces;
    const large = [...pieces, BUFFER_BYTES - total];
    // An advanced ring takes a frame in as many buffers as it needs, and has no others.
    if (format === "advanced") this.#guest.fill(2 * BURST_MAX - this.#guest.posted());
    while (!mergeable && this.#guest.posted() < BURST_MAX) this.#guest.post(large, { indirect });
    while (mergeable && this.#guest.posted() < 2 * BURST_MAX) {
      this.#guest.post(this.#turns++ % 2 === 0 ? small : [BUFFER_BYTES], { indirect });
    }
  }
}

/** A payload that no other frame has. */
function payloadOf({ payloadBytes }: Sent, serial: number): Uint8Array {
  const payload = madeBytes(payloadBytes, (i) => (serial * 7 + i) & 0xff);
  new DataView(payload.buffer).setUint32(0, serial);
  return payload;
}

/** Frames by the VF that has sent them: between senders there is no order. */
function bySender(frames: readonly Uint8Array[]): Uint8Array[][] {
  return Array.from({ length: VFS }, (_, vf) => frames.filter((bytes) => bytes[11] === vf + 1));
}

/** Sends a burst; checks that each VF receives what it is to receive. */
function exchange(
  rig: EngineRig,
  guests: readonly AnyRigGuest[],
  sides: readonly Side[],
  burst: readonly Sent[],
): void {
  const expected = guests.map((): Uint8Array[] => []);
  for (const one of burst) {
    const payload = payloadOf(one, serial++);
    const tags = one.tag === 0 ? [] : [{ vid: one.tag, pcp: one.pcp }];
    const bytes = frame({ ...addresses(one), tags, etherType: one.etherType, payload });
    guests[one.from]?.sendPieces(bytes, one.cuts, { indirect: one.indirect });
    model(sides, one, payload).forEach((got, vf) => got && expected[vf]?.push(got));
  }
  rig.run(20);
  guests.forEach((guest, vf) => {
    assertEquals([rig.error(vf, 0), rig.error(vf, 1)], [0, 0]);
    assertEquals(guest.unsent(), 0);
    assertEquals(bySender(guest.receive()), bySender(expected[vf] ?? []), `vf ${vf}`);
  });
}

let serial = 0;

Deno.test("any frames in any buffers arrive whole, in order, where they belong, from any format to any other", () => {
  const round = fc.record({ burst: fc.array(sent, { minLength: 1, maxLength: BURST_MAX }), room });
  const plan = fc.record({
    sides: fc.array(side, { minLength: VFS, maxLength: VFS }),
    rounds: fc.array(round, { minLength: 1, maxLength: 40, size: "max" }),
  });
  fc.assert(
    fc.property(plan, ({ sides, rounds }) => {
      const policies = sides.map(({ vlan, trunk }, vf) => [vf, vlan === 0 ? { trunk } : { vlan }]);
      const rig = new EngineRig(VFS, Object.fromEntries(policies));
      const guests = sides.map((side, vf) => attach(rig, side, vf));
      const receivers = guests.map((guest, vf) => new Receiver(guest, sides[vf] as Side));
      for (const { burst, room } of rounds) {
        for (const receiver of receivers) receiver.makeRoom(room);
        exchange(rig, guests, sides, burst);
      }
      rig.checkCanaries();
    }),
    { numRuns: RUNS, endOnFailure: true },
  );
});
