/**
 * A full uplink holds its senders up, as a wire does: frames for it wait in their senders' rings, in order, and nobody
 * else notices. Copies of frames for many do not wait, and nobody waits for an uplink that is dead.
 */
import { assert, assertEquals } from "@std/assert";
import {
  CTL,
  CTL_HELD_FROM,
  CTL_HELD_TO,
  OFFLOADS_ALL,
  P_RX_COUNT,
  POOL_STRIDE,
  POOL_UPLINK,
  POOLS,
  Q_FRAMES,
  Q_OFFLOADS,
  QUEUE_F_EVENT_IDX,
  QUEUE_F_INDIRECT,
} from "../../shared/layout/nic.ts";
import type { VfPolicy } from "../../shared/api/mod.ts";
import { type AnyRigGuest, EngineRig, FORMATS, rigMac } from "../support/engine_rig.ts";
import { BROADCAST, frame } from "../support/mock_guest.ts";
import { frameOf } from "../support/offload_frames.ts";
import { headerBytes } from "../support/offload_world.ts";
import { rigBuffer } from "../support/pool_buffer.ts";

/** Descriptors of the uplink's ring; an eighth of them is for copies alone. */
const LINE = 64;
const FOR_COPIES = LINE / 8;
const OUTSIDE = "02:99:00:00:00:01";
const MS = 1e6;

/** An uplink of LINE descriptors, and frames for it that have their numbers in them. */
function world(vfs = 3, policies: Record<number, Partial<VfPolicy>> = {}) {
  const rig = new EngineRig(vfs, policies);
  rig.isClockStill = true;
  const uplink = rig.attach(POOL_UPLINK, { queueSize: LINE }, QUEUE_F_INDIRECT | QUEUE_F_EVENT_IDX);
  const toOutside = (from: number, count: number, first = 0, bytes = 64) =>
    Array.from({ length: count }, (_, i) => {
      const made = frame({ dst: OUTSIDE, src: rigMac(from), bytes });
      new DataView(made.buffer).setUint32(20, first + i);
      return made;
    });
  /** What has come out: who sent it, and its number. */
  const take = () =>
    uplink.receive().map((got) => ({
      from: (got[11] ?? 0) - 1,
      number: new DataView(got.buffer, got.byteOffset).getUint32(20),
      isCopy: got[0] === 0xff,
    }));
  const held = () =>
    (rig.view.getUint32(CTL + CTL_HELD_TO, true) - rig.view.getUint32(CTL + CTL_HELD_FROM, true)) >>> 0;
  return { rig, uplink, toOutside, take, held, counters: (pool = POOL_UPLINK) => rig.counters(pool) };
}

const numbers = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i);

for (const format of FORMATS) {
  Deno.test(`frames for a full uplink wait in their sender's ring, and go on in order (${format})`, () => {
    const { rig, uplink, toOutside, take, counters } = world();
    const sender = rig.attachAs(format, 0, { queueSize: 256 });
    uplink.fill(LINE);
    sender.send(toOutside(0, 200));
    rig.run();
    const got = [take()];
    assertEquals(got[0]?.length, LINE - FOR_COPIES);
    assertEquals(counters(0).tx_frames, LINE - FOR_COPIES, "what waits has not been sent");
    rig.run();
    assertEquals(take(), [], "and stays where it is");
    while (got.flat().length < 200) {
      uplink.fill(LINE - uplink.posted());
      rig.run();
      const more = take();
      assert(more.length > 0);
      got.push(more);
    }
    assertEquals(got.flat().map(({ number }) => number), numbers(0, 200));
    assertEquals(sender.unsent(), 0);
    assert((counters(0).tx_held ?? 0) > 0);
    const { rx_no_buffer, rx_stalled, rx_frames } = counters();
    assertEquals({ rx_no_buffer, rx_stalled, rx_frames }, { rx_no_buffer: 0, rx_stalled: 0, rx_frames: 200 });
    rig.checkCanaries();
  });
}

Deno.test("a sender that waits holds up what is behind in the same queue, and nothing else", () => {
  const { rig, uplink, toOutside, take } = world();
  const sender = rig.attach(0, { queuePairs: 2 });
  const neighbour = rig.attach(1, { queueSize: 256 });
  const receiver = rig.attach(2, { queueSize: 256 });
  receiver.fill(200);
  sender.send([...toOutside(0, 1), frame({ dst: rigMac(2), src: rigMac(0) })], 0);
  sender.send([frame({ dst: rigMac(2), src: rigMac(0) })], 1);
  neighbour.send(Array.from({ length: 100 }, () => frame({ dst: rigMac(2), src: rigMac(1) })));
  rig.run(10);
  assertEquals([sender.unsent(0), sender.unsent(1), neighbour.unsent()], [2, 0, 0]);
  assertEquals(receiver.receive().length, 101);
  uplink.fill(LINE);
  rig.run(10);
  assertEquals([take().length, receiver.receive().length, sender.unsent(0)], [1, 1, 0]);
});

/** Frames that come out of each VF while all send without end and the uplink takes `each` at a time. */
function shared(senders: { vf: number; guest: AnyRigGuest; bytes?: number }[], w: ReturnType<typeof world>, each = 16) {
  const counts = new Map<number, number>(senders.map(({ vf }) => [vf, 0]));
  w.uplink.fill(LINE);
  for (let round = 0; round < 1000; round++) {
    for (const { vf, guest, bytes } of senders) {
      for (let pair = 0; pair < guest.options.queuePairs; pair++) {
        guest.send(w.toOutside(vf, guest.room(pair), 0, bytes), pair);
      }
    }
    w.rig.run(10);
    for (const { from } of w.take()) counts.set(from, (counts.get(from) ?? 0) + 1);
    w.uplink.fill(Math.min(each, LINE - w.uplink.posted()));
  }
  return [...counts.values()];
}

function near(actual: number, wanted: number): void {
  assert(Math.abs(actual / wanted - 1) <= 0.15, `${actual}, wanted ${wanted} within 15 %`);
}

Deno.test("senders have the uplink in turn", () => {
  const w = world();
  const counts = shared([0, 1, 2].map((vf) => ({ vf, guest: w.rig.attach(vf, { queueSize: 256 }) })), w);
  for (const count of counts) near(count, 16_000 / 3);
});

Deno.test("more queues have no more of the uplink, and each of them has its part", () => {
  const w = world();
  const many = w.rig.attach(0, { queuePairs: 8 });
  const one = w.rig.attach(1, { queueSize: 256 });
  const [ofMany = 0, ofOne = 0] = shared([{ vf: 0, guest: many }, { vf: 1, guest: one }], w);
  near(ofMany, ofOne);
  for (let pair = 0; pair < 8; pair++) {
    const queue = w.rig.view.getBigUint64(many.queuePointer(pair * 2 + 1) + Q_FRAMES, true);
    near(Number(queue), ofMany / 8);
  }
});

Deno.test("minimum rates are weights of the uplink too", () => {
  const w = world(3, { 0: { minTxRate: 3000 }, 1: { minTxRate: 1000 } });
  const senders = [0, 1].map((vf) => ({ vf, guest: w.rig.attach(vf, { queueSize: 256 }) }));
  const [a = 0, b = 0] = shared(senders, w, 64);
  near(a, 3 * b);
});

Deno.test("copies of frames for many do not wait: the uplink's are dropped and counted, the others' arrive", () => {
  const { rig, uplink, take, counters } = world();
  const sender = rig.attach(0, { queueSize: 256 });
  const receiver = rig.attach(1, { queueSize: 256 });
  receiver.fill(200);
  uplink.fill(LINE);
  sender.send(Array.from({ length: 100 }, () => frame({ dst: BROADCAST, src: rigMac(0) })));
  rig.run();
  assertEquals(sender.unsent(), 0);
  assertEquals(receiver.receive().length, 100);
  assertEquals([take().length, counters().rx_no_buffer], [LINE, 100 - LINE]);
});

Deno.test("a full uplink has room for a few copies, and who floods keeps nobody from it", () => {
  const w = world();
  const { rig, uplink, toOutside, take, counters } = w;
  const sender = rig.attach(0, { queueSize: 256 });
  const flooder = rig.attach(1, { queueSize: 256 });
  uplink.fill(LINE);
  const count = { sent: 0, copies: 0 };
  for (let round = 0; round < 500; round++) {
    // The flooder comes first.
    flooder.send(Array.from({ length: flooder.room() }, () => frame({ dst: BROADCAST, src: rigMac(1) })));
    sender.send(toOutside(0, sender.room()));
    rig.run(10);
    for (const { isCopy } of take()) count[isCopy ? "copies" : "sent"]++;
    uplink.fill(Math.min(16, LINE - uplink.posted()));
  }
  near(count.copies, count.sent / 8);
  assert((counters().rx_no_buffer ?? 0) > 1000);
});

Deno.test("a mirror's copies do not wait either, and keep nobody from the uplink", () => {
  const w = world(3, { 1: { mirror: "in:uplink" } });
  const { rig, uplink, toOutside, take, counters } = w;
  const { buffer } = rigBuffer(rig, POOL_UPLINK);
  buffer.give();
  const sender = rig.attach(0, { queueSize: 256 });
  const receiver = rig.attach(1, { queueSize: 256 });
  const other = rig.attach(2, { queueSize: 256 });
  const mirrored = frame({ dst: rigMac(1), src: rigMac(2) });
  const count = { sent: 0, copies: 0 };
  for (let round = 0; round < 300; round++) {
    while (receiver.rx().popUsed());
    receiver.fill(256 - receiver.posted());
    other.send(Array<Uint8Array>(other.room()).fill(mirrored));
    sender.send(toOutside(0, sender.room()));
    rig.run(10);
    for (const { from } of take()) count[from === 2 ? "copies" : "sent"]++;
    uplink.fill(Math.min(16, LINE - uplink.posted()));
  }
  near(count.copies, count.sent / 8);
  assert((counters().rx_no_buffer ?? 0) > 1000);
});

Deno.test("frames for an uplink that takes nothing for 500 ms are dropped and counted, until it does", () => {
  const { rig, uplink, toOutside, take, held, counters } = world();
  const sender = rig.attach(0, { queueSize: 256 });
  uplink.fill(LINE);
  sender.send(toOutside(0, 100));
  rig.run(10);
  take();
  const waiting = sender.unsent();
  assertEquals(waiting, 100 - LINE + FOR_COPIES);
  rig.run(10, 499 * MS);
  assertEquals([sender.unsent(), counters().rx_stalled], [waiting, 0]);
  rig.run(10, 2 * MS);
  assertEquals([sender.unsent(), counters().rx_stalled], [0, waiting]);
  sender.send(toOutside(0, 5));
  rig.run(10);
  assertEquals([sender.unsent(), counters().rx_stalled], [0, waiting + 5], "nobody waits for it again");
  assertEquals(counters(0).tx_frames, 105, "they have passed their sender's policy");
  uplink.fill(LINE - uplink.posted());
  sender.send(toOutside(0, 3, 500));
  rig.run(10);
  assertEquals(take().map(({ number }) => number), numbers(500, 503));
  rig.run(10, 5000 * MS);
  sender.send(toOutside(0, 100));
  rig.run(10);
  assertEquals(counters().rx_stalled, waiting + 5, "a new stall is counted from its own beginning");
  assert(held() > 0);
});

Deno.test("an uplink that takes a little now and then is waited for", () => {
  const { rig, uplink, toOutside, take, counters } = world();
  const sender = rig.attach(0, { queueSize: 256 });
  sender.send(toOutside(0, 30));
  const got: number[] = [];
  for (let round = 0; got.length < 30; round++) {
    assert(round < 100);
    rig.run(10, 450 * MS);
    uplink.fill(1);
    rig.run(10);
    got.push(...take().map(({ number }) => number));
  }
  assertEquals(got, numbers(0, 30));
  assertEquals(counters().rx_stalled, 0);
});

Deno.test("who waits for an uplink whose driver leaves goes on at once", () => {
  const { rig, toOutside, counters } = world();
  const sender = rig.attach(0);
  sender.send(toOutside(0, 10));
  rig.run(10);
  assertEquals(sender.unsent(), 10);
  rig.view.setUint32(POOLS + POOL_UPLINK * POOL_STRIDE + P_RX_COUNT, 0, true);
  rig.set(2, { spoofCheck: false });
  rig.run(10);
  assertEquals([sender.unsent(), counters(0).tx_no_destination], [0, 10]);
});

Deno.test("a queue that waits and then has nothing for the uplink does not keep the others from it", () => {
  const { rig, uplink, toOutside, take } = world();
  const [a, b] = [rig.attach(0), rig.attach(1)];
  a.send(toOutside(0, 1));
  rig.run(10);
  b.send(toOutside(1, 5));
  rig.run(10);
  // Its guest has begun anew.
  rig.wasm.startQueue(a.queuePointer(1), a.tx().reset());
  uplink.fill(LINE);
  rig.run(10);
  assertEquals(take().map(({ from }) => from), [1, 1, 1, 1, 1]);
});

Deno.test("frames of unknown addresses wait for the uplink beside a promiscuous VF, which has each of them once", () => {
  const { rig, uplink, toOutside, take, counters } = world(3, { 1: { trust: true, promisc: true } });
  const sender = rig.attach(0, { queueSize: 256 });
  const listener = rig.attach(1, { queueSize: 256 });
  listener.fill(200);
  uplink.fill(LINE);
  sender.send(toOutside(0, 100));
  rig.run(200);
  assertEquals(take().length, LINE - FOR_COPIES);
  assertEquals(listener.receive().length, LINE - FOR_COPIES);
  assertEquals(counters().rx_no_buffer, 0);
  rig.run(200, 501 * MS);
  assertEquals(sender.unsent(), 0);
  assertEquals(listener.receive().length, 100 - LINE + FOR_COPIES, "it has them though the uplink is dead");
  assertEquals(counters().rx_stalled, 100 - LINE + FOR_COPIES);
});

Deno.test("a frame that is cut waits for room for its segments, and others do not take it meanwhile", () => {
  const { rig, uplink, toOutside, take, counters } = world();
  const sender = rig.attach(0, { queueSize: 16, bufferBytes: 66_000 });
  const other = rig.attach(1, { queueSize: 256 });
  rig.view.setUint16(sender.queuePointer(1) + Q_OFFLOADS, OFFLOADS_ALL, true);
  const shape = {
    version: 4 as const,
    isTcp: false,
    tags: [],
    ipOptions: 0,
    extensions: [],
    tcpOptions: 0,
    tcpFlags: 0,
  };
  const { frame: large, header } = frameOf({
    ...{ ...shape, sequence: 1, id: 1, dontFragment: true, payloadBytes: 40_000, seed: 1, gsoSize: 1000 },
    ...{ isEcn: false, hdrLen: 42 },
  });
  large.set([OUTSIDE, rigMac(0)].flatMap((mac) => mac.split(":").map((byte) => parseInt(byte, 16))));
  sender.sendPieces(large, [], { header: headerBytes(header) });
  rig.run(200);
  let [segments, others] = [0, 0];
  for (let round = 0; round < 40; round++) {
    other.send(toOutside(1, other.room()));
    uplink.fill(Math.min(4, LINE - uplink.posted()));
    rig.run(10);
    for (const { from } of take()) from === 0 ? segments++ : others++;
  }
  assertEquals(segments, 40);
  assert(others > 0);
  assertEquals(counters().rx_no_buffer, 0);
});

Deno.test("a worker that sleeps while somebody waits is kicked when five eighths of the uplink's ring are free", () => {
  const { rig, uplink, toOutside, take } = world();
  const sender = rig.attach(0, { queueSize: 256 });
  uplink.fill(LINE);
  sender.send(toOutside(0, 200));
  rig.run();
  take();
  uplink.rx().takeKick();
  const armed = rig.wasm.coolAll();
  assertEquals(armed, 1, "the queue that waits has work");
  const wanted = LINE * 5 / 8;
  const kicks = Array.from({ length: wanted }, () => {
    uplink.fill(1);
    return uplink.rx().takeKick();
  });
  // A part of the ring is still free: that for copies.
  assertEquals(kicks.indexOf(true), wanted - FOR_COPIES - 1);
  assertEquals(kicks.filter((kick) => kick).length, 1);
  assertEquals(rig.wasm.coolAll(), 2, "there is room: the worker goes on");
  rig.run();
  assert(take().length > 0);
});

Deno.test("nobody is asked for a kick when nobody waits", () => {
  const { rig, uplink, toOutside, take } = world();
  const sender = rig.attach(0);
  uplink.fill(LINE);
  sender.send(toOutside(0, 10));
  rig.run();
  take();
  uplink.rx().takeKick();
  assertEquals(rig.wasm.coolAll(), 0);
  uplink.fill(10);
  assertEquals(uplink.rx().takeKick(), false);
});
