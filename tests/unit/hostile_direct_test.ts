/**
 * hostile.md 1–9 on the direct paths: a guest that breaks its rings stops them, for the same reasons as on any other
 * path; its driver pair, the NIC's queues and its neighbours go on, and what was outstanding before comes back.
 */
import { assertEquals } from "@std/assert";
import type { RingAttack } from "../support/attack_kit.ts";
import { DirectRig, type EmulatedGuest } from "../support/direct_rig.ts";
import { rigMac } from "../support/engine_rig.ts";
import { Flipper } from "../support/flipper.ts";
import { frame } from "../support/mock_guest.ts";
import { attack, ringAttacks } from "../support/ring_attacks.ts";

const FORMATS = ["split", "packed"] as const;
const QUEUE_SIZE = 64;
/** Frames that the hostile guest has exchanged before. */
const HONEST = 2;

interface World {
  world: DirectRig;
  a: EmulatedGuest;
  b: EmulatedGuest;
  evil: EmulatedGuest;
}

function setUp(format: typeof FORMATS[number], { beforeEnd }: Partial<RingAttack> = {}): World {
  const world = new DirectRig(3);
  const [a, b] = [world.attach("zerocopy", "split"), world.attach("headersplit", format)];
  const start = { index: beforeEnd === undefined ? 0 : QUEUE_SIZE - beforeEnd - HONEST, wrap: true };
  const evil = world.attach("zerocopy", format, { queueSize: QUEUE_SIZE, start });
  for (const { guest } of [a, b]) guest.fill(16);
  return { world, a, b, evil };
}

function checkNeighbours({ world, a, b, evil }: World): void {
  for (const [from, to] of [[a, b], [b, a]] as const) {
    const there = frame({ dst: rigMac(to.vf), src: rigMac(from.vf), bytes: 300 });
    from.guest.send([there]);
    world.run();
    assertEquals(to.guest.receive(), [there]);
  }
  assertEquals([a.error, b.error, evil.error], [0, 0, 0], "no driver pair has stopped");
  world.rig.checkCanaries();
}

function attackBySending(format: typeof FORMATS[number], one: RingAttack): void {
  const set = setUp(format, one);
  const { world, a, evil } = set;
  const target = { dst: rigMac(0), src: rigMac(2) };
  for (let i = 0; i < HONEST; i++) {
    evil.guest.send([frame({ ...target, etherType: 0x1234 })]);
    world.run();
  }
  assertEquals(a.guest.receive().length, HONEST);
  attack(one, evil.guest, "tx", target);
  world.run();
  assertEquals(world.rig.error(evil.pool, 1), one.reason ?? 0);
  if (one.counter) {
    assertEquals(world.rig.counters(evil.vf)[one.counter], 1);
    assertEquals(evil.guest.unsent(), 0, "its buffer came back");
  }
  assertEquals(a.guest.receive(), []);
  checkNeighbours(set);
}

function attackByReceiving(format: typeof FORMATS[number], one: RingAttack): void {
  const set = setUp(format, one);
  const { world, a, evil } = set;
  const target = { dst: rigMac(2), src: rigMac(0) };
  evil.guest.fill(HONEST);
  for (let i = 0; i < HONEST; i++) {
    a.guest.send([frame(target)]);
    world.run();
  }
  assertEquals(evil.guest.receive().length, HONEST);
  attack(one, evil.guest, "rx", target);
  a.guest.send([frame(target)]);
  world.run();
  if (!one.mayReceive) assertEquals(world.rig.error(evil.pool, 0), one.reason);
  checkNeighbours(set);
}

for (const format of FORMATS) {
  for (const one of ringAttacks(format, "tx")) {
    Deno.test(`hostile ring on a direct path: ${one.name} (${format})`, () => attackBySending(format, one));
  }
  for (const one of ringAttacks(format, "rx")) {
    Deno.test(`hostile receive ring on a direct path: ${one.name} (${format})`, () => attackByReceiving(format, one));
  }
}

Deno.test("a guest that rewrites its descriptors and headers while both engines read them harms nobody", async () => {
  const set = setUp("split");
  const { world, evil } = set;
  const { guest } = evil;
  guest.send(Array.from({ length: 32 }, () => frame({ dst: rigMac(0), src: rigMac(2), bytes: 200 })));
  guest.fill(32);
  const [tx, rx] = [guest.tx(), guest.rx()];
  const descriptors = Array.from({ length: 32 }, (_, i) => [tx.desc + i * 16, rx.desc + i * 16]).flat();
  // Addresses, lengths and flags of descriptors, and the flags of the headers.
  const offsets = [...descriptors.flatMap((at) => [at, at + 8, at + 12]), guest.heap];
  await using flipper = new Flipper({
    memory: world.rig.view.buffer as unknown as SharedArrayBuffer,
    offsets,
    values: [0, 0xffff, 2, 2048],
  });
  const until = performance.now() + 300;
  for (let i = 0; performance.now() < until || flipper.rounds === 0; i++) {
    world.run(20);
    if (i % 10 === 0) checkNeighboursReceive(set);
    for (const index of [0, 1]) {
      if (world.rig.error(evil.pool, index) === 0) continue;
      if (index === 0) evil.recallReceived();
      else evil.recallSent();
      world.rig.wasm.startQueue(guest.queuePointer(index), guest.queues[index]?.reset() ?? 0);
      if (index === 1) guest.send([frame({ dst: rigMac(0), src: rigMac(2), bytes: 200 })]);
      else guest.fill(32);
    }
  }
});

/** The honest two talk, whatever else they get. */
function checkNeighboursReceive({ world, a, b, evil }: World): void {
  a.guest.receive();
  a.guest.fill(16 - a.guest.posted());
  const ping = frame({ dst: rigMac(0), src: rigMac(1), etherType: 0x1111, bytes: 80 });
  b.guest.room();
  b.guest.send([ping]);
  let got = 0;
  for (let tries = 0; got === 0 && tries < 100; tries++) {
    world.run(20);
    got = a.guest.receive().filter((bytes) => bytes[12] === 0x11 && bytes[13] === 0x11).length;
    a.guest.fill(16 - a.guest.posted());
  }
  assertEquals([got, a.error, b.error, evil.error], [1, 0, 0, 0]);
  world.rig.checkCanaries();
}
