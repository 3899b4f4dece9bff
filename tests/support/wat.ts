/** Wasm modules from text, for tests of what a plugin may be: binaryen reads the text format with every proposal. */
import binaryen from "binaryen";
import { PLUGIN_MEMORY_BYTES } from "../../shared/layout/plugin.ts";

/** A module from its text, features of later versions of the language included. */
export function moduleOf(text: string): Uint8Array<ArrayBuffer> {
  const module = binaryen.parseText(text);
  try {
    module.setFeatures(binaryen.Features.All);
    return new Uint8Array(module.emitBinary());
  } finally {
    module.dispose();
  }
}

const PAGES = PLUGIN_MEMORY_BYTES / 65536;
/** The memory that a plugin imports. */
const MEMORY = `(import "env" "memory" (memory ${PAGES} ${PAGES} shared))`;

/** The functions of a plugin that does nothing. */
const FUNCTIONS: Record<string, string> = {
  abi: '(func (export "abi") (result i32) (i32.const 1))',
  start: '(func (export "start") (result i32) (i32.const 0))',
  stop: '(func (export "stop"))',
  tx: '(func (export "tx") (param i32 i32) (result i32) (i32.const 0))',
  txDone: '(func (export "txDone") (param i32 i32) (result i32) (i32.const 0))',
  post: '(func (export "post") (param i32 i32) (result i32) (i32.const 0))',
  rx: '(func (export "rx") (param i32 i32) (result i32) (i32.const 0))',
  arm: '(func (export "arm") (param i32) (result i32) (i32.const 0))',
  disarm: '(func (export "disarm") (param i32))',
};

/** A plugin that does nothing, but for these functions and what else is declared. */
export function pluginOf(functions: Record<string, string> = {}, declared = ""): Uint8Array<ArrayBuffer> {
  return moduleOf(`(module ${MEMORY} ${declared} ${Object.values({ ...FUNCTIONS, ...functions }).join("\n")})`);
}
