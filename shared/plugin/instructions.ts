/**
 * The instructions that a plugin may use, and what follows each in the binary format (WebAssembly core specification
 * §5.4): version 1 of the language, sign extension, float-to-int conversions that saturate, bulk memory, SIMD, and the
 * atomics of the threads proposal, but for `wait` and `notify`: a plugin never sleeps. Everything else is refused, what
 * later versions of the language bring included.
 */

/** What follows an instruction. */
export type Immediate =
  | "none"
  /** A block begins; its type follows. */
  | "block"
  | "loop"
  | "if"
  | "else"
  | "end"
  /** One index, or two, as they are. */
  | "index"
  | "branchTable"
  /** A vector of value types. */
  | "types"
  /** Alignment and offset; then, for some, the number of a lane. */
  | "memory"
  | "memoryLane"
  | "lane"
  | "signed32"
  | "signed64"
  | "bytes4"
  | "bytes8"
  | "bytes16"
  /** The number of the one memory, once or twice: zeros. */
  | "zero"
  | "zeros";

/** Prefixes of instructions that are numbered apart. */
export const PREFIX_BULK = 0xfc;
const PREFIX_SIMD = 0xfd;
const PREFIX_ATOMIC = 0xfe;

/** The call of a function. */
export const CALL = 0x10;

/** Of the bulk instructions, from here on those that take as long as the memory they are asked for. */
export const MEMORY_COPY = 10;

type Row = [from: number, to: number, immediate: Immediate];

const PLAIN: Row[] = [
  [0x00, 0x01, "none"], // unreachable, nop
  [0x02, 0x02, "block"],
  [0x03, 0x03, "loop"],
  [0x04, 0x04, "if"],
  [0x05, 0x05, "else"],
  [0x0b, 0x0b, "end"],
  [0x0c, 0x0d, "index"], // br, br_if
  [0x0e, 0x0e, "branchTable"],
  [0x0f, 0x0f, "none"], // return
  [CALL, CALL, "index"],
  [0x1a, 0x1b, "none"], // drop, select
  [0x1c, 0x1c, "types"], // select t
  [0x20, 0x24, "index"], // local and global variables
  [0x28, 0x3e, "memory"], // loads and stores
  [0x3f, 0x40, "zero"], // memory.size, memory.grow
  [0x41, 0x41, "signed32"],
  [0x42, 0x42, "signed64"],
  [0x43, 0x43, "bytes4"],
  [0x44, 0x44, "bytes8"],
  [0x45, 0xc4, "none"], // arithmetic
];

const BULK: Row[] = [
  [0, 7, "none"], // trunc_sat
  [MEMORY_COPY, MEMORY_COPY, "zeros"],
  [11, 11, "zero"], // memory.fill
];

const SIMD: Row[] = [
  [0, 11, "memory"],
  [12, 13, "bytes16"], // v128.const, i8x16.shuffle
  [14, 20, "none"], // swizzle, splats
  [21, 34, "lane"],
  [35, 83, "none"],
  [84, 91, "memoryLane"],
  [92, 93, "memory"],
  [94, 255, "none"],
];
/** Numbers of no SIMD instruction. */
const SIMD_HOLES = new Set([
  ...[0x9a, 0xa2, 0xa5, 0xa6, 0xaf, 0xb0, 0xb2, 0xb3, 0xb4, 0xbb],
  ...[0xc2, 0xc5, 0xc6, 0xcf, 0xd0, 0xd2, 0xd3, 0xd4, 0xe2, 0xee],
]);

const ATOMIC: Row[] = [
  [3, 3, "zero"], // atomic.fence
  [0x10, 0x4e, "memory"],
];

function tableOf(rows: readonly Row[]): ReadonlyMap<number, Immediate> {
  return new Map(
    rows.flatMap(([from, to, immediate]) =>
      Array.from({ length: to - from + 1 }, (_, i): [number, Immediate] => [from + i, immediate])
    ),
  );
}

const TABLES = new Map([
  [undefined, tableOf(PLAIN)],
  [PREFIX_BULK, tableOf(BULK)],
  [PREFIX_SIMD, tableOf(SIMD)],
  [PREFIX_ATOMIC, tableOf(ATOMIC)],
]);

/** What follows instruction `opcode` of a prefix; `undefined` if a plugin may not use it. */
export function immediateOf(prefix: number | undefined, opcode: number): Immediate | undefined {
  if (prefix === PREFIX_SIMD && SIMD_HOLES.has(opcode)) return undefined;
  return TABLES.get(prefix)?.get(opcode);
}

/** Whether `byte` begins an instruction that is numbered apart. */
export function isPrefix(byte: number): boolean {
  return byte === PREFIX_BULK || byte === PREFIX_SIMD || byte === PREFIX_ATOMIC;
}
