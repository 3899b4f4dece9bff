/**
 * hostile.md 9 and 7 against the engine alone: what a guest may do with packed rings and what it may not, beyond the
 * table of ring_attacks.ts. Buffer ids are the guest's own words, laps are believed only where they fit, and what
 * changes while it is read is read once.
 */
import { assert, assertEquals } from "@std/assert";
import { QUEUE_F_EVENT_IDX, QUEUE_F_INDIRECT } from "../../shared/layout/nic.ts";
import {
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
  VIRTQ_EVENT_FLAGS,
  VIRTQ_EVENT_OFF_WRAP,
  VIRTQ_PACKED_DESC_F_AVAIL,
  VIRTQ_PACKED_DESC_F_USED,
  VIRTQ_PACKED_DESC_FLAGS,
  VIRTQ_PACKED_DESC_ID,
} from "../../shared/layout/virtio.ts";
import {
  EngineRig,
  type PackedRigGuest,
  rigMac,
  type VirtioRigGuest,
  VIRTQUEUE_FORMATS,
} from "../support/engine_rig.ts";
import { Flipper } from "../support/flipper.ts";
import { frame, writeDescriptor } from "../support/mock_guest.ts";
import { baseAt, PackedDriver, writePackedEntry } from "../support/packed_guest.ts";
import { until } from "../support/wait.ts";

const BOTH = VIRTQ_PACKED_DESC_F_AVAIL | VIRTQ_PACKED_DESC_F_USED;
const TARGET = { dst: rigMac(0), src: rigMac(1) };

/** A test for each format of packed rings. */
function test(name: string, fn: (set: { rig: EngineRig; a: PackedRigGuest; evil: PackedRigGuest }) => void): void {
  for (const format of VIRTQUEUE_FORMATS.filter((format) => format.startsWith("packed"))) {
    Deno.test(`${name} (${format})`, () => {
      const rig = new EngineRig(2);
      const [a, evil] = [0, 1].map((vf) => rig.attachVirtqueues(format, vf, { queueSize: 7 }) as PackedRigGuest);
      if (!a || !evil) throw new Error("two guests were attached");
      a.fill(7);
      fn({ rig, a, evil });
      rig.checkCanaries();
    });
  }
}

/** The used descriptor at `index`: its id, and the bits that say in which lap it was used. */
function usedAt(ring: PackedDriver, index: number): { id: number; bits: number } {
  const at = ring.at(index);
  return {
    id: ring.view.getUint16(at + VIRTQ_PACKED_DESC_ID, true),
    bits: ring.view.getUint16(at + VIRTQ_PACKED_DESC_FLAGS, true) & BOTH,
  };
}

test("9 a buffer id that the ring has not got, or has twice, comes back as it is: the engine looks nothing up by it", ({ rig, a, evil }) => {
  const ring = evil.tx();
  const ids = [ring.size, 65535, 0x8000, 3, 3];
  ids.forEach((id, i) => {
    const sent = frame({ ...TARGET, bytes: 60 + i });
    const at = evil.heap + i * 4096;
    const len = evil.writeFrame(at, sent);
    ring.writeDescriptor(i, { addr: evil.iova(at), len, flags: VIRTQ_PACKED_DESC_F_AVAIL }, id);
    rig.run();
    assertEquals(a.receive(), [sent]);
    assertEquals(usedAt(ring, i), { id, bits: BOTH });
  });
  const rx = evil.rx();
  rx.writeDescriptor(0, {
    addr: evil.iova(evil.heap),
    len: 2048,
    flags: VIRTQ_PACKED_DESC_F_AVAIL | VIRTQ_DESC_F_WRITE,
  }, 40_000);
  a.send([frame({ dst: rigMac(1), src: rigMac(0) })]);
  rig.run();
  assertEquals(usedAt(rx, 0), { id: 40_000, bits: BOTH });
  assertEquals([rig.error(1, 0), rig.error(1, 1)], [0, 0]);
});

test("9 descriptors of another lap, or used ones, are nothing to take; once they are right they are taken", ({ rig, a, evil }) => {
  const ring = evil.tx();
  const sent = frame(TARGET);
  const len = evil.writeFrame(evil.heap, sent);
  // Two laps and a half: the right bits change at the ring's end, and the wrong ones with them.
  for (let place = 0; place < 2 * ring.size + 3; place++) {
    const wrap = Math.floor(place / ring.size) % 2 === 0;
    const index = place % ring.size;
    for (const bits of [ring.availableBits(!wrap), 0, BOTH]) {
      ring.writeDescriptor(index, { addr: evil.iova(evil.heap), len, flags: bits }, index);
      rig.run();
      assertEquals([a.receive(), rig.error(1, 1)], [[], 0], `place ${place}, flags ${bits}`);
    }
    ring.writeFlags(index, ring.availableBits(wrap));
    rig.run();
    assertEquals(a.receive(), [sent]);
    a.fill(1);
    assertEquals(usedAt(ring, index), { id: index, bits: wrap ? BOTH : 0 });
  }
  assertEquals(rig.counters(1).tx_frames, 2 * ring.size + 3);
});

test("9 what the engine has used may be made available again behind its back: it looks ahead only", ({ rig, a, evil }) => {
  const ring = evil.tx();
  for (let i = 0; i < 3; i++) evil.send([frame(TARGET)]);
  rig.run();
  assertEquals(a.receive().length, 3);
  for (let i = 0; i < 3; i++) ring.writeFlags(i, ring.availableBits(true));
  rig.run();
  assertEquals(a.receive(), []);
  // Those of the next lap it takes when it comes there.
  const len = evil.writeFrame(evil.heap, frame(TARGET));
  for (let i = 0; i < ring.size; i++) {
    ring.writeDescriptor(i, { addr: evil.iova(evil.heap), len, flags: ring.availableBits(i >= 3) });
  }
  a.fill(3);
  rig.run();
  assertEquals([a.receive().length, rig.error(1, 1)], [ring.size, 0]);
});

test("3 an indirect table's entries have one flag, WRITE, and no ids: whatever else they say is ignored", ({ rig, a, evil }) => {
  const sent = frame(TARGET);
  const at = evil.heap + 4096;
  const len = evil.writeFrame(at, sent);
  for (const others of [VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_INDIRECT, BOTH, 0xffff & ~VIRTQ_DESC_F_WRITE]) {
    writePackedEntry(evil.view, evil.heap, { addr: evil.iova(at), len: 20 }, others);
    writePackedEntry(evil.view, evil.heap + 16, { addr: evil.iova(at + 20), len: len - 20 }, others);
    evil.tx().addRaw([{ addr: evil.iova(evil.heap), len: 32, flags: VIRTQ_DESC_F_INDIRECT | VIRTQ_DESC_F_WRITE }]);
    evil.tx().publish();
    rig.run();
    assertEquals([rig.error(1, 1), a.receive()], [0, [sent]]);
    evil.room();
  }
});

Deno.test("3 a split ring's indirect descriptor has no direction either", () => {
  const rig = new EngineRig(2);
  const [a, evil] = [rig.attach(0), rig.attach(1)];
  a.fill(1);
  const sent = frame(TARGET);
  const len = evil.writeFrame(evil.heap + 4096, sent);
  writeDescriptor(evil.view, evil.heap, { addr: evil.iova(evil.heap + 4096), len });
  evil.tx().addRaw([{ addr: evil.iova(evil.heap), len: 16, flags: VIRTQ_DESC_F_INDIRECT | VIRTQ_DESC_F_WRITE }]);
  evil.tx().publish();
  rig.run();
  assertEquals([rig.error(1, 1), a.receive()], [0, [sent]]);
});

test("9 a position that the ring has not got is refused", ({ rig, evil }) => {
  const { size } = evil.tx();
  const [first, last] = [{ index: 0, wrap: true }, { index: size - 1, wrap: false }];
  for (const index of [size, size + 1, 0x7ffe]) {
    for (const wrap of [false, true]) {
      const base = baseAt({ index, wrap });
      assert(rig.wasm.startQueue(evil.queuePointer(1), base) !== 0, `0x${base.toString(16)}`);
    }
  }
  for (const position of [first, last]) {
    assertEquals(evil.tx().moveTo(position), baseAt(position));
    assertEquals(rig.wasm.startQueue(evil.queuePointer(1), baseAt(position)), 0);
  }
});

for (const format of VIRTQUEUE_FORMATS.filter((format) => format.startsWith("packed"))) {
  Deno.test(`9 whatever a driver writes about events, frames go on, and nobody else's memory is touched (${format})`, () => {
    for (const eventIdx of [0, QUEUE_F_EVENT_IDX]) {
      const rig = new EngineRig(2);
      const [a, evil] = [0, 1].map((vf) =>
        rig.attachVirtqueues(format, vf, { queueSize: 7 }, QUEUE_F_INDIRECT | eventIdx) as PackedRigGuest
      );
      if (!a || !evil) throw new Error("two guests were attached");
      for (const flags of [0, 1, 2, 3, 0xfffc, 0xffff]) {
        for (const offset of [0, 6, 7, 0x7fff, 0x8000, 0x8007, 0xffff]) {
          for (const ring of evil.queues) {
            ring.view.setUint16(ring.avail + VIRTQ_EVENT_OFF_WRAP, offset, true);
            ring.view.setUint16(ring.avail + VIRTQ_EVENT_FLAGS, flags, true);
          }
          a.fill(1);
          evil.fill(1);
          const [there, back] = [frame(TARGET), frame({ dst: rigMac(1), src: rigMac(0) })];
          evil.send([there]);
          a.send([back]);
          rig.run(20);
          assertEquals([a.receive(), evil.receive()], [[there], [back]]);
        }
      }
      rig.checkCanaries();
    }
  });
}

/** Lays chains of three out in a transmit ring, all that it holds, over one frame; answers where it is to start. */
function layOut(guest: VirtioRigGuest): number {
  const ring = guest.tx();
  const base = ring.reset();
  const pieces = [0, 20, 40].map((at) => ({ addr: guest.iova(guest.heap + at), len: 20 }));
  for (let i = 0; i + 3 <= ring.size; i += 3) {
    pieces.forEach((piece, k) => {
      const flags = k < 2 ? VIRTQ_DESC_F_NEXT : 0;
      if (ring instanceof PackedDriver) {
        ring.writeDescriptor(i + k, { ...piece, flags: flags | ring.availableBits(true) });
      } else ring.writeDescriptor(i + k, { ...piece, flags, next: k < 2 ? i + k + 1 : 0 });
    });
    if (!(ring instanceof PackedDriver)) ring.offer(i);
  }
  ring.publish();
  return base;
}

for (const format of VIRTQUEUE_FORMATS) {
  Deno.test(`7 descriptors whose flags, ids and lengths change while they are walked harm nobody (${format})`, async () => {
    const rig = new EngineRig(3);
    const [a, evil, peer] = [rig.attach(0), rig.attachVirtqueues(format, 1), rig.attach(2)];
    const tx = evil.tx();
    evil.writeFrame(evil.heap, frame({ dst: rigMac(0), src: rigMac(1), bytes: 48, etherType: 0x1234 }));
    // Of every descriptor the length's low half, the id (or flags) and the flags (or next).
    const offsets = Array.from({ length: tx.size }, (_, i) => [8, 12, 14].map((at) => tx.desc + i * 16 + at)).flat();
    const [next, write] = [VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE];
    const values = [0x80, 0x81, 0x8000, 0x8001, 20, next, 0x84, write, 63, 0xffff, 0, BOTH | next];
    await using flipper = new Flipper({ memory: rig.view.buffer as unknown as SharedArrayBuffer, offsets, values });
    let stops = 0;
    for (let round = 0; round < 200; round++) {
      rig.wasm.startQueue(evil.queuePointer(1), layOut(evil));
      const { rounds } = flipper;
      await until("the thread to be at it", () => flipper.rounds > rounds, 10_000, 0);
      rig.run(20);
      if (rig.error(1, 1) !== 0) stops++;
      a.receive();
      a.fill(32 - a.posted());
      const honest = frame({ dst: rigMac(0), src: rigMac(2), etherType: 0x4321 });
      peer.send([honest]);
      rig.run(1000);
      const got = a.receive();
      assertEquals(got.filter((bytes) => bytes[12] === 0x43), [honest]);
      for (const bytes of got) {
        assertEquals(bytes[11], bytes[12] === 0x43 ? 3 : 2, "nobody else's address came through");
      }
    }
    rig.checkCanaries();
    assert(stops > 0, "the engine saw what was rewritten");
  });
}
