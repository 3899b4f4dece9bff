/**
 * A receiver whose buffers are long chains of tiny descriptors: the walk through them is charged to who sends to it, so
 * that its neighbours go on (a hostile pair of guests could have held the engine up for all others).
 */
import { assert, assertEquals } from "@std/assert";
import { QUEUE_F_INDIRECT, QUEUE_F_MRG_RXBUF } from "../../shared/layout/nic.ts";
import { VIRTQ_DESC_F_INDIRECT, VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE } from "../../shared/layout/virtio.ts";
import { writeEntry } from "../support/attack_kit.ts";
import { EngineRig, rigMac, type VirtioRigGuest, VIRTQUEUE_FORMATS } from "../support/engine_rig.ts";
import type { VirtqueueName } from "../support/formats.ts";
import { frame, MockGuest } from "../support/mock_guest.ts";
import type { RawDescriptor } from "../support/virtqueue.ts";

const PASSES = 400;
const BURST = 256;
const FRAME_BYTES = 1514;
const HEADER_BYTES = 12;
const ENTRIES = 1000;
const MIB = 1024 ** 2;

/** An indirect table that all buffers name: a first entry, and 999 of a byte each. Answers its descriptor. */
function chainTable(guest: VirtioRigGuest): RawDescriptor {
  const need = HEADER_BYTES + FRAME_BYTES;
  const buffers = guest.options.offset + 2 * MIB;
  for (let i = 0; i < ENTRIES; i++) {
    const next = guest instanceof MockGuest && i + 1 < ENTRIES ? VIRTQ_DESC_F_NEXT : 0;
    writeEntry(guest, guest.heap + i * 16, {
      addr: guest.iova(buffers + (i % 2 === 0 ? 4096 : 65536)),
      len: i === 0 ? need - (ENTRIES - 1) : 1,
      flags: VIRTQ_DESC_F_WRITE | next,
      next: i + 1 < ENTRIES ? i + 1 : 0,
    });
  }
  return { addr: guest.iova(guest.heap), len: ENTRIES * 16, flags: VIRTQ_DESC_F_INDIRECT };
}

/** The guest's memory in so many regions, the ones in use last. */
function splitMemory(rig: EngineRig, guest: VirtioRigGuest, regions: number): void {
  const { iova, offset } = guest.options;
  const unused = Array.from({ length: regions - 2 }, (_, i) => (
    { iova: (1n << 32n) + BigInt(i) * 0x10000n, size: 4096, window: offset }
  ));
  rig.setRegions(1, [
    ...unused,
    { iova, size: 2 * MIB, window: offset },
    { iova: iova + BigInt(2 * MIB), size: 2 * MIB, window: offset + 2 * MIB },
  ]);
}

for (const format of VIRTQUEUE_FORMATS) {
  for (const [regions, most] of [[1, PASSES / 2], [64, PASSES / 2]] as const) {
    Deno.test(`chains of ${ENTRIES} descriptors in ${regions} regions are paid for by their sender (${format})`, () =>
      checkNeighbour(format, regions, most));
  }
}

/** A neighbour of the sender and of the hostile receiver sends as much as if they were not there. */
function checkNeighbour(format: VirtqueueName, regions: number, most: number): void {
  const rig = new EngineRig(4);
  const flags = QUEUE_F_INDIRECT | QUEUE_F_MRG_RXBUF;
  const attach = (pool: number) =>
    rig.attachVirtqueues(pool === 1 ? format : "split", pool, {
      queueSize: pool < 2 ? 1024 : BURST,
      bufferBytes: pool < 2 ? 1024 : 2048,
    }, flags);
  const [sender, hostile, neighbour, receiver] = [attach(0), attach(1), attach(2), attach(3)];
  if (regions > 1) splitMemory(rig, hostile, regions);
  const table = chainTable(hostile);
  const toHostile = frame({ dst: rigMac(1), src: rigMac(0), bytes: FRAME_BYTES });
  const honest = frame({ dst: rigMac(3), src: rigMac(2) });
  for (let pass = 0; pass < PASSES; pass++) {
    sender.send(Array<Uint8Array>(Math.min(sender.room(), BURST)).fill(toHostile));
    neighbour.send(Array<Uint8Array>(neighbour.room()).fill(honest));
    while (receiver.rx().popUsed());
    receiver.fill(BURST - receiver.posted());
    const ring = hostile.rx();
    while (ring.popUsed());
    while (ring.free > 0) ring.addRaw([table]);
    ring.publish();
    rig.wasm.run(rig.nowNs += 1e5, 1);
    rig.takeCalls();
  }
  assertEquals(rig.counters(2).tx_frames, PASSES * BURST, "the neighbour's frames, a whole burst a pass");
  const { rx_frames: walked = 0 } = rig.counters(1);
  assert(walked > 0 && walked <= most, `${walked} frames were walked for`);
  rig.checkCanaries();
}
