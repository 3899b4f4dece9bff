/** DPDK's testpmd on two VFs: traffic both ways over all the ring settings, counters that agree, restarts. */
import { assert, assertEquals } from "@std/assert";
import { type Descriptors, openDescriptors, untilNoMoreDescriptors } from "../support/descriptors.ts";
import { TestFabric } from "../support/fabric.ts";
import { setMode } from "../support/guests.ts";
import { judgedTest } from "../support/judges.ts";
import { checkPolicies } from "../support/policies.ts";
import { Testpmd } from "../support/testpmd.ts";
import { until } from "../support/wait.ts";

const SECONDS = 10;

/** Each port's frames go to the other: so they do when they come back unchanged in the io loop. */
function peers(a: string, b: string): string[] {
  return [`--eth-peer=0,${b}`, `--eth-peer=1,${a}`];
}

for (const mergeable of [1, 0]) {
  for (const queueSize of [256, 1024]) {
    for (const queuePairs of [1, 2]) {
      const name =
        `testpmd, mrg_rxbuf=${mergeable}, queue size ${queueSize}, ${queuePairs} queue pair(s): counters agree`;
      judgedTest(["testpmd"], name, async () => {
        await using fabric = await TestFabric.start(2);
        const [a, b] = [fabric.vf(0), fabric.vf(1)];
        const args = `,mrg_rxbuf=${mergeable},in_order=0`;
        await using testpmd = await Testpmd.start({
          prefix: "rf-matrix",
          ports: [{ ...a, args }, { ...b, args }],
          queueSize,
          queuePairs,
          forward: "io",
          extra: peers(a.mac, b.mac),
        });
        await testpmd.command("start tx_first 4");
        const reached = (await until("traffic both ways", async () => {
          const [x, y] = [await fabric.counters(0), await fabric.counters(1)];
          return Math.min(x.rx_frames ?? 0, y.rx_frames ?? 0) > 10_000 && x;
        }, 20_000)).rx_frames ?? 0;
        await new Promise((resolve) => setTimeout(resolve, SECONDS * 1000));
        await testpmd.command("stop");
        for (const [port, vf] of [[0, 0], [1, 1]] as const) {
          const stats = await testpmd.stats(port);
          const counters = await fabric.counters(vf);
          assertEquals(stats.rxErrors, 0);
          assert(stats.rxPackets > reached, "traffic went on");
          // What a full ring did not take testpmd freed itself, and does not count as sent.
          assertEquals(counters.tx_frames, stats.txPackets, `vf ${vf} sent`);
          assertEquals(counters.tx_bytes, stats.txBytes);
          assert((counters.rx_frames ?? 0) >= stats.rxPackets);
          const waiting = (counters.rx_frames ?? 0) - stats.rxPackets;
          assert(waiting <= queueSize * queuePairs, `${waiting} frames delivered that testpmd did not take`);
          const drops = Object.entries(counters).filter(([key, n]) => n > 0 && /^(tx|rx)_(?!frames|bytes)/.test(key));
          for (const [key] of drops) assertEquals(key, "rx_no_buffer");
        }
        const vfs = await fabric.get("/api/v1/vfs");
        for (const vf of vfs) {
          assertEquals(vf.queues.length, queuePairs * 2);
          for (const queue of vf.queues) assertEquals(queue.state, "running", JSON.stringify(queue));
        }
      });
    }
  }
}

for (const mode of ["passthrough", "emulated"]) {
  judgedTest(["testpmd"], `${mode}: policy changes by HTTP reach testpmd's traffic within 100 ms`, async () => {
    await using fabric = await TestFabric.start(2);
    const [a, b] = [fabric.vf(0), fabric.vf(1)];
    await using testpmd = await Testpmd.start({
      prefix: "rf-policy",
      ports: [a, b],
      forward: "txonly",
      extra: [...peers(a.mac, b.mac), "--txpkts=200"],
    });
    await testpmd.command("set txpkts 200");
    for (const vf of [0, 1]) await setMode(fabric, vf, { mode });
    await testpmd.command("start");
    await checkPolicies(fabric);
  });
}

judgedTest(
  ["testpmd"],
  "a guest killed with -9 comes back ten times on the same socket; its neighbour forwards on",
  async () => {
    await using fabric = await TestFabric.start(3);
    const [a, b, c] = [fabric.vf(0), fabric.vf(1), fabric.vf(2)];
    await using steady = await Testpmd.start({
      prefix: "rf-steady",
      ports: [a, b],
      forward: "mac",
      extra: peers(a.mac, b.mac),
    });
    await steady.command("start tx_first 1");
    const vhost = fabric.pid("vhost");
    let before: Descriptors = new Map();
    for (let round = 0; round < 10; round++) {
      const moved = (await fabric.counters(0)).tx_frames ?? 0;
      const victim = await Testpmd.start({ prefix: "rf-victim", ports: [c], forward: "txonly" });
      await victim.command("start");
      await until("its queues to run", async () => (await fabric.get("/api/v1/vfs/2")).queues.length === 2);
      await victim.process.end("SIGKILL");
      await until("the VF to be free", async () => !(await fabric.get("/api/v1/vfs/2")).attached);
      assert(((await fabric.counters(0)).tx_frames ?? 0) > moved, "the neighbour forwards on");
      if (round === 0) before = openDescriptors(vhost);
    }
    await untilNoMoreDescriptors(before);
  },
);

judgedTest(["testpmd"], "testpmd stops and restarts its port while the other VF keeps forwarding", async () => {
  await using fabric = await TestFabric.start(3);
  const [a, b, c] = [fabric.vf(0), fabric.vf(1), fabric.vf(2)];
  await using steady = await Testpmd.start({
    prefix: "rf-steady",
    ports: [a, b],
    forward: "mac",
    extra: peers(a.mac, b.mac),
  });
  await steady.command("start tx_first 1");
  for (let round = 0; round < 5; round++) {
    const moved = (await fabric.counters(0)).tx_frames ?? 0;
    const sent = (await fabric.counters(2)).tx_frames ?? 0;
    const restarting = await Testpmd.start({ prefix: "rf-restart", ports: [c], forward: "txonly" });
    await restarting.command("start");
    await until("it to send", async () => ((await fabric.counters(2)).tx_frames ?? 0) > sent);
    await restarting.quit();
    await until("its VF to be free", async () => !(await fabric.get("/api/v1/vfs/2")).attached);
    await until("the other to go on", async () => ((await fabric.counters(0)).tx_frames ?? 0) > moved);
  }
});
