/**
 * A shared Wasm memory of exactly the size that is asked for, over ranges of which files can be mapped: a guest's RAM,
 * or a plugin's memory, which holds what is mapped into it and nothing else.
 */
import { addressOf, errno, libc, OsError } from "./libc.ts";

// sys/mman.h
const PROT_READ_WRITE = 3;
const MAP_SHARED = 0x01;
const MAP_PRIVATE_ANONYMOUS = 0x22;
const MAP_FIXED = 0x10;
const MAP_FAILED = 0xffff_ffff_ffff_ffffn;
const WASM_PAGE_BYTES = 65536;
const PAGE_BYTES = 4096;

/** A Wasm memory that cannot grow. */
export class WasmMemory {
  readonly memory: WebAssembly.Memory;
  readonly buffer: SharedArrayBuffer;
  readonly view: DataView;
  /** Native address of byte 0. */
  readonly base: bigint;

  constructor(bytes: number) {
    const pages = Math.ceil(bytes / WASM_PAGE_BYTES);
    this.memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
    this.buffer = this.memory.buffer as unknown as SharedArrayBuffer;
    this.view = new DataView(this.buffer);
    this.base = addressOf(new Uint8Array(this.buffer));
  }

  /** Maps `bytes` bytes of `fd` from `fileOffset` on over the memory at `offset`. All are whole pages of 4 KiB. */
  map(offset: number, fd: number, fileOffset: number, bytes: number): void {
    if ([offset, fileOffset, bytes].some((n) => n % PAGE_BYTES !== 0) || offset + bytes > this.buffer.byteLength) {
      throw new Error(`Cannot map ${bytes} bytes at ${offset}: not whole pages of this memory`);
    }
    this.#mmap(offset, bytes, MAP_SHARED, fd, fileOffset);
  }

  /** Puts zero pages of its own where anything was mapped, and where anything was written: everywhere, or in a range. */
  clear(offset = 0, bytes = this.buffer.byteLength): void {
    this.#mmap(offset, bytes, MAP_PRIVATE_ANONYMOUS, -1, 0);
  }

  #mmap(offset: number, bytes: number, flags: number, fd: number, fileOffset: number): void {
    const address = this.base + BigInt(offset);
    const result = libc().mmap(address, BigInt(bytes), PROT_READ_WRITE, flags | MAP_FIXED, fd, BigInt(fileOffset));
    if (result === MAP_FAILED) throw new OsError("mmap", `fd ${fd} over offset ${offset}`, errno());
  }
}
