/**
 * A split ring's engine that died in the middle of a batch: behind the mark all of the batch has happened, before it
 * nothing has, whichever indices it had written by then. A packed ring that was kept where it was; an advanced one that
 * was being written back.
 */
import { assertEquals } from "@std/assert";
import {
  B_COMMIT,
  B_WRITING,
  BAD_DESCRIPTOR,
  BATCH,
  CTL,
  CTL_GENERATION,
  OK,
  Q_DIRTY,
  Q_USED,
  Q_USED_IDX,
} from "../../shared/layout/nic.ts";
import { VIRTQ_USED_IDX } from "../../shared/layout/virtio.ts";
import { type AnyRigGuest, EngineRig, rigMac } from "../support/engine_rig.ts";
import { frame } from "../support/mock_guest.ts";

const BURST = 5;
const BUFFERS = 16;
const sent = (n: number) => frame({ dst: rigMac(1), src: rigMac(0), bytes: 60 + n });
const burst = (first: number) => Array.from({ length: BURST }, (_, n) => sent(first + n));

/** Has the successor go on with both guests' queues; answers what it says of each. */
function adopt(rig: EngineRig, guests: readonly AnyRigGuest[]): number[] {
  const queues = guests.flatMap((guest) => [0, 1].map((index) => guest.queuePointer(index)));
  const said = queues.map((queue) => rig.wasm.adoptQueue(queue));
  rig.wasm.endAdoption();
  // Queues that were forgotten by the lists of the dead engine are polled again.
  for (const guest of guests) rig.wasm.heat(guest.queuePointer(1));
  rig.view.setUint32(CTL + CTL_GENERATION, rig.view.getUint32(CTL + CTL_GENERATION, true) + 1, true);
  return said;
}

for (const isCommitted of [true, false]) {
  // A bit for each index that had been written, of the transmit ring and of the receive ring.
  for (let written = 0; written < (isCommitted ? 4 : 1); written++) {
    const when = isCommitted ? `behind the mark, indices written: ${written.toString(2)}` : "before the mark";
    Deno.test(`split rings, an engine that died ${when}: each frame comes once`, () => {
      const rig = new EngineRig(2);
      const [a, b] = [rig.attach(0, { queueSize: 32 }), rig.attach(1, { queueSize: 32 })];
      b.fill(BUFFERS);
      a.send(burst(0));
      rig.run();
      assertEquals(b.receive(), burst(0));
      b.fill(BUFFERS - b.posted());
      a.send(burst(BURST));
      rig.run();
      // What the driver has not seen yet: the index, of those that were not written.
      for (const [i, queue] of [a.queuePointer(1), b.queuePointer(0)].entries()) {
        const at = rig.view.getUint32(queue + Q_USED, true) + VIRTQ_USED_IDX;
        assertEquals(rig.view.getUint16(at, true), rig.view.getUint32(queue + Q_USED_IDX, true));
        if ((written & (1 << i)) === 0) rig.view.setUint16(at, BURST, true);
        rig.view.setUint32(queue + Q_DIRTY, 1, true);
      }
      rig.view.setUint32(BATCH + B_COMMIT, isCommitted ? 1 : 0, true);
      assertEquals(adopt(rig, [a, b]), [OK, OK, OK, OK]);
      assertEquals(b.receive(), isCommitted ? burst(BURST) : []);
      rig.run();
      assertEquals(b.receive(), isCommitted ? [] : burst(BURST));
      assertEquals(a.room(), 32);
      a.send(burst(2 * BURST));
      rig.run();
      assertEquals(b.receive(), burst(2 * BURST));
      rig.checkCanaries();
    });
  }
}

Deno.test("an advanced ring goes on; one that was being written back has to begin anew", () => {
  const rig = new EngineRig(2);
  const [a, b] = [rig.attachAdvanced(0), rig.attachAdvanced(1)];
  b.fill(BUFFERS);
  a.send(burst(0));
  rig.run();
  assertEquals(b.receive(), burst(0));
  assertEquals(adopt(rig, [a, b]), [OK, OK, OK, OK]);
  a.send(burst(BURST));
  rig.run();
  assertEquals(b.receive(), burst(BURST));
  rig.view.setUint32(BATCH + B_WRITING, b.queuePointer(0), true);
  assertEquals(adopt(rig, [a, b]), [OK, OK, BAD_DESCRIPTOR, OK]);
});
