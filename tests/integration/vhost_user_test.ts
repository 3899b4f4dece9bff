/** What honest front-ends rely on: ring state that is handed out and taken back, rings that stop and go on. */
import { assert, assertEquals } from "@std/assert";
import { VHOST_USER_VRING_NOFD_MASK } from "../../shared/vhost_user/mod.ts";
import { TestFabric } from "../support/fabric.ts";
import { FEATURES, FrontEnd, memoryTable, singleRegion, u64, vringAddress, vringState } from "../support/front_end.ts";
import { frame } from "../support/mock_guest.ts";
import { until } from "../support/wait.ts";

/** Two honest guests on VFs 0 and 1. */
async function pair(fabric: TestFabric) {
  const a = await FrontEnd.connect(fabric.vf(0).socket).start();
  const b = await FrontEnd.connect(fabric.vf(1).socket).start();
  const bytes = (tag: number) => frame({ dst: fabric.vf(1).mac, src: fabric.vf(0).mac, bytes: 100 + tag });
  b.guest.fill(32);
  /** Sends one frame and waits for it. */
  const exchange = async (tag: number) => {
    a.guest.send([bytes(tag)]);
    a.kick();
    const [got] = await until(`frame ${tag}`, () => {
      const frames = b.guest.receive();
      return frames.length > 0 && frames;
    });
    assertEquals(got, bytes(tag));
  };
  return { a, b, exchange, bytes };
}

Deno.test("a stopped ring hands out its base, holds its frames, and goes on exactly there", async () => {
  await using fabric = await TestFabric.start(2);
  const { a, b, exchange, bytes } = await pair(fabric);
  await using _a = a;
  await using _b = b;
  for (let i = 0; i < 5; i++) await exchange(i);
  assertEquals(await a.stopVring(1), 5);
  a.guest.send([bytes(5), bytes(6)]);
  a.kick();
  assertEquals(await a.stopVring(1), 5, "a stopped ring stays where it is");
  assertEquals((await fabric.counters(0)).tx_frames, 5);
  assertEquals(await a.startVring(1, 5), 0n);
  const got: Uint8Array[] = [];
  await until("the held frames", () => {
    got.push(...b.guest.receive());
    return got.length === 2;
  });
  assertEquals(got, [bytes(5), bytes(6)]);
  assertEquals(await a.stopVring(1), 7);
});

Deno.test("indices wrap: a queue goes on past 65535 frames", async () => {
  await using fabric = await TestFabric.start(2);
  const { a, b, exchange } = await pair(fabric);
  await using _a = a;
  await using _b = b;
  assertEquals(await a.stopVring(1), 0);
  const tx = a.guest.tx();
  tx.availIdx = tx.lastUsed = 65_530;
  tx.publish();
  tx.view.setUint16(tx.used + 2, 65_530, true);
  assertEquals(await a.startVring(1, 65_530), 0n);
  for (let i = 0; i < 12; i++) await exchange(i);
  assertEquals(await a.stopVring(1), 6);
});

Deno.test("a disabled ring waits, an enabled one goes on; RESET_OWNER and status 0 stop everything", async () => {
  await using fabric = await TestFabric.start(2);
  const { a, b, exchange, bytes } = await pair(fabric);
  await using _a = a;
  await using _b = b;
  await exchange(0);
  assertEquals(await a.acknowledged("VHOST_USER_SET_VRING_ENABLE", vringState(1, 0)), 0n);
  a.guest.send([bytes(1)]);
  a.kick();
  assertEquals((await fabric.get("/api/v1/vfs/0")).queues.length, 1);
  assertEquals(await a.acknowledged("VHOST_USER_SET_VRING_ENABLE", vringState(1, 1)), 0n);
  await until("the frame that waited", () => b.guest.receive().length === 1);
  for (const stop of ["VHOST_USER_RESET_OWNER", "VHOST_USER_SET_STATUS", "VHOST_USER_RESET_DEVICE"] as const) {
    assertEquals(await a.acknowledged(stop, stop === "VHOST_USER_SET_STATUS" ? u64(0n) : undefined), 0n);
    assertEquals((await fabric.get("/api/v1/vfs/0")).queues, [], stop);
    assertEquals(await a.startVring(1, a.guest.tx().usedIdx), 0n);
    await exchange(9);
  }
  assertEquals(await a.acknowledged("VHOST_USER_SET_STATUS", u64(15n)), 0n);
  assertEquals(await a.ask("VHOST_USER_GET_STATUS"), 15n);
  assertEquals(await a.ask("VHOST_USER_GET_QUEUE_NUM"), 33n, "virtqueues, as CONFIG was agreed on");
  assertEquals(await a.ask("VHOST_USER_GET_MAX_MEM_SLOTS"), 62n);
});

Deno.test("a ring without a kick eventfd is polled", async () => {
  await using fabric = await TestFabric.start(2);
  const { a, b, bytes } = await pair(fabric);
  await using _a = a;
  await using _b = b;
  await a.stopVring(1);
  const { desc, used, avail } = a.guest.tx();
  a.send("VHOST_USER_SET_VRING_ADDR", vringAddress(1, a.user(desc), a.user(used), a.user(avail)));
  a.send("VHOST_USER_SET_VRING_KICK", u64(1n | VHOST_USER_VRING_NOFD_MASK));
  assertEquals(await a.acknowledged("VHOST_USER_SET_VRING_ENABLE", vringState(1, 1)), 0n);
  // Let the engine fall asleep first.
  const sleeps = async () => (await fabric.get("/api/v1/nic")).engine.sleepsTotal;
  const before = await sleeps();
  await until("the engine to sleep", async () => await sleeps() > before + 10);
  a.guest.send([bytes(3)]);
  await until("the frame, unannounced", () => b.guest.receive().length === 1);
});

Deno.test("without protocol features rings are enabled as they come", async () => {
  await using fabric = await TestFabric.start(1);
  await using front = FrontEnd.connect(fabric.vf(0).socket, { features: FEATURES & ~(1n << 30n) });
  await front.ask("VHOST_USER_GET_FEATURES");
  front.send("VHOST_USER_SET_FEATURES", u64(front.features));
  front.send("VHOST_USER_SET_MEM_TABLE", memoryTable([front.region]), [front.memory.fd.number]);
  const { desc, used, avail, size } = front.guest.tx();
  front.send("VHOST_USER_SET_VRING_NUM", vringState(1, size));
  front.send("VHOST_USER_SET_VRING_ADDR", vringAddress(1, front.user(desc), front.user(used), front.user(avail)));
  front.send("VHOST_USER_SET_VRING_KICK", u64(1n), [front.kicks[1]?.number ?? -1]);
  await until("the ring to run", async () => (await fabric.get("/api/v1/vfs/0")).queues.length === 1);
});

Deno.test("a region that is removed and added again takes its rings along", async () => {
  await using fabric = await TestFabric.start(2);
  const { a, b, exchange } = await pair(fabric);
  await using _a = a;
  await using _b = b;
  await exchange(0);
  assertEquals(await a.acknowledged("VHOST_USER_REM_MEM_REG", singleRegion(a.region)), 0n);
  const states = async () => (await fabric.get("/api/v1/vfs/0")).queues.map((queue: { state: string }) => queue.state);
  assertEquals(await states(), [], "they wait for it");
  assertEquals(await a.acknowledged("VHOST_USER_ADD_MEM_REG", singleRegion(a.region), [a.memory.fd.number]), 0n);
  assertEquals(await states(), ["running", "running"]);
  await exchange(1);
});

Deno.test("a driver is interrupted when it asks, and not when it does not", async () => {
  await using fabric = await TestFabric.start(2);
  const { a, b, exchange } = await pair(fabric);
  await using _a = a;
  await using _b = b;
  await exchange(0);
  await until("an interrupt on the receive queue", () => b.takeCalls(0) > 0n);
  b.guest.rx().noInterrupt = true;
  b.takeCalls(0);
  for (let i = 0; i < 5; i++) await exchange(i);
  assertEquals(b.takeCalls(0), 0n);
  b.guest.rx().noInterrupt = false;
  await exchange(6);
  await until("an interrupt again", () => b.takeCalls(0) > 0n);
  assert((await fabric.get("/api/v1/nic")).engine.callsTotal > 0);
});
