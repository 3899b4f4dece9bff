/**
 * Packet buffers and frames that are cut into segments: a receiver that has buffers for some of them gets these at once,
 * the rest when it has room, and nobody else notices.
 */
import { assertEquals } from "@std/assert";
import { OFFLOADS_ALL, Q_OFFLOADS } from "../../shared/layout/nic.ts";
import { EngineRig, rigMac } from "../support/engine_rig.ts";
import { BROADCAST } from "../support/mock_guest.ts";
import { frameOf, type Shape } from "../support/offload_frames.ts";
import { headerBytes } from "../support/offload_world.ts";
import { rigBuffer } from "../support/pool_buffer.ts";

const RING = 64;
const UDP: Shape = {
  ...{ version: 4, isTcp: false, tags: [], ipOptions: 0, extensions: [], tcpOptions: 0, tcpFlags: 0, sequence: 1 },
  ...{ id: 1, dontFragment: true, payloadBytes: 10_000, seed: 1, gsoSize: 1000, isEcn: false, hdrLen: 42 },
};
const PAYLOAD = 42;

/** A sender of frames to be cut, and two receivers that take none whole; the first has a packet buffer. */
function world() {
  const rig = new EngineRig(3);
  const sender = rig.attach(0, { queueSize: 16, bufferBytes: 66_000 });
  const receiver = rig.attach(1, { queueSize: RING });
  const other = rig.attach(2, { queueSize: RING });
  rig.view.setUint16(sender.queuePointer(1) + Q_OFFLOADS, OFFLOADS_ALL, true);
  const { buffer } = rigBuffer(rig, 1);
  buffer.give();
  /** Sends one frame; answers its payload. */
  const send = (to: string, shape: Partial<Shape> = {}) => {
    const { frame, header } = frameOf({ ...UDP, ...shape });
    frame.set([to, rigMac(0)].flatMap((mac) => mac.split(":").map((byte) => parseInt(byte, 16))));
    sender.sendPieces(frame, [], { header: headerBytes(header) });
    rig.run(10);
    return [...frame.subarray(PAYLOAD)];
  };
  /** The payload of the segments that have come in. */
  const take = (guest = receiver) => guest.receive().flatMap((segment) => [...segment.subarray(PAYLOAD)]);
  return { rig, receiver, other, buffer, send, take, counters: () => rig.counters(1) };
}

Deno.test("a flooded frame of which one receiver had room for some segments comes whole to the next", () => {
  const { rig, receiver, other, send, take, counters } = world();
  receiver.fill(4);
  other.fill(RING);
  const payload = send(BROADCAST);
  assertEquals(take(other), payload);
  receiver.fill(20);
  rig.run(10);
  assertEquals(take(), payload);
  assertEquals(counters().rx_frames, 10);
  assertEquals(counters().rx_no_buffer, 0);
});

Deno.test("a frame of more segments than the receiver's ring has places comes in as many parts as it takes", () => {
  const { rig, receiver, send, take, counters } = world();
  const payload = send(rigMac(1), { gsoSize: 64 });
  const arrived: number[] = [];
  for (let round = 0; round < 3; round++) {
    receiver.fill(RING);
    rig.run(10);
    arrived.push(...take());
  }
  assertEquals(arrived, payload);
  assertEquals(counters().rx_frames, Math.ceil(10_000 / 64));
});

Deno.test("what is dropped in the middle of a frame takes nothing of the next one with it", () => {
  const { rig, receiver, buffer, send, take, counters } = world();
  const payload = send(rigMac(1));
  receiver.fill(4);
  rig.run(10);
  assertEquals(take(), payload.slice(0, 4000));
  buffer.discard();
  assertEquals(counters().rx_no_queue, 1);
  // One that waits in the buffer, since that is where the frame before was left.
  const next = send(rigMac(1));
  receiver.fill(20);
  rig.run(10);
  assertEquals(take(), next);
});
