/**
 * How AssemblyScript is compiled here: the project's own modules by build.ts, and plugins of others by the build command
 * that `fabric plugin new` writes.
 */
import { PLUGIN_MEMORY_BYTES } from "../layout/plugin.ts";

const WASM_PAGE_BYTES = 65536;

/** Pages of a plugin's memory: it begins with all of them, and does not grow. */
export const PLUGIN_PAGES = PLUGIN_MEMORY_BYTES / WASM_PAGE_BYTES;

/** The compiler's flags for a module with a memory of `initial` to `maximum` pages, which it is given. */
export function compilerFlags(initial: number, maximum: number): string[] {
  return [
    ...["-O3", "--runtime", "stub", "--importMemory", "--sharedMemory"],
    ...["--initialMemory", String(initial), "--maximumMemory", String(maximum)],
    ...["--enable", "threads,simd,bulk-memory"],
  ];
}
