/** hostile.md for guests that drive their VF themselves and attack by way of their memory. */
import { assertEquals } from "@std/assert";
import { QUEUE_REASONS } from "../../shared/engine/mod.ts";
import { MEMORY_GONE } from "../../shared/layout/nic.ts";
import { txMeta } from "../support/advanced_guest.ts";
import { Bystanders } from "../support/bystanders.ts";
import { DirectGuest } from "../support/direct_guest.ts";
import { TestFabric } from "../support/fabric.ts";
import { must } from "../support/guests.ts";
import { resize, unsealableMemfd } from "../support/memory.ts";
import { frame } from "../support/mock_guest.ts";
import { until } from "../support/wait.ts";

const MIB = 1024 ** 2;

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
