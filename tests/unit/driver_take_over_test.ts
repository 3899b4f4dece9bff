/**
 * A driver pair whose engine died in the middle of a batch: behind the mark all of the batch has happened, before it nothing
 * has. Frames from the NIC lie in the ring until they are given back, and frames to it count from the doorbell on.
 */
import { assertEquals } from "@std/assert";
import { ADV_REG_TAIL, ADV_REGISTER_STRIDE } from "../../shared/layout/advanced.ts";
import { B_COMMIT, BATCH, OK, Q_DIRTY, Q_LAST_AVAIL, Q_USED_IDX } from "../../shared/layout/nic.ts";
import { movePair, PAIR_SIZE, TX } from "../../services/vhost/pair_layout.ts";
import { DirectRig } from "../support/direct_rig.ts";
import { rigMac } from "../support/engine_rig.ts";
import { frame } from "../support/mock_guest.ts";

const FRAMES = 9;
const DONE = 4;
const sent = (n: number) => frame({ dst: rigMac(1), src: rigMac(0), bytes: 60 + n });
const frames = Array.from({ length: FRAMES }, (_, n) => sent(n));

for (const isCommitted of [false, true]) {
  const when = isCommitted ? "behind the mark" : "before the mark";

  Deno.test(`an engine that died ${when} with frames from the NIC in hand: each frame comes once`, () => {
    const { rig, a, b, run } = start();
    // Nobody has room for them: they wait in the pair's ring.
    a.guest.send(frames);
    run();
    assertEquals(b.guest.receive(), []);
    rig.view.setUint32(b.rx + Q_USED_IDX, DONE, true);
    rig.view.setUint32(b.rx + Q_DIRTY, DONE, true);
    rig.view.setUint32(BATCH + B_COMMIT, isCommitted ? 1 : 0, true);
    assertEquals(rig.wasm.adoptQueue(b.rx), OK);
    rig.wasm.endAdoption();
    b.guest.fill(2 * FRAMES);
    run();
    assertEquals(b.guest.receive(), frames.slice(isCommitted ? DONE : 0));
    // All descriptors go round: none was lost.
    for (let round = 0; round < 2 * PAIR_SIZE / FRAMES; round++) {
      b.guest.fill(2 * FRAMES - b.guest.posted());
      a.guest.send(frames);
      run();
      assertEquals(b.guest.receive(), frames);
    }
  });

  Deno.test(`an engine that died ${when} with frames for the NIC in hand: it has them, or nobody took them`, () => {
    const { rig, a, b, run } = start();
    const tail = () => rig.view.getUint32(a.registers + TX * ADV_REGISTER_STRIDE + ADV_REG_TAIL, true);
    b.guest.fill(FRAMES);
    a.guest.send(frames.slice(0, 2));
    run();
    assertEquals([b.guest.receive(), tail()], [frames.slice(0, 2), 2]);
    rig.view.setUint32(a.tx + Q_LAST_AVAIL, 2 + DONE, true);
    rig.view.setUint32(a.tx + Q_DIRTY, DONE, true);
    rig.view.setUint32(BATCH + B_COMMIT, isCommitted ? 1 : 0, true);
    assertEquals(rig.wasm.adoptQueue(a.tx), OK);
    rig.wasm.endAdoption();
    const position = isCommitted ? 2 + DONE : 2;
    assertEquals([rig.view.getUint32(a.tx + Q_LAST_AVAIL, true), tail()], [position, position]);
  });
}

Deno.test("a pair that lies elsewhere in the successor's arena goes on with the NIC's addresses", () => {
  const { rig, a, b, run } = start();
  b.guest.fill(FRAMES);
  a.guest.send(frames.slice(0, DONE));
  run();
  assertEquals(b.guest.receive(), frames.slice(0, DONE));
  const { rx, tx, pool, registers, directness } = b;
  const memory = b.memory + 64 * 1024 ** 2;
  const bytes = new Uint8Array(rig.view.buffer);
  const place = { rx, tx, memory, registers, pool, emulated: true, directness, kick: 0, call: 0, sent: 0 };
  // In one arena there is one memory: the NIC's half of it moves too, its addresses stay.
  bytes.copyWithin(memory, b.memory, b.memory + 8 * 1024 ** 2);
  bytes.fill(0, b.memory, b.memory + 8 * 1024 ** 2);
  movePair(rig.view, place);
  rig.setRegions(b.vf, [{ iova: BigInt(b.memory), size: 8 * 1024 ** 2, window: memory }]);
  for (const at of [b.nicQueue(0), b.nicQueue(1)]) {
    rig.wasm.forgetRegions(at);
    assertEquals(rig.wasm.bindRings(at), OK);
  }
  for (const at of [rx, tx]) assertEquals(rig.wasm.adoptQueue(at), OK);
  rig.wasm.endAdoption();
  b.guest.fill(FRAMES - b.guest.posted());
  a.guest.send(frames);
  run();
  assertEquals(b.guest.receive(), frames);
});

function start() {
  const test = new DirectRig(2);
  const [a, b] = [test.attach("copy", "split"), test.attach("copy", "split")];
  return { rig: test.rig, a, b, run: () => test.run() };
}
