/** Numbers of a Wasm module that matter to a plugin: sections, external kinds, and limits. */
import { PLUGIN_MEMORY_BYTES } from "../layout/plugin.ts";

// Sections of the binary format (WebAssembly core specification §5.5.2)
export const CUSTOM = 0;
export const TYPE = 1;
export const IMPORT = 2;
export const FUNCTION = 3;
export const MEMORY = 5;
export const GLOBAL = 6;
export const EXPORT = 7;
export const START = 8;
export const CODE = 10;

const STATIC_DATA = "static data (strings, arrays of constants, messages of assert)";
const FUNCTION_VALUES = "a table (functions as values)";
/** What is in the sections that no plugin has, in a vendor's words: compilers write them without being asked. */
export const FORBIDDEN_SECTIONS: ReadonlyMap<number, string> = new Map([
  [4, FUNCTION_VALUES],
  [9, FUNCTION_VALUES],
  [11, STATIC_DATA],
  // How many pieces of data there are: it comes before the data itself.
  [12, STATIC_DATA],
  [13, "exceptions"],
]);

/** Limits, so that checking and compiling an image takes a bounded time. */
export const SECTIONS_MAX = 64;
export const TYPES_MAX = 256;
export const PARAMETERS_MAX = 32;
export const FUNCTIONS_MAX = 1024;
export const GLOBALS_MAX = 256;
export const EXPORTS_MAX = 64;
export const BODY_BYTES_MAX = 8 * 1024;

export const FUNCTION_TYPE = 0x60;
export const EXTERNAL_FUNCTION = 0;
export const EXTERNAL_MEMORY = 2;
const EXTERNAL_GLOBAL = 3;
export const EXPORTABLE = new Set([EXTERNAL_FUNCTION, EXTERNAL_GLOBAL]);
export const SHARED_WITH_MAXIMUM = 3;
export const MEMORY_PAGES = PLUGIN_MEMORY_BYTES / 65536;

/** The memory that a guarded module looks at: one page, 0 in its first word for as long as the plugin may run. */
export const GUARD_IMPORT = { module: "shell", name: "guard", pages: 1 } as const;

/** Parameters and results of a function, as text: `i32 i32 -> i32`. */
export type Signature = string;

/** What `shell.notify` takes and answers. */
export const ONE: Signature = "i32 ->";
const ONE_ANSWERED: Signature = "i32 -> i32";
const TWO_ANSWERED: Signature = "i32 i32 -> i32";
const NONE_ANSWERED: Signature = "-> i32";

/** Functions that a shell calls, with what they take and answer (docs/plugin-api.md). */
export const PLUGIN_EXPORTS: Readonly<Record<string, Signature>> = {
  abi: NONE_ANSWERED,
  start: NONE_ANSWERED,
  stop: "->",
  tx: TWO_ANSWERED,
  txDone: TWO_ANSWERED,
  post: TWO_ANSWERED,
  rx: TWO_ANSWERED,
  arm: ONE_ANSWERED,
  disarm: ONE,
};
