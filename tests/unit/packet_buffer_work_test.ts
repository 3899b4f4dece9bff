/**
 * What packet buffers cost others: a receiver whose buffers take long to walk pays for the walks that hand on what waits
 * for it, one that has no room costs a look at its ring, and a queue without room holds up none of its pool's others.
 */
import { assert, assertEquals } from "@std/assert";
import { BAD_ADDRESS, QUEUE_F_INDIRECT, QUEUE_F_MRG_RXBUF } from "../../shared/layout/nic.ts";
import { VIRTQ_DESC_F_INDIRECT, VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE } from "../../shared/layout/virtio.ts";
import { writeEntry } from "../support/attack_kit.ts";
import { EngineRig, rigMac, type VirtioRigGuest, VIRTQUEUE_FORMATS } from "../support/engine_rig.ts";
import { frame, MockGuest } from "../support/mock_guest.ts";
import { frameOf, type Shape } from "../support/offload_frames.ts";
import { rigBuffer } from "../support/pool_buffer.ts";
import type { RawDescriptor } from "../support/virtqueue.ts";

const FLAGS = QUEUE_F_INDIRECT | QUEUE_F_MRG_RXBUF;
const MIB = 1024 ** 2;
const ENTRIES = 1000;
const FRAME_BYTES = 1514;
const BURST = 256;

/** An indirect table of ENTRIES pieces of a byte, in two regions in turn, `room` bytes in all. Answers its descriptor. */
function chainTable(guest: VirtioRigGuest, room: number): RawDescriptor {
  const buffers = guest.options.offset + 2 * MIB;
  for (let i = 0; i < ENTRIES; i++) {
    const next = guest instanceof MockGuest && i + 1 < ENTRIES ? VIRTQ_DESC_F_NEXT : 0;
    writeEntry(guest, guest.heap + i * 16, {
      addr: guest.iova(buffers + (i % 2 === 0 ? -4096 : 65536)),
      len: i === 0 ? room - (ENTRIES - 1) : 1,
      flags: VIRTQ_DESC_F_WRITE | next,
      next: i + 1 < ENTRIES ? i + 1 : 0,
    });
  }
  return { addr: guest.iova(guest.heap), len: ENTRIES * 16, flags: VIRTQ_DESC_F_INDIRECT };
}

/** The guest's memory in as many regions as there may be, the ones in use last. */
function splitMemory(rig: EngineRig, guest: VirtioRigGuest): void {
  const { iova, offset } = guest.options;
  rig.setRegions(1, [
    ...Array.from({ length: 62 }, (_, i) => (
      { iova: (1n << 32n) + BigInt(i) * 0x10000n, size: 4096, window: offset }
    )),
    { iova, size: 2 * MIB, window: offset },
    { iova: iova + BigInt(2 * MIB), size: 2 * MIB, window: offset + 2 * MIB },
  ]);
}

for (const format of VIRTQUEUE_FORMATS) {
  Deno.test(`what waits for a receiver of long chains is handed on at its own expense (${format})`, () => {
    const PASSES = 300;
    const rig = new EngineRig(4);
    const [sender, hostile, neighbour, receiver] = [0, 1, 2, 3].map((pool) =>
      rig.attachVirtqueues(pool === 1 ? format : "split", pool, {
        queueSize: pool < 2 ? 1024 : BURST,
        bufferBytes: pool < 2 ? 1024 : 2048,
      }, FLAGS)
    ) as [VirtioRigGuest, VirtioRigGuest, VirtioRigGuest, VirtioRigGuest];
    rigBuffer(rig, 1).buffer.give();
    splitMemory(rig, hostile);
    const table = chainTable(hostile, 12 + FRAME_BYTES);
    sender.send(Array<Uint8Array>(512).fill(frame({ dst: rigMac(1), src: rigMac(0), bytes: FRAME_BYTES })));
    for (let i = 0; sender.unsent() > 0; i++) {
      assert(i < 100, "the sender is never held up");
      rig.run(50);
      sender.room();
    }
    const honest = frame({ dst: rigMac(3), src: rigMac(2) });
    for (let pass = 0; pass < PASSES; pass++) {
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
    assert(walked > 0 && walked <= PASSES / 4, `${walked} frames were walked for`);
    rig.checkCanaries();
  });

  Deno.test(`a receiver without room for what waits is not walked again before it offers more (${format})`, () => {
    const rig = new EngineRig(2);
    const sender = rig.attach(0, { queueSize: 64 });
    const receiver = rig.attachVirtqueues(format, 1, { queueSize: 1024, bufferBytes: 1024 }, FLAGS);
    rigBuffer(rig, 1).buffer.give();
    const short = chainTable(receiver, ENTRIES + 12);
    sender.send([frame({ dst: rigMac(1), src: rigMac(0), bytes: FRAME_BYTES })]);
    rig.run(10);
    receiver.rx().addRaw([short]);
    receiver.rx().publish();
    rig.run(100);
    // Whoever walks it now finds an address that nobody has.
    writeEntry(receiver, receiver.heap, { addr: 0n, len: 1, flags: VIRTQ_DESC_F_WRITE, next: 0 });
    rig.run(100);
    assertEquals(rig.error(1, 0), 0);
    receiver.rx().addRaw([short]);
    receiver.rx().publish();
    rig.run(100);
    assertEquals(rig.error(1, 0), BAD_ADDRESS);
  });
}

const UDP: Shape = {
  ...{ version: 4, isTcp: false, tags: [], ipOptions: 0, extensions: [], tcpOptions: 0, tcpFlags: 0, sequence: 1 },
  ...{ id: 1, dontFragment: true, payloadBytes: 100, seed: 1, gsoSize: 0, isEcn: false, hdrLen: 0 },
};

Deno.test("a receive queue without room does not hold up the others of its pool", () => {
  const rig = new EngineRig(2);
  const sender = rig.attach(0, { queueSize: 64 });
  const receiver = rig.attach(1, { queueSize: 64, queuePairs: 2 });
  const flow = (port: number) => {
    const { frame } = frameOf(UDP);
    frame.set([rigMac(1), rigMac(0)].flatMap((mac) => mac.split(":").map((byte) => parseInt(byte, 16))));
    new DataView(frame.buffer).setUint16(34, port);
    return frame;
  };
  const send = (port: number, n: number) => {
    sender.send(Array<Uint8Array>(n).fill(flow(port)));
    rig.run(20);
  };
  // A flow for each queue.
  [0, 1].forEach((pair) => receiver.fill(20, pair));
  const flows: number[] = [];
  for (let port = 1; flows[0] === undefined || flows[1] === undefined; port++) {
    send(port, 1);
    flows[receiver.receive(0).length === 1 ? 0 : (receiver.receive(1), 1)] ??= port;
  }
  rigBuffer(rig, 1).buffer.give();
  const [stuck = 0, going = 0] = flows;
  send(stuck, receiver.posted(0) + 10);
  const arrived = () => receiver.receive(1).length;
  for (let round = 0; round < 10; round++) {
    receiver.fill(10, 1);
    send(going, 10);
    assertEquals(arrived(), 10);
  }
  receiver.receive(0);
  receiver.fill(20, 0);
  rig.run(20);
  assertEquals(receiver.receive(0).length, 10, "what waited is there when there is room");
  assertEquals(rig.counters(1).rx_no_buffer, 0);
});
