/**
 * Interrupts and kicks, over every format of virtqueues: a driver is interrupted when it asks to be and not otherwise, at
 * the very buffer if it names one; and it is told not to kick an engine that polls, but to kick one that goes to sleep.
 */
import { assert, assertEquals } from "@std/assert";
import { QUEUE_F_EVENT_IDX, QUEUE_F_INDIRECT } from "../../shared/layout/nic.ts";
import { EngineRig, rigMac, type VirtioRigGuest, VIRTQUEUE_FORMATS } from "../support/engine_rig.ts";
import { frame } from "../support/mock_guest.ts";
import { PackedDriver } from "../support/packed_guest.ts";

const SIZE = 8;

interface Pair {
  rig: EngineRig;
  sender: VirtioRigGuest;
  receiver: VirtioRigGuest;
  /** Sends so many frames in one burst; answers how many queues' drivers are interrupted for it. */
  burst(frames: number): number;
}

/** Interrupts that are not deferred. */
const AT_ONCE = { rxUsecs: 0, txUsecs: 0 };

/** Two guests; the sender wants no interrupts. */
function test(name: string, flags: number, fn: (pair: Pair) => void): void {
  for (const format of VIRTQUEUE_FORMATS) {
    Deno.test(`${name} (${format})`, () => {
      const rig = new EngineRig(2, { 0: AT_ONCE, 1: AT_ONCE });
      const attach = (vf: number) => rig.attachVirtqueues(format, vf, { queueSize: SIZE }, QUEUE_F_INDIRECT | flags);
      const [sender, receiver] = [attach(0), attach(1)];
      never(sender.tx());
      const burst = (frames: number) => {
        receiver.fill(frames);
        sender.send(Array.from({ length: frames }, () => frame({ dst: rigMac(1), src: rigMac(0) })));
        rig.takeCalls();
        rig.wasm.run(rig.nowNs += 1000, 20);
        assertEquals(receiver.receive().length, frames);
        return rig.takeCalls();
      };
      fn({ rig, sender, receiver, burst });
    });
  }
}

/** Has a driver ask for no interrupt, with EVENT_IDX or without. */
function never(queue: VirtioRigGuest["queues"][number]): void {
  queue.noInterrupt = true;
  if (!(queue instanceof PackedDriver)) interruptAfter(queue, 40_000);
}

/** Has a driver ask for an interrupt when `buffers` more have been used. */
function interruptAfter(queue: VirtioRigGuest["queues"][number], buffers: number): void {
  if (queue instanceof PackedDriver) queue.interruptAt(queue.behind(queue.nextUsed, buffers - 1));
  else queue.view.setUint16(queue.avail + 4 + 2 * queue.size, (queue.lastUsed + buffers - 1) & 0xffff, true);
}

test(
  "a driver that wants interrupts has one for each burst, one that wants none has none",
  0,
  ({ receiver, burst }) => {
    for (let round = 0; round < 5; round++) {
      receiver.rx().noInterrupt = false;
      assertEquals([burst(1), burst(3)], [1, 1]);
      receiver.rx().noInterrupt = true;
      assertEquals([burst(1), burst(3)], [0, 0]);
    }
  },
);

test(
  "EVENT_IDX: the interrupt comes with the buffer that the driver names, through the ring's end too",
  QUEUE_F_EVENT_IDX,
  ({ receiver, burst }) => {
    for (let round = 0; round < 3 * SIZE; round++) {
      const count = 1 + round % 3;
      for (let after = 1; after <= count; after++) {
        interruptAfter(receiver.rx(), after);
        assertEquals(burst(count), 1, `buffer ${after} of ${count} in round ${round}`);
      }
      interruptAfter(receiver.rx(), count + 2);
      assertEquals([burst(count), burst(1), burst(1)], [0, 0, 1], `behind ${count} in round ${round}`);
    }
  },
);

for (const flags of [0, QUEUE_F_EVENT_IDX]) {
  const name = `an engine that polls is not kicked, one that sleeps is${flags ? ", with EVENT_IDX" : ""}`;
  test(name, flags, ({ rig, sender, burst }) => {
    for (let round = 0; round < 2 * SIZE; round++) {
      burst(1);
      assertEquals(sender.tx().takeKick(), false, "it polls");
      assertEquals(rig.wasm.coolAll(), 0, "nothing is to be done");
      sender.send([frame({ dst: rigMac(1), src: rigMac(0) })]);
      assert(sender.tx().takeKick(), "it sleeps");
      assertEquals(rig.wasm.hasWork(sender.queuePointer(1)), 1, "the kick brings work");
      rig.wasm.heat(sender.queuePointer(1));
      assertEquals(rig.wasm.coolAll(), 1, "what came before it sleeps is seen");
      rig.run(20);
      sender.send([frame({ dst: rigMac(1), src: rigMac(0) })]);
      assertEquals(sender.tx().takeKick(), false, "it polls again");
      rig.run(20);
    }
  });
}
