/**
 * Loads the built engines. Building is `shared/wasm/build.ts`; it leaves them in `.build/`.
 */

/** The Wasm modules of the project: `a-b` is built from assembly/a/b. */
export const WASM_MODULES = ["engine", "guest", "netdev", "plugin-virtio", "plugin-advanced"] as const;

/** Name of one Wasm module. */
export type WasmModuleName = typeof WASM_MODULES[number];

/** The repository's root. */
export const ROOT = new URL("../../", import.meta.url);
/** Where built modules lie. */
export const BUILD_DIR = new URL(".build/", ROOT);

/** Signed images of the project's own plugins, and the keys by which they are believed. */
export const PLUGIN_DIR = new URL("plugins/", BUILD_DIR);
export const TRUSTED_KEYS = new URL("trusted-keys", BUILD_DIR);

/** Where the built module `name` lies. */
export function wasmUrl(name: WasmModuleName): URL {
  return new URL(`${name}.wasm`, BUILD_DIR);
}

/** Reads and compiles a built module. Throws with what to do if it has not been built. */
export async function loadWasm(name: WasmModuleName): Promise<WebAssembly.Module> {
  let bytes: Uint8Array<ArrayBuffer>;
  try {
    bytes = await Deno.readFile(wasmUrl(name));
  } catch (cause) {
    throw new Error(`Cannot load ${name}.wasm: it is not built; run \`npx -y deno@2.9.6 task build\``, { cause });
  }
  return await WebAssembly.compile(bytes);
}
