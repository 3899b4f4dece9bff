/** hostile.md 1–8 against the engine alone: the queue stops with its reason, the neighbours go on, no byte is touched. */
import { assertEquals } from "@std/assert";
import {
  BAD_ADDRESS,
  BAD_AVAIL_IDX,
  BAD_CHAIN_LENGTH,
  BAD_DIRECTION,
  BAD_INDIRECT,
  PERM_READ,
  QUEUE_F_INDIRECT,
  QUEUE_F_MRG_RXBUF,
} from "../../shared/layout/nic.ts";
import { VIRTQ_DESC_F_INDIRECT, VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE } from "../../shared/layout/virtio.ts";
import { EngineRig, rigMac } from "../support/engine_rig.ts";
import { frame, writeDescriptor } from "../support/mock_guest.ts";
import { RING_ATTACKS } from "../support/ring_attacks.ts";

/** Three VFs: 0 and 1 are honest, 2 attacks. */
function setUp() {
  const rig = new EngineRig(3);
  const [a, b, evil] = [rig.attach(0), rig.attach(1), rig.attach(2)];
  for (const guest of [a, b, evil]) guest.fill(16);
  return { rig, a, b, evil };
}

/** Checks that the honest ones still talk. */
function checkNeighbours({ rig, a, b }: ReturnType<typeof setUp>): void {
  const there = frame({ dst: rigMac(1), src: rigMac(0), bytes: 300 });
  a.send([there]);
  rig.run();
  assertEquals(b.receive(), [there]);
  rig.checkCanaries();
}

// A cold queue takes the general path; a warm one has a run, and the fast path meets the attack first.
for (const warm of [false, true]) {
  for (const { name, reason, counter, attack } of RING_ATTACKS) {
    Deno.test(`hostile ring ${name}${warm ? ", on the fast path" : ""}`, () => {
      const set = setUp();
      const target = { dst: rigMac(0), src: rigMac(2) };
      const honest = warm ? 2 : 0;
      for (let i = 0; i < honest; i++) {
        set.evil.send([frame({ ...target, etherType: 0x1234 })]);
        set.rig.run();
      }
      assertEquals(set.a.receive().length, honest);
      attack(set.evil, target);
      set.rig.run();
      assertEquals(set.rig.error(2, 1), reason ?? 0);
      if (counter) {
        assertEquals(set.rig.counters(2)[counter], 1);
        assertEquals(set.evil.tx().usedIdx, honest + 1, "its buffer came back");
      }
      assertEquals(set.a.receive(), []);
      checkNeighbours(set);
    });
  }
}

Deno.test("fast path: a tag that its VLAN does not allow is refused although the addresses are known", () => {
  const set = setUp();
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

Deno.test("hostile ring: a buffer across two regions that are not contiguous in the arena is copied part by part", () => {
  const { rig, a, b, evil } = setUp();
  const half = evil.options.bytes / 2;
  const offset = evil.options.offset;
  // IOVAs are contiguous, windows are exchanged: the second half of memory lies first in the arena.
  const iova = 0x9_0000_0000n;
  rig.setRegions(2, [
    { iova: evil.options.iova, size: evil.options.bytes, window: offset },
    { iova, size: half, window: offset + half },
    { iova: iova + BigInt(half), size: half, window: offset },
  ]);
  const sent = frame({ dst: rigMac(0), src: rigMac(2), bytes: 200 });
  const bytes = new Uint8Array(evil.view.buffer);
  const whole = new Uint8Array([...new Uint8Array(12), ...sent]);
  bytes.set(whole.slice(0, 100), offset + evil.options.bytes - 100);
  const saved = bytes.slice(offset, offset + 112);
  bytes.set(whole.slice(100), offset);
  // Descriptor 0 lies in the bytes that were just overwritten: use a later one.
  evil.tx().writeDescriptor(8, { addr: iova + BigInt(half) - 100n, len: whole.length });
  evil.tx().offer(8);
  evil.tx().publish();
  rig.run();
  bytes.set(saved, offset);
  assertEquals(rig.error(2, 1), 0);
  assertEquals(a.receive(), [sent]);
  checkNeighbours({ rig, a, b, evil });
});

Deno.test("hostile ring: a gap between regions stops the queue", () => {
  const set = setUp();
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

Deno.test("hostile ring: receive buffers in a read-only region are not written", () => {
  const set = setUp();
  const { offset, iova, bytes } = set.evil.options;
  set.rig.setRegions(2, [{ iova, size: bytes, window: offset }, {
    iova: iova + (1n << 32n),
    size: 1 << 20,
    window: offset + (1 << 20),
    perm: PERM_READ,
  }]);
  const rx = set.evil.rx();
  for (let i = 0; i < 16; i++) {
    rx.writeDescriptor(i, { addr: iova + (1n << 32n), len: 2048, flags: VIRTQ_DESC_F_WRITE });
  }
  const before = set.evil.bytes(offset + (1 << 20), 4096);
  set.a.send([frame({ dst: rigMac(2), src: rigMac(0) })]);
  set.rig.run();
  assertEquals(set.rig.error(2, 0), BAD_ADDRESS);
  assertEquals(set.evil.bytes(offset + (1 << 20), 4096), before);
  assertEquals(set.rig.counters(2).rx_queue_error, 1);
  checkNeighbours(set);
});

Deno.test("hostile ring 4: a device-readable receive buffer stops the receive queue, not the sender's", () => {
  const set = setUp();
  set.evil.rx().writeDescriptor(0, { addr: set.evil.iova(set.evil.heap), len: 2048 });
  set.a.send([frame({ dst: rigMac(2), src: rigMac(0) })]);
  set.rig.run();
  assertEquals(set.rig.error(2, 0), BAD_DIRECTION);
  assertEquals(set.rig.error(0, 1), 0);
  checkNeighbours(set);
});

Deno.test("hostile ring 5: a receive index that jumps stops the receive queue", () => {
  const set = setUp();
  set.evil.rx().publish(set.evil.rx().availIdx + 1000);
  set.a.send([frame({ dst: rigMac(2), src: rigMac(0) })]);
  set.rig.run();
  assertEquals(set.rig.error(2, 0), BAD_AVAIL_IDX);
  checkNeighbours(set);
});

Deno.test("hostile ring: a receiver that makes the engine walk for every frame stops, whoever sends to it", () => {
  const rig = new EngineRig(2);
  const [a, evil] = [rig.attach(0), rig.attach(1, { queueSize: 1024 }, QUEUE_F_INDIRECT | QUEUE_F_MRG_RXBUF)];
  const rx = evil.rx();
  for (let i = 0; i < 1023; i++) {
    rx.writeDescriptor(i, {
      addr: evil.iova(evil.heap),
      len: 0,
      flags: VIRTQ_DESC_F_WRITE | VIRTQ_DESC_F_NEXT,
      next: i + 1,
    });
  }
  rx.writeDescriptor(1023, { addr: evil.iova(evil.heap), len: 12, flags: VIRTQ_DESC_F_WRITE });
  for (let i = 0; i < 1000; i++) rx.offer(0);
  rx.publish();
  a.send([frame({ dst: rigMac(1), src: rigMac(0) })]);
  rig.run(20);
  assertEquals(rig.error(1, 0), BAD_CHAIN_LENGTH);
  assertEquals(rig.counters(1).rx_queue_error, 1);
});

Deno.test("hostile ring 5: the same head offered twice harms nobody but its owner", () => {
  const set = setUp();
  const len = set.evil.writeFrame(set.evil.heap + 4096, frame({ dst: rigMac(0), src: rigMac(2) }));
  set.evil.tx().writeDescriptor(0, { addr: set.evil.iova(set.evil.heap + 4096), len });
  for (let i = 0; i < 5; i++) set.evil.tx().offer(0);
  set.evil.tx().publish();
  set.rig.run();
  assertEquals(set.a.receive().length, 5);
  checkNeighbours(set);
});

Deno.test("hostile ring 3: INDIRECT without the feature stops the queue", () => {
  const rig = new EngineRig(2);
  const [a, evil] = [rig.attach(0), rig.attach(1, {}, 0)];
  a.fill(4);
  evil.tx().writeDescriptor(0, { addr: evil.iova(evil.heap), len: 16, flags: VIRTQ_DESC_F_INDIRECT });
  evil.tx().offer(0);
  evil.tx().publish();
  rig.run();
  assertEquals(rig.error(1, 1), BAD_INDIRECT);
});

Deno.test("a header split over three descriptors, a chain as long as the queue and an indirect one arrive whole", () => {
  const { rig, a, evil } = setUp();
  const sent = frame({ dst: rigMac(0), src: rigMac(2), bytes: 400 });
  const at = evil.heap + 200_000;
  const len = evil.writeFrame(at, sent);
  evil.tx().add(
    [[0, 3], [3, 4], [7, 7], [14, len - 14]].map(([from = 0, n = 0]) => ({ addr: evil.iova(at + from), len: n })),
  );
  evil.tx().publish();
  rig.run();
  assertEquals(a.receive(), [sent]);

  const size = evil.tx().size;
  const parts = Array.from(
    { length: size },
    (_, i) => ({ addr: evil.iova(at + i * 6), len: i === size - 1 ? len - i * 6 : 6 }),
  );
  evil.tx().add(parts);
  evil.tx().publish();
  rig.run();
  assertEquals(rig.error(2, 1), 0);
  assertEquals(a.receive(), [sent]);

  const table = evil.heap + 300_000;
  parts.forEach((part, i) => {
    const last = i === size - 1;
    writeDescriptor(evil.view, table + i * 16, {
      ...part,
      flags: last ? 0 : VIRTQ_DESC_F_NEXT,
      next: last ? 0 : i + 1,
    });
  });
  evil.tx().writeDescriptor(0, { addr: evil.iova(table), len: size * 16, flags: VIRTQ_DESC_F_INDIRECT });
  evil.tx().offer(0);
  evil.tx().publish();
  rig.run();
  assertEquals(rig.error(2, 1), 0);
  assertEquals(a.receive(), [sent]);
});

Deno.test("mergeable buffers: a frame fills as many as it needs, num_buffers tells, and too few are a drop", () => {
  const rig = new EngineRig(2);
  const [a, b] = [rig.attach(0), rig.attach(1, {}, QUEUE_F_INDIRECT | QUEUE_F_MRG_RXBUF)];
  b.fill(40, 0, 100);
  const sent = frame({ dst: rigMac(1), src: rigMac(0), bytes: 1000 });
  a.send([sent]);
  rig.run();
  const got: number[] = [];
  let buffers = 0;
  const at = (id: number) =>
    Number(b.view.getBigUint64(b.rx().desc + id * 16, true) - b.options.iova) + b.options.offset;
  for (let used = b.rx().popUsed(); used; used = b.rx().popUsed()) {
    if (buffers === 0) assertEquals(b.view.getUint16(at(used.id) + 10, true), 11);
    got.push(...b.bytes(at(used.id), used.len));
    buffers++;
  }
  assertEquals(buffers, 11);
  assertEquals(Uint8Array.from(got.slice(12)), sent);
  a.send([
    frame({ dst: rigMac(1), src: rigMac(0), bytes: 2000 }),
    frame({ dst: rigMac(1), src: rigMac(0), bytes: 2000 }),
  ]);
  rig.run();
  assertEquals(b.rx().usedIdx, 11 + 21);
  assertEquals(rig.counters(1).rx_no_buffer, 1);
});

Deno.test("a receive buffer that is too small is kept, and the frame counted", () => {
  const rig = new EngineRig(2);
  const [a, b] = [rig.attach(0), rig.attach(1)];
  b.fill(2, 0, 100);
  a.send([frame({ dst: rigMac(1), src: rigMac(0), bytes: 89 })]);
  rig.run();
  assertEquals(rig.counters(1).rx_too_small, 1);
  const fits = frame({ dst: rigMac(1), src: rigMac(0), bytes: 88 });
  a.send([fits]);
  rig.run();
  assertEquals(b.receive(), [fits]);
});

Deno.test("two queue pairs: a flow stays on one queue, comes back where it was sent, and all frames arrive", () => {
  const rig = new EngineRig(2);
  const [a, b] = [rig.attach(0, { queuePairs: 2 }), rig.attach(1, { queuePairs: 2 })];
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
  const arrived = [0, 1].map((pair) => b.receive(pair).map((bytes) => new DataView(bytes.buffer).getUint16(34)));
  assertEquals([...(arrived[0] ?? []), ...(arrived[1] ?? [])].sort(), [...flows, ...flows].sort());
  assertEquals((arrived[0] ?? []).filter((port) => arrived[1]?.includes(port)), [], "no flow on both queues");
  assertEquals(arrived.every((list) => list.length > 0), true, "both queues are used");
  // B answers everything on its second queue: A's flows were sent on its first.
  b.send(flows.map((port) => udp(port, 1, 0)), 1);
  rig.run();
  assertEquals([a.receive(0).length, a.receive(1).length], [16, 0]);
});
