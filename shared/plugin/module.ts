/**
 * What a plugin's Wasm module may be, and the form in which it runs. A module is read section by section and written
 * again in its canonical form: every number in its shortest encoding. A signed image must be in that form, so that one
 * module has one signature. What runs is the same with the guard (code.ts), by which its shell can end it at any time.
 *
 * Written here, and not with a Wasm toolkit: a plugin is held against a list of what it may use, which toolkits do not
 * have, and a guest that loads one (binaryen: 13 MB) for each change of mode would not be ready in milliseconds.
 */
import { Reader, Writer } from "./binary.ts";
import { copyBody, copyConstant, valueType } from "./code.ts";
import {
  BODY_BYTES_MAX,
  CODE,
  CUSTOM,
  EXPORT,
  EXPORTABLE,
  EXPORTS_MAX,
  EXTERNAL_FUNCTION,
  EXTERNAL_MEMORY,
  FORBIDDEN_SECTIONS,
  FUNCTION,
  FUNCTION_TYPE,
  FUNCTIONS_MAX,
  GLOBAL,
  GLOBALS_MAX,
  GUARD_IMPORT,
  IMPORT,
  MEMORY,
  MEMORY_PAGES,
  ONE,
  PARAMETERS_MAX,
  PLUGIN_EXPORTS,
  SECTIONS_MAX,
  SHARED_WITH_MAXIMUM,
  type Signature,
  START,
  TYPE,
  TYPES_MAX,
} from "./module_format.ts";
import { PluginRejected } from "./rejected.ts";

/** What is learned of a module while it is copied. */
class Parts {
  readonly types: Signature[] = [];
  /** The type of each function, the imported one first. */
  readonly functions: number[] = [];
  readonly exports = new Map<string, Signature | undefined>();
  /** Numbers of the functions that can be called from outside. */
  readonly exported = new Set<number>();
  /** How many of the functions are imported: they come first. */
  imported = 0;
  hasMemory = false;
  seen = 0;

  signatureOf(functionIndex: number): Signature | undefined {
    return this.types[this.functions[functionIndex] ?? -1];
  }
}

const NAMES: Record<number, string> = { 0x7f: "i32", 0x7e: "i64", 0x7d: "f32", 0x7c: "f64", 0x7b: "v128" };

function copyTypes(from: Reader, to: Writer, parts: Parts): void {
  const vector = (what: string) => {
    const types = Array.from({ length: from.count(PARAMETERS_MAX, what) }, () => valueType(from));
    to.sized(types);
    return types.map((type) => NAMES[type] ?? "");
  };
  const count = from.count(TYPES_MAX, "types");
  to.u32(count);
  for (let i = 0; i < count; i++) {
    const kind = from.byte();
    if (kind !== FUNCTION_TYPE) {
      throw new PluginRejected(
        "type-not-allowed",
        `the image has a type of kind 0x${kind.toString(16)}: functions only`,
      );
    }
    to.byte(kind);
    const parameters = vector("parameters of a function");
    const results = vector("results of a function");
    if (results.length > 1) throw new PluginRejected("type-not-allowed", "a function of the image has several results");
    parts.types.push([...parameters, "->", ...results].join(" "));
  }
}

function readName(from: Reader): Uint8Array<ArrayBuffer> {
  return from.take(from.u32());
}

/** A name in which every byte counts: names that are known are ASCII, one character a byte. */
function textOf(bytes: Uint8Array<ArrayBuffer>): string {
  return Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
}

/** What is shown of a name, which may be anything: printable, and short. */
function shown(name: string): string {
  return name.replaceAll(/[^ -~]/g, "?").slice(0, 60);
}

function copyImports(from: Reader, to: Writer, parts: Parts, guarded: boolean): void {
  const count = from.count(2, "imports");
  to.u32(count + (guarded ? 1 : 0));
  for (let i = 0; i < count; i++) {
    const [module, name] = [readName(from), readName(from)];
    to.sized(module);
    to.sized(name);
    const kind = from.byte();
    to.byte(kind);
    const label = `${textOf(module)}.${textOf(name)}`;
    if (label === "env.memory" && kind === EXTERNAL_MEMORY && !parts.hasMemory) {
      copyMemoryLimits(from, to);
      parts.hasMemory = true;
    } else if (label === "shell.notify" && kind === EXTERNAL_FUNCTION && parts.functions.length === 0) {
      const type = from.u32();
      to.u32(type);
      parts.functions.push(type);
      parts.imported++;
      if (parts.types[type] !== ONE) {
        throw new PluginRejected(
          "wrong-signature",
          `shell.notify is imported as (${parts.types[type]}): it is (${ONE})`,
        );
      }
    } else {
      const remedy = label === "env.abort" ? ": assert and checks of bounds call it; build with --use abort=" : "";
      throw new PluginRejected("import-not-allowed", `the image imports ${shown(label)}, which no shell has${remedy}`);
    }
  }
  if (guarded) writeGuardImport(to);
}

function copyMemoryLimits(from: Reader, to: Writer): void {
  const flags = from.byte();
  const limits = flags === SHARED_WITH_MAXIMUM ? [from.u32(), from.u32()] : [];
  if (limits.length === 0 || limits.some((limit) => limit !== MEMORY_PAGES)) {
    throw new PluginRejected("import-not-allowed", `env.memory is a shared memory of exactly ${MEMORY_PAGES} pages`);
  }
  to.byte(flags);
  for (const limit of limits) to.u32(limit);
}

function writeGuardImport(to: Writer): void {
  const { module, name, pages } = GUARD_IMPORT;
  for (const text of [module, name]) to.sized(new TextEncoder().encode(text));
  to.byte(EXTERNAL_MEMORY);
  to.byte(SHARED_WITH_MAXIMUM);
  to.u32(pages);
  to.u32(pages);
}

function copyFunctions(from: Reader, to: Writer, parts: Parts): void {
  const count = from.count(FUNCTIONS_MAX, "functions");
  to.u32(count);
  for (let i = 0; i < count; i++) {
    const type = from.u32();
    to.u32(type);
    parts.functions.push(type);
  }
}

function copyGlobals(from: Reader, to: Writer): void {
  const count = from.count(GLOBALS_MAX, "global variables");
  to.u32(count);
  for (let i = 0; i < count; i++) {
    to.byte(valueType(from));
    to.byte(from.byte());
    copyConstant(from, to);
  }
}

function copyExports(from: Reader, to: Writer, parts: Parts): void {
  const count = from.count(EXPORTS_MAX, "exports");
  to.u32(count);
  for (let i = 0; i < count; i++) {
    const bytes = readName(from);
    const kind = from.byte();
    const index = from.u32();
    to.sized(bytes);
    to.byte(kind);
    to.u32(index);
    const name = textOf(bytes);
    // Compilers export the memory that was imported.
    if (name === "memory" && kind === EXTERNAL_MEMORY && index === 0) continue;
    // Functions and globals by other names are looked at by nobody.
    if (!EXPORTABLE.has(kind)) {
      throw new PluginRejected("export-not-allowed", `the image exports ${shown(name)}, which is no function`);
    }
    if (kind === EXTERNAL_FUNCTION) parts.exported.add(index);
    parts.exports.set(name, kind === EXTERNAL_FUNCTION ? parts.signatureOf(index) : undefined);
  }
}

function copyCode(from: Reader, to: Writer, parts: Parts, guarded: boolean): void {
  const count = from.count(FUNCTIONS_MAX, "functions");
  to.u32(count);
  for (let i = 0; i < count; i++) {
    const body = new Writer();
    const part = from.part(from.count(BODY_BYTES_MAX, "bytes of code in one function"));
    copyBody(part, body, guarded, parts.exported.has(parts.imported + i));
    to.sized(body.bytes);
  }
}

function copyCustom(from: Reader, to: Writer): void {
  to.sized(readName(from));
  to.raw(from.rest());
}

/** Copies one section's content. Throws PluginRejected if a plugin may not have it. */
function copySection(id: number, from: Reader, to: Writer, parts: Parts, guarded: boolean): void {
  if (id !== CUSTOM && id <= parts.seen) throw new PluginRejected("not-wasm", "sections of the image are out of order");
  if (id !== CUSTOM) parts.seen = id;
  switch (id) {
    case CUSTOM:
      return copyCustom(from, to);
    case TYPE:
      return copyTypes(from, to, parts);
    case IMPORT:
      return copyImports(from, to, parts, guarded);
    case FUNCTION:
      return copyFunctions(from, to, parts);
    case MEMORY:
      throw new PluginRejected("own-memory", "the image has a memory of its own");
    case GLOBAL:
      return copyGlobals(from, to);
    case EXPORT:
      return copyExports(from, to, parts);
    case START:
      throw new PluginRejected(
        "start-function",
        "the image has a start function, which no plugin may: global variables begin with constants, and without new",
      );
    case CODE:
      return copyCode(from, to, parts, guarded);
    default: {
      const what = FORBIDDEN_SECTIONS.get(id) ?? `a section of kind ${id}`;
      throw new PluginRejected("section-not-allowed", `the image has ${what}, which no plugin may`);
    }
  }
}

function checkExports({ exports, hasMemory }: Parts): void {
  if (!hasMemory) throw new PluginRejected("import-missing", "the image does not import env.memory");
  const missing = Object.keys(PLUGIN_EXPORTS).filter((name) => !exports.has(name));
  if (missing.length > 0) throw new PluginRejected("export-missing", `the image does not export ${missing.join(", ")}`);
  for (const [name, wanted] of Object.entries(PLUGIN_EXPORTS)) {
    const found = exports.get(name) ?? "no function";
    if (found === wanted) continue;
    throw new PluginRejected("wrong-signature", `the image exports ${name} as (${found}): it is (${wanted})`);
  }
}

/**
 * The module in its canonical form, with the guard if `guarded`. Throws PluginRejected with the name of the first thing
 * that a plugin may not be.
 */
export function rewriteModule(image: Uint8Array<ArrayBuffer>, guarded: boolean): Uint8Array<ArrayBuffer> {
  const from = new Reader(image);
  const to = new Writer();
  const parts = new Parts();
  to.raw(from.take(8));
  for (let count = 1; !from.done; count++) {
    if (count > SECTIONS_MAX) {
      throw new PluginRejected("too-complex", `the image has more than ${SECTIONS_MAX} sections`);
    }
    const id = from.byte();
    const section = from.part(from.u32());
    // Nothing that runs needs them, and compilers read some.
    if (id === CUSTOM && guarded) continue;
    const content = new Writer();
    copySection(id, section, content, parts, guarded);
    if (!section.done) throw new PluginRejected("not-wasm", "a section of the image goes on behind its end");
    to.byte(id);
    to.sized(content.bytes);
  }
  checkExports(parts);
  return Uint8Array.from(to.bytes);
}

/**
 * Checks that the module can do no more than a plugin may and is in its canonical form. Throws PluginRejected; answers
 * the module as it is to run, with the guard.
 */
export async function validateModule(image: Uint8Array<ArrayBuffer>): Promise<WebAssembly.Module> {
  const canonical = rewriteModule(image, false);
  if (canonical.length !== image.length || !canonical.every((byte, i) => byte === image[i])) {
    throw new PluginRejected("not-canonical", "the image has numbers in longer forms than they need: sign it anew");
  }
  try {
    return await WebAssembly.compile(rewriteModule(image, true));
  } catch (error) {
    throw new PluginRejected("not-wasm", `the image does not compile: ${(error as Error).message}`);
  }
}
