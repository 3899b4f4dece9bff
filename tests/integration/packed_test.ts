/**
 * Packed virtqueues and IN_ORDER against the whole fabric: rings that stop and go on exactly where they were, in every
 * mode, while their data path changes, and when services die.
 */
import { assert, assertEquals } from "@std/assert";
import { VIRTIO_RING_F_EVENT_IDX } from "../../shared/layout/virtio.ts";
import { Bystanders } from "../support/bystanders.ts";
import { TestFabric } from "../support/fabric.ts";
import {
  BackEndClosed,
  bits,
  FEATURES,
  FrontEnd,
  type FrontEndGuest,
  u64,
  VIRTIO_NET_F_MRG_RXBUF,
  vringAddress,
  vringState,
} from "../support/front_end.ts";
import { setMode } from "../support/guests.ts";
import { frame } from "../support/mock_guest.ts";
import { NumberedStream } from "../support/numbered_stream.ts";
import { baseAt, type PackedGuest, type RingPosition } from "../support/packed_guest.ts";
import { until } from "../support/wait.ts";

const PACKED = ["packed", "packed in-order"] as const;
const MODES = ["passthrough", "emulated"] as const;
const MODE_CHANGES = 40;
/** A frame whose buffers were taken may come again when its taker was killed before it returned them: a burst. */
const REPEATED_MAX = 16;

/** Frames from VF 0 to VF 1 and back. */
function addresses(fabric: TestFabric, from: 0 | 1): { dst: string; src: string } {
  return { dst: fabric.vf(1 - from).mac, src: fabric.vf(from).mac };
}

/** Sends one frame from VF 0, in pieces or not, and waits until it has come to VF 1. */
async function exchange(
  fabric: TestFabric,
  a: FrontEnd<FrontEndGuest>,
  b: FrontEnd<FrontEndGuest>,
  bytes: number,
  cuts: number[] = [],
): Promise<void> {
  const sent = frame({ ...addresses(fabric, 0), bytes });
  b.guest.fill(2 - b.guest.posted());
  a.guest.room();
  a.guest.sendPieces(sent, cuts);
  a.kickIfWanted();
  const [got] = await until(`the frame of ${bytes} bytes`, () => {
    const frames = b.guest.receive();
    return frames.length > 0 && frames;
  });
  assertEquals(got, sent);
  await until("its buffers to come back", () => a.guest.unsent() === 0);
}

/** The place `count` descriptors behind the beginning of a ring. */
function place(size: number, count: number): RingPosition {
  return { index: count % size, wrap: Math.floor(count / size) % 2 === 0 };
}

for (const mode of MODES) {
  for (const format of PACKED) {
    Deno.test(`${mode}, ${format}: a ring stops and goes on at any place, in both laps and through its end`, async () => {
      await using fabric = await TestFabric.start(2);
      for (const vf of [0, 1]) await setMode(fabric, vf, { mode });
      for (const [queueSize, cuts] of [[6, []], [8, []], [7, [30]]] as const) {
        const attach = (vf: number) => FrontEnd.connectAs(format, fabric.vf(vf).socket, { queueSize }).start();
        await using a = await attach(0);
        await using b = await attach(1);
        const pieces = cuts.length + 1;
        for (let i = 0; i < 2 * queueSize + 2; i++) {
          const base = await a.stopVring(1);
          assertEquals(base, baseAt(place(queueSize, i * pieces)), `transmit ring after ${i} frames`);
          assertEquals(base, a.guest.tx().base);
          assertEquals(await a.startVring(1, base), 0n);
          const received = await b.stopVring(0);
          assertEquals(received, baseAt(place(queueSize, i)), `receive ring after ${i} frames`);
          assertEquals(await b.startVring(0, received), 0n);
          await exchange(fabric, a, b, 60 + i, [...cuts]);
        }
      }
    });
  }
}

for (const format of PACKED) {
  Deno.test(`${format}: what is offered to a stopped ring waits, also through the ring's end`, async () => {
    await using fabric = await TestFabric.start(2);
    const options = { queueSize: 5 };
    await using a = await FrontEnd.connectAs(format, fabric.vf(0).socket, options).start();
    await using b = await FrontEnd.connectAs(format, fabric.vf(1).socket, options).start();
    for (let round = 0; round < 4; round++) {
      await exchange(fabric, a, b, 100);
      const base = await a.stopVring(1);
      const sent = [0, 1, 2, 3].map((i) => frame({ ...addresses(fabric, 0), bytes: 200 + i }));
      a.guest.send(sent);
      a.kick();
      assertEquals(await a.stopVring(1), base, "a stopped ring stays where it is");
      assertEquals(a.guest.unsent(), 4);
      b.guest.fill(5 - b.guest.posted());
      assertEquals(await a.startVring(1, base), 0n);
      const got: Uint8Array[] = [];
      await until("what has waited", () => got.push(...b.guest.receive()) && got.length === 4);
      assertEquals(got, sent);
    }
  });

  Deno.test(`${format}: a ring begins where its front-end says, by both halves of the base or by the first alone`, async () => {
    await using fabric = await TestFabric.start(2);
    await using b = await FrontEnd.connectAs(format, fabric.vf(1).socket, { queueSize: 64 }).start();
    for (const start of [{ index: 0, wrap: true }, { index: 6, wrap: true }, { index: 3, wrap: false }]) {
      // DPDK's front-end says where a ring is available and nothing of where it is used; the wrap counter is 1 then.
      for (const base of start.wrap ? [baseAt(start), baseAt(start) & 0xffff] : [baseAt(start)]) {
        await using a = FrontEnd.connectPacked(fabric.vf(0).socket, { queueSize: 7 });
        await a.negotiate();
        await a.shareMemory();
        a.guest.tx().moveTo(start);
        assertEquals(await a.startVring(1, base), 0n);
        for (let i = 0; i < 9; i++) await exchange(fabric, a, b, 100 + i);
        assertEquals(await a.stopVring(1), a.guest.tx().base);
      }
    }
  });

  Deno.test(`${format}: sizes that are no powers of two, chains, indirect tables and merged buffers`, async () => {
    await using fabric = await TestFabric.start(2);
    const features = FEATURES | bits(VIRTIO_NET_F_MRG_RXBUF);
    for (const queueSize of [2, 3, 100, 1000]) {
      const options = { queueSize, features, bytes: 8 * 1024 ** 2 };
      await using a = await FrontEnd.connectAs(format, fabric.vf(0).socket, options).start();
      await using b = await FrontEnd.connectAs(format, fabric.vf(1).socket, options).start();
      for (let i = 0; i < Math.min(3 * queueSize, 150); i++) {
        const sent = frame({ ...addresses(fabric, 0), bytes: 60 + i * 9 });
        // Two merged buffers, the second one large enough for any of them.
        while (b.guest.posted() < 2) b.guest.post(b.guest.posted() === 0 ? [40] : [1024, 1000].slice(0, queueSize - 1));
        a.guest.room();
        a.guest.sendPieces(sent, queueSize > 2 ? [5, 40] : [5], { indirect: i % 2 === 0 && queueSize > 2 });
        a.kickIfWanted();
        const [got] = await until(`frame ${i} on rings of ${queueSize}`, () => {
          const frames = b.guest.receive();
          return frames.length > 0 && frames;
        });
        assertEquals(got, sent);
      }
    }
  });

  Deno.test(`${format}: ${MODE_CHANGES} changes between emulated mode and passthrough under two checked streams`, async () => {
    await using fabric = await TestFabric.start(2);
    const options = { queueSize: 50 };
    await using a = await FrontEnd.connectAs(format, fabric.vf(0).socket, options).start();
    await using b = await FrontEnd.connectAs(format, fabric.vf(1).socket, options).start();
    const streams = [
      new NumberedStream(a, b, addresses(fabric, 0)),
      new NumberedStream(b, a, addresses(fabric, 1)),
    ] as const;
    for (let i = 0; i < MODE_CHANGES; i++) {
      const mode = (i >> 1) % 2 === 0 ? "emulated" : "passthrough";
      let isDone = false;
      const change = setMode(fabric, i % 2, { mode }).finally(() => isDone = true);
      await Promise.all(streams.map((stream) => stream.during("the change of mode", () => isDone)));
      await change;
      await Promise.all(streams.map((stream) => stream.more(50)));
    }
    for (const stream of streams) {
      await stream.end();
      const counters = JSON.stringify([await fabric.counters(0), await fabric.counters(1)]);
      assertEquals([stream.received, stream.lost, stream.repeated], [stream.sent, 0, 0], counters);
    }
  });
}

for (const format of ["split", ...PACKED] as const) {
  for (const mode of MODES) {
    Deno.test(`${mode}, ${format}: nic and vhost killed under a stream: no buffer is lost, and none comes back twice`, async (t) => {
      await using fabric = await TestFabric.start(2);
      for (const vf of [0, 1]) await setMode(fabric, vf, { mode });
      const options = { queueSize: format === "split" ? 64 : 50 };
      await using a = await FrontEnd.connectAs(format, fabric.vf(0).socket, options).start();
      await using b = await FrontEnd.connectAs(format, fabric.vf(1).socket, options).start();
      const stream = new NumberedStream(a, b, addresses(fabric, 0));
      for (const name of ["nic", "vhost"]) {
        await t.step(`${name} killed`, async () => {
          await stream.more(500);
          const pid = fabric.pid(name);
          Deno.kill(pid, "SIGKILL");
          await stream.during(`${name} to be there again`, () => ![undefined, pid].includes(fabric.pids()[name]));
          if (name === "vhost") {
            for (const [front, vf] of [[a, 0], [b, 1]] as const) await comeBack(fabric, stream, front, vf);
          }
          await stream.more(500);
          await stream.end();
          assert(stream.repeated <= REPEATED_MAX, `${stream.repeated} frames came again`);
          stream.repeated = 0;
          checkBuffers(a.guest, b.guest);
        });
      }
    });
  }
}

for (const format of PACKED) {
  for (const mode of MODES) {
    Deno.test(`${mode}, ${format}: a driver that begins its rings anew when vhost comes back is taken at its word`, async () => {
      await using fabric = await TestFabric.start(2);
      for (const vf of [0, 1]) await setMode(fabric, vf, { mode });
      await using a = await FrontEnd.connectAs(format, fabric.vf(0).socket, { queueSize: 16 }).start();
      await using b = await FrontEnd.connectAs("split", fabric.vf(1).socket, { queueSize: 64 }).start();
      // In the first lap and in the second.
      for (const frames of [5, 21]) {
        for (let i = 0; i < frames; i++) await exchange(fabric, a, b, 100 + i);
        const pid = fabric.pid("vhost");
        Deno.kill(pid, "SIGKILL");
        await until("vhost to be there again", () => ![undefined, pid].includes(fabric.pids()["vhost"]));
        for (const queue of a.guest.queues) queue.reset();
        for (const [front, vf] of [[a, 0], [b, 1]] as const) {
          await until(
            "vhost to take its guest again",
            () => front.reconnect(fabric.vf(vf).socket, true).then(() => true).catch(() => false),
          );
        }
        for (let i = 0; i < 3; i++) await exchange(fabric, a, b, 200 + i);
      }
    });
  }
}

/** A front-end whose back-end has gone connects again, and its guest goes on; the stream does not wait for it. */
async function comeBack(
  fabric: TestFabric,
  stream: NumberedStream,
  front: FrontEnd<FrontEndGuest>,
  vf: number,
): Promise<void> {
  await stream.during(
    "vhost to take its guest again",
    () => front.reconnect(fabric.vf(vf).socket).then(() => true).catch(() => false),
  );
}

/** All transmit buffers are the driver's; all receive buffers are posted or the driver's. */
function checkBuffers(sender: FrontEndGuest, receiver: FrontEndGuest): void {
  assertEquals(sender.room(), sender.options.queueSize);
  assertEquals(receiver.rx().free + receiver.posted(), receiver.options.queueSize);
}

Deno.test("a packed driver is interrupted when it asks, and not when it does not; EVENT_IDX: at the very descriptor", async () => {
  await using fabric = await TestFabric.start(2);
  const features = FEATURES | bits(VIRTIO_RING_F_EVENT_IDX);
  await using a = await FrontEnd.connectPacked(fabric.vf(0).socket, { queueSize: 7 }).start();
  await using b = await FrontEnd.connectPacked(fabric.vf(1).socket, { queueSize: 7, features }).start();
  const rx = (b.guest satisfies PackedGuest).rx();
  await exchange(fabric, a, b, 100);
  await until("an interrupt on the receive queue", () => b.takeCalls(0) > 0n);
  rx.noInterrupt = true;
  b.takeCalls(0);
  for (let i = 0; i < 9; i++) await exchange(fabric, a, b, 100 + i);
  assertEquals(b.takeCalls(0), 0n);
  for (let round = 0; round < 9; round++) {
    rx.interruptAt(rx.behind(rx.nextUsed, 2));
    for (let i = 0; i < 2; i++) await exchange(fabric, a, b, 100 + i);
    assertEquals(b.takeCalls(0), 0n, `round ${round}`);
    await exchange(fabric, a, b, 100);
    await until("the interrupt that was asked for", () => b.takeCalls(0) === 1n);
  }
});

/** Whether the back-end refuses what is sent: it answers so, or closes the connection. */
async function refuses(ask: Promise<bigint>): Promise<boolean> {
  return await ask.then((code) => code !== 0n, (error) => {
    if (error instanceof BackEndClosed) return true;
    throw error;
  });
}

Deno.test("15 sizes, bases and areas that a packed ring cannot have are refused; its neighbours go on", async (t) => {
  await using fabric = await TestFabric.start(3);
  await using bystanders = await Bystanders.attach(fabric, "packed");
  const { nic, vhost } = fabric.pids();
  type Change = { size?: number; index?: number; desc?: number; avail?: number; used?: number };
  const bad: Change[] = [
    ...[0, 32769, 65536, 0xffff_ffff].map((size) => ({ size })),
    ...[7, 0x7fff].map((index) => ({ index })),
    { desc: 8 },
    { avail: 2 },
    { used: 2 },
  ];
  for (const change of bad) {
    await t.step(JSON.stringify(change), async () => {
      await using front = FrontEnd.connectPacked(fabric.vf(2).socket, { queueSize: 7 });
      await front.negotiate();
      await front.shareMemory();
      const { size = 7, index = 0, desc = 0, avail = 0, used = 0 } = change;
      const tx = front.guest.tx();
      front.send("VHOST_USER_SET_VRING_NUM", vringState(1, size));
      const start = async () => {
        front.send("VHOST_USER_SET_VRING_BASE", vringState(1, baseAt({ index, wrap: true })));
        const areas = [tx.desc + desc, tx.used + used, tx.avail + avail].map((at) => front.user(at));
        front.send("VHOST_USER_SET_VRING_ADDR", vringAddress(1, areas[0] ?? 0n, areas[1] ?? 0n, areas[2] ?? 0n));
        front.send("VHOST_USER_SET_VRING_KICK", u64(1n), [front.kicks[1]?.number ?? -1]);
        return await front.acknowledged("VHOST_USER_SET_VRING_ENABLE", vringState(1, 1));
      };
      assertEquals(await refuses(start()), true);
      await bystanders.check(2);
    });
    await until("the VF to be free", async () => !(await fabric.get("/api/v1/vfs/2")).attached);
  }
  assertEquals(fabric.pids(), { ...fabric.pids(), nic, vhost }, "no service had to be restarted");
});

Deno.test("split rings and packed ones, in order and not, talk to each other", async () => {
  await using fabric = await TestFabric.start(2);
  for (const from of ["split", "split in-order", ...PACKED] as const) {
    for (const to of ["split", "split in-order", ...PACKED] as const) {
      await using a = await FrontEnd.connectAs(from, fabric.vf(0).socket).start();
      await using b = await FrontEnd.connectAs(to, fabric.vf(1).socket).start();
      const stream = new NumberedStream(a, b, addresses(fabric, 0));
      await stream.more(300);
      await stream.end();
      assertEquals([stream.received, stream.lost, stream.repeated], [stream.sent, 0, 0], `${from} to ${to}`);
    }
  }
});
