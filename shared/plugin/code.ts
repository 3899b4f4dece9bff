/**
 * The bodies of a plugin's functions: read instruction by instruction, held against what a plugin may use, and written
 * again in their shortest form, with the guard if it is asked for.
 *
 * **The guard** is what ends a plugin. A Wasm loop cannot be stopped from outside in this runtime (Worker.terminate()
 * does not end it). So every round of every loop, every function that the shell calls or that calls others, and every
 * `memory.fill` and `memory.copy` first looks at a word in a memory that the plugin does not have, and traps if the word
 * is not zero:
 *
 *     i32.const 0
 *     i32.atomic.load (memory 1)               atomic, so that no compiler takes it out of the loop
 *     i32.load8_u (memory 1) offset=65535      the page's last byte, or beyond the page
 *     drop
 *
 * There is no branch in it: V8's first compiler notes the whole operand stack at every branch, which makes hostile
 * functions four times as long to compile (2.5 s and 3.2 GB for one of 32 KiB). Another function that neither loops nor
 * calls runs straight ahead and needs no guard: whoever calls it has one. So a plugin ends within microseconds, or after one
 * fill or copy of its 10 MiB; a hostile one after some ten milliseconds of code without a loop.
 */
import { type Reader, Writer } from "./binary.ts";
import { CALL, immediateOf, isPrefix, MEMORY_COPY, PREFIX_BULK } from "./instructions.ts";
import { PluginRejected } from "./rejected.ts";

/** Limits on one function, so that compiling it takes a bounded time. */
const LOCALS_MAX = 128;
const NESTING_MAX = 256;
const BRANCHES_MAX = 1024;

/** Value types: numbers and v128 (§5.3.1, §5.3.2). */
const VALUE_TYPES = new Set([0x7f, 0x7e, 0x7d, 0x7c, 0x7b]);
const NO_VALUE = 0x40;
/** The largest alignment is 16 bytes, 2^4; from bit 6 on it would name another memory. */
const ALIGNMENT_MAX = 4;

/** The memory that holds the guard's word: the second one of a guarded module. */
const GUARD_MEMORY = 1;
const GUARD = [0x41, 0, 0xfe, 0x10, 0x40 | 2, GUARD_MEMORY, 0, 0x2d, 0x40, GUARD_MEMORY, 0xff, 0xff, 0x03, 0x1a];

/** Reads a value type. Throws PluginRejected `type-not-allowed` if it is no number and no v128. */
export function valueType(from: Reader): number {
  const type = from.byte();
  if (VALUE_TYPES.has(type)) return type;
  throw new PluginRejected("type-not-allowed", `the image uses type 0x${type.toString(16)}: numbers and v128 only`);
}

/** Copies a function's locals: neighbours of one type are one entry. */
function copyLocals(from: Reader, to: Writer): void {
  const groups: { count: number; type: number }[] = [];
  let total = 0;
  for (let left = from.count(LOCALS_MAX, "groups of locals in a function"); left > 0; left--) {
    const count = from.u32();
    total += count;
    if (total > LOCALS_MAX) {
      throw new PluginRejected("too-complex", `a function has ${total} locals or more: at most ${LOCALS_MAX}`);
    }
    const type = valueType(from);
    const last = groups.at(-1);
    if (count === 0) continue;
    if (last?.type === type) last.count += count;
    else groups.push({ count, type });
  }
  to.u32(groups.length);
  for (const { count, type } of groups) {
    to.u32(count);
    to.byte(type);
  }
}

/** Copies a block's type: none, or one value. */
function copyBlockType(from: Reader, to: Writer): void {
  const type = from.byte();
  if (type !== NO_VALUE && !VALUE_TYPES.has(type)) {
    throw new PluginRejected("type-not-allowed", `a block of the image has type 0x${type.toString(16)}`);
  }
  to.byte(type);
}

function copyMemoryArgument(from: Reader, to: Writer): void {
  const alignment = from.u32();
  if (alignment > ALIGNMENT_MAX) {
    throw new PluginRejected("instruction-not-allowed", `the image accesses memory with alignment 2^${alignment}`);
  }
  to.u32(alignment);
  to.u32(from.u32());
}

function copyZeros(count: number, from: Reader, to: Writer): void {
  for (let i = 0; i < count; i++) {
    if (from.u32() !== 0) throw new PluginRejected("instruction-not-allowed", "the image names another memory");
    to.byte(0);
  }
}

/** Copies instructions until the block that begins here has ended; answers whether there are calls among them. */
function copyInstructions(from: Reader, to: Writer, guarded: boolean): boolean {
  let calls = false;
  for (let depth = 1; depth > 0;) {
    const first = from.byte();
    const prefix = isPrefix(first) ? first : undefined;
    const opcode = prefix === undefined ? first : from.u32();
    const immediate = immediateOf(prefix, opcode);
    if (immediate === undefined) {
      const name = [prefix, opcode].flatMap((n) => n === undefined ? [] : [`0x${n.toString(16)}`]).join(" ");
      throw new PluginRejected("instruction-not-allowed", `the image uses instruction ${name}, which no plugin may`);
    }
    if (guarded && prefix === PREFIX_BULK && opcode >= MEMORY_COPY) to.raw(GUARD);
    if (first === CALL) calls = true;
    to.byte(first);
    if (prefix !== undefined) to.u32(opcode);
    switch (immediate) {
      case "block":
      case "if":
      case "loop":
        copyBlockType(from, to);
        if (immediate === "loop" && guarded) to.raw(GUARD);
        if (++depth > NESTING_MAX) {
          throw new PluginRejected("too-complex", `a function nests more than ${NESTING_MAX} blocks`);
        }
        break;
      case "end":
        depth--;
        break;
      case "branchTable": {
        const count = from.count(BRANCHES_MAX, "branches in one table");
        to.u32(count);
        for (let i = 0; i <= count; i++) to.u32(from.u32());
        break;
      }
      default:
        copyImmediate(immediate, from, to);
    }
  }
  return calls;
}

function copyImmediate(immediate: string, from: Reader, to: Writer): void {
  switch (immediate) {
    case "index":
      return to.u32(from.u32());
    case "types": {
      const count = from.count(1, "types of one select");
      to.u32(count);
      for (let i = 0; i < count; i++) to.byte(valueType(from));
      return;
    }
    case "memory":
      return copyMemoryArgument(from, to);
    case "memoryLane":
      copyMemoryArgument(from, to);
      return to.byte(from.byte());
    case "lane":
      return to.byte(from.byte());
    case "signed32":
      return to.raw(from.signed(32));
    case "signed64":
      return to.raw(from.signed(64));
    case "bytes4":
      return to.raw(from.take(4));
    case "bytes8":
      return to.raw(from.take(8));
    case "bytes16":
      return to.raw(from.take(16));
    case "zero":
      return copyZeros(1, from, to);
    case "zeros":
      return copyZeros(2, from, to);
  }
}

/** Copies one function's body, with its guards if `guarded`; one that is called from outside has one at its beginning. */
export function copyBody(from: Reader, to: Writer, guarded: boolean, isExported: boolean): void {
  copyLocals(from, to);
  const instructions = new Writer();
  const calls = copyInstructions(from, instructions, guarded);
  if (guarded && (calls || isExported)) to.raw(GUARD);
  to.raw(instructions.bytes);
  if (!from.done) throw new PluginRejected("not-wasm", "a function of the image goes on behind its end");
}

/** Copies the expression that a global variable begins with: one constant. */
export function copyConstant(from: Reader, to: Writer): void {
  const first = from.byte();
  const isVector = isPrefix(first);
  const opcode = isVector ? from.u32() : first;
  const isConstant = isVector ? first === 0xfd && opcode === 12 : opcode >= 0x41 && opcode <= 0x44;
  const immediate = immediateOf(isVector ? first : undefined, opcode);
  if (!isConstant || immediate === undefined) {
    throw new PluginRejected("instruction-not-allowed", "a global variable of the image begins with no constant");
  }
  to.byte(first);
  if (isVector) to.u32(opcode);
  copyImmediate(immediate, from, to);
  if (from.byte() !== 0x0b) {
    throw new PluginRejected("instruction-not-allowed", "a global variable of the image begins with no constant");
  }
  to.byte(0x0b);
}
