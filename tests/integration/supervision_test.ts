/** `up` as a supervisor: what it says of a service that dies, how it waits, when it gives up; and who is ready when. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { openDescriptors, untilNoMoreDescriptors } from "../support/descriptors.ts";
import { freePorts, TestFabric } from "../support/fabric.ts";
import { TestProcess } from "../support/process.ts";
import { until, within } from "../support/wait.ts";

/** Why a service is not ready, by its own word; `undefined` if it is ready or does not answer. */
async function reasonOf(fabric: TestFabric, service: "pf" | "vhost" | "vf" | "nic"): Promise<string | undefined> {
  const answer = await fetch(`${fabric.url(service)}/readyz`).catch(() => undefined);
  const body = await answer?.json();
  if (answer) assertEquals([body.ready, body.reason === undefined], answer.ok ? [true, true] : [false, false]);
  return body?.reason;
}

/** Kills a service and waits for its successor's pid. */
async function restarted(fabric: TestFabric, name: string): Promise<void> {
  const pid = fabric.pid(name);
  Deno.kill(pid, "SIGKILL");
  await until(`${name} to be started again`, () => ![undefined, pid].includes(fabric.pids()[name]));
}

Deno.test("what dies is started again, however often, and each death is one line", async (t) => {
  await using fabric = await TestFabric.start(1);
  const said = () => fabric.process.errors;
  const held = openDescriptors(fabric.process.pid);
  await t.step("killed", async () => {
    for (const name of ["nic", "pf", "vhost", "vf"]) {
      await restarted(fabric, name);
      const line = new RegExp(`^.*\\b${name} was killed by SIGKILL after [\\d.]+ s; starting it again now$`, "m");
      await until(`up to say that ${name} died`, () => line.test(said()));
      await until(`up to say that ${name} is up`, () => new RegExp(`\\b${name} is up again$`, "m").test(said()));
    }
  });
  await t.step("it ends by itself", async () => {
    Deno.kill(fabric.pid("vf"), "SIGTERM");
    await until("up to say so", () => /vf ended with code 0 after [\d.]+ s; starting it again/.test(said()));
  });
  await t.step("killed again and again", async () => {
    for (let i = 0; i < 4; i++) {
      await until("vf to run", () => fabric.pids().vf !== undefined);
      await restarted(fabric, "vf");
    }
    await until("it to be up again", () => /vf is up again at attempt \d+/.test(said()), 30_000);
    await until("it to be ready", async () => await reasonOf(fabric, "vf") === undefined, 20_000);
    const pauses = [...said().matchAll(/\bvf (?:was killed|ended).*starting it again in ([\d.]+) s/g)].map(([, s]) =>
      Number(s)
    );
    assert(pauses.length >= 3 && pauses.every((s, i) => i === 0 || s >= (pauses[i - 1] ?? 0)), String(pauses));
  });
  assert(fabric.process.exited === undefined);
  await t.step("nothing of the dead is kept", () => untilNoMoreDescriptors(held));
});

Deno.test("a service whose port is taken meanwhile says so, waits longer each time, and comes when it is free", async () => {
  await using fabric = await TestFabric.start(1);
  const port = Number(new URL(fabric.url("vf")).port);
  const pid = fabric.pid("vf");
  const taken = Promise.withResolvers<Deno.TcpListener>();
  // It is free for as long as the successor takes to start.
  const take = setInterval(() => {
    try {
      taken.resolve(Deno.listen({ hostname: "127.0.0.1", port }));
      clearInterval(take);
    } catch {
      // Not yet.
    }
  }, 1);
  Deno.kill(pid, "SIGKILL");
  const listener = await within("the port to be free", taken.promise, 20_000).finally(() => clearInterval(take));
  const line = /vf ended with code 1 before it was ready: vf: .*port.*in use.*; starting it again in ([\d.]+) s/g;
  await until("up to have tried three times", () => [...fabric.process.errors.matchAll(line)].length >= 3, 30_000);
  const [first, second, third] = [...fabric.process.errors.matchAll(line)].map(([, s]) => Number(s));
  assertEquals([second, third], [2 * Number(first), 4 * Number(first)]);
  listener.close();
  await until(
    "it to be ready",
    async () => (await fetch(`${fabric.url("vf")}/readyz`).catch(() => undefined))?.ok,
    20_000,
  );
});

Deno.test("readiness: no NIC, no programme, no peer: each service says why not, and is ready again by itself", async (t) => {
  await using fabric = await TestFabric.start(1);
  const services = ["nic", "pf", "vhost", "vf"] as const;
  const allReady = () =>
    until("all to be ready", async () => {
      const answers = await Promise.all(
        services.map((name) => fetch(`${fabric.url(name)}/readyz`).catch(() => undefined)),
      );
      await Promise.all(answers.map((answer) => answer?.body?.cancel()));
      return answers.every((answer) => answer?.ok);
    }, 20_000);
  await allReady();
  /** Kills `name` while a process that it needs stands still; answers what `of` says meanwhile. */
  await t.step("a new NIC that the PF cannot programme", async () => {
    const pf = fabric.pid("pf");
    Deno.kill(pf, "SIGSTOP");
    try {
      await restarted(fabric, "nic");
      assertMatch(await until("the NIC to say so", () => reasonOf(fabric, "nic")), /the PF has not programmed it/);
      assertMatch(await until("vhost to say so", () => reasonOf(fabric, "vhost")), /NIC/);
      assertMatch(
        await until("the vf service to say so", async () => {
          const reason = await reasonOf(fabric, "vf");
          return reason?.includes("the NIC: ") ? reason : undefined;
        }),
        /the PF does not answer; the NIC: the PF has not programmed it/,
      );
    } finally {
      Deno.kill(pf, "SIGCONT");
    }
    await allReady();
  });
  await t.step("a NIC that stands still", async () => {
    const nic = fabric.pid("nic");
    Deno.kill(nic, "SIGSTOP");
    try {
      assertMatch(await until("the PF to say so", () => reasonOf(fabric, "pf"), 15_000), /the NIC/);
    } finally {
      Deno.kill(nic, "SIGCONT");
    }
    await allReady();
  });
});

Deno.test("a fabric whose run directory is gone says so and what to do, and ends with an error", async () => {
  const runDir = await Deno.makeTempDir({ prefix: "ringfabric-" });
  const fabric = await TestFabric.start(1, [], runDir);
  try {
    await Deno.remove(runDir, { recursive: true });
    Deno.kill(fabric.pid("vf"), "SIGKILL");
    await until("up to end", () => fabric.process.exited, 20_000);
    assertEquals(fabric.process.exited?.code, 1);
    assertMatch(
      fabric.process.errors,
      /^up: cannot start vf again: the run directory \S+ is gone, .*: restore it from a backup, then start up again$/m,
    );
  } finally {
    await fabric[Symbol.asyncDispose]();
  }
});

Deno.test("a service that cannot start at first is the end of it: one line and exit code 1", async () => {
  const runDir = await Deno.makeTempDir({ prefix: "ringfabric-" });
  await Deno.mkdir(`${runDir}/pf.sqlite`);
  await using up = new TestProcess("up", Deno.execPath(), [
    ...["run", "-A", "--quiet", "services/up/main.ts", "--vfs", "1", "--port", String(freePorts())],
    ...["--run-dir", runDir],
  ], { cwd: new URL("../../", import.meta.url) });
  try {
    await until("up to end", () => up.exited, 20_000);
    assertEquals(up.exited?.code, 1);
    assertMatch(up.errors, /^up: pf: [^\n]+\n$/);
  } finally {
    await Deno.remove(runDir, { recursive: true });
  }
});
