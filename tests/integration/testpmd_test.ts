/** DPDK's testpmd on two VFs: traffic both ways over all the ring settings, counters that agree, restarts. */
import { assert, assertEquals } from "@std/assert";
import { type Descriptors, openDescriptors, untilNoMoreDescriptors } from "../support/descriptors.ts";
import { TestFabric } from "../support/fabric.ts";
import { setMode } from "../support/guests.ts";
import { judgedTest } from "../support/judges.ts";
import { checkPolicies } from "../support/policies.ts";
import { Testpmd } from "../support/testpmd.ts";
import { until } from "../support/wait.ts";

/** Each port's frames go to the other: so they do when they come back unchanged in the io loop. */
function peers(a: string, b: string): string[] {
  return [`--eth-peer=0,${b}`, `--eth-peer=1,${a}`];
}

/** So many frames go round each way in a cell of the matrix. */
const FRAMES = 200_000;

/** What a port asks of its virtio-user device. Where DPDK has no such combination it takes the next simpler one. */
interface Setting {
  packed_vq: number;
  in_order: number;
  mrg_rxbuf: number;
  vectorized: number;
}

function settings(packed_vq: number): Setting[] {
  return [0, 1].flatMap((in_order) =>
    [0, 1].flatMap((mrg_rxbuf) => [0, 1].map((vectorized) => ({ packed_vq, in_order, mrg_rxbuf, vectorized })))
  );
}

const show = (setting: Setting) => Object.entries(setting).map(([name, on]) => `${name}=${on}`).join(",");

/** Two testpmd ports with a setting each: VF 0's frames go to VF 1 and come back. */
interface Cell {
  queueSize: number;
  queuePairs: number;
  sides: [Setting, Setting];
}

/** Every setting meets its neighbour in the list, and split rings face packed ones where a size allows both. */
function cells(queueSize: number): Cell[] {
  const isPowerOfTwo = (queueSize & (queueSize - 1)) === 0;
  const all = isPowerOfTwo ? [...settings(0), ...settings(1)] : settings(1);
  const at = (i: number) => all[i % all.length] as Setting;
  const pairs = all.map((one, i): [Setting, Setting] => [one, at(i + 1)]);
  if (isPowerOfTwo) pairs.push(...settings(0).map((one, i): [Setting, Setting] => [one, at(all.length - 1 - i)]));
  return pairs.map((sides) => ({ queueSize, queuePairs: 1, sides }));
}

/** Has frames go round between two ports; both sides' counters must agree with the fabric's. */
async function checkCell(fabric: TestFabric, { queueSize, queuePairs, sides }: Cell): Promise<void> {
  const [a, b] = [fabric.vf(0), fabric.vf(1)];
  const before = [await fabric.counters(0), await fabric.counters(1)];
  /** What VF `vf` has counted since the cell began. */
  const counted = async (vf: number) => {
    const now = Object.entries(await fabric.counters(vf));
    return Object.fromEntries(now.map(([name, n]) => [name, n - (before[vf]?.[name] ?? 0)]));
  };
  await using testpmd = await Testpmd.start({
    prefix: "rf-matrix",
    ports: [a, b].map((vf, i) => ({ ...vf, args: `,${show(sides[i] as Setting)}` })),
    queueSize,
    queuePairs,
    forward: "io",
    // The vector path of packed rings is there with 512 bits alone.
    eal: ["--force-max-simd-bitwidth=512"],
    extra: peers(a.mac, b.mac),
  });
  await testpmd.command("start tx_first 4");
  await until("traffic both ways", async () => {
    const both = [await counted(0), await counted(1)];
    return both.every(({ rx_frames = 0 }) => rx_frames > FRAMES);
  }, 20_000);
  const flavours = (await fabric.get("/api/v1/vfs")).map(({ queues }: { queues: { flavour: string }[] }) => queues);
  await testpmd.command("stop");
  for (const [vf, setting] of sides.entries()) {
    const stats = await testpmd.stats(vf);
    const counters = await counted(vf);
    assertEquals(stats.rxErrors, 0);
    assert(stats.rxPackets > FRAMES / 2, "traffic went on");
    // What a full ring did not take testpmd freed itself, and does not count as sent.
    assertEquals(counters.tx_frames, stats.txPackets, `vf ${vf} sent`);
    assertEquals(counters.tx_bytes, stats.txBytes);
    assert((counters.rx_frames ?? 0) >= stats.rxPackets);
    const waiting = (counters.rx_frames ?? 0) - stats.rxPackets;
    assert(waiting <= queueSize * queuePairs, `${waiting} frames delivered that testpmd did not take`);
    const drops = Object.entries(counters).filter(([key, n]) => n > 0 && /^(tx|rx)_(?!frames|bytes)/.test(key));
    for (const [key] of drops) assertEquals(key, "rx_no_buffer");
    assertEquals(flavours[vf].length, queuePairs * 2);
    for (const queue of flavours[vf]) {
      assertEquals([queue.state, queue.flavour, queue.size], [
        "running",
        setting.packed_vq ? "packed" : "split",
        queueSize,
      ]);
    }
  }
}

for (const queueSize of [256, 1024, 1000]) {
  judgedTest(["testpmd"], `testpmd, queue size ${queueSize}, every ring setting: counters agree`, async (t) => {
    await using fabric = await TestFabric.start(2);
    const [first, ...others] = cells(queueSize);
    const all = first ? [first, ...others, { ...first, queuePairs: 2 }] : [];
    for (const cell of all) {
      const name = `${cell.sides.map(show).join(" and ")}, ${cell.queuePairs} queue pair(s)`;
      await t.step(name, () => checkCell(fabric, cell));
    }
  });
}

const MODES: { mode: string; dataPath?: string }[] = [
  { mode: "passthrough" },
  { mode: "emulated", dataPath: "copy" },
  { mode: "emulated", dataPath: "zerocopy" },
  { mode: "emulated", dataPath: "headersplit" },
];
for (const mode of MODES) {
  judgedTest(
    ["testpmd"],
    `${mode.dataPath ?? mode.mode}: policy changes by HTTP reach testpmd's traffic within 100 ms`,
    async () => {
      await using fabric = await TestFabric.start(2);
      const [a, b] = [fabric.vf(0), fabric.vf(1)];
      await using testpmd = await Testpmd.start({
        prefix: "rf-policy",
        ports: [a, b],
        forward: "txonly",
        extra: [...peers(a.mac, b.mac), "--txpkts=200"],
      });
      await testpmd.command("set txpkts 200");
      for (const vf of [0, 1]) await setMode(fabric, vf, mode);
      await testpmd.command("start");
      await checkPolicies(fabric);
    },
  );
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
