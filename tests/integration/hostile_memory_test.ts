/** hostile.md for guests that attack by way of their memory: files that shrink, floods of tables. */
import { assert, assertEquals } from "@std/assert";
import { GUEST_PACE, LOST_MEMORY_COST, QUEUE_REASONS } from "../../shared/engine/mod.ts";
import { MEMORY_GONE } from "../../shared/layout/nic.ts";
import { txMeta } from "../support/advanced_guest.ts";
import { Bystanders } from "../support/bystanders.ts";
import { DirectGuest } from "../support/direct_guest.ts";
import { TestFabric } from "../support/fabric.ts";
import { FrontEnd, GUEST_BASE, memoryTable, USER_BASE } from "../support/front_end.ts";
import { must, setMode, Stream, TestGuest } from "../support/guests.ts";
import { resize, unsealableMemfd } from "../support/memory.ts";
import { frame } from "../support/mock_guest.ts";
import { until } from "../support/wait.ts";

const MIB = 1024 ** 2;
const PAGE_BYTES = 4096;
const FLOOD_MS = 2000;

interface Queue {
  state: string;
  reason?: string;
}

async function queues(fabric: TestFabric, vf: number): Promise<Queue[]> {
  return (await must(`${fabric.url("nic")}/api/v1/state`)).vfs[vf].queues;
}

/** A guest attaches, loses most of its memory, sends from there until the NIC stops its queues, and goes away. */
async function attachAndLose(fabric: TestFabric, vf: number): Promise<void> {
  {
    await using evil = await DirectGuest.attach(fabric, vf, unsealableMemfd(DirectGuest.bytes));
    evil.guest.tx().add(evil.guest.options.iova + BigInt(3 * MIB), txMeta(64));
    resize(evil.memory.fd, MIB);
    evil.guest.tx().doorbell();
    evil.signal();
    await until("the NIC to stop the queues", async () => {
      const all = await queues(fabric, vf);
      return all.length === 2 && all.every(({ reason }) => reason === QUEUE_REASONS[MEMORY_GONE]);
    });
  }
  await until("the VF to be free", async () => !(await must(`${fabric.info.api}/api/v1/vfs/${vf}`)).attached);
}

Deno.test("a guest that loses memory again and again stops itself, not the guest that has its old window", async () => {
  await using fabric = await TestFabric.start(4);
  await using bystanders = await Bystanders.attach(fabric);
  await attachAndLose(fabric, 2);
  // The arena's lowest free window is used first: the innocent guest gets the one where the faults were.
  await using innocent = await DirectGuest.attach(fabric, 3);
  for (let round = 0; round < 3; round++) {
    await attachAndLose(fabric, 2);
    innocent.guest.send([frame({ dst: fabric.vf(0).mac, src: fabric.vf(3).mac })]);
    innocent.signal();
    await until("the innocent guest's frame to be sent", () => innocent.guest.unsent() === 0);
    assertEquals((await queues(fabric, 3)).map(({ state }) => state), ["running", "running"]);
    assertEquals(innocent.events, []);
  }
  await bystanders.check();
});

/** Asks for table after table; answers how many were served, and what a guest's budget was meanwhile. */
async function flood(ask: (n: number) => Promise<unknown>): Promise<{ served: number; budget: number }> {
  const start = performance.now();
  let served = 0;
  while (performance.now() - start < FLOOD_MS) {
    await ask(served);
    served++;
  }
  const seconds = (performance.now() - start) / 1000;
  return { served, budget: GUEST_PACE.burst + GUEST_PACE.perSecond * seconds };
}

Deno.test("a flood of tables of 64 regions is held to the guest's budget, and a stream beside it loses nothing", async () => {
  await using fabric = await TestFabric.start(3, ["--guests", "2"]);
  const [a, b] = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)];
  for (const vf of [0, 1]) await setMode(fabric, vf, { mode: "passthrough", plugin: "advanced" });
  const stream = await Stream.start(a, b, { rate: 10_000, size: 128 });
  await using evil = await DirectGuest.attach(fabric, 2);
  // No region stays from one table to the next.
  const table = (n: number) =>
    Array.from({ length: 64 }, (_, i) => ({
      iova: BigInt(i) * BigInt(MIB),
      size: PAGE_BYTES,
      offset: (i * 2 + n % 2) * PAGE_BYTES,
    }));
  const fds = Array(64).fill(evil.memory.fd.number);
  const { served, budget } = await flood((n) =>
    Promise.all([0, 1, 2, 3, 4, 5, 6, 7].map((i) => evil.device.request({ op: "dmaSet", regions: table(n + i) }, fds)))
  );
  assert(served * 8 * 65 <= budget, `${served * 8} tables of 64 regions were served: the budget was ${budget}`);
  assert(await stream.end() > 0);
});

Deno.test("a front-end that floods with memory tables has its port's budget, however often it connects", async () => {
  await using fabric = await TestFabric.start(3);
  await using bystanders = await Bystanders.attach(fabric);
  const table = (n: number) =>
    memoryTable(Array.from({ length: 8 }, (_, i) => ({
      guestAddress: GUEST_BASE + BigInt(i * MIB),
      size: BigInt(PAGE_BYTES),
      userAddress: USER_BASE + BigInt(i * MIB),
      mmapOffset: BigInt((i * 2 + n % 2) * PAGE_BYTES),
    })));
  const { served, budget } = await flood(async (n) => {
    await using evil = FrontEnd.connect(fabric.vf(2).socket);
    await evil.negotiate();
    const fds = Array(8).fill(evil.memory.fd.number);
    for (let i = 0; i < 25; i++) {
      assertEquals(await evil.acknowledged("VHOST_USER_SET_MEM_TABLE", table(n + i), fds), 0n);
    }
  });
  assert(served * 25 * 9 <= budget, `${served * 25} tables of 8 regions were served: the budget was ${budget}`);
  await bystanders.check();
});

Deno.test("a guest that truncates its memory in a loop waits after each time", async () => {
  await using fabric = await TestFabric.start(3);
  await using bystanders = await Bystanders.attach(fabric);
  await using evil = await DirectGuest.attach(fabric, 2, unsealableMemfd(DirectGuest.bytes));
  const { device, guest, memory } = evil;
  const region = { iova: guest.options.iova, size: DirectGuest.bytes, offset: 0 };
  const { served, budget } = await flood(async () => {
    evil.events.length = 0;
    guest.tx().tail = 0;
    guest.tx().add(guest.options.iova + BigInt(3 * MIB), txMeta(64));
    resize(memory.fd, MIB);
    guest.tx().doorbell();
    evil.signal();
    await until("the queues to stop", () => evil.events.length === 2, 10_000, 0);
    for (const index of [0, 1]) await device.request({ op: "queueStop", index });
    resize(memory.fd, DirectGuest.bytes);
    guest.tx().doorbell(0);
    guest.rx().doorbell(0);
    await device.request({ op: "dmaSet", regions: [region] }, [memory.fd.number]);
    for (const index of [0, 1]) await evil.start(index);
  });
  assert(served * LOST_MEMORY_COST <= budget, `${served} times: the budget was ${budget}`);
  await bystanders.check();
});
