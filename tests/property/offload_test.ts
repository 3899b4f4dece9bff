/**
 * Offloads, held against a reference that was written from the texts alone (tests/support/reference_offload.ts): any frame
 * that a guest may send, in any pieces, to a receiver that accepts any of the offloads, in any ring format; and any frame
 * that it may not. What advanced queues ask for by their descriptors is tried in advanced_offload_test.ts.
 */
import fc from "fast-check";
import { assert, assertEquals } from "@std/assert";
import { POOL_PF, POOL_UPLINK } from "../../shared/layout/nic.ts";
import { hostileFrame, lawfulFrame, type Sent } from "../support/offload_frames.ts";
import {
  accepts,
  addressed,
  allFormats,
  checkArrived,
  headerFormats,
  LIMITS,
  offloadWorld,
  sendWithHeader,
} from "../support/offload_world.ts";
import { EVERYTHING, GSO_NONE, validate } from "../support/reference_offload.ts";
import { EXTENSIONS_MAX, type Ip, ipOf, viewOf } from "../support/reference_packet.ts";
import { pseudoSum } from "../support/reference_segments.ts";

const RUNS = 150;
/** Headers that the engine looks through, and segments that it cuts: what is beyond is refused, lawful or not. */
const CHECKSUM_END_MAX = 216;
const SEGMENTS_MAX = 2048;

Deno.test("every lawful frame arrives as its receiver accepts it: as it was sent, with its checksum, or in segments", () => {
  const cuts = fc.array(fc.oneof(fc.nat(120), fc.nat(66_000)), { maxLength: 12 });
  fc.assert(
    fc.property(headerFormats, allFormats, accepts, lawfulFrame(LIMITS), cuts, (from, to, accepted, sent, cuts) => {
      const world = offloadWorld(from, to, accepted);
      const one = addressed(sent);
      sendWithHeader(world.sender, one, cuts);
      world.rig.run();
      checkArrived(world, one);
    }),
    { numRuns: RUNS },
  );
});

/** Whether a frame is beyond what the engine looks through or cuts. */
function isBeyond({ frame, header }: Sent): boolean {
  if (header.csumStart + header.csumOffset + 2 > CHECKSUM_END_MAX) return true;
  const ip = ipOf(frame);
  if (typeof ip === "object" && ip.extensions > EXTENSIONS_MAX) return true;
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
    fc.property(headerFormats, allFormats, accepts, hostileFrame(LIMITS), (from, to, accepted, sent) => {
      const world = offloadWorld(from, to, accepted);
      const { rig, sender, receiver } = world;
      const one = addressed(sent);
      sendWithHeader(sender, one, []);
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
      const isWhole = rig.counters(POOL_PF).rx_no_buffer === 0 && isSummed(one);
      if (isWhole) checkArrived(world, one);
    }),
    { numRuns: 2 * RUNS },
  );
  assert(refused > RUNS / 4 && granted > RUNS / 10, `${refused} refused, ${granted} granted`);
});
