/** Plugin images: what is refused, by name; and what a plugin can reach. */
import { assert, assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { BUFFERS, GUEST_RAM_BYTES_MIN, PLUGIN_AREA } from "../../shared/layout/guest.ts";
import {
  PLUGIN_BUFFER_BYTES,
  PLUGIN_BUFFER_COUNT,
  PLUGIN_DOORBELLS_BYTES,
  PLUGIN_MEMORY_BYTES,
} from "../../shared/layout/plugin.ts";
import {
  addSignature,
  checkImage,
  generateKeys,
  IMAGE_BYTES_MAX,
  PluginRejected,
  type RejectionCode,
  SECTION_LICENCE,
  SECTION_PLUGIN,
  withSection,
} from "../../shared/plugin/mod.ts";
import { createMemfd, WasmMemory } from "../../shared/os/mod.ts";
import { PLUGIN_DIR, TRUSTED_KEYS } from "../../shared/wasm/load.ts";
import { PathMemory } from "../../services/guest/path_memory.ts";
import { compileModule, compilePlugin, sign } from "../support/plugins.ts";

const keys = await generateKeys();
const trust = { keys: [keys.publicKey] };

async function refused(image: Uint8Array<ArrayBuffer>, code: RejectionCode): Promise<void> {
  const error = await assertRejects(() => checkImage(image, trust), PluginRejected);
  assertEquals((error as PluginRejected).code, code, (error as Error).message);
}

/** A module without the parts that a plugin has to have, in text of the binary format. */
const module = (...sections: number[][]) => Uint8Array.from([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, ...sections.flat()]);

Deno.test("the project's own plugins pass every check of theirs", async () => {
  const own = { keys: [Deno.readTextFileSync(TRUSTED_KEYS).trim()] };
  for (const name of ["advanced", "virtio"]) {
    const { info, licence } = await checkImage(await Deno.readFile(new URL(`${name}@1.0.0.wasm`, PLUGIN_DIR)), own);
    assertEquals([info.name, info.hardware, licence], [name, name, "Apache-2.0"]);
  }
});

Deno.test("images are refused by name: signature, key, licence, metadata", async () => {
  const plugin = await compilePlugin();
  const good = await sign(plugin, keys);
  assertEquals((await checkImage(good, trust)).info.name, "test");
  await refused(plugin, "unsigned");
  await refused(await sign(plugin, await generateKeys()), "unknown-key");
  await refused(await addSignature(good, keys), "bad-metadata");
  await refused(withSection(good, "remark", "something behind the signature"), "bad-signature");
  await refused(await sign(plugin, keys, {}, ""), "licence-missing");
  await refused(await sign(plugin, keys, {}, "Proprietary"), "licence-not-allowed");
  await refused(await sign(plugin, keys, { abi: 2 }), "abi-mismatch");
  await refused(await sign(plugin, keys, { name: "Not A Name" }), "bad-metadata");
  await refused(await sign(plugin, keys, { version: "1" }), "bad-metadata");
  const unnamed = withSection(plugin, SECTION_LICENCE, "MIT");
  await refused(await addSignature(unnamed, keys), "bad-metadata");
  await refused(await addSignature(withSection(unnamed, SECTION_PLUGIN, "{"), keys), "bad-metadata");
  await refused(new Uint8Array(), "not-wasm");
  await refused(new TextEncoder().encode("#!/bin/sh\n"), "not-wasm");
  await refused(new Uint8Array(IMAGE_BYTES_MAX + 1), "too-large");
});

Deno.test("an image altered by one byte, anywhere, is refused", async () => {
  const good = await sign(await compilePlugin(), keys);
  for (let at = 0; at < good.length; at += 1 + Math.floor(good.length / 400)) {
    const altered = good.slice();
    altered[at] = (altered[at] ?? 0) ^ 0x40;
    await assertRejects(() => checkImage(altered, trust), PluginRejected);
  }
  for (const length of [good.length - 1, good.length - 72, good.length >> 1, 9]) {
    await assertRejects(() => checkImage(good.slice(0, length), trust), PluginRejected);
  }
});

Deno.test("modules are refused by name: imports, memory, start, data, exports", async () => {
  const signed = async (module: Uint8Array<ArrayBuffer>) => await sign(module, keys);
  const spy = '@external("env", "fetch") declare function fetch(): void;';
  await refused(
    await signed(await compilePlugin({ stop: "export function stop(): void { fetch(); }" }, spy)),
    "import-not-allowed",
  );
  const other = '@external("shell", "readGuest") declare function peek(): void;';
  await refused(
    await signed(await compilePlugin({ stop: "export function stop(): void { peek(); }" }, other)),
    "import-not-allowed",
  );
  await refused(await signed(await compileModule("export function abi(): u32 { return 1; }")), "export-missing");
  await refused(await signed(module([5, 3, 1, 0, 1])), "own-memory");
  const start = [[1, 4, 1, 0x60, 0, 0], [3, 2, 1, 0], [8, 1, 0], [10, 4, 1, 2, 0, 0x0b]];
  await refused(await signed(module(...start)), "start-function");
  await refused(
    await signed(await compilePlugin({}, 'export function text(): string { return "data"; }')),
    "section-not-allowed",
  );
  await refused(await signed(module([1, 200, 1])), "not-wasm");
  await refused(await signed(module([77, 0])), "section-not-allowed");
});

Deno.test("what a compiler writes without being asked is refused in the words of who wrote the source", async () => {
  const tx = (body: string) => ({ tx: `export function tx(pair: u32, count: u32): u32 { ${body} }` });
  const cases: [Record<string, string>, string, RegExp][] = [
    [tx("assert(pair < 16); return 0;"), "", /env\.abort.*build with --use abort=/],
    [{}, 'export function text(): string { return "data"; }', /static data \(strings,/],
    [tx("return load<u32>(memory.data<u32>([1, 2, 3]) + pair);"), "", /static data \(strings, arrays of constants/],
    [tx("return seen;"), "let seen: u32 = load<u32>(0x10000);", /start function.*begin with constants/],
  ];
  for (const [functions, extra, said] of cases) {
    const image = await sign(await compilePlugin(functions, extra), keys);
    const error = await assertRejects(() => checkImage(image, trust), PluginRejected);
    assertMatch((error as PluginRejected).message, said);
  }
  const trapped = await compilePlugin(tx("assert(pair < 16, 'no such pair'); return 0;"), "", ["--use", "abort="]);
  assertEquals((await checkImage(await sign(trapped, keys), trust)).info.name, "test");
});

Deno.test("a plugin reaches its state, rings, buffers and nothing else of the guest's memory", async () => {
  const SECRET = 0x5ec4e75ec4e75ec4n;
  using ram = createMemfd("guest", GUEST_RAM_BYTES_MIN);
  const guest = new WasmMemory(GUEST_RAM_BYTES_MIN);
  guest.map(0, ram.number, 0, GUEST_RAM_BYTES_MIN);
  const words = new BigUint64Array(guest.buffer);
  words.fill(SECRET);
  using path = new PathMemory(1, ram, { queuePairs: 1, ringSize: 64, features: 0n, headerBytes: 0 }, undefined);
  // What is mapped is cleared, so that every secret that is found has been reached where it should not be.
  for (const { address, bytes } of path.ranges) new Uint8Array(guest.buffer, address, bytes).fill(0);
  new Uint8Array(guest.buffer, PLUGIN_AREA, 0x50000).fill(0);
  const image = await compilePlugin({
    start: `export function start(): i32 {
      let found = 0;
      for (let at: usize = 0; at < <usize> memory.size() * 65536; at += 8) if (load<u64>(at) == 0x5ec4e75ec4e75ec4) found++;
      return found;
    }`,
    rx: "export function rx(pair: u32, max: u32): u32 { return load<u32>(<usize> pair); }",
    post: "export function post(pair: u32, count: u32): u32 { return memory.grow(1); }",
    tx: "export function tx(pair: u32, count: u32): u32 { store<u64>(<usize> pair, 0x77); return 0; }",
  });
  const { exports } = new WebAssembly.Instance(await WebAssembly.compile(image), {
    env: { memory: path.memory.memory },
    shell: { notify: () => {} },
  });
  // deno-lint-ignore no-explicit-any
  const plugin = exports as any;
  assertEquals(plugin.start(), 0, "words of the guest's own memory that the plugin can read");
  for (const beyond of [PLUGIN_MEMORY_BYTES - 3, PLUGIN_MEMORY_BYTES, 0x7fff_ffff, -4]) {
    assertThrows(() => plugin.rx(beyond, 0), WebAssembly.RuntimeError);
  }
  assertEquals(plugin.post(0, 0), -1, "its memory cannot grow");
  // What it writes anywhere in its memory lands in what it was given, and nowhere else.
  for (let at = 0; at < PLUGIN_MEMORY_BYTES; at += 4096) plugin.tx(at, 0);
  const mine = (at: number) =>
    at >= PLUGIN_AREA && at < PLUGIN_AREA + 0x200000 ||
    at >= BUFFERS && at < BUFFERS + PLUGIN_BUFFER_COUNT * PLUGIN_BUFFER_BYTES;
  const touched = words.findIndex((word, i) => word !== SECRET && !mine(i * 8));
  assertEquals(touched, -1, `the plugin has changed the guest's memory at ${touched * 8}`);
  assert(words[BUFFERS / 8] === 0x77n, "what it was given it can write");
});

Deno.test("a plugin that is taken away leaves no page of its VF's doorbells mapped", () => {
  using ram = createMemfd("guest", GUEST_RAM_BYTES_MIN);
  using doorbells = createMemfd("doorbells-of-a-vf", PLUGIN_DOORBELLS_BYTES);
  const { ino } = Deno.statSync(`/proc/self/fd/${doorbells.number}`);
  const isMapped = () => Deno.readTextFileSync("/proc/self/maps").includes(` ${ino} `);
  const path = new PathMemory(1, ram, { queuePairs: 1, ringSize: 64, features: 0n, headerBytes: 0 }, doorbells);
  assert(isMapped());
  path[Symbol.dispose]();
  assert(!isMapped());
});
