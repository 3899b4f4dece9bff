/**
 * The virtio plugin with a look before each access to a ring: what another thread could do at any moment, a test does
 * at a chosen one. binaryen puts the looks in.
 */
import binaryen from "binaryen";
import { PLUGIN_RINGS, PLUGIN_RINGS_BYTES } from "../../shared/layout/plugin.ts";
import { wasmUrl } from "../../shared/wasm/load.ts";

let module: WebAssembly.Module | undefined;

/** The module. */
export function watched(): WebAssembly.Module {
  if (module) return module;
  const built = binaryen.readBinary(Deno.readFileSync(wasmUrl("plugin-virtio")));
  try {
    built.setFeatures(binaryen.Features.All);
    built.runPasses(["instrument-memory"]);
    module = new WebAssembly.Module(new Uint8Array(built.emitBinary()));
    return module;
  } finally {
    built.dispose();
  }
}

/** What the module imports beside its memory: `look` runs before each access to a ring. */
export function watchImports(
  of: WebAssembly.Module,
  look: () => void,
): Record<string, (...values: never[]) => unknown> {
  const names = WebAssembly.Module.imports(of).filter(({ module, kind }) => module === "env" && kind === "function");
  const access = (_id: number, _bytes: number, offset: number, at: number) => {
    const place = (at >>> 0) + offset - PLUGIN_RINGS;
    if (place >= 0 && place < PLUGIN_RINGS_BYTES) look();
    return at;
  };
  const pass = (...values: unknown[]) => values.at(-1);
  return Object.fromEntries(names.map(({ name }) => [name, /^(load|store)_ptr$/.test(name) ? access : pass]));
}
