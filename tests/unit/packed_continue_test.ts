/**
 * A packed receive ring whose engine died while it published a burst: whatever it had written by then, the successor and
 * the driver agree on what comes next, every buffer comes back once, and traffic goes on.
 */
import { assertEquals } from "@std/assert";
import { Q_STATE, QUEUE_F_INDIRECT, QUEUE_STOPPED } from "../../shared/layout/nic.ts";
import { VIRTQ_DESC_BYTES } from "../../shared/layout/virtio.ts";
import { EngineRig, rigMac } from "../support/engine_rig.ts";
import { frame } from "../support/mock_guest.ts";
import type { PackedGuest } from "../support/packed_guest.ts";

const SIZE = 16;
const BURST = 5;
const BUFFERS = 8;

const sent = (n: number) => frame({ dst: rigMac(1), src: rigMac(0), bytes: 60 + n });

for (const format of ["packed", "packed in-order"] as const) {
  for (const start of [{ index: 0, wrap: true }, { index: SIZE - 3, wrap: true }, { index: SIZE - 3, wrap: false }]) {
    // A bit for each used descriptor that had been written; the first is written last.
    for (let written = 0; written < 2 ** BURST; written++) {
      if (written & 1 && written !== 2 ** BURST - 1) continue;
      Deno.test(`from slot ${start.index}, wrap ${start.wrap}, written ${written.toString(2)} (${format})`, () => {
        const rig = new EngineRig(2);
        const a = rig.attach(0);
        const b = rig.attachVirtqueues(format, 1, { queueSize: SIZE, start }, QUEUE_F_INDIRECT);
        const queue = b.queuePointer(0);
        const ring = new Uint8Array(
          b.view.buffer,
          b.view.byteOffset + (b as PackedGuest).rx().desc,
          SIZE * VIRTQ_DESC_BYTES,
        );
        b.fill(BUFFERS);
        const before = rig.wasm.positionOf(queue) >>> 0;
        const offered = ring.slice();
        a.send(Array.from({ length: BURST }, (_, n) => sent(n)));
        rig.run();
        const next = rig.wasm.positionOf(queue) >>> 0;
        for (let n = 0; n < BURST; n++) {
          const at = ((start.index + n) % SIZE) * VIRTQ_DESC_BYTES;
          if ((written & (1 << n)) === 0) ring.set(offered.subarray(at, at + VIRTQ_DESC_BYTES), at);
        }
        rig.view.setUint32(queue + Q_STATE, QUEUE_STOPPED, true);
        assertEquals(rig.wasm.continueQueue(queue, before, next), 0);

        const got = b.receive();
        const isBegun = written !== 0;
        assertEquals(got.length, isBegun ? BURST : 0);
        // What had been written holds its frame, what had not is empty.
        got.forEach((bytes, n) => assertEquals(bytes, written & (1 << n) ? sent(n) : new Uint8Array()));
        a.send([sent(100), sent(101)]);
        rig.run();
        assertEquals(b.receive(), [sent(100), sent(101)]);
        assertEquals(b.posted(), BUFFERS - 2 - (isBegun ? BURST : 0));
        rig.checkCanaries();
      });
    }
  }
}

for (
  const [base, split, inOrder] of [
    [0x0000_0002, 0x0000_0002, 0x0000_0000],
    [0x0001_0003, 0x0001_0003, 0x0001_0001],
    [0x8006_8009, 0x8006_8009, 0x8006_8006],
    // DPDK's way to say where a ring begins: the available half alone.
    [0x0000_8000, 0x8000_8000, 0x8000_8000],
    [0x0000_8005, 0x8005_8005, 0x8005_8005],
  ] as const
) {
  for (const [format, wanted] of [["packed", split], ["packed in-order", inOrder]] as const) {
    const text = (position: number) => `0x${position.toString(16).padStart(8, "0")}`;
    Deno.test(`a ring with base ${text(base)} is at ${text(wanted)} (${format})`, () => {
      const rig = new EngineRig(1);
      const guest = rig.attachVirtqueues(format, 0, { queueSize: SIZE });
      const queue = guest.queuePointer(0);
      rig.view.setUint32(queue + Q_STATE, QUEUE_STOPPED, true);
      assertEquals(rig.wasm.startQueue(queue, base | 0), 0);
      assertEquals(text(rig.wasm.positionOf(queue) >>> 0), text(wanted));
    });
  }
}
