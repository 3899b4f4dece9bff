/**
 * The NIC's process killed while another one stands by for it: the rings go on where they were, under a stream of which
 * nothing may be lost, come twice, or come out of order. No front-end sees anything of it.
 */
import { assert, assertEquals } from "@std/assert";
import { TestFabric } from "../support/fabric.ts";
import { FrontEnd } from "../support/front_end.ts";
import { ask, must } from "../support/guests.ts";
import { judgedTest, run } from "../support/judges.ts";
import { Cable, uniqueName } from "../support/net_namespace.ts";
import { frame } from "../support/mock_guest.ts";
import { NumberedStream } from "../support/numbered_stream.ts";
import { activeOf, KILLS, killUnderStream, nameOf } from "../support/standby.ts";
import { StreamedPair } from "../support/streamed_pair.ts";
import { until } from "../support/wait.ts";

const RUNS = [
  ["split", undefined],
  ["packed", undefined],
  ["packed in-order", undefined],
  ["split", "copy"],
  ["packed", "zerocopy"],
] as const;
const UPGRADES = Number(Deno.env.get("UPGRADES") ?? 2);

const activeNic = (fabric: TestFabric) => activeOf(fabric, "nic");

for (const way of RUNS) {
  Deno.test(`${nameOf(way)}: the NIC is killed again and again under a stream, and another process goes on: nothing is lost`, async () => {
    await using fabric = await TestFabric.start(2, ["--standby"]);
    await killUnderStream(fabric, "nic", way);
    assert(!/went away|attached to the NIC again/.test(fabric.process.errors), fabric.process.errors);
  });
}

Deno.test("what the NIC knows goes on with the process that takes over: policy, leases, held frames, uplinks", async () => {
  await using fabric = await TestFabric.start(3, ["--standby"]);
  const [nic, api] = [`${fabric.url("nic")}/api/v1`, `${fabric.info.api}/api/v1`];
  const record = `${fabric.runDir}/record.pcapng`;
  await must(`${api}/vfs/2/uplink`, "PUT", { kind: "pcap", record });
  await fabric.patch(1, { trust: true });
  await using a = await FrontEnd.connect(fabric.vf(0).socket).start();
  await using b = await FrontEnd.connect(fabric.vf(1).socket).start();
  await activeNic(fabric);
  const [state, filters] = await Promise.all([must(`${nic}/state`), must(`${nic}/filters`)]);
  const { token } = await must(`${nic}/vfs/1/hold`, "POST", { deadlineMs: 20_000 });
  assert(token);
  const stream = new NumberedStream(a, b, { dst: fabric.vf(1).mac, src: fabric.vf(0).mac });
  for (let i = 0; i < 4; i++) stream.step();
  await until("the frames to be held", async () => (await must(`${nic}/state`)).vfs[1].limits.buffered.used > 0);
  // What waits for its answer is answered by the process that takes over.
  Deno.kill(await activeNic(fabric), "SIGKILL");
  const stopped = a.stopVring(0);
  await until("the other process to answer", () => must(`${nic}/state`).then(() => true, () => false));
  const after = await must(`${nic}/state`);
  assertEquals(after.instance, state.instance);
  assertEquals(await must(`${nic}/filters`), filters);
  for (const vf of [0, 1]) assertEquals(after.vfs[vf].owner, state.vfs[vf].owner);
  assertEquals([after.vfs[1].held, stream.received], [true, 0]);
  await must(`${nic}/vfs/1/hold`, "DELETE");
  await stream.end();
  assertEquals([stream.received, stream.lost, stream.repeated], [stream.sent, 0, 0]);
  assertEquals(await a.startVring(0, await stopped), 0n);
  const back = new NumberedStream(b, a, { dst: fabric.vf(0).mac, src: fabric.vf(1).mac });
  await back.more(300);
  await back.end();
  await until("the uplink to be there again", async () => (await must(`${nic}/state`)).uplinks["2"]?.state === "up");
  await fabric.patch(1, { trust: false });
  await activeNic(fabric);
  assertEquals((await fabric.get("/api/v1/nic")).standby.state, "ready");
  // The one that stands by is started again too.
  const { pid } = (await must(`${nic}/state`)).standby;
  Deno.kill(pid, "SIGKILL");
  await until("the standby to be missed", async () => (await must(`${nic}/state`)).standby.pid !== pid);
  await activeNic(fabric);
  assertEquals((await must(`${nic}/state`)).instance, state.instance);
});

judgedTest(
  ["root"],
  "the NIC is killed, with the PF or without, while guests' link follows an uplink: it does not go down",
  async () => {
    await using cable = await Cable.make();
    await using fabric = await TestFabric.start(2, ["--standby"]);
    await must(`${fabric.info.api}/api/v1/nic/uplink`, "PUT", { kind: "packet", interface: cable.ends[0] });
    await using pair = await StreamedPair.attach(fabric);
    const { stream } = pair;
    const carrier = async () => (await must(`${fabric.info.api}/api/v1/nic`).catch(() => undefined))?.carrier;
    for (let kill = 0; kill < KILLS; kill++) {
      let active = 0;
      await stream.during("a process to stand by", async () => (active = await activeNic(fabric)) > 0);
      await stream.during("the link to be up", async () => await carrier() === "up");
      if (kill % 2 === 1) Deno.kill(fabric.pid("pf"), "SIGKILL");
      Deno.kill(active, kill % 4 < 2 ? "SIGKILL" : "SIGTERM");
      // A change may be what a new PF does first.
      const change = () => fabric.patch(0, { trust: kill % 2 === 0 }).then(() => true, () => false);
      await stream.during("a change", change);
      await stream.more(300);
    }
    await stream.during("the link to be up", async () => await carrier() === "up");
    await pair.endWhole();
    assertEquals((await fabric.counters(0)).tx_link_down, 0, fabric.process.errors);
  },
);

Deno.test("an upgrade of the NIC under a stream: another process goes on between two bursts, and nothing is lost", async () => {
  await using fabric = await TestFabric.start(2, ["--standby"]);
  await using pair = await StreamedPair.attach(fabric);
  const { stream } = pair;
  let active = 0;
  for (let upgrade = 0; upgrade < UPGRADES; upgrade++) {
    await stream.during("a process to stand by", async () => (active = await activeNic(fabric)) > 0);
    let isOver = false;
    const asked = must(`${fabric.info.api}/api/v1/services/nic/upgrade`, "POST", {}).finally(() => isOver = true);
    asked.catch(() => {});
    await stream.during("the upgrade", () => isOver, 30_000);
    const answer = await asked;
    assertEquals(answer.before, active);
    assertEquals((await must(`${fabric.url("nic")}/api/v1/state`)).pid, answer.pid);
    await stream.more(300);
  }
  // Whoever ends that process alone gets the same.
  await stream.during("a process to stand by", async () => (active = await activeNic(fabric)) > 0);
  Deno.kill(active, "SIGTERM");
  const pid = async () => (await must(`${fabric.url("nic")}/api/v1/state`).catch(() => undefined))?.pid ?? active;
  await stream.during("another process to go on", async () => await pid() !== active);
  await stream.more(300);
  await pair.endWhole();
  assert(!/went away|attached to the NIC again/.test(fabric.process.errors), fabric.process.errors);
});

Deno.test("an uplink on a TAP that has one queue is opened again when the dead process has let go of it, not before", async () => {
  await using fabric = await TestFabric.start(1, ["--standby"]);
  const tap = uniqueName("rft");
  await run("ip", ["tuntap", "add", "dev", tap, "mode", "tap", "vnet_hdr"]);
  await run("ip", ["link", "set", tap, "up"]);
  try {
    await must(`${fabric.info.api}/api/v1/nic/uplink`, "PUT", { kind: "tap", name: tap });
    for (let kill = 0; kill < 3; kill++) {
      const active = await activeNic(fabric);
      Deno.kill(active, "SIGKILL");
      await until("the uplink to be there again", async () => {
        const state = await must(`${fabric.url("nic")}/api/v1/state`).catch(() => undefined);
        return state !== undefined && state.pid !== active && state.uplinks.uplink?.state === "up";
      });
    }
    assert(!/the uplink of/.test(fabric.process.errors), fabric.process.errors);
  } finally {
    await run("ip", ["link", "del", tap]);
  }
});

Deno.test("spoofed frames that the NIC has told of are not told again by the process that takes over", async () => {
  await using fabric = await TestFabric.start(1, ["--standby"]);
  await using front = await FrontEnd.connect(fabric.vf(0).socket).start();
  const told = () => {
    const counts = fabric.process.errors.matchAll(/vf 0: (\d+) frames with a source address/g);
    return Array.from(counts, ([, count]) => Number(count)).reduce((sum, count) => sum + count, 0);
  };
  const spoof = (frames: number) => {
    const bytes = frame({ dst: "ff:ff:ff:ff:ff:ff", src: "02:bb:00:00:00:01", etherType: 0x88b5 });
    front.guest.send(Array(frames).fill(bytes));
    front.kick(1);
  };
  spoof(5);
  await until("them to be told", () => told() === 5);
  await until("a process to stand by", async () => await activeNic(fabric) > 0);
  await must(`${fabric.info.api}/api/v1/services/nic/upgrade`, "POST", {});
  spoof(2);
  await until("the others to be told", () => told() >= 7);
  assertEquals(told(), 7);
});

Deno.test("an upgrade is refused where nobody stands by, and everything is as it was", async () => {
  await using fabric = await TestFabric.start(1);
  const before = await must(`${fabric.url("nic")}/api/v1/state`);
  assertEquals(before.standby, { state: "none" });
  const { status, body } = await ask(`${fabric.info.api}/api/v1/services/nic/upgrade`, "POST", {});
  assertEquals([status, body.detail.includes("--no-standby")], [409, true], JSON.stringify(body));
  assertEquals((await must(`${fabric.url("nic")}/api/v1/state`)).pid, before.pid);
});

Deno.test("the NIC is killed while a front-end stops and starts a ring all the time: each request is done once", async () => {
  await using fabric = await TestFabric.start(2, ["--standby"]);
  await using pair = await StreamedPair.attach(fabric, "packed");
  const { b, stream } = pair;
  let isOver = false;
  const asking = (async () => {
    while (!isOver) await b.startVring(1, await b.stopVring(1));
  })();
  asking.catch(() => {});
  for (let kill = 0; kill < KILLS; kill++) {
    let active = 0;
    await stream.during("a process to stand by", async () => (active = await activeNic(fabric)) > 0);
    await stream.more(300);
    Deno.kill(active, "SIGKILL");
    await stream.more(300);
  }
  isOver = true;
  await asking;
  await pair.endWhole();
});
