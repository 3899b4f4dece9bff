/**
 * Builds the engines: AssemblyScript to Wasm, with the compiler from npm, into `.build/`. A build whose sources have
 * not changed is not done again, so `up` may ask for one every time; the compiler is only loaded when there is work.
 */
import { encodeHex } from "@std/encoding/hex";
import { GUEST_RAM_BYTES_MIN } from "../layout/guest.ts";
import { ND_MEMORY_BYTES } from "../layout/netdev.ts";
import { PLUGIN_ABI } from "../layout/plugin.ts";
import { generateKeys, rewriteModule, signImage } from "../plugin/mod.ts";
import { compilerFlags, PLUGIN_PAGES } from "./flags.ts";
import { BUILD_DIR, PLUGIN_DIR, ROOT, TRUSTED_KEYS, WASM_MODULES, type WasmModuleName, wasmUrl } from "./load.ts";

/** Version of the project's own plugins. */
const PLUGIN_VERSION = "1.0.0";
const WASM_PAGE_BYTES = 65536;
/** Smallest and largest memory, in pages, that a module can be given. */
const PAGES: Record<WasmModuleName, [number, number]> = {
  "engine": [65536, 65536],
  "guest": [GUEST_RAM_BYTES_MIN / WASM_PAGE_BYTES, 65536],
  "netdev": [ND_MEMORY_BYTES / WASM_PAGE_BYTES, ND_MEMORY_BYTES / WASM_PAGE_BYTES],
  "plugin-virtio": [PLUGIN_PAGES, PLUGIN_PAGES],
  "plugin-advanced": [PLUGIN_PAGES, PLUGIN_PAGES],
};

function flagsOf(name: WasmModuleName): string[] {
  const [initial, maximum] = PAGES[name];
  // Static data would be written into shared memory at every instantiation; there is none (tests/unit/tidy_test.ts).
  return [...compilerFlags(initial, maximum), "--memoryBase", "65536"];
}

/** AssemblyScript wants imports without a suffix, Deno with one: sources say `.ts`, the compiler is shown none. */
function readSource(path: string): string | null {
  try {
    const text = Deno.readTextFileSync(new URL(path, ROOT));
    return text.replaceAll(/(from\s+"\.[^"]*)\.ts"/g, '$1"');
  } catch {
    return null;
  }
}

async function fingerprint(files: Map<string, string>): Promise<string> {
  const text = JSON.stringify([WASM_MODULES.map(flagsOf), PLUGIN_VERSION, [...files]]);
  return encodeHex(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text)));
}

function sourcesOf(folder: string, into = new Map<string, string>()): Map<string, string> {
  const entries = [...Deno.readDirSync(new URL(folder, ROOT))].sort((a, b) => a.name < b.name ? -1 : 1);
  for (const entry of entries) {
    if (entry.isDirectory) sourcesOf(`${folder}${entry.name}/`, into);
    else if (entry.name.endsWith(".ts")) {
      into.set(folder + entry.name, Deno.readTextFileSync(new URL(folder + entry.name, ROOT)));
    }
  }
  return into;
}

async function compile(name: WasmModuleName): Promise<Uint8Array> {
  const { default: asc } = await import("assemblyscript/asc");
  let wasm: Uint8Array | undefined;
  const { error, stderr } = await asc.main([
    `assembly/${name.replace("-", "/")}/index.ts`,
    "--outFile",
    "out.wasm",
    ...flagsOf(name),
  ], {
    readFile: (path: string) => readSource(path),
    writeFile: (path: string, data: string | Uint8Array) => {
      if (path === "out.wasm" && data instanceof Uint8Array) wasm = data;
    },
    listFiles: () => [],
  });
  if (error || !wasm) throw new Error(`Cannot build assembly/${name}: ${error?.message}\n${stderr}`);
  return wasm;
}

/**
 * Signs the project's own plugins with a key that is made for this build and kept nowhere, and says that it is to be
 * trusted: no service can read it, and nobody can sign in its name. Who ships plugins signs them with a key of his own:
 * `fabric plugin sign`.
 */
async function signPlugins(): Promise<void> {
  const keys = await generateKeys();
  await Deno.writeTextFile(TRUSTED_KEYS, `${keys.publicKey}\n`);
  await Deno.mkdir(PLUGIN_DIR, { recursive: true });
  for (const hardware of ["advanced", "virtio"] as const) {
    const module = rewriteModule(await Deno.readFile(wasmUrl(`plugin-${hardware}`)), false);
    const info = { name: hardware, version: PLUGIN_VERSION, hardware, abi: PLUGIN_ABI };
    await Deno.writeFile(
      new URL(`${hardware}@${PLUGIN_VERSION}.wasm`, PLUGIN_DIR),
      await signImage(module, info, "Apache-2.0", keys),
    );
  }
}

/** Builds what is out of date; answers the names of the modules it built. `before` runs before each of them. */
export async function buildWasm(before: (name: string) => Promise<void> = async () => {}): Promise<WasmModuleName[]> {
  const sources = sourcesOf("shared/layout/", sourcesOf("assembly/"));
  const wanted = await fingerprint(sources);
  const stamp = new URL("fingerprint", BUILD_DIR);
  const have = await Deno.readTextFile(stamp).catch(() => "");
  if (have === wanted) return [];
  await Deno.mkdir(BUILD_DIR, { recursive: true });
  for (const name of WASM_MODULES) {
    await before(name);
    await Deno.writeFile(wasmUrl(name), await compile(name));
  }
  await signPlugins();
  await Deno.writeTextFile(stamp, wanted);
  return [...WASM_MODULES];
}

if (import.meta.main) {
  const started = performance.now();
  const built = await buildWasm();
  const tookMs = Math.round(performance.now() - started);
  console.log(built.length ? `built ${built.join(", ")} in ${tookMs} ms` : "up to date");
}
