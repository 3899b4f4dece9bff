/** Upgrades by a restart: when a service ends for one and when not, and what is said of the process in its place. */
import "../support/quiet.ts";
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import {
  ApiError,
  Operations,
  type Problem,
  type Readiness,
  restarted,
  Restarts,
  type ServiceRestart,
  type VfMode,
} from "../../shared/api/mod.ts";
import { ask } from "../support/app.ts";
import { ModeWorld } from "../support/mode_world.ts";
import { VirtualTime } from "../support/virtual_time.ts";

const EMULATED: VfMode = { mode: "emulated", changing: false };
const OLD = { pid: 10, startedAt: "2026-01-01T00:00:00.000Z" };
const NEW = { pid: 11, startedAt: "2026-01-01T00:01:00.000Z" };
const RESTART: ServiceRestart = { before: OLD.pid, startedAt: OLD.startedAt, restartedBy: "up" };

/** Whether a promise has resolved by now. */
async function isOver(promise: Promise<unknown>): Promise<boolean> {
  return await Promise.race([promise.then(() => true), Promise.resolve().then(() => false)]);
}

Deno.test("a service that nobody would start again does not end, and goes on", async () => {
  for (const nobody of [undefined, ""]) {
    const [restarts, operations] = [new Restarts("pf", nobody), new Operations()];
    const refusal = assertThrows(() => restarts.begin(operations), ApiError, "nobody would start it again");
    assertEquals([refusal.status, refusal.reason], [409, "not-upgraded"]);
    assertEquals(await operations.start("a change", () => Promise.resolve(EMULATED)).result, EMULATED);
    assertEquals(await isOver(restarts.ended), false);
  }
});

Deno.test("a service ends a moment after it has answered, once, and takes no more changes", async () => {
  using time = new VirtualTime();
  const [restarts, operations] = [new Restarts("vf", "systemd"), new Operations()];
  const { before, restartedBy } = restarts.begin(operations);
  assertEquals([before, restartedBy], [Deno.pid, "systemd"]);
  assertEquals(await isOver(restarts.ended), false);
  assertThrows(() => restarts.begin(operations), ApiError, "is being upgraded already");
  const refusal = assertThrows(() => operations.start("a change", () => Promise.resolve(EMULATED)), ApiError);
  assertEquals([refusal.status, refusal.reason], [503, "upgrading"]);
  await time.run(restarts.ended);
});

Deno.test("a service does not end while a mode changes, and does when that has ended", async () => {
  using time = new VirtualTime();
  const world = new ModeWorld(time);
  const shell = world.port(0);
  shell.troubles.next("passthrough", "silence");
  const change = ask(world.app, "PUT", "/api/v1/vfs/0/mode", { mode: "passthrough", plugin: "advanced" });
  await time.settle();
  const upgrade = () => ask<Problem & ServiceRestart>(world.app, "POST", "/api/v1/upgrade", {});
  const refused = await upgrade();
  assertEquals([refused.status, refused.body.reason], [409, "operation-under-way"]);
  assertEquals(refused.body.detail?.includes("vf 0 to passthrough"), true, refused.body.detail);
  await time.run(change);
  const answer = await upgrade();
  assertEquals([answer.status, answer.body.before, answer.body.restartedBy], [202, Deno.pid, "the test"]);
  assertEquals((await upgrade()).body.reason, "upgrading");
  await time.run(world.restarts.ended);
});

/** Waits for a service of which each look finds the next of `found`, and then the last again and again. */
async function wait(found: (Readiness | undefined)[]): Promise<unknown> {
  using time = new VirtualTime();
  const readiness = () => Promise.resolve(found.length > 1 ? found.shift() : found[0]);
  return await time.run(restarted("vf", { readiness }, RESTART));
}

Deno.test("the process in its place is waited for until it is ready", async () => {
  const old = { ready: true, ...OLD };
  const starting = { ready: false, reason: "it has not found the NIC yet", ...NEW };
  const done = { ready: true, ...NEW };
  assertEquals(await wait([old, old, undefined, starting, done]), { pid: NEW.pid, before: OLD.pid });
  // In a container each process has the same number.
  assertEquals(await wait([old, { ...done, pid: OLD.pid }]), { pid: OLD.pid, before: OLD.pid });
});

Deno.test("without one after 20 seconds it is said what there is instead, and what to do", async () => {
  const cases: [Readiness | undefined, string][] = [
    [
      undefined,
      "process 10 has ended, and none of the new program answers. up goes on starting it, and its log says why",
    ],
    [{ ready: true, ...OLD }, "process 10 has not ended"],
    // One that does not say which process it is is of a program from before there were such upgrades.
    [{ ready: true }, "process 10 has not ended"],
    [{ ready: false, reason: "no NIC", ...NEW }, "process 11 runs in place of 10, and is not ready: no NIC"],
  ];
  for (const [found, said] of cases) await assertRejects(() => wait([found]), ApiError, `vf, after 20 s: ${said}`);
});
