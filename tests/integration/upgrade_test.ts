/**
 * Upgrades of every service, as `fabric upgrade` does them: the NIC and vhost are taken over by their standby, vf and pf
 * are started again. Guests' frames go on through all of it.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import type { FlowState } from "../../shared/api/mod.ts";
import { cli, type CliAnswer, fabricCli } from "../support/cli.ts";
import { TestFabric } from "../support/fabric.ts";
import { FrontEnd } from "../support/front_end.ts";
import { ask, must, setMode, Stream, TestGuest } from "../support/guests.ts";
import { run } from "../support/judges.ts";
import { activeOf } from "../support/standby.ts";
import { setUplink, uplinkOf } from "../support/uplinks.ts";
import { until } from "../support/wait.ts";

const UPGRADES = Number(Deno.env.get("UPGRADES") ?? 2);
const RATE = Number(Deno.env.get("UPGRADE_RATE") ?? 5000);
const ORDER = ["nic", "vhost", "vf", "pf"];

/** What `fabric -o json upgrade` has said, a line for each service. */
function upgraded({ code, out, err }: CliAnswer): { service: string; pid: number; before: number }[] {
  assertEquals(code, 0, err);
  return out.trim().split("\n").map((line) => JSON.parse(line));
}

Deno.test("every service is upgraded again and again under streams of guests: no frame is lost", async () => {
  await using fabric = await TestFabric.start(2, ["--standby", "--guests", "2"]);
  const [a, b] = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)];
  await setMode(fabric, 1, { mode: "passthrough", plugin: "advanced" });
  await a.reaches(b.ip);
  const traffic = { rate: RATE, size: 200 };
  const streams = [await Stream.start(a, b, traffic), await Stream.start(b, a, { ...traffic, rate: 500 })];
  const running: Record<string, number> = fabric.pids();
  for (let upgrade = 0; upgrade < UPGRADES; upgrade++) {
    const [nic, vhost] = [await activeOf(fabric, "nic"), await activeOf(fabric, "vhost")];
    const done = upgraded(await cli(fabric, "-o", "json", "upgrade"));
    assertEquals(done.map(({ service }) => service), ORDER);
    assertEquals(done.map(({ before }) => before), [nic, vhost, running.vf, running.pf]);
    for (const { service, pid } of done) running[service] = pid;
    assertEquals([running.vf, running.pf], [fabric.pid("vf"), fabric.pid("pf")]);
  }
  const flows: FlowState[] = (await Promise.all([a, b].map(({ api }) => must(`${api}/api/v1/traffic`))))
    .flatMap(({ flows }) => flows);
  const counts = await Promise.all(streams.map((stream) => stream.end()));
  for (const { received, rate, latencyUs: { p50, p99, max }, longestGapUs } of flows) {
    console.log(
      `${UPGRADES} upgrades of each service: ${received} frames, ${Math.round(rate)}/s, latency p50 ${p50} µs, ` +
        `p99 ${p99} µs, max ${max} µs; longest without a frame ${(longestGapUs / 1000).toFixed(1)} ms`,
    );
  }
  assert(counts.every((count) => count > 0), String(counts));
  assert(!/went away|attaching again|session ended:/.test(fabric.process.errors), fabric.process.errors);
});

Deno.test("an upgrade that is asked for while nobody stands by yet, after a death, waits for who comes", async () => {
  await using fabric = await TestFabric.start(1, ["--standby"]);
  for (const service of ["nic", "vhost"] as const) {
    for (const who of ["standby", "active"] as const) {
      const state = () => ask(`${fabric.url(service)}/api/v1/state`).then(({ body }) => body);
      const ready = await until("a standby", async () => {
        const said = await state().catch(() => undefined);
        return said?.standby.state === "ready" && said;
      }, 20_000);
      Deno.kill(who === "standby" ? ready.standby.pid : ready.pid, "SIGKILL");
      // Until its death is known the one that is dead seems to stand by.
      await until("its death to be known", async () => {
        const said = await state().catch(() => undefined);
        return said !== undefined && said.standby.pid !== ready.standby.pid;
      });
      const { code, err } = await cli(fabric, "upgrade", service);
      assertEquals(code, 0, `${service}'s ${who}: ${err}${fabric.process.errors}`);
    }
  }
});

Deno.test("whoever was to take over ends just before: the process that is there goes on, with all it had, and says so", async () => {
  await using fabric = await TestFabric.start(1, ["--standby"]);
  await setUplink(fabric, { kind: "pcap", record: `${fabric.runDir}/record.pcapng` });
  await using front = await FrontEnd.connect(fabric.vf(0).socket).start();
  for (const [service, what] of [["nic", "the NIC"], ["vhost", "the vhost service"]] as const) {
    const before = await activeOf(fabric, service);
    const { pid } = await must(`${fabric.url(service)}/api/v1/upgrade`, "POST", {});
    Deno.kill(pid, "SIGKILL");
    const goesOn = `${what} goes on as it was: process ${pid}, which was to take over, has ended or is stopped`;
    await until(`${what} to say that it goes on`, () => fabric.process.errors.includes(goesOn), 20_000);
    assertEquals(await activeOf(fabric, service), before);
    assertEquals((await ask(`${fabric.url(service)}/api/v1/state`)).body.pid, before);
  }
  assertEquals((await uplinkOf(fabric)).state, "up");
  // On the connection that it has had all the time.
  await front.ask("VHOST_USER_GET_FEATURES");
  assert(!/took over/.test(fabric.process.errors), fabric.process.errors);
  upgraded(await cli(fabric, "-o", "json", "upgrade", "nic"));
});

Deno.test("fabric upgrade says so when whoever was to take over has ended", async () => {
  await using fabric = await TestFabric.start(1, ["--standby"]);
  const active = await activeOf(fabric, "nic");
  const { standby } = await must(`${fabric.url("nic")}/api/v1/state`);
  const upgrade = cli(fabric, "upgrade", "nic");
  const heir = await until("a new process to stand by", () => {
    const [, pid] = [...fabric.process.errors.matchAll(/nic +process (\d+) stands by/g)].at(-1) ?? [];
    return Number(pid) !== standby.pid && Number(pid);
  }, 20_000);
  Deno.kill(heir, "SIGKILL");
  const { code, err } = await upgrade;
  assertEquals(code, 1, err);
  assertMatch(err, new RegExp(`the NIC goes on as it was: process ${heir}, which was to take over, has ended`));
  assertEquals(await activeOf(fabric, "nic"), active);
});

Deno.test("a standby that cannot learn what there is ends, and does not take over from a process that lives", async () => {
  await using fabric = await TestFabric.start(1, ["--standby"]);
  for (const service of ["nic", "vhost"] as const) {
    const active = await activeOf(fabric, service);
    const { standby: { pid } } = await must(`${fabric.url(service)}/api/v1/state`);
    const open = [...Deno.readDirSync(`/proc/${pid}/fd`)].length;
    await run("prlimit", ["--pid", String(pid), `--nofile=${open}:${open}`]);
    await using _front = await FrontEnd.connect(fabric.vf(0).socket).start();
    await until("another process to stand by", async () => {
      const said = (await ask(`${fabric.url(service)}/api/v1/state`)).body;
      assertEquals(said.pid, active);
      return said.standby.state === "ready" && said.standby.pid !== pid;
    }, 20_000);
    assert(!/took over/.test(fabric.process.errors), fabric.process.errors);
  }
});

Deno.test("without a standby the NIC and vhost are not upgraded, pf and vf are; nobody but the operator may", async (t) => {
  await using fabric = await TestFabric.start(2);
  const { nic, vhost, vf, pf } = fabric.pids();
  await t.step("all: refused, and nothing is touched", async () => {
    const { code, err } = await cli(fabric, "upgrade");
    assertEquals(code, 1);
    assertMatch(
      err,
      /the NIC goes on as it was: no process stands by.*--no-standby; not upgraded either: vhost, vf, pf/,
    );
    assertEquals(fabric.pids(), { nic, vhost, vf, pf });
  });
  await t.step("a token of a VF, and one that looks", async () => {
    for (const [service, ...role] of [["pf", "vf", "0"], ["vf", "read"]] as const) {
      const added = JSON.parse((await cli(fabric, "-o", "json", "token", "add", service, ...role)).out);
      const env = { RINGFABRIC_TOKEN: added.token };
      const { code, err } = await fabricCli(["--run-dir", fabric.runDir, "upgrade", service], env);
      assertEquals(code, 1);
      assertMatch(err, /this token .* is for another one/);
    }
    assertEquals(fabric.pids(), { nic, vhost, vf, pf });
  });
  await t.step("vf", async () => {
    const { status, body } = await ask(`${fabric.info.api}/api/v1/services/vf/upgrade`, "POST", {});
    assertEquals([status, body], [200, { pid: fabric.pid("vf"), before: vf }]);
    await setMode(fabric, 0, { mode: "emulated" });
  });
  await t.step("pf, while its settings change: what was answered is kept", async () => {
    let [isOver, answered, asked] = [false, 0, 0];
    const refused: unknown[] = [];
    const changing = (async () => {
      while (!isOver) {
        asked++;
        const change = ask(`${fabric.info.api}/api/v1/vfs/0`, "PATCH", { maxTxRate: asked });
        const answer = await change.catch(() =>
          new Promise<void>((resolve) => setTimeout(resolve, 10)).then(() => undefined)
        );
        if (answer?.status === 200) answered = asked;
        else if (answer && answer.status !== 503) refused.push(answer);
      }
    })();
    const { body } = await ask(`${fabric.info.api}/api/v1/services/pf/upgrade`, "POST", {});
    assertEquals([body.before, body.restartedBy], [pf, "up"]);
    const readiness = () => fetch(`${fabric.info.api}/readyz`).then((answer) => answer.json(), () => undefined);
    const now = await until("another process of pf to be ready", async () => {
      const said = await readiness();
      return said?.ready && said.pid !== pf ? said : undefined;
    }, 20_000);
    assertEquals(now.pid, fabric.pid("pf"));
    isOver = true;
    await changing;
    const { maxTxRate } = await fabric.get("/api/v1/vfs/0");
    assert(answered > 0 && maxTxRate >= answered && maxTxRate <= asked, `answered ${answered}, has ${maxTxRate}`);
    assertEquals(refused, []);
    assertEquals([fabric.pid("nic"), fabric.pid("vhost")], [nic, vhost]);
  });
});

Deno.test("a new program that cannot start: it is said so, frames flow all the same, and the old one put back goes on", async () => {
  const root = await Deno.makeTempDir({ prefix: "ringfabric-" });
  const repository = new URL("../../", import.meta.url).pathname;
  const parts = ["services", "shared", "assembly", ".build", "deno.json", "deno.lock"];
  const copied = await new Deno.Command("cp", { args: ["-r", ...parts.map((part) => repository + part), root] })
    .output();
  assert(copied.success);
  try {
    await using fabric = await TestFabric.start(2, ["--guests", "2"], undefined, root);
    const [a, b] = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)];
    const stream = await Stream.start(a, b, { rate: 1000, size: 200 });
    const pf = fabric.pid("pf");
    const main = `${root}/services/pf/main.ts`;
    const program = await Deno.readTextFile(main);
    await Deno.writeTextFile(main, "throw new Error('not this one');\n");
    const { code, err } = await cli(fabric, "upgrade", "pf");
    assertEquals(code, 1);
    const said = `pf, after 20 s: process ${pf} has ended, and none of the new program answers. up goes on starting it`;
    assert(err.includes(said), err);
    assertMatch(fabric.process.errors, /pf ended with code 1 before it was ready: .*not this one/);
    await Deno.writeTextFile(main, program);
    await until(
      "pf to be ready",
      () => fetch(`${fabric.info.api}/readyz`).then((answer) => answer.ok, () => false),
      20_000,
    );
    await stream.end();
  } finally {
    await Deno.remove(root, { recursive: true });
  }
});
