/**
 * hostile.md 1–6, 8 and 9 against the engine alone, over every format of virtqueues: the queue stops with its reason, the
 * neighbours go on, no byte is touched.
 */
import { assertEquals } from "@std/assert";
import {
  BAD_ADDRESS,
  BAD_CHAIN_LENGTH,
  BAD_INDIRECT,
  PERM_READ,
  QUEUE_F_INDIRECT,
  QUEUE_F_MRG_RXBUF,
} from "../../shared/layout/nic.ts";
import type { RingAttack } from "../support/attack_kit.ts";
import { EngineRig, type RigGuest, rigMac, type VirtioRigGuest, VIRTQUEUE_FORMATS } from "../support/engine_rig.ts";
import type { VirtqueueName } from "../support/formats.ts";
import { frame } from "../support/mock_guest.ts";
import type { RingPosition } from "../support/packed_guest.ts";
import { attack, ringAttacks } from "../support/ring_attacks.ts";

const QUEUE_SIZE = 64;
/** Frames that a warm queue has forwarded before it is attacked with. */
const WARM_FRAMES = 2;

interface Set {
  rig: EngineRig;
  a: VirtioRigGuest;
  b: VirtioRigGuest;
  evil: VirtioRigGuest;
}

/** Three VFs: 0 and 1 are honest, 2 attacks. */
function setUp(format: VirtqueueName, start: RingPosition = { index: 0, wrap: true }): Set {
  const rig = new EngineRig(3);
  const [a, b] = [rig.attach(0), rig.attachVirtqueues(format, 1)];
  const evil = rig.attachVirtqueues(format, 2, { queueSize: QUEUE_SIZE, start });
  for (const guest of [a, b]) guest.fill(16);
  return { rig, a, b, evil };
}

/** Checks that the honest ones still talk. */
function checkNeighbours({ rig, a, b }: Set): void {
  for (const [from, to, dst, src] of [[a, b, 1, 0], [b, a, 0, 1]] as const) {
    const there = frame({ dst: rigMac(dst), src: rigMac(src), bytes: 300 });
    from.send([there]);
    rig.run();
    assertEquals(to.receive(), [there]);
  }
  rig.checkCanaries();
}

/** Where the rings begin, so that an attack of `before` frames later begins where it wants to. */
function startOf({ beforeEnd }: RingAttack, before: number): RingPosition {
  return { index: beforeEnd === undefined ? 0 : QUEUE_SIZE - beforeEnd - before, wrap: true };
}

/** A hostile guest sends: its queue stops, or its frame is counted and comes back. */
function attackBySending(format: VirtqueueName, one: RingAttack, honest: number): void {
  const set = setUp(format, startOf(one, honest));
  const target = { dst: rigMac(0), src: rigMac(2) };
  for (let i = 0; i < honest; i++) {
    set.evil.send([frame({ ...target, etherType: 0x1234 })]);
    set.rig.run();
  }
  assertEquals(set.a.receive().length, honest);
  attack(one, set.evil, "tx", target);
  set.rig.run();
  assertEquals(set.rig.error(2, 1), one.reason ?? 0);
  if (one.counter) {
    assertEquals(set.rig.counters(2)[one.counter], 1);
    assertEquals(set.evil.unsent(), 0, "its buffer came back");
  }
  assertEquals(set.a.receive(), []);
  checkNeighbours(set);
}

/** A hostile guest posts a buffer: its receive queue stops when a frame comes, and its sender's does not. */
function attackByReceiving(format: VirtqueueName, one: RingAttack, honest: number): void {
  const set = setUp(format, startOf(one, honest));
  const target = { dst: rigMac(2), src: rigMac(0) };
  set.evil.fill(honest);
  for (let i = 0; i < honest; i++) {
    set.a.send([frame(target)]);
    set.rig.run();
  }
  assertEquals(set.evil.receive().length, honest);
  attack(one, set.evil, "rx", target);
  set.a.send([frame(target)]);
  set.rig.run();
  assertEquals([set.rig.error(2, 1), set.rig.error(0, 1)], [0, 0]);
  const { rx_frames, rx_queue_error } = set.rig.counters(2);
  if (one.mayReceive && rx_frames === honest + 1) assertEquals(set.rig.error(2, 0), 0);
  else assertEquals([set.rig.error(2, 0), rx_queue_error], [one.reason, 1]);
  checkNeighbours(set);
}

// A cold queue takes the general path; a warm one has a decision, and the fast path meets the attack first.
for (const format of VIRTQUEUE_FORMATS) {
  const family = format.startsWith("packed") ? "packed" : "split";
  for (const honest of [0, WARM_FRAMES]) {
    const where = `${format}${honest > 0 ? ", on the fast path" : ""}`;
    for (const one of ringAttacks(family, "tx")) {
      Deno.test(`hostile ring ${one.name} (${where})`, () => attackBySending(format, one, honest));
    }
    for (const one of ringAttacks(family, "rx")) {
      Deno.test(`hostile receive ring ${one.name} (${where})`, () => attackByReceiving(format, one, honest));
    }
  }
}

/** A test for each format of virtqueues. */
function test(name: string, fn: (format: VirtqueueName) => void): void {
  for (const format of VIRTQUEUE_FORMATS) Deno.test(`${name} (${format})`, () => fn(format));
}

test("fast path: a tag that its VLAN does not allow is refused although the addresses are known", (format) => {
  const set = setUp(format);
  const target = { dst: rigMac(0), src: rigMac(2) };
  for (let i = 0; i < 3; i++) {
    set.evil.send([frame(target)]);
    set.rig.run();
  }
  set.a.receive();
  set.evil.send([frame({ ...target, tags: [{ vid: 5 }] }), frame({ ...target, tags: [{ tpid: 0x88a8, vid: 5 }] })]);
  set.rig.run();
  assertEquals(set.a.receive(), []);
  assertEquals(set.rig.counters(2).tx_vlan_denied, 2);
});

test("hostile ring: a buffer across two regions that are not contiguous in the arena is copied part by part", (format) => {
  const set = setUp(format);
  const { rig, a, evil } = set;
  const quarter = evil.options.bytes / 4;
  const middle = evil.options.offset + 2 * quarter;
  // IOVAs are contiguous, windows are exchanged: the third quarter of memory lies behind the last one.
  const iova = 0x9_0000_0000n;
  rig.setRegions(2, [
    { iova: evil.options.iova, size: evil.options.bytes, window: evil.options.offset },
    { iova, size: quarter, window: middle + quarter },
    { iova: iova + BigInt(quarter), size: quarter, window: middle },
  ]);
  const sent = frame({ dst: rigMac(0), src: rigMac(2), bytes: 200 });
  const bytes = new Uint8Array(evil.view.buffer);
  const whole = new Uint8Array([...new Uint8Array(12), ...sent]);
  bytes.set(whole.slice(0, 100), middle + 2 * quarter - 100);
  bytes.set(whole.slice(100), middle);
  evil.tx().add([{ addr: iova + BigInt(quarter) - 100n, len: whole.length }]);
  evil.tx().publish();
  rig.run();
  assertEquals(rig.error(2, 1), 0);
  assertEquals(a.receive(), [sent]);
  checkNeighbours(set);
});

test("hostile ring: a gap between regions stops the queue", (format) => {
  const set = setUp(format);
  const { offset, iova } = set.evil.options;
  set.rig.setRegions(2, [{ iova, size: 1 << 20, window: offset }, {
    iova: iova + (1n << 20n) + 4096n,
    size: 1 << 20,
    window: offset + (1 << 20),
  }]);
  set.evil.tx().add([{ addr: iova + (1n << 20n) - 50n, len: 100 }]);
  set.evil.tx().publish();
  set.rig.run();
  assertEquals(set.rig.error(2, 1), BAD_ADDRESS);
  checkNeighbours(set);
});

test("hostile ring: receive buffers in a read-only region are not written", (format) => {
  const set = setUp(format);
  const { offset, iova, bytes } = set.evil.options;
  set.rig.setRegions(2, [{ iova, size: bytes, window: offset }, {
    iova: iova + (1n << 32n),
    size: 1 << 20,
    window: offset + (1 << 20),
    perm: PERM_READ,
  }]);
  set.evil.rx().add([{ addr: iova + (1n << 32n), len: 2048, write: true }]);
  set.evil.rx().publish();
  const before = set.evil.bytes(offset + (1 << 20), 4096);
  set.a.send([frame({ dst: rigMac(2), src: rigMac(0) })]);
  set.rig.run();
  assertEquals(set.rig.error(2, 0), BAD_ADDRESS);
  assertEquals(set.evil.bytes(offset + (1 << 20), 4096), before);
  assertEquals(set.rig.counters(2).rx_queue_error, 1);
  checkNeighbours(set);
});

test("hostile ring: a receiver that makes the engine walk for every frame stops, whoever sends to it", (format) => {
  const rig = new EngineRig(2);
  const a = rig.attach(0);
  const evil = rig.attachVirtqueues(format, 1, { queueSize: 1024 }, QUEUE_F_INDIRECT | QUEUE_F_MRG_RXBUF);
  const pieces = Array.from({ length: 1000 }, (_, i) => ({
    addr: evil.iova(evil.heap),
    len: i === 999 ? 12 : 0,
    write: true,
  }));
  const table = { at: evil.heap + 65536, iova: evil.iova(evil.heap + 65536) };
  for (let i = 0; i < 500; i++) evil.rx().add(pieces, table);
  evil.rx().publish();
  a.send([frame({ dst: rigMac(1), src: rigMac(0) })]);
  rig.run(20);
  assertEquals(rig.error(1, 0), BAD_CHAIN_LENGTH);
  assertEquals(rig.counters(1).rx_queue_error, 1);
});

Deno.test("hostile ring 5: the same head offered twice harms nobody but its owner", () => {
  const set = setUp("split");
  const evil = set.evil as RigGuest;
  const len = evil.writeFrame(evil.heap + 4096, frame({ dst: rigMac(0), src: rigMac(2) }));
  evil.tx().writeDescriptor(0, { addr: evil.iova(evil.heap + 4096), len });
  for (let i = 0; i < 5; i++) evil.tx().offer(0);
  evil.tx().publish();
  set.rig.run();
  assertEquals(set.a.receive().length, 5);
  checkNeighbours(set);
});

test("hostile ring 3: INDIRECT without the feature stops the queue", (format) => {
  const rig = new EngineRig(2);
  const [a, evil] = [rig.attach(0), rig.attachVirtqueues(format, 1, {}, 0)];
  a.fill(4);
  const table = { at: evil.heap, iova: evil.iova(evil.heap) };
  evil.tx().add([{ addr: evil.iova(evil.heap), len: 100 }], table);
  evil.tx().publish();
  rig.run();
  assertEquals(rig.error(1, 1), BAD_INDIRECT);
});

test("a header in three pieces, a chain as long as the queue and an indirect one arrive whole", (format) => {
  const { rig, a, evil } = setUp(format);
  const sent = frame({ dst: rigMac(0), src: rigMac(2), bytes: 400 });
  evil.sendPieces(sent, [3, 7, 14]);
  rig.run();
  assertEquals(a.receive(), [sent]);

  const { size } = evil.tx();
  const at = evil.heap + 200_000;
  const len = evil.writeFrame(at, sent);
  const pieces = Array.from({ length: size }, (_, i) => ({
    addr: evil.iova(at + i * 6),
    len: i === size - 1 ? len - i * 6 : 6,
  }));
  const table = { at: evil.heap + 300_000, iova: evil.iova(evil.heap + 300_000) };
  for (const indirect of [undefined, table, undefined]) {
    while (evil.tx().popUsed());
    evil.tx().add(pieces, indirect);
    evil.tx().publish();
    rig.run();
    assertEquals(rig.error(2, 1), 0);
    assertEquals(a.receive(), [sent]);
  }
});

test("mergeable buffers: a frame fills as many as it needs, num_buffers tells, and too few are a drop", (format) => {
  const rig = new EngineRig(2);
  const [a, b] = [rig.attach(0), rig.attachVirtqueues(format, 1, {}, QUEUE_F_INDIRECT | QUEUE_F_MRG_RXBUF)];
  b.fill(40, 0, 100);
  const sent = (bytes: number) => frame({ dst: rigMac(1), src: rigMac(0), bytes });
  a.send([sent(1000)]);
  rig.run();
  assertEquals(b.posted(), 40 - 11);
  assertEquals(b.receive(), [sent(1000)]);
  a.send([sent(2000), sent(2000)]);
  rig.run();
  assertEquals(b.posted(), 40 - 11 - 21);
  assertEquals(b.receive(), [sent(2000)]);
  assertEquals(rig.counters(1).rx_no_buffer, 1);
});

test("a receive buffer that is too small is kept, and the frame counted", (format) => {
  const rig = new EngineRig(2);
  const [a, b] = [rig.attach(0), rig.attachVirtqueues(format, 1)];
  b.fill(2, 0, 100);
  a.send([frame({ dst: rigMac(1), src: rigMac(0), bytes: 89 })]);
  rig.run();
  assertEquals(rig.counters(1).rx_too_small, 1);
  const fits = frame({ dst: rigMac(1), src: rigMac(0), bytes: 88 });
  a.send([fits]);
  rig.run();
  assertEquals(b.receive(), [fits]);
});

test("two queue pairs: a flow stays on one queue, comes back where it was sent, and all frames arrive", (format) => {
  const rig = new EngineRig(2);
  const [a, b] = [0, 1].map((vf) => rig.attachVirtqueues(format, vf, { queuePairs: 2 })) as [
    VirtioRigGuest,
    VirtioRigGuest,
  ];
  for (const guest of [a, b]) for (const pair of [0, 1]) guest.fill(64, pair);
  const udp = (port: number, from: number, to: number) => {
    const payload = new Uint8Array(46);
    payload.set([0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, from + 1, 10, 0, 0, to + 1]);
    new DataView(payload.buffer).setUint16(from === 0 ? 20 : 22, port);
    return frame({ dst: rigMac(to), src: rigMac(from), etherType: 0x0800, payload });
  };
  const flows = Array.from({ length: 16 }, (_, i) => 5000 + i * 77);
  for (let round = 0; round < 2; round++) {
    a.send(flows.map((port) => udp(port, 0, 1)));
    rig.run();
  }
  const arrived = [0, 1].map((pair) =>
    b.receive(pair).map((bytes) => new DataView(bytes.buffer, bytes.byteOffset).getUint16(34))
  );
  assertEquals([...(arrived[0] ?? []), ...(arrived[1] ?? [])].sort(), [...flows, ...flows].sort());
  assertEquals((arrived[0] ?? []).filter((port) => arrived[1]?.includes(port)), [], "no flow on both queues");
  assertEquals(arrived.every((list) => list.length > 0), true, "both queues are used");
  // B answers everything on its second queue: A's flows were sent on its first.
  b.send(flows.map((port) => udp(port, 1, 0)), 1);
  rig.run();
  assertEquals([a.receive(0).length, a.receive(1).length], [16, 0]);
});
