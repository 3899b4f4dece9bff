/**
 * Emulated mode with the guest's own buffers on the NIC's rings: what comes is what was sent, each of the guest's buffers
 * comes back once and in order, and what cannot go directly is copied and counted.
 */
import { assert, assertEquals } from "@std/assert";
import {
  CTL,
  CTL_RATE_BLOCKED,
  HEAT_COLD,
  HEAT_HOT,
  OFFLOADS_ALL,
  Q_FLAGS,
  Q_HEAT,
  Q_OFFLOADS,
  Q_STATE,
  Q_USED,
  QUEUE_F_EVENT_IDX,
  QUEUE_F_INDIRECT,
  QUEUE_F_KEEP_POSITION,
  QUEUE_F_MRG_RXBUF,
  QUEUE_RUNNING,
  QUEUE_STOPPED,
  RUN_WORK,
} from "../../shared/layout/nic.ts";
import { ADV_REG_INTERRUPT } from "../../shared/layout/advanced.ts";
import { TX } from "../../services/vhost/pair_layout.ts";
import { DirectRig, type EmulatedGuest } from "../support/direct_rig.ts";
import { rigMac, VIRTQUEUE_FORMATS } from "../support/engine_rig.ts";
import { frame } from "../support/mock_guest.ts";
import { frameOf, type Shape } from "../support/offload_frames.ts";
import { baseAt } from "../support/packed_guest.ts";
import type { NetHeader } from "../support/reference_offload.ts";

/** Thirteen segments of TCP. */
const TO_BE_CUT: Shape = {
  ...{
    version: 4,
    isTcp: true,
    tags: [],
    ipOptions: 0,
    extensions: [],
    tcpOptions: 3,
    tcpFlags: 0x10,
    sequence: 1,
    id: 1,
  },
  ...{ dontFragment: true, payloadBytes: 13 * 1448, seed: 1, gsoSize: 1448, isEcn: false, hdrLen: 0 },
};
const SIZES = [60, 61, 128, 512, 1514, 1518];

/** A virtio-net header as it lies in memory. */
function headerOf({ flags, gsoType, hdrLen, gsoSize, csumStart, csumOffset }: NetHeader): Uint8Array {
  const view = new DataView(new ArrayBuffer(12));
  view.setUint8(0, flags);
  view.setUint8(1, gsoType);
  [hdrLen, gsoSize, csumStart, csumOffset].forEach((value, i) => view.setUint16(2 + 2 * i, value, true));
  return new Uint8Array(view.buffer);
}

function numbered(n: number, bytes: number): Uint8Array {
  const made = frame({ dst: rigMac(1), src: rigMac(0), bytes });
  new DataView(made.buffer).setUint32(14, n);
  return made;
}

for (const directness of ["copy", "zerocopy", "headersplit"] as const) {
  for (const format of VIRTQUEUE_FORMATS) {
    Deno.test(`${directness}, ${format}: frames of every size come as they were sent, in order`, () => {
      const world = new DirectRig(2);
      const a = world.attach(directness, format);
      const b = world.attach(directness, format);
      let n = 0;
      b.guest.fill(60);
      for (let round = 0; round < 60; round++) {
        const sent = Array.from({ length: 1 + round % 30 }, () => numbered(n, SIZES[n++ % SIZES.length] as number));
        a.guest.send(sent);
        world.run(20);
        const got = b.guest.receive();
        assertEquals(got.length, sent.length, `round ${round}, error ${a.error} ${b.error}`);
        assertEquals(got, sent);
        b.guest.fill(sent.length);
        assertEquals(a.guest.room(), 64);
      }
      assertEquals([a.error, b.error], [0, 0]);
      world.rig.checkCanaries();
      if (directness === "copy") return;
      const { sent, sentCopied } = a.counters;
      const { received, receivedCopied } = b.counters;
      assertEquals([sent, sentCopied, received + receivedCopied], [n, 0, n]);
      if (directness === "zerocopy") assert(received > n * 0.9, `${received} of ${n}`);
    });
  }
}

/** A pair of guests on zero copy. */
function pair(format: typeof VIRTQUEUE_FORMATS[number], options = {}, flags = QUEUE_F_INDIRECT) {
  const world = new DirectRig(2);
  return {
    world,
    a: world.attach("zerocopy", format, options, flags),
    b: world.attach("zerocopy", format, options, flags),
  };
}

/** Has the NIC look at what a guest sends, or not. */
function setNic(guest: EmulatedGuest, state: number): void {
  guest.rig.view.setUint32(guest.nicQueue(TX) + Q_STATE, state, true);
}

for (const format of VIRTQUEUE_FORMATS) {
  Deno.test(`${format}: what is sent comes back when the NIC has sent it, and not before`, () => {
    const { world, a, b } = pair(format);
    b.guest.fill(32);
    setNic(a, QUEUE_STOPPED);
    const sent = [1, 2, 3].map((n) => numbered(n, 200));
    a.guest.send(sent);
    world.run();
    assertEquals([a.guest.unsent(), a.counters.sent, b.guest.receive().length], [3, 3, 0]);
    setNic(a, QUEUE_RUNNING);
    world.run();
    assertEquals([a.guest.unsent(), b.guest.receive()], [0, sent]);
  });

  Deno.test(`${format}: what the NIC has not sent is taken back, and sent by whoever goes on there, once`, () => {
    const { world, a, b } = pair(format);
    b.guest.fill(60);
    const before = [0, 1].map((n) => numbered(n, 100));
    a.guest.send(before);
    world.run();
    setNic(a, QUEUE_STOPPED);
    const sent = [2, 3, 4].map((n) => numbered(n, 1514));
    a.guest.send(sent);
    world.run();
    a.recallSent();
    const isPacked = "moveTo" in a.guest.tx();
    assertEquals(a.position(1), isPacked ? baseAt({ index: 2, wrap: true }) : 2);
    assertEquals([b.guest.receive(), a.guest.unsent()], [before, 3]);
    world.run();
    assertEquals([b.guest.receive(), a.guest.unsent()], [sent, 0]);
  });

  Deno.test(`${format}: a guest without buffers loses nothing: host buffers take its frames, and it gets them copied`, () => {
    const { world, a, b } = pair(format);
    const sent: Uint8Array[] = [];
    for (let round = 0; round < 20; round++) {
      assertEquals(a.guest.room(), 64);
      const burst = Array.from({ length: 40 }, (_, i) => numbered(round * 40 + i, 300));
      a.guest.send(burst);
      sent.push(...burst);
      world.run(50);
    }
    const got: Uint8Array[] = [];
    while (got.length < sent.length) {
      b.guest.fill(60);
      world.run(50);
      got.push(...b.guest.receive());
      b.guest.fill(60 - b.guest.posted());
      world.run(10);
      got.push(...b.guest.receive());
    }
    assertEquals(got, sent);
    assertEquals([b.counters.received, b.counters.receivedCopied], [0, 800]);
  });
}

Deno.test("frames in more pieces than the NIC takes, or with short headers, are copied and counted; all come back in turn", () => {
  for (
    const [options, cuts, copied] of [
      [{ bufferBytes: 4096 }, [100, 200], 0],
      [{ bufferBytes: 4096, queueSize: 128 }, Array.from({ length: 45 }, (_, i) => 12 + i), 1],
      [{ bufferBytes: 4096, hdrBytes: 10 }, [], 1],
    ] as [object, number[], number][]
  ) {
    const { world, a, b } = pair("split", options);
    b.guest.fill(10);
    const sent = [numbered(1, 1000), numbered(2, 1000)];
    for (const one of sent) a.guest.sendPieces(one, cuts);
    world.run();
    assertEquals([b.guest.receive(), a.guest.unsent()], [sent, 0]);
    assertEquals([a.counters.sent, a.counters.sentCopied], [2 - 2 * copied, 2 * copied]);
  }
});

Deno.test("a long frame fills mergeable buffers as it is, and one buffer that is long enough", () => {
  for (const format of ["split", "packed"] as const) {
    for (
      const [flags, sizes, received] of [
        [QUEUE_F_MRG_RXBUF, [2048, 1600, 4096, 9014], 1],
        [0, [16384], 1],
        // Copied, out of the slots into which the NIC has cut it, since its buffer came too late for that.
        [QUEUE_F_MRG_RXBUF, [], 0],
      ] as [number, number[], number][]
    ) {
      const { world, a, b } = pair(format, { bufferBytes: 16384 }, flags);
      // The first frame has the buffers behind its own offered.
      b.guest.post([16384]);
      for (const size of sizes) b.guest.post([size]);
      a.guest.send([numbered(0, 100)]);
      world.run();
      const long = numbered(1, 9000);
      a.guest.send([long]);
      world.run();
      for (let i = 0; sizes.length === 0 && i < 6; i++) b.guest.post([2000]);
      world.run();
      assertEquals(b.guest.receive(), [numbered(0, 100), long], `${format} ${sizes}`);
      assertEquals(b.counters.received, received);
      assertEquals(b.error, 0);
    }
  }
});

Deno.test("a frame that fits no buffer of a guest without mergeable ones takes its turn with it, and is counted", () => {
  const { world, a, b } = pair("split");
  b.guest.fill(8);
  a.guest.send([numbered(0, 100)]);
  world.run();
  a.guest.send([numbered(1, 5000), numbered(2, 200)]);
  world.run();
  const got = b.guest.receive();
  assertEquals(got.map(({ byteLength }) => byteLength).filter((bytes) => bytes > 0), [100, 200]);
  assertEquals(got.at(-1), numbered(2, 200));
  assertEquals(world.rig.counters(b.pool).rx_too_small, 1);
  b.recallReceived();
  assertEquals([b.guest.posted() + got.length, b.error], [8, 0]);
});

Deno.test("a frame that waits for more buffers than there are is dropped by a recall, and its buffers come back", () => {
  const { world, a, b } = pair("packed", {}, QUEUE_F_MRG_RXBUF);
  b.guest.fill(2);
  a.guest.send([numbered(0, 100)]);
  world.run();
  assertEquals(b.guest.receive().length, 1);
  a.guest.send([numbered(1, 5000), numbered(2, 200)]);
  world.run();
  assertEquals(b.guest.receive(), []);
  b.recallReceived();
  assertEquals([b.guest.posted(), world.rig.counters(b.pool).rx_no_buffer], [1, 1]);
  world.run();
  assertEquals(b.guest.receive(), [numbered(2, 200)]);
});

Deno.test("a frame to be cut goes whole from guest to guest without a copy on the way, or in segments made by the NIC", () => {
  for (const accepts of [OFFLOADS_ALL, 0]) {
    const { world, a, b } = pair("split", { bufferBytes: 65536, queueSize: 16 }, QUEUE_F_INDIRECT | QUEUE_F_MRG_RXBUF);
    for (const [guest, index, offloads] of [[a, 1, OFFLOADS_ALL], [b, 0, accepts]] as const) {
      for (const at of [guest.guest.queuePointer(index), guest.nicQueue(index)]) {
        world.rig.view.setUint32(at + Q_OFFLOADS, offloads, true);
      }
    }
    for (let i = 0; i < 14; i++) b.guest.post([4096]);
    a.guest.send([numbered(0, 100)]);
    world.run();
    b.guest.receive();
    const { frame: bytes, header } = frameOf(TO_BE_CUT);
    bytes.set([rigMac(1), rigMac(0)].flatMap((mac) => mac.split(":").map((byte) => parseInt(byte, 16))));
    const at = a.guest.heap;
    const len = a.guest.writeFrame(at, bytes, headerOf(header));
    a.guest.tx().add([{ addr: a.guest.iova(at), len }]);
    a.guest.tx().publish();
    world.run();
    const got = b.guest.receive();
    if (accepts) assert(got.length === 1 && got[0]?.join() === bytes.join(), `${got.length} frames`);
    else assertEquals(got.map(({ byteLength }) => byteLength), Array(13).fill(1514));
    assertEquals([a.error, b.error, a.counters.sentCopied, b.counters.received > 0], [0, 0, 0, true]);
  }
});

Deno.test("a guest with several receive queues gets its flows where it sent them from; its frames are copied", () => {
  const { world, a, b } = pair("split", { queuePairs: 2 });
  for (const queue of [0, 1]) b.guest.fill(16, queue);
  const flow = numbered(7, 100);
  const back = frame({ dst: rigMac(0), src: rigMac(1), payload: flow.slice(14) });
  b.guest.send([back], 1);
  world.run();
  a.guest.send([flow]);
  world.run();
  assertEquals([b.guest.receive(0), b.guest.receive(1)], [[], [flow]]);
  assertEquals([b.counters.received, b.counters.receivedCopied, b.counters.sent], [0, 1, 1]);
});

Deno.test("a packed ring that sleeps with frames at the NIC keeps the used position, and asks for every kick", () => {
  const { world, a, b } = pair("packed", { eventIdx: true }, QUEUE_F_EVENT_IDX);
  const { view, wasm } = world.rig;
  const at = a.guest.queuePointer(1);
  view.setUint32(at + Q_FLAGS, view.getUint32(at + Q_FLAGS, true) | QUEUE_F_KEEP_POSITION, true);
  b.guest.fill(8);
  setNic(a, QUEUE_STOPPED);
  a.guest.send([numbered(0, 100), numbered(1, 100)]);
  world.run();
  wasm.coolAll();
  const kept = () => view.getUint16(view.getUint32(at + Q_USED, true), true);
  assertEquals([view.getUint32(at + Q_HEAT, true), kept()], [HEAT_COLD, 0x8000]);
  a.guest.send([numbered(2, 100)]);
  assert(a.guest.tx().takeKick());
  setNic(a, QUEUE_RUNNING);
  world.run();
  assertEquals([b.guest.receive().length, a.guest.unsent(), kept()], [3, 0, 0x8003]);
});

Deno.test("a driver's interrupt that comes for what it has seen already does not put it to sleep for ever", () => {
  const { world, a, b } = pair("split");
  b.guest.fill(16);
  world.run();
  world.rig.wasm.coolAll();
  assertEquals(world.rig.view.getUint32(b.rx + Q_HEAT, true), HEAT_COLD);
  // The NIC has interrupted, and there is nothing.
  const interrupt = b.registers + ADV_REG_INTERRUPT;
  world.rig.view.setUint32(interrupt, 0, true);
  assertEquals([world.rig.wasm.hasWork(b.rx) !== 0, world.rig.view.getUint32(interrupt, true)], [false, 1]);
  a.guest.send([numbered(0, 100)]);
  world.run();
  assertEquals([b.guest.receive().length, world.rig.view.getUint32(b.rx + Q_HEAT, true)], [1, HEAT_HOT]);
});

for (const directness of ["copy", "zerocopy"] as const) {
  Deno.test(`${directness}: frames of a guest whose pair does not run are no work: the worker sleeps between looks at them`, () => {
    const world = new DirectRig(2);
    const [a, b] = [world.attach(directness, "split"), world.attach(directness, "split")];
    const { view, wasm } = world.rig;
    b.guest.fill(8);
    world.run();
    view.setUint32(a.tx + Q_STATE, QUEUE_STOPPED, true);
    a.guest.send([numbered(0, 100)]);
    const status = wasm.run(0, 10);
    const blocked = view.getUint32(CTL + CTL_RATE_BLOCKED, true);
    assertEquals([status & RUN_WORK, blocked, wasm.coolAll()], [0, 1, 1]);
    view.setUint32(a.tx + Q_STATE, QUEUE_RUNNING, true);
    world.run();
    assertEquals(b.guest.receive().length, 1);
  });
}

for (const directness of ["copy", "zerocopy", "headersplit"] as const) {
  Deno.test(`${directness}: a guest without buffers for what comes keeps no CPU busy, and gets it when it has some`, () => {
    const world = new DirectRig(2);
    const [a, b] = [world.attach(directness, "split"), world.attach(directness, "split")];
    const { view, wasm } = world.rig;
    a.guest.send([numbered(0, 100), numbered(1, 100)]);
    world.run();
    const status = wasm.run(0, 10);
    const blocked = view.getUint32(CTL + CTL_RATE_BLOCKED, true);
    assertEquals([status & RUN_WORK, blocked, wasm.coolAll()], [0, 1, 1]);
    b.guest.fill(8);
    world.run();
    assertEquals(b.guest.receive().length, 2);
  });
}
