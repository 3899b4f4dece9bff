/** Queue pairs that a VF offers: a policy that front-ends and their guests read when they connect. */
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { qemuArguments } from "../../shared/api/mod.ts";
import { cli } from "../support/cli.ts";
import { TestFabric } from "../support/fabric.ts";
import { FrontEnd } from "../support/front_end.ts";
import { must } from "../support/guests.ts";
import { judgedTest } from "../support/judges.ts";
import { TestProcess } from "../support/process.ts";
import { UmlGuest } from "../support/uml.ts";
import { until } from "../support/wait.ts";

/** What the vhost service shows of a VF's port. */
async function portOf(fabric: TestFabric, vf: number) {
  return await must(`${fabric.url("vhost")}/api/v1/ports/${vf}`);
}

/** The rows of `ethtool -l` for queue pairs: the most that there may be, and those in use. */
async function channels(guest: UmlGuest): Promise<string[]> {
  return [...(await guest.check("ethtool -l eth0")).matchAll(/^Combined:\s+(\d+)$/gm)].map(([, count]) => count ?? "");
}

Deno.test("queue pairs are in force for who connects next, and rings behind them are refused with the reason", async () => {
  await using fabric = await TestFabric.start(1, ["--no-standby"]);
  await using first = await FrontEnd.connect(fabric.vf(0).socket, { queuePairs: 4 }).start();
  await fabric.patch(0, { queuePairs: 2 });
  assertEquals(await first.ask("VHOST_USER_GET_QUEUE_NUM"), 33n, "this one keeps what it was offered");
  assertEquals((await portOf(fabric, 0)).session.queuePairs, 16);
  await first[Symbol.asyncDispose]();
  await until("it to be gone", async () => !(await portOf(fabric, 0)).connected);
  await using second = await FrontEnd.connect(fabric.vf(0).socket, { queuePairs: 2 }).start();
  assertEquals(await second.ask("VHOST_USER_GET_QUEUE_NUM"), 5n);
  assertEquals((await portOf(fabric, 0)).session.queuePairs, 2);
  await second[Symbol.asyncDispose]();
  await until("it to be gone", async () => !(await portOf(fabric, 0)).connected);
  await assertRejects(() => FrontEnd.connect(fabric.vf(0).socket, { queuePairs: 4 }).start());
  const { lastEnd } = await until("why it has ended", async () => {
    const port = await portOf(fabric, 0);
    return !port.connected && port;
  });
  assertStringIncludes(lastEnd, "vrings are 0–4, since 2 queue pairs were offered; more by queue_pairs");
});

judgedTest(["uml"], "a guest of User-Mode Linux has the queue pairs of its VF", async () => {
  await using fabric = await TestFabric.start(2, ["--no-standby"]);
  await fabric.patch(0, { queuePairs: 3 });
  await fabric.patch(1, { queuePairs: 1 });
  const [three, one] = await Promise.all([0, 1].map((vf) => UmlGuest.boot(fabric.vf(vf).socket)));
  if (!three || !one) throw new Error("two guests");
  await using _three = three;
  await using _one = one;
  assertEquals([(await channels(three))[0], (await channels(one))[0]], ["3", "1"]);
  await three.address("10.0.0.1/24");
  await one.address("10.0.0.2/24");
  await three.untilReaches("10.0.0.2");
  // It runs on as it is.
  await fabric.patch(0, { queuePairs: 1 });
  assertEquals((await channels(three))[0], "3");
  await three.untilReaches("10.0.0.2");
});

judgedTest(
  ["qemu"],
  "QEMU with more queue pairs than its VF offers says so; so does the command that would start it",
  async () => {
    await using fabric = await TestFabric.start(1, ["--no-standby"]);
    assertEquals((await cli(fabric, "vf", "set", "0", "queue_pairs", "2")).code, 0);
    const { mac, socket } = fabric.vf(0);
    const args = qemuArguments({ id: 0, mac, socket }, { memory: "64M", queuePairs: 4 });
    await using qemu = new TestProcess("qemu", "qemu-system-x86_64", [...args, "-display", "none", "-nodefaults"]);
    await until("it to say why not", () => qemu.errors.includes("you are asking more queues than supported: 2"));
    const { code, err } = await cli(fabric, "qemu", "0", "--queue-pairs", "4");
    assertEquals(code, 1);
    assertStringIncludes(err, "0 offers 2 queue pairs, not 4: fabric vf set 0 queue_pairs 4");
    assertEquals((await cli(fabric, "qemu", "0", "--queue-pairs", "2")).code, 0);
  },
);
