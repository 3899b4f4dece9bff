/**
 * vhost's process killed while another one stands by for it: connections, rings and requests go on where they were, under a
 * stream of which nothing may be lost, come twice, or come out of order. No front-end connects again.
 */
import { assert, assertEquals } from "@std/assert";
import { TestFabric } from "../support/fabric.ts";
import { FrontEnd } from "../support/front_end.ts";
import { ask, must, setMode } from "../support/guests.ts";
import { judgedTest } from "../support/judges.ts";
import { NumberedStream } from "../support/numbered_stream.ts";
import { QemuGuest } from "../support/qemu.ts";
import { activeOf, KILLS, killUnderStream, nameOf } from "../support/standby.ts";
import { StreamedPair } from "../support/streamed_pair.ts";
import { until } from "../support/wait.ts";

const RUNS = [
  ["split", undefined],
  ["packed", undefined],
  ["split", "copy"],
  ["packed", "copy"],
  ["packed in-order", "copy"],
] as const;
const UPGRADES = Number(Deno.env.get("UPGRADES") ?? 2);

for (const way of RUNS) {
  Deno.test(`${nameOf(way)}: vhost is killed again and again under a stream, and another process goes on: nothing is lost`, async () => {
    await using fabric = await TestFabric.start(2, ["--standby"]);
    await killUnderStream(fabric, "vhost", way);
    assert(
      !/connected|ended:|attaching again/.test(fabric.process.errors.replaceAll("a front-end connected", "")),
      fabric.process.errors,
    );
  });
}

for (const [format, dataPath] of [["packed", undefined], ["split", "copy"], ["packed", "copy"]] as const) {
  const how = dataPath === undefined ? format : `${format}, emulated by ${dataPath}`;
  Deno.test(`${how}: vhost is killed while a front-end stops and starts a ring all the time: each request is done once`, async () => {
    await using fabric = await TestFabric.start(2, ["--standby"]);
    for (const vf of dataPath === undefined ? [] : [0, 1]) await setMode(fabric, vf, { mode: "emulated", dataPath });
    await using pair = await StreamedPair.attach(fabric, format, { queueSize: 32 });
    const { b, stream } = pair;
    let isOver = false;
    let asked = 0;
    const asking = (async () => {
      for (; !isOver; asked++) await b.startVring(1, await b.stopVring(1));
    })();
    asking.catch(() => {});
    for (let kill = 0; kill < KILLS; kill++) {
      let active = 0;
      await stream.during("a process to stand by", async () => (active = await activeOf(fabric, "vhost")) > 0);
      await stream.more(300 + Math.floor(Math.random() * 300));
      Deno.kill(active, "SIGKILL");
      const before = asked;
      await stream.during("the other process to answer", () => asked > before + 2, 10_000);
    }
    isOver = true;
    await asking;
    await pair.endWhole();
    assert(!/session ended:/.test(fabric.process.errors), fabric.process.errors);
  });
}

Deno.test("packed, emulated by zerocopy, on rings that stood still before: whatever lap they are on when vhost is killed, they go on", async () => {
  await using fabric = await TestFabric.start(2, ["--standby"]);
  await using pair = await StreamedPair.attach(fabric, "packed");
  const { stream } = pair;
  for (let kill = 0; kill < KILLS; kill++) {
    for (const dataPath of ["copy", "zerocopy"]) {
      await stream.more(20);
      for (const vf of [0, 1]) await setMode(fabric, vf, { mode: "emulated", dataPath });
    }
    const active = await activeOf(fabric, "vhost");
    // Laps are of 50 frames: the rings stand in each half of even and odd ones.
    await stream.more(60 + 25 * kill);
    Deno.kill(active, "SIGKILL");
    await stream.more(200);
  }
  assert(!/session ended:/.test(fabric.process.errors), fabric.process.errors);
});

/** Kills vhost's process as soon as another one stands by, and waits until that answers. */
async function killVhost(fabric: TestFabric): Promise<void> {
  const active = await activeOf(fabric, "vhost");
  Deno.kill(active, "SIGKILL");
  await until("the other process to answer", async () => ![active, undefined].includes(await pidOf(fabric)));
}

/** The process of vhost that answers; none while none does. */
async function pidOf(fabric: TestFabric): Promise<number | undefined> {
  return (await must(`${fabric.url("vhost")}/api/v1/state`).catch(() => undefined))?.pid;
}

Deno.test("what vhost knows goes on with the process that takes over: sessions on every path, the switch, ports", async () => {
  await using fabric = await TestFabric.start(3, ["--standby"]);
  const api = `${fabric.info.api}/api/v1`;
  const vport = await must(`${api}/vports`, "POST", { id: 0 });
  await setMode(fabric, 1, { mode: "emulated", dataPath: "copy" });
  await setMode(fabric, 2, { mode: "emulated", dataPath: "zerocopy" });
  await until("the vport's socket", () => Deno.stat(vport.socket).then(() => true, () => false));
  await using a = await FrontEnd.connect(vport.socket).start();
  await using b = await FrontEnd.connect(fabric.vf(1).socket).start();
  await using c = await FrontEnd.connect(fabric.vf(2).socket).start();
  await using d = await FrontEnd.connect(fabric.vf(0).socket).start();
  const macs = [vport.mac, fabric.vf(1).mac, fabric.vf(2).mac, fabric.vf(0).mac];
  const guests = [a, b, c, d];
  const talk = async (from: number, to: number) => {
    const ends = { src: macs[from], dst: macs[to] };
    const stream = new NumberedStream(guests[from] as FrontEnd, guests[to] as FrontEnd, ends);
    await stream.more(200);
    await stream.end();
    assertEquals([stream.received, stream.lost, stream.repeated], [stream.sent, 0, 0], fabric.process.errors);
  };
  const all = async () => {
    for (const [from, to] of [[0, 1], [1, 0], [1, 2], [2, 3], [3, 0]] as const) await talk(from, to);
  };
  await all();
  const ports = async () => (await must(`${fabric.url("vhost")}/api/v1/ports`)) as Record<string, unknown>[];
  const before = await ports();
  await activeOf(fabric, "vhost");
  assertEquals((await fabric.get("/api/v1/nic")).vhostStandby.state, "ready");
  for (let kill = 0; kill < 2; kill++) {
    await killVhost(fabric);
    await until("the VFs' ports to be known", async () => (await ports()).length === before.length);
    const shown = (states: Record<string, unknown>[]) =>
      states.map(({ port, path, dataPath, connected, session }) => {
        const { vrings, features } = session as { vrings: unknown; features: unknown } | undefined ?? {};
        return { port, path, dataPath, connected, vrings, features };
      });
    // The rings of zero copy begin anew.
    const asBefore = async () => JSON.stringify(shown(await ports())) === JSON.stringify(shown(before));
    await until("the ports to be as they were", asBefore, 20_000);
    await all();
  }
  // What the PF sets reaches guests and policy as before.
  await must(`${api}/vports/0`, "PATCH", { linkState: "disable" });
  await must(`${api}/vports/0`, "PATCH", { linkState: "auto" });
  await setMode(fabric, 0, { mode: "emulated", dataPath: "copy" });
  await setMode(fabric, 1, { mode: "passthrough" });
  await all();
  assert(!/session ended:/.test(fabric.process.errors), fabric.process.errors);
});

Deno.test("vhost is killed while a guest's data path changes all the time: the guest keeps its connection", async () => {
  await using fabric = await TestFabric.start(2, ["--standby"]);
  await using pair = await StreamedPair.attach(fabric, "packed");
  const url = `${fabric.url("vhost")}/api/v1/ports/1/dataPath`;
  let isOver = false;
  const changing = (async () => {
    for (let i = 0; !isOver; i++) {
      const change = { dataPath: i % 2 === 0 ? "emulated" : "passthrough" };
      await must(url, "PUT", change).catch(() => new Promise((resolve) => setTimeout(resolve, 20)));
    }
  })();
  for (let kill = 0; kill < KILLS; kill++) {
    await activeOf(fabric, "vhost");
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 100));
    await killVhost(fabric);
  }
  isOver = true;
  await changing;
  await until(
    "the port to be as it is to be",
    () => must(url, "PUT", { dataPath: "emulated" }).then(() => true, () => false),
  );
  await pair.stream.more(500);
  await pair.endWhole();
  assert(!/session ended:/.test(fabric.process.errors), fabric.process.errors);
});

Deno.test("vhost is killed while a guest's mode changes all the time: the changes succeed, and nothing is lost", async () => {
  await using fabric = await TestFabric.start(2, ["--standby"]);
  await using pair = await StreamedPair.attach(fabric, "packed");
  const { stream } = pair;
  let isOver = false;
  let changes = 0;
  const changing = (async () => {
    for (let i = 0; !isOver; i++) {
      const change = i % 2 === 0 ? { mode: "emulated", dataPath: "copy" } : { mode: "passthrough" };
      await setMode(fabric, 1, change);
      changes++;
    }
  })();
  // It is waited for below.
  changing.catch(() => {});
  for (let kill = 0; kill < KILLS; kill++) {
    let active = 0;
    await stream.during("a process to stand by", async () => (active = await activeOf(fabric, "vhost")) > 0);
    const [before, pauseMs] = [changes, performance.now() + Math.random() * 100];
    await stream.during("changes", () => changes > before && performance.now() > pauseMs);
    Deno.kill(active, "SIGKILL");
    const soFar = changes;
    await stream.during("changes to go on", () => changes > soFar + 1);
  }
  isOver = true;
  await stream.during("the last change", () => changing.then(() => true));
  await stream.more(500);
  await pair.endWhole();
  assert(!/session ended:/.test(fabric.process.errors), fabric.process.errors);
});

Deno.test("an upgrade of vhost under a stream: another process goes on between two bursts, and nothing is lost", async () => {
  await using fabric = await TestFabric.start(2, ["--standby"]);
  for (const vf of [0, 1]) await setMode(fabric, vf, { mode: "emulated", dataPath: "copy" });
  await using pair = await StreamedPair.attach(fabric);
  const { stream } = pair;
  let active = 0;
  for (let upgrade = 0; upgrade < UPGRADES; upgrade++) {
    await stream.during("a process to stand by", async () => (active = await activeOf(fabric, "vhost")) > 0);
    let isOver = false;
    const asked = must(`${fabric.info.api}/api/v1/services/vhost/upgrade`, "POST", {}).finally(() => isOver = true);
    asked.catch(() => {});
    await stream.during("the upgrade", () => isOver, 30_000);
    const answer = await asked;
    assertEquals([answer.before, await pidOf(fabric)], [active, answer.pid]);
    await stream.more(300);
  }
  // Whoever ends that process alone gets the same.
  await stream.during("a process to stand by", async () => (active = await activeOf(fabric, "vhost")) > 0);
  Deno.kill(active, "SIGTERM");
  await stream.during("another process to go on", async () => ![active, undefined].includes(await pidOf(fabric)));
  await stream.more(300);
  await pair.endWhole();
  assert(!/session ended:|attaching again/.test(fabric.process.errors), fabric.process.errors);
});

Deno.test("an upgrade of vhost is refused where nobody stands by, and everything is as it was", async () => {
  await using fabric = await TestFabric.start(1);
  const before = await pidOf(fabric);
  const { status, body } = await ask(`${fabric.info.api}/api/v1/services/vhost/upgrade`, "POST", {});
  assertEquals([status, body.detail.includes("--no-standby")], [409, true], JSON.stringify(body));
  assertEquals(await pidOf(fabric), before);
});

judgedTest(
  ["qemu"],
  "QEMU guests, which connect once and never again, keep their network when vhost is killed",
  async () => {
    await using fabric = await TestFabric.start(2, ["--standby"]);
    const boots = [QemuGuest.boot(fabric.vf(0)), QemuGuest.boot(fabric.vf(1), { device: "packed=on" })] as const;
    await using a = await boots[0];
    await using b = await boots[1];
    await a.address("10.0.0.1/24");
    await b.address("10.0.0.2/24");
    const reaches = () => until("a ping", async () => (await a.run("ping -c 1 -W 1 10.0.0.2")).code === 0, 20_000);
    await reaches();
    for (const mode of [{ mode: "passthrough" }, { mode: "emulated", dataPath: "copy" }]) {
      for (const vf of [0, 1]) await setMode(fabric, vf, mode);
      const pinging = a.check("ping -c 200 -i 0.02 10.0.0.2", 60_000);
      await killVhost(fabric);
      assert(/200 packets transmitted, 200 packets received/.test(await pinging), await pinging);
      // QEMU stops the rings and starts them again.
      await b.check("ip link set eth0 down && ip link set eth0 up");
      await fabric.patch(1, { linkState: "disable" });
      assertEquals((await a.run("ping -c 1 -W 1 10.0.0.2")).code === 0, false);
      await fabric.patch(1, { linkState: "auto" });
      await reaches();
    }
    assert(!/session ended:/.test(fabric.process.errors), fabric.process.errors);
  },
);
