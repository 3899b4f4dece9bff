/** Plugins in the fabric: the registry's refusals, and plugins that misbehave once they run. */
import { assert, assertEquals } from "@std/assert";
import type { PluginView } from "../../shared/api/mod.ts";
import { generateKeys } from "../../shared/plugin/mod.ts";
import { TestFabric } from "../support/fabric.ts";
import { ask, checkedStream, must, setMode, Stream, TestGuest } from "../support/guests.ts";
import { compilePlugin, RINGS, sign } from "../support/plugins.ts";
import { until } from "../support/wait.ts";

const keys = await generateKeys();
const trustFile = Deno.makeTempFileSync({ prefix: "ringfabric-trust-" });
Deno.writeTextFileSync(trustFile, `# the test's own vendor\n${keys.publicKey}\n`);
globalThis.addEventListener("unload", () => Deno.removeSync(trustFile));

const start = (vfs: number, guests: number) =>
  TestFabric.start(vfs, ["--guests", String(guests), "--trust", trustFile]);

Deno.test("the registry: upload, list, remove; what is refused is refused by name and not stored", async () => {
  await using fabric = await start(1, 0);
  const plugins = `${fabric.url("vf")}/api/v1/plugins`;
  const module = await compilePlugin();
  const first = await must(plugins, "POST", await sign(module, keys));
  assertEquals([first.name, first.version, first.hardware, first.licence], ["test", "1.0.0", "advanced", "Apache-2.0"]);
  await must(plugins, "POST", await sign(module, keys, { version: "1.0.10" }));
  await must(plugins, "POST", await sign(module, keys, { version: "1.0.9" }));
  const names = (await must(plugins)).map(({ name, version }: { name: string; version: string }) =>
    `${name} ${version}`
  );
  assertEquals(names, ["advanced 1.0.0", "test 1.0.10", "test 1.0.9", "test 1.0.0", "virtio 1.0.0"]);
  const good = await sign(module, keys, { version: "2.0.0" });
  const altered = good.slice();
  altered[40] = (altered[40] ?? 0) ^ 1;
  const cases: [Uint8Array<ArrayBuffer>, number, string][] = [
    [module, 422, "unsigned"],
    [altered, 422, "bad-signature"],
    [await sign(module, await generateKeys()), 422, "unknown-key"],
    [await sign(module, keys, {}, "Proprietary"), 422, "licence-not-allowed"],
    [
      await sign(await compilePlugin({ stop: "export function stop(): void { memory.fill(0, 0, 1); }" }), keys),
      409,
      "version-taken",
    ],
  ];
  for (const [image, status, reason] of cases) {
    const answer = await ask(plugins, "POST", image);
    assertEquals([answer.status, answer.body.reason], [status, reason]);
  }
  assertEquals((await ask(plugins, "POST", new Uint8Array(300_000))).status, 413);
  assertEquals((await must(plugins)).length, 5);
  await must(`${plugins}/test/1.0.9`, "DELETE");
  assertEquals((await ask(`${plugins}/test/1.0.9`, "DELETE")).status, 404);
  assertEquals((await ask(`${plugins}/advanced/1.0.0`, "DELETE")).body.reason, "builtin");
  assertEquals((await must(plugins)).length, 4);
});

Deno.test("an image that was altered in the registry's folder is not injected, and not offered after a restart", async () => {
  await using fabric = await start(2, 2);
  const plugins = `${fabric.url("vf")}/api/v1/plugins`;
  await must(plugins, "POST", await sign(await compilePlugin(), keys));
  await must(plugins, "POST", await sign(await compilePlugin(), keys, { name: "good" }));
  const path = `${fabric.runDir}/plugins/test@1.0.0.wasm`;
  const image = await Deno.readFile(path);
  image[60] = (image[60] ?? 0) ^ 1;
  await Deno.writeFile(path, image);
  const refused = await ask(`${fabric.info.api}/api/v1/vfs/0/mode`, "PUT", { mode: "passthrough", plugin: "test" });
  assertEquals(refused.status, 409);
  assertEquals(refused.body.reason, "plugin-rejected");
  Deno.kill(fabric.pid("vf"), "SIGKILL");
  await until("the registry without it", async () => {
    const answer = await ask(plugins).catch(() => undefined);
    if (answer?.status !== 200) return false;
    assertEquals(answer.body.map(({ name, version }: PluginView) => `${name} ${version}`), [
      "advanced 1.0.0",
      "good 1.0.0",
      "virtio 1.0.0",
    ]);
    return true;
  });
});

Deno.test("the shell checks for itself: an image whose key only the service trusts is rejected there", async () => {
  await using fabric = await start(2, 2);
  const a = TestGuest.of(fabric, 0);
  // Straight to the shell, as a hypervisor would that has been deceived.
  const image = await sign(await compilePlugin(), await generateKeys());
  assertEquals((await ask(`${a.api}/api/v1/plugin`, "PUT", image)).status, 409, "no slot was opened");
  const slot = await must(`${a.api}/api/v1/plugin`, "POST", { bytes: image.length });
  assert(slot.address > 0 && slot.bytes === image.length);
  const answer = await ask(`${a.api}/api/v1/plugin`, "PUT", image);
  assertEquals([answer.status, answer.body.reason], [422, "unknown-key"]);
});

/** Plugins that pass every check and then misbehave, with what the mode says afterwards. */
const MISBEHAVING: Record<string, [Record<string, string>, RegExp]> = {
  "refuses to start": [{ start: "export function start(): i32 { return 7; }" }, /refused to start/],
  "traps when it starts": [{ start: "export function start(): i32 { unreachable(); return 0; }" }, /unreachable/],
  "does not come back": [
    {
      start: RINGS,
      rx: "export function rx(pair: u32, max: u32): u32 { while (atomic.load<u32>(0x10000) != 77777); return 0; }",
    },
    /did not come back/,
  ],
  "names rings outside of what it may touch": [
    { start: "export function start(): i32 { store<u64>(0x10100, 0x10000); store<u32>(0x10118, 64); return 0; }" },
    /rings are not in the guest's memory/,
  ],
};

/** What it does once frames flow. */
const DOORBELL = "atomic.store<u32>(0x60080, 1);";
const FAULTS: Record<string, [Record<string, string>, RegExp]> = {
  "traps": [{ rx: "export function rx(pair: u32, max: u32): u32 { unreachable(); return 0; }" }, /unreachable/],
  "takes more than there is": [{ post: "export function post(pair: u32, n: u32): u32 { return n + 1; }" }, /post took/],
  "reports a buffer that it does not have": [
    {
      rx:
        "export function rx(pair: u32, max: u32): u32 { store<u32>(0x56000, 4095); store<u32>(0x5600c, 1); return 1; }",
    },
    /rx reported 1 entries/,
  ],
  "says that its device broke the protocol": [
    {
      rx: "export function rx(pair: u32, max: u32): u32 { store<u32>(0x56000, -1); store<u32>(0x5600c, 1); return 1; }",
    },
    /its device broke the protocol/,
  ],
  "reports more than there can be": [
    { rx: "export function rx(pair: u32, max: u32): u32 { return 100000; }" },
    /rx reported/,
  ],
  "reports as sent what it never had": [
    { txDone: "export function txDone(pair: u32, max: u32): u32 { store<u32>(0x52000, 1); return 1; }" },
    /txDone reported/,
  ],
  "reaches beyond its memory": [
    { rx: "export function rx(pair: u32, max: u32): u32 { return load<u32>(0xa00000); }" },
    /out of bounds/,
  ],
  "has the NIC send the guest's memory": [
    {
      tx: `export function tx(pair: u32, count: u32): u32 {
        store<u64>(0x70000 + 0xc800, 0x10000);
        store<u64>(0x70000 + 0xc808, 0x21300040);
        ${DOORBELL}
        notify(1);
        return 0;
      }`,
    },
    /buffer is outside the guest's memory/,
  ],
};
const NOTIFY = '@external("shell", "notify") declare function notify(queue: u32): void;';

Deno.test("plugins that misbehave: the guest goes on in emulated mode, and the reason is named", async (t) => {
  await using fabric = await start(2, 2);
  const [a, b] = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)];
  let version = 0;
  const upload = async (functions: Record<string, string>) => {
    const info = { version: `1.0.${++version}` };
    await must(
      `${fabric.url("vf")}/api/v1/plugins`,
      "POST",
      await sign(await compilePlugin(functions, NOTIFY), keys, info),
    );
  };
  for (const [name, [functions, reason]] of Object.entries(MISBEHAVING)) {
    await t.step(name, async () => {
      await upload(functions);
      const answer = await ask(`${fabric.info.api}/api/v1/vfs/0/mode`, "PUT", { mode: "passthrough", plugin: "test" });
      assertEquals(answer.status, 409, JSON.stringify(answer.body));
      assert(reason.test(answer.body.detail), answer.body.detail);
      assertEquals((await must(`${fabric.info.api}/api/v1/vfs/0/mode`)).mode, "emulated");
      await checkedStream(a, b, { rate: 5000, count: 500 });
    });
  }
  let faults = (await must(`${a.api}/api/v1/stats`)).counters.plugin_faults;
  for (const [name, [functions, reason]] of Object.entries(FAULTS)) {
    await t.step(name, async () => {
      await upload({ start: RINGS, ...functions });
      // Some fail before the change is done, which is then undone; the others when they are first used.
      await ask(`${fabric.info.api}/api/v1/vfs/0/mode`, "PUT", { mode: "passthrough", plugin: "test" });
      // Something to send, so that the plugin is asked to.
      void a.ping(b.ip, 1, { timeoutMs: 100 }).catch(() => {});
      const mode = await until("the guest to be emulated again", async () => {
        const mode = await must(`${fabric.info.api}/api/v1/vfs/0/mode`);
        return mode.mode === "emulated" && mode.lastFailure?.reason === "plugin-failed" && !mode.changing
          ? mode
          : undefined;
      });
      assert(reason.test(mode.lastFailure.detail), mode.lastFailure.detail);
      await a.reaches(b.ip);
      await checkedStream(a, b, { rate: 5000, count: 500 });
      assert(reason.test((await must(`${a.api}/api/v1/mode`)).lastFault));
      assertEquals((await must(`${a.api}/api/v1/stats`)).counters.plugin_faults, ++faults);
    });
  }
  await setMode(fabric, 0, { mode: "passthrough", plugin: "advanced" });
  await checkedStream(a, b, { rate: 5000, count: 500 });
});

Deno.test("a plugin that fails in the place of one that runs: that one goes on, under a checked stream", async () => {
  await using fabric = await start(2, 2);
  const [a, b] = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)];
  const refuses = { start: "export function start(): i32 { return 7; }" };
  await must(`${fabric.url("vf")}/api/v1/plugins`, "POST", await sign(await compilePlugin(refuses), keys));
  await setMode(fabric, 0, { mode: "passthrough", plugin: "advanced" });
  const streams = [
    await Stream.start(a, b, { rate: 5000, size: 128 }),
    await Stream.start(b, a, { rate: 5000, size: 128 }),
  ];
  for (let i = 0; i < 5; i++) {
    const answer = await ask(`${fabric.info.api}/api/v1/vfs/0/mode`, "PUT", { mode: "passthrough", plugin: "test" });
    assertEquals(answer.status, 409, JSON.stringify(answer.body));
    assertEquals((await must(`${fabric.info.api}/api/v1/vfs/0/mode`)).plugin, "advanced");
  }
  for (const stream of streams) await stream.end();
  await setMode(fabric, 0, { mode: "emulated" });
  await checkedStream(a, b, { rate: 5000, count: 500 });
});
