/**
 * Packet buffers: what a pool's driver has no room for waits in the NIC, in order, as in a hardware NIC's packet buffer.
 * A pool for which there was no room gets one when its driver is overrun.
 */
import { assert, assertEquals } from "@std/assert";
import { CTL, CTL_GENERATION, P_BUFFER, P_RX_COUNT, POOL_STRIDE, POOLS } from "../../shared/layout/nic.ts";
import { PACKET_BUFFERS } from "../../shared/engine/packet_buffer.ts";
import { AdvancedGuest } from "../support/advanced_guest.ts";
import { EngineRig, FORMATS, rigMac } from "../support/engine_rig.ts";
import type { FormatName } from "../support/formats.ts";
import { frame } from "../support/mock_guest.ts";
import { rigBuffer } from "../support/pool_buffer.ts";

const RING = 64;
const BURST = 30;

/** A sender, and a receiver on VF 1 whose pool can be given a packet buffer. */
function world(format: FormatName) {
  const rig = new EngineRig(2);
  const sender = rig.attach(0, { queueSize: RING });
  const receiver = rig.attachAs(format, 1, { queueSize: RING });
  const { buffer, released } = rigBuffer(rig, 1);
  let sent = 0;
  const send = (frames: number) => {
    for (let left = frames; left > 0; left -= BURST) {
      const numbered = Array.from({ length: Math.min(left, BURST) }, () => {
        const made = frame({ dst: rigMac(1), src: rigMac(0) });
        new DataView(made.buffer).setUint32(20, sent++);
        return made;
      });
      sender.send(numbered);
      rig.run();
      assertEquals(sender.unsent(), 0, "the sender is never held up");
    }
  };
  /** Takes what has arrived: numbers. */
  const take = () => receiver.receive().map((got) => new DataView(got.buffer, got.byteOffset).getUint32(20));
  const numbers = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i);
  return {
    rig,
    sender,
    receiver,
    buffer,
    send,
    take,
    numbers,
    released,
    counters: () => rig.counters(1),
  };
}

for (const format of FORMATS) {
  Deno.test(`a driver that is overrun and has no packet buffer wants one (${format})`, () => {
    const { receiver, buffer, send, counters } = world(format);
    receiver.fill(4);
    assertEquals(buffer.isWanted, false);
    send(10);
    assertEquals(counters().rx_no_buffer, 6, "without one, frames are dropped");
    assert(buffer.isWanted);
    buffer.give();
    assert(buffer.isThere && !buffer.isWanted);
    send(10);
    assertEquals(counters().rx_no_buffer, 6, "with one, none are");
    assertEquals(counters().rx_frames, 4, "they are not delivered yet");
  });

  Deno.test(`what waits is delivered in order, before what comes later (${format})`, () => {
    const { rig, receiver, buffer, send, take, numbers, counters } = world(format);
    buffer.give();
    receiver.fill(4);
    send(20);
    assertEquals(take(), numbers(0, 4));
    receiver.fill(10);
    // New frames queue up behind those that wait.
    send(5);
    rig.run();
    const second = take();
    assertEquals(second, numbers(4, 14));
    receiver.fill(40);
    rig.run();
    assertEquals(take(), numbers(14, 25));
    assertEquals(counters().rx_frames, 25);
    assertEquals(counters().rx_no_buffer, 0);
    send(3);
    assertEquals(take(), numbers(25, 28), "and then they go straight on");
  });

  Deno.test(`buffers that a driver offers while the worker finds that there are none are not overlooked (${format})`, () => {
    const { rig, receiver, buffer, send, take, numbers, counters } = world(format);
    buffer.give();
    receiver.fill(4);
    send(20);
    assertEquals(take(), numbers(0, 4));
    receiver.fill(3);
    if (receiver instanceof AdvancedGuest) receiver.rx().interrupt = true;
    // The worker reads its clock to interrupt the driver for those three, when it has found no room for the fourth.
    rig.onClock = () => {
      if (counters().rx_frames === 4) return;
      rig.onClock = () => {};
      receiver.fill(40);
    };
    rig.run();
    assertEquals(take(), numbers(4, 20), "its driver has offered all that it has");
  });

  Deno.test(`a packet buffer is bounded: a driver that never gives buffers loses what is beyond it (${format})`, () => {
    const { buffer, send, counters, receiver, rig, take, numbers } = world(format);
    buffer.give();
    send(PACKET_BUFFERS + 100);
    assertEquals(counters().rx_no_buffer, 100);
    receiver.fill(20);
    rig.run();
    assertEquals(take(), numbers(0, 20), "what it has is the oldest");
  });
}

Deno.test("what waits in a VLAN that the pool leaves is dropped and counted", () => {
  const { rig, buffer, receiver, send, take, counters } = world("split");
  buffer.give();
  send(7);
  buffer.discard();
  receiver.fill(20);
  rig.run();
  assertEquals(take(), []);
  assertEquals(counters().rx_no_queue, 7);
  send(2);
  assertEquals(take(), [7, 8]);
});

Deno.test("a pool without receive queues has no packet buffer: what was in it is counted and its memory given back", async () => {
  const { rig, buffer, send, counters, released } = world("split");
  buffer.give();
  send(7);
  rig.view.setUint32(POOLS + POOL_STRIDE + P_RX_COUNT, 0, true);
  rig.view.setUint32(CTL + CTL_GENERATION, rig.view.getUint32(CTL + CTL_GENERATION, true) + 1, true);
  buffer.take();
  assertEquals(counters().rx_no_queue, 7);
  assertEquals(rig.view.getUint32(POOLS + POOL_STRIDE + P_BUFFER, true), 0);
  await Promise.resolve();
  assertEquals(released(), 1);
  send(1);
  assertEquals(counters().rx_no_queue, 8);
});

Deno.test("a packet buffer is made while the engine goes on: it stands still only to be told of it", () => {
  const rig = new EngineRig(1);
  const bytes = () => new Uint8Array(rig.view.buffer, window, 0x40000).slice();
  let [before, after] = [new Uint8Array(), new Uint8Array()];
  const { buffer, window } = rigBuffer(rig, 0, { before: () => before = bytes(), after: () => after = bytes() });
  buffer.give();
  assert(before.some((byte) => byte !== 0), "its ring is there");
  assertEquals(before, after);
});
