/**
 * A guest's shell as the vf service asks it: each step within its time, whatever the guest answers read by a schema, and
 * nothing of what it says believed that is not its own to say.
 */
import { assertEquals, assertRejects } from "@std/assert";
import { ApiError } from "../../shared/api/mod.ts";
import { GuestShell } from "../../services/vf/guests.ts";
import { FakeFetch, type Reply } from "../support/fake_fetch.ts";
import { VirtualTime } from "../support/virtual_time.ts";

const MODE = { mode: "emulated", connected: true } as const;
const DRIVING = { mode: "passthrough", plugin: "advanced", version: "1.0.0", connected: true } as const;

/** A test of a shell whose guest is the test. */
function shellTest(name: string, fn: (shell: GuestShell, guest: FakeFetch, time: VirtualTime) => Promise<void>): void {
  Deno.test(name, async () => {
    using time = new VirtualTime();
    using guest = new FakeFetch();
    const report = { api: "http://10.0.0.1:8090", boot: "1", first: false, mode: MODE, seat: "running" as const };
    await fn(new GuestShell(report, "secret"), guest, time);
  });
}

/** Every step, with what it takes. */
const STEPS: [string, (shell: GuestShell) => Promise<void>][] = [
  ["inject", (shell) => shell.inject(new Uint8Array(10), 2000)],
  ["quiesce", (shell) => shell.quiesce(2000)],
  ["passthrough", (shell) => shell.passthrough(3, "token", 2000)],
  ["emulated", (shell) => shell.emulated(2000)],
  ["refresh", (shell) => shell.refresh(2000)],
  ["allowTx", (shell) => shell.allowTx(2000)],
];

async function failure(time: VirtualTime, step: Promise<void>): Promise<ApiError> {
  return await time.run(assertRejects(() => step, ApiError)) as ApiError;
}

shellTest("each step is a request with the guest's token, and with what the guest is to know", async (shell, guest) => {
  guest.answer = ({ path }) => path.endsWith("passthrough") ? DRIVING : MODE;
  for (const [, step] of STEPS) await step(shell);
  assertEquals(guest.asked.map(({ method, path, body }) => [method, path, body]), [
    ["POST", "/api/v1/plugin", { bytes: 10 }],
    ["PUT", "/api/v1/plugin", 10],
    ["POST", "/api/v1/path/quiesce", { deadlineMs: 2000 }],
    ["POST", "/api/v1/path/passthrough", { vf: 3, token: "token" }],
    ["POST", "/api/v1/path/emulated", { deadlineMs: 1800 }],
    ["GET", "/api/v1/mode", null],
    ["POST", "/api/v1/path/resume", {}],
  ]);
  assertEquals(new Set(guest.asked.map(({ headers }) => headers.get("authorization"))), new Set(["Bearer secret"]));
});

shellTest("its mode is what it has answered last", async (shell, guest) => {
  guest.answer = () => DRIVING;
  await shell.passthrough(3, "token", 2000);
  assertEquals(shell.mode, DRIVING);
  guest.answer = () => ({ ...MODE, lastFault: "the plugin failed: \u001b[2J\u202e" });
  await shell.refresh(2000);
  assertEquals(shell.mode, { ...MODE, lastFault: "the plugin failed: ?[2J?" });
});

for (const [name, step] of STEPS) {
  shellTest(`${name}: a guest that never answers is waited for as long as it was given`, async (shell, guest, time) => {
    guest.answer = () => "silence";
    const start = time.now;
    const { status, reason } = await failure(time, step(shell));
    assertEquals([status, reason], [503, "unreachable"]);
    // What it answers to the end of its own deadline may still be on its way.
    assertEquals(time.now - start, name === "quiesce" ? 2200 : 2000);
  });
}

shellTest("a plugin is announced and sent within one time, not each within its own", async (shell, guest, time) => {
  guest.answer = async ({ method }) => {
    await new Promise((resolve) => setTimeout(resolve, 1500));
    return method === "PUT" ? "silence" : undefined;
  };
  const start = time.now;
  await failure(time, shell.inject(new Uint8Array(10), 2000));
  assertEquals(time.now - start, 2000);
});

/** What no shell says. */
const NONSENSE: [string, Reply][] = [
  ["no JSON", "<html>"],
  ["nothing at all", ""],
  ["a list", []],
  ["a number", 5],
  ["null", "null"],
  ["more than anybody reads", new Array(20_000).fill(0)],
];

for (const [what, reply] of NONSENSE) {
  shellTest(`${what} is no answer, and changes nothing that is known of the guest`, async (shell, guest, time) => {
    guest.answer = () => reply;
    for (const [name, step] of STEPS) {
      const { status } = await failure(time, step(shell));
      assertEquals([status, shell.mode], [503, MODE], name);
    }
  });
}

shellTest("a mode that is none is not taken for one", async (shell, guest, time) => {
  const modes = [{}, { mode: "root", connected: true }, { mode: "passthrough" }, { ...MODE, plugin: 5 }, {
    ...MODE,
    plugin: "x".repeat(33),
  }];
  for (const mode of modes) {
    guest.answer = () => mode;
    const { reason, message } = await failure(time, shell.refresh(2000));
    assertEquals([reason, message], ["guest-unreachable", "the guest answers nonsense to /api/v1/mode"]);
    assertEquals(shell.mode, MODE);
  }
});

shellTest("a guest that sends the service elsewhere is not followed", async (shell, guest, time) => {
  guest.answer = () => new Response(null, { status: 307, headers: { location: "http://127.0.0.1:8080/api/v1/nic" } });
  assertEquals((await failure(time, shell.refresh(2000))).status, 503);
  assertEquals(guest.asked.length, 1);
});

/** A refusal by the guest: what it sends, and what is made of it. */
const REFUSALS: [number, Record<string, unknown>, [number, string, string | undefined, string | undefined]][] = [
  [409, { detail: "no", reason: "plugin-failed" }, [409, "the guest: no", undefined, "plugin-failed"]],
  [409, { detail: "no", field: "plugin" }, [409, "the guest: no", "plugin", undefined]],
  // These names are the hypervisor's to give.
  [409, { detail: "no", reason: "taken-by-force" }, [409, "the guest: no", undefined, undefined]],
  [409, { detail: "no", reason: "guest-unreachable" }, [409, "the guest: no", undefined, undefined]],
  [422, { detail: "no", reason: "plugin-rejected", field: "image" }, [422, "the guest: no", undefined, undefined]],
  [404, { detail: "gone" }, [404, "the guest: gone", undefined, undefined]],
  // Nobody is to take these for the service's own.
  [401, { detail: "who?" }, [503, "the guest: who?", undefined, undefined]],
  [500, {}, [503, "the guest: HTTP 500", undefined, undefined]],
  [503, { detail: "no", reason: "taken-by-force" }, [503, "the guest: no", undefined, undefined]],
  [409, { detail: "\u001b]0;root\u0007 \u202eno" }, [409, "the guest: ?]0;root? ?no", undefined, undefined]],
];

shellTest("a guest's refusal is passed on, without names that are not its to give", async (shell, guest, time) => {
  for (const [status, problem, expected] of REFUSALS) {
    guest.answer = () => new Response(JSON.stringify(problem), { status });
    const { status: told, message, field, reason } = await failure(time, shell.quiesce(2000));
    assertEquals([told, message, field, reason], expected);
  }
});
