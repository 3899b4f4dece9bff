/**
 * Offloads of advanced transmit queues, held against a reference that was written from the datasheet (reference_context.ts):
 * any frame, with any context, to a receiver of any format; and contexts that stay.
 */
import fc from "fast-check";
import { assert, assertEquals } from "@std/assert";
import { P_DEFICIT, POOL_PF, POOL_STRIDE, POOL_UPLINK, POOLS } from "../../shared/layout/nic.ts";
import type { AdvancedRigGuest } from "../support/engine_rig.ts";
import { frameOf, lawfulFrame, type Sent, type Shape } from "../support/offload_frames.ts";
import { accepts, addressed, allFormats, checkArrived, LIMITS, offloadWorld } from "../support/offload_world.ts";
import { asking, type Context, describe, type Described, meaning } from "../support/reference_context.ts";
import { EVERYTHING, GSO_ECN, GSO_NONE, NOTHING } from "../support/reference_offload.ts";
import { EXTENSIONS_MAX, ipOf, PROTOCOL_TCP, viewOf } from "../support/reference_packet.ts";
import { segment } from "../support/reference_segments.ts";

const RUNS = 150;
/** Headers that the engine looks through, and segments that it cuts: what is beyond is refused, lawful or not. */
const HEAD_BYTES_MAX = 216;
const SEGMENTS_MAX = 2048;
const CWR = 0x80;

const cuts = fc.array(fc.oneof(fc.nat(120), fc.nat(66_000)), { maxLength: 6 });
const index = fc.nat(1);

/** What a receiver is to get of a frame: a card marks ECN by the TCP header, and has no hint of the headers' length. */
function wanted({ frame, header }: Sent): Sent {
  const ip = ipOf(frame);
  if (typeof ip === "string" || ip.protocol !== PROTOCOL_TCP || header.gsoType === GSO_NONE) return { frame, header };
  const hasCwr = (viewOf(frame).getUint8(ip.transportAt + 13) & CWR) !== 0;
  return { frame, header: { ...header, gsoType: (header.gsoType & ~GSO_ECN) | (hasCwr ? GSO_ECN : 0) } };
}

function send(sender: AdvancedRigGuest, { frame, context }: Described, at: readonly number[] = []): void {
  sender.sendPieces(frame, at, {}, asking(context));
}

Deno.test("a frame with a context arrives as its receiver accepts it, whatever that is", () => {
  fc.assert(
    fc.property(allFormats, accepts, lawfulFrame(LIMITS), cuts, index, (to, accepted, sent, cuts, index) => {
      const world = offloadWorld("advanced", to, accepted);
      const one = addressed(sent);
      const described = describe(one, index);
      assertEquals(meaning(described)?.frame, one.frame, "the reference undoes what its driver has done");
      send(world.sender as AdvancedRigGuest, described, cuts);
      world.rig.run();
      checkArrived(world, wanted(one));
      assertEquals(world.rig.counters(POOL_UPLINK).tx_bad_offload, 0);
    }),
    { numRuns: RUNS },
  );
});

/** What a hostile driver changes: fields of the context, or bytes of the frame's headers. */
type Change = Partial<Context> | { at: number; value: number };

function changes({ frame, context }: Described): fc.Arbitrary<Change[]> {
  const headers = Math.min(frame.length, context.maclen + context.iplen + 24);
  const near = (value: number) => fc.constantFrom(-8, -4, -2, -1, 1, 2, 4, 8).map((by) => Math.max(0, value + by));
  const fields: fc.Arbitrary<Partial<Context>> = fc.oneof(
    fc.record({ maclen: fc.oneof(near(context.maclen), fc.nat(127)) }),
    fc.record({ iplen: fc.oneof(near(context.iplen), fc.nat(511)) }),
    // The two together still begin where the transport header does.
    fc.integer({ min: -8, max: 8 }).map((by) => ({ maclen: context.maclen + by, iplen: context.iplen - by })),
    fc.record({ isIpv4: fc.boolean() }),
    fc.record({ l4t: fc.nat(3) }),
    fc.record({ l4len: fc.oneof(near(context.l4len), fc.nat(255)) }),
    fc.record({ mss: fc.constantFrom(0, 1, 40, 0xffff) }),
    fc.record({ index: fc.nat(7) }),
    fc.record({ tse: fc.boolean() }),
    fc.record({ ixsm: fc.boolean() }),
    fc.record({ txsm: fc.boolean() }),
  );
  const byte = fc.record({
    at: fc.integer({ min: 12, max: headers - 1 }),
    value: fc.oneof(fc.constantFrom(0, 1, 6, 17, 43, 44, 58, 60, 0xff), fc.nat(0xff)),
  });
  return fc.array(fc.oneof({ arbitrary: fields, weight: 3 }, { arbitrary: byte, weight: 1 }), {
    minLength: 1,
    maxLength: 3,
  });
}

function changed({ frame, context }: Described, all: readonly Change[]): Described {
  const one = { frame: frame.slice(), context: { ...context } };
  for (const change of all) {
    if ("at" in change) one.frame[change.at] = change.value;
    else Object.assign(one.context, change);
  }
  return one;
}

const hostile = lawfulFrame(LIMITS).map((sent) => describe(addressed(sent), 0)).chain((described) =>
  changes(described).map((all) => changed(described, all))
);

/** Whether a frame is beyond what the engine looks through or cuts. */
function isBeyond({ frame, context }: Described): boolean {
  const ip = ipOf(frame);
  if (typeof ip === "object" && ip.extensions > EXTENSIONS_MAX) return true;
  if (context.maclen + context.iplen + 18 > HEAD_BYTES_MAX) return true;
  return context.tse && frame.length / context.mss > SEGMENTS_MAX;
}

Deno.test("a frame with a context that does not fit it is dropped and counted, and none stops the queue", () => {
  let [refused, granted] = [0, 0];
  fc.assert(
    fc.property(allFormats, accepts, hostile, (to, accepted, described) => {
      const world = offloadWorld("advanced", to, accepted);
      const { rig, sender, receiver } = world;
      send(sender as AdvancedRigGuest, described);
      rig.run();
      assertEquals([sender.unsent(), rig.error(POOL_UPLINK, 1)], [0, 0], "its descriptors come back");
      const bad = rig.counters(POOL_UPLINK).tx_bad_offload;
      const meant = meaning(described);
      if (!meant) {
        refused++;
        return assertEquals([receiver.receive().length, bad], [0, 1]);
      }
      if (bad !== 0) return assert(isBeyond(described), "refused without a reason");
      // Its tag may be one that the switch does not take.
      if (rig.counters(POOL_PF).rx_frames === 0) return;
      granted++;
      if (rig.counters(POOL_PF).rx_no_buffer === 0 && meant.header.gsoType === GSO_NONE) checkArrived(world, meant);
    }),
    { numRuns: 3 * RUNS },
  );
  assert(refused > RUNS / 4 && granted > RUNS / 10, `${refused} refused, ${granted} granted`);
});

const SHAPE: Shape = {
  ...{ version: 4, isTcp: true, tags: [], ipOptions: 0, extensions: [], tcpOptions: 0, tcpFlags: 0x18 },
  ...{ sequence: 1, id: 1, dontFragment: true, payloadBytes: 2000, seed: 1, gsoSize: 100, isEcn: false, hdrLen: 0 },
};

Deno.test("two contexts stay until they are set again, also where a visit ends between two frames", () => {
  const { rig, sender, receiver } = offloadWorld("advanced", "advanced", NOTHING);
  const guest = sender as AdvancedRigGuest;
  const expected: Uint8Array[] = [];
  const arrived: Uint8Array[] = [];
  const offer = (index: number, gsoSize: number, isSet: boolean) => {
    const sent = addressed(frameOf({ ...SHAPE, gsoSize, id: expected.length }));
    const { frame, context } = describe(sent, index);
    const asks = asking(context);
    guest.sendPieces(frame, [], {}, { ...asks, contexts: isSet ? asks.contexts : [] });
    expected.push(...segment(sent.frame, sent.header));
  };
  const transmit = () => {
    let visits = 0;
    for (rig.kick(); guest.unsent() > 0; visits++) {
      rig.wasm.run(rig.nowNs, 1);
      arrived.push(...receiver.receive());
      receiver.fill(120 - receiver.posted());
    }
    return visits;
  };
  offer(0, 100, true);
  transmit();
  for (const [before, after] of [[100, 50], [50, 200], [200, 100]] as const) {
    // A visit pays for some 70 segments: it ends behind these two, when the others have been looked at already.
    offer(1, 40, true);
    offer(1, 40, false);
    offer(0, before, false);
    offer(0, after, true);
    rig.view.setInt32(POOLS + POOL_UPLINK * POOL_STRIDE + P_DEFICIT, 0, true);
    assert(transmit() > 1, "one visit was enough");
  }
  assertEquals(rig.counters(POOL_UPLINK).tx_bad_offload, 0);
  assertEquals(rig.counters(POOL_PF).rx_no_buffer, 0);
  assertEquals(arrived.length, expected.length);
  arrived.forEach((frame, i) => assertEquals(frame, expected[i], `segment ${i}`));
});

Deno.test("a queue begins without contexts, and what nobody has set is refused", () => {
  const { rig, sender } = offloadWorld("advanced", "split", EVERYTHING);
  const guest = sender as AdvancedRigGuest;
  const { frame, context } = describe(addressed(frameOf(SHAPE)), 0);
  send(guest, { frame, context });
  rig.run();
  assertEquals(rig.counters(POOL_UPLINK).tx_bad_offload, 0);
  guest.tx().tail = 0;
  guest.tx().doorbell();
  assertEquals(rig.wasm.startQueue(guest.queuePointer(1), 0), 0);
  guest.sendPieces(frame, [], {}, { ...asking(context), contexts: [] });
  rig.run();
  assertEquals(rig.counters(POOL_UPLINK).tx_bad_offload, 1);
});
