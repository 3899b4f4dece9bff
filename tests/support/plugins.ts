/**
 * Plugins made for tests: compiled from a few lines of AssemblyScript, signed with a key of the test's own. What has been
 * compiled once is kept beside the built engines: to load the compiler takes longer than most tests.
 */
import { encodeHex } from "@std/encoding/hex";
import config from "../../deno.json" with { type: "json" };
import { PLUGIN_ABI } from "../../shared/layout/plugin.ts";
import { type KeyPairText, signImage } from "../../shared/plugin/mod.ts";
import { compilerFlags, PLUGIN_PAGES } from "../../shared/wasm/flags.ts";
import { BUILD_DIR } from "../../shared/wasm/load.ts";

const KEPT = new URL("tests/", BUILD_DIR);

/** The functions of a plugin that does nothing; a test replaces what it is about. */
const NOTHING: Record<string, string> = {
  abi: `export function abi(): u32 { return ${PLUGIN_ABI}; }`,
  start: "export function start(): i32 { return 0; }",
  stop: "export function stop(): void {}",
  tx: "export function tx(pair: u32, count: u32): u32 { return 0; }",
  txDone: "export function txDone(pair: u32, max: u32): u32 { return 0; }",
  post: "export function post(pair: u32, count: u32): u32 { return 0; }",
  rx: "export function rx(pair: u32, max: u32): u32 { return 0; }",
  arm: "export function arm(pair: u32): u32 { return 0; }",
  disarm: "export function disarm(pair: u32): void {}",
};

/** A module from AssemblyScript, compiled now or by an earlier run with the same compiler. */
export async function compileModule(source: string, flags: string[] = []): Promise<Uint8Array<ArrayBuffer>> {
  const { "assemblyscript/asc": compiler, binaryen } = config.imports;
  const all = ["plugin.ts", "--outFile", "out.wasm", ...compilerFlags(PLUGIN_PAGES, PLUGIN_PAGES), "-O2", ...flags];
  const made = new TextEncoder().encode(JSON.stringify([compiler, binaryen, all, source]));
  const kept = new URL(`${encodeHex(await crypto.subtle.digest("SHA-256", made))}.wasm`, KEPT);
  try {
    return await Deno.readFile(kept);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  const wasm = await compile(source, all);
  await Deno.mkdir(KEPT, { recursive: true });
  // Whole or not at all: another test may look for the same one.
  const part = await Deno.makeTempFile({ dir: KEPT.pathname });
  await Deno.writeFile(part, wasm);
  await Deno.rename(part, kept);
  return wasm;
}

async function compile(source: string, flags: string[]): Promise<Uint8Array<ArrayBuffer>> {
  const { default: asc } = await import("assemblyscript/asc");
  let wasm: Uint8Array | undefined;
  const { error, stderr } = await asc.main(flags, {
    readFile: (path: string) => path === "plugin.ts" ? source : null,
    writeFile: (path: string, data: string | Uint8Array) => {
      if (path === "out.wasm" && data instanceof Uint8Array) wasm = data;
    },
    listFiles: () => [],
  });
  if (error || !wasm) throw new Error(`${error?.message}\n${stderr}`);
  return wasm as Uint8Array<ArrayBuffer>;
}

/** A plugin that does nothing but what `functions` say, in place of those that it would have. */
export function compilePlugin(
  functions: Record<string, string> = {},
  extra = "",
  flags: string[] = [],
): Promise<Uint8Array<ArrayBuffer>> {
  return compileModule(`${extra}\n${Object.values({ ...NOTHING, ...functions }).join("\n")}`, flags);
}

/** A module as a signed image. */
export function sign(
  module: Uint8Array<ArrayBuffer>,
  keys: KeyPairText,
  info: { name?: string; version?: string; hardware?: "advanced" | "virtio"; abi?: number } = {},
  licence = "Apache-2.0",
): Promise<Uint8Array<ArrayBuffer>> {
  return signImage(
    module,
    { name: "test", version: "1.0.0", hardware: "advanced", abi: PLUGIN_ABI, ...info },
    licence,
    keys,
  );
}

/** A plugin's `start` that names two rings which the NIC takes. */
export const RINGS = `export function start(): i32 {
  for (let queue: u32 = 0; queue < load<u32>(0x10000) * 2; queue++) {
    store<u64>(0x10100 + queue * 32, load<u64>(0x10010) + queue * 0xc800);
    store<u32>(0x10118 + queue * 32, 64);
  }
  return 0;
}`;

/** Where plugins that do not come back leave traces: in the last packet buffer. */
export const PLUGIN_TRACE = 0x9ff000;
const TOUCH = `atomic.add<u32>(${PLUGIN_TRACE}, 1);`;
const STOP = `export function stop(): void { while (1) { ${TOUCH} } }`;
const SWALLOW = "export function tx(pair: u32, count: u32): u32 { return count; }";

/** Plugins that do not give their VF back: what each of them does instead. */
export const ENDLESS: Record<string, Record<string, string>> = {
  "takes frames and sends none": { tx: SWALLOW },
  "writes for ever": { rx: `export function rx(pair: u32, max: u32): u32 { while (1) { ${TOUCH} } return 0; }` },
  "recurses for ever": {
    arm: `function r(n: u32): u32 { return n > 60 ? 0 : r(n + 1) + r(n + 1); }
      export function arm(pair: u32): u32 { return r(0); }`,
  },
  "does not end": { rx: "export function rx(pair: u32, max: u32): u32 { unreachable(); return 0; }", stop: STOP },
  "does not send and does not end": { tx: SWALLOW, stop: STOP },
  "does not come back from sending": {
    tx: `export function tx(pair: u32, count: u32): u32 { while (1) { ${TOUCH} } return 0; }`,
    stop: STOP,
  },
};
