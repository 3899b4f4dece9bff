/** Holding a pool: what comes while its driver changes hands is handed on in order, however much that is. */
import { assert, assertEquals } from "@std/assert";
import { Hold } from "../../services/nic/hold.ts";
import { PACKET_BUFFERS } from "../../shared/engine/packet_buffer.ts";
import { CTL, CTL_GENERATION, P_RX_COUNT, P_RX_QUEUES, POOL_STRIDE, POOLS } from "../../shared/layout/nic.ts";
import type { Arena } from "../../shared/os/mod.ts";
import { type AnyRigGuest, EngineRig, FORMATS, rigMac } from "../support/engine_rig.ts";
import { frame } from "../support/mock_guest.ts";

/** Behind every guest of a rig. */
const WINDOW = EngineRig.guestOffset(16);
const ROUND = 32;

/** Two guests, the second one's pool held, all its frames numbered. */
function held(attach: (rig: EngineRig) => AnyRigGuest) {
  const rig = new EngineRig(2);
  const sender = rig.attach(0, { queueSize: 64 });
  const receiver = attach(rig);
  const arena = { allocateOwn: (bytes: number) => ({ offset: WINDOW, bytes }), releaseOwn: () => {} };
  new Uint8Array(rig.view.buffer, WINDOW, 0x40000).fill(0);
  const hold = new Hold({ arena: arena as unknown as Arena, view: rig.view }, 1, {
    ...{ id: "hold", token: undefined, endsAtMs: 0 },
  });
  const pool = POOLS + POOL_STRIDE;
  const divert = (on: boolean) => {
    rig.view.setUint32(pool + P_RX_QUEUES, on ? hold.queue : receiver.queuePointer(0), true);
    rig.view.setUint32(pool + P_RX_COUNT, 1, true);
    rig.view.setUint32(CTL + CTL_GENERATION, rig.view.getUint32(CTL + CTL_GENERATION, true) + 1, true);
  };
  let sent = 0;
  const send = (frames: number) => {
    const numbered = Array.from({ length: frames }, () => {
      const made = frame({ dst: rigMac(1), src: rigMac(0) });
      new DataView(made.buffer).setUint32(20, sent++);
      return made;
    });
    sender.send(numbered);
    rig.run();
    sender.room();
  };
  let next = 0;
  /** Takes what has arrived, which must be what comes next; answers how many frames. */
  const take = () => {
    const frames = receiver.receive();
    for (const got of frames) assertEquals(new DataView(got.buffer, got.byteOffset).getUint32(20), next++);
    return frames.length;
  };
  const release = (most: number, last = 0) => {
    divert(false);
    const left = rig.wasm.releaseHeld(hold.queue, 1, most, last);
    if (left > 0) divert(true);
    return left;
  };
  const discard = () => {
    rig.wasm.discardHeld(hold.queue, 1);
    next = sent;
  };
  divert(true);
  return { rig, discard, receiver, divert, send, take, release, counters: () => rig.counters(1) };
}

for (const kind of FORMATS) {
  const attach = (rig: EngineRig) => rig.attachAs(kind, 1, { queueSize: 64 });
  Deno.test(`a hold hands on in order, several times as much as it has room for (${kind})`, () => {
    const { rig, receiver, send, take, release, counters } = held(attach);
    // Two thirds are full before the receiver takes any; from then on as much comes as it takes.
    for (let sent = 0; sent < PACKET_BUFFERS * 2 / 3; sent += ROUND) send(ROUND);
    let taken = 0;
    let left = 1;
    while (taken < 3 * PACKET_BUFFERS) {
      receiver.fill(ROUND);
      left = release(256);
      assert(left > 0);
      taken += take();
      send(ROUND);
    }
    while (left > 0) {
      receiver.fill(ROUND);
      left = release(256);
      taken += take();
    }
    assertEquals([counters().rx_frames, counters().rx_no_buffer], [taken, 0]);
    // And the switch delivers to the receiver itself again.
    receiver.fill(ROUND);
    send(ROUND);
    assertEquals(take(), ROUND);
    rig.checkCanaries();
  });

  Deno.test(`what a hold has taken is dropped and counted when its pool leaves the VLAN, and what comes then is not (${kind})`, () => {
    const { receiver, discard, divert, send, take, release, counters } = held(attach);
    for (let i = 0; i < 20; i++) send(ROUND);
    discard();
    send(5);
    receiver.fill(ROUND);
    assertEquals(release(256), 0);
    assertEquals([take(), counters().rx_no_queue], [5, 20 * ROUND]);
    divert(true);
    for (let sent = 0; sent < PACKET_BUFFERS; sent += ROUND) send(ROUND);
    assertEquals(counters().rx_no_buffer, 0, "its buffers are free again");
  });

  Deno.test(`a hold that is full drops and counts; at the end so does a receiver without buffers (${kind})`, () => {
    const { rig, divert, send, take, release, receiver, counters } = held(attach);
    for (let sent = 0; sent < PACKET_BUFFERS + 10 * ROUND; sent += ROUND) send(ROUND);
    assertEquals([counters().rx_frames, counters().rx_no_buffer], [0, 10 * ROUND]);
    assertEquals(release(256), PACKET_BUFFERS, "a receiver without buffers is waited for");
    // The ring has 64 descriptors: from half of them on it has room.
    const room = () => {
      divert(false);
      return rig.wasm.hasRoom(1);
    };
    receiver.fill(ROUND - 1);
    assertEquals(room(), 0);
    receiver.fill(1);
    assertEquals(room(), 1);
    assertEquals(release(PACKET_BUFFERS, 1), 0);
    assertEquals(take(), ROUND);
    assertEquals([counters().rx_frames, counters().rx_no_buffer], [ROUND, 10 * ROUND + PACKET_BUFFERS - ROUND]);
  });
}
