/**
 * The arena: one shared WebAssembly.Memory that is never grown, and the windows in it. A window is a range over which
 * a file is mapped with MAP_FIXED; from then on Wasm loads and stores are loads and stores of that file's pages, in
 * this process and in every other that maps it. Taking a window back maps anonymous pages over it.
 *
 * Windows begin on a 2 MiB boundary *of their address* (hugetlbfs wants that) and are whole multiples of 2 MiB, so one
 * rule serves every kind of file, and a fault in one window can be repaired without touching its neighbour.
 */
import { createMemfd, type Fd } from "./fd.ts";
import { addressOf, errno, libc, OsError } from "./libc.ts";

// sys/mman.h
export const PROT_READ = 1;
export const PROT_WRITE = 2;
export const MAP_SHARED = 0x01;
const MAP_PRIVATE = 0x02;
const MAP_FIXED = 0x10;
const MAP_ANONYMOUS = 0x20;
const MAP_NORESERVE = 0x4000;
export const MAP_FAILED = 0xffff_ffff_ffff_ffffn;

/** What a Wasm memory can hold: 65536 pages of 64 KiB. */
export const ARENA_BYTES = 4 * 1024 ** 3;
/** Size and alignment of windows. */
export const WINDOW_BYTES = 2 * 1024 ** 2;

/** A range of the arena with somebody's memory over it. Offsets and lengths in bytes. */
export interface Window {
  offset: number;
  bytes: number;
}

/** A window with memory of this process's own over it, in a file that outlives the process if somebody else has it too. */
export interface OwnWindow extends Window {
  file: Fd;
}

/** No range of the arena is large enough. */
export class ArenaFullError extends Error {
  override readonly name = "ArenaFullError";
}

function roundUp(n: number, to: number): number {
  return Math.ceil(n / to) * to;
}

/** A shared Wasm memory with windows. */
export class Arena {
  readonly memory: WebAssembly.Memory;
  readonly buffer: SharedArrayBuffer;
  /** Native address of byte 0. */
  readonly base: bigint;
  /** Free ranges, sorted, never adjacent. */
  #free: Window[];
  readonly #first: number;

  /** Windows are given out from `reservedBytes` up; below lies the process's own state. */
  constructor(reservedBytes: number) {
    const pages = ARENA_BYTES / 65536;
    this.memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
    this.buffer = this.memory.buffer as unknown as SharedArrayBuffer;
    this.base = addressOf(new Uint8Array(this.buffer));
    this.#first = this.#aligned(reservedBytes, WINDOW_BYTES);
    this.#free = [{ offset: this.#first, bytes: ARENA_BYTES - this.#first }];
  }

  /** The first offset from `offset` on whose native address is a multiple of `alignment`. */
  #aligned(offset: number, alignment: number): number {
    const rest = Number((this.base + BigInt(offset)) % BigInt(alignment));
    return rest === 0 ? offset : offset + alignment - rest;
  }

  /** Bytes that are not in a window. */
  get freeBytes(): number {
    return this.#free.reduce((sum, range) => sum + range.bytes, 0);
  }

  /**
   * Reserves a window for `bytes` bytes whose address is a multiple of `alignment`. Throws ArenaFullError if there is
   * no such range. It holds anonymous zero pages until something is mapped over it.
   */
  allocate(bytes: number, alignment = WINDOW_BYTES): Window {
    const size = roundUp(bytes, Math.max(alignment, WINDOW_BYTES));
    for (const [i, range] of this.#free.entries()) {
      const offset = this.#aligned(range.offset, Math.max(alignment, WINDOW_BYTES));
      const end = range.offset + range.bytes;
      if (offset + size > end) continue;
      const rest = [
        { offset: range.offset, bytes: offset - range.offset },
        { offset: offset + size, bytes: end - offset - size },
      ].filter((part) => part.bytes > 0);
      this.#free.splice(i, 1, ...rest);
      return { offset, bytes: size };
    }
    throw new ArenaFullError(
      `no room for a window of ${size} bytes: ${this.freeBytes} of ${ARENA_BYTES} bytes are free`,
    );
  }

  /**
   * Reserves a window with a file over it: `file`, whose owner the window becomes, or a new one called `name`. Throws
   * ArenaFullError if there is no such range.
   */
  allocateOwn(bytes: number, name: string, file?: Fd): OwnWindow {
    const window = this.allocate(bytes);
    const own = { ...window, file: file ?? createMemfd(name, window.bytes) };
    this.map(own, own.file.number, 0, own.bytes);
    return own;
  }

  /** Gives a window with a file over it back, and closes the file. */
  releaseOwn(window: OwnWindow): void {
    this.release({ offset: window.offset, bytes: window.bytes });
    window.file.close();
  }

  /** Maps `bytes` bytes of `fd` from `fileOffset` over the window. */
  map(window: Window, fd: number, fileOffset: number, bytes: number): void {
    if (bytes > window.bytes) throw new Error(`Cannot map ${bytes} bytes over a window of ${window.bytes}`);
    const flags = MAP_SHARED | MAP_FIXED | MAP_NORESERVE;
    this.#mmap(window.offset, bytes, flags, fd, fileOffset, `fd ${fd} over window ${window.offset}`);
  }

  /** Unmaps a window and gives its range back. Nobody may touch it any more. */
  release(window: Window): void {
    const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE;
    this.#mmap(window.offset, window.bytes, flags, -1, 0, `anonymous pages over window ${window.offset}`);
    const at = this.#free.findIndex((range) => range.offset > window.offset);
    this.#free.splice(at < 0 ? this.#free.length : at, 0, { ...window });
    this.#free = this.#free.reduce<Window[]>((merged, range) => {
      const last = merged.at(-1);
      if (last && last.offset + last.bytes === range.offset) last.bytes += range.bytes;
      else merged.push({ ...range });
      return merged;
    }, []);
  }

  /** Maps `bytes` bytes of `fd` over the process's own state at `offset`, which is a page's beginning. */
  mapOwn(offset: number, fd: number, bytes: number): void {
    const flags = MAP_SHARED | MAP_FIXED | MAP_NORESERVE;
    this.#mmap(offset, bytes, flags, fd, 0, `fd ${fd} over offset ${offset}`);
  }

  /** Puts private zero pages where `mapOwn` had mapped something. */
  unmapOwn(offset: number, bytes: number): void {
    const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE;
    this.#mmap(offset, bytes, flags, -1, 0, `anonymous pages over offset ${offset}`);
  }

  #mmap(offset: number, bytes: number, flags: number, fd: number, fileOffset: number, object: string): void {
    const address = this.base + BigInt(offset);
    const result = libc().mmap(address, BigInt(bytes), PROT_READ | PROT_WRITE, flags, fd, BigInt(fileOffset));
    if (result === MAP_FAILED) throw new OsError("mmap", object, errno());
  }
}
