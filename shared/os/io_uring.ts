/**
 * io_uring (linux/io_uring.h) with its rings in a Wasm memory: Wasm writes submissions and reads completions itself, and
 * one call of the kernel submits a batch. It belongs to the thread that opens it. Containers forbid it (Docker's default
 * seccomp profile), and kernels before 6.6 cannot have their rings there: then there is none, and its user does without.
 */
import { Fd } from "./fd.ts";
import { addressOf, check, libc } from "./libc.ts";

// asm/unistd.h, the same on every architecture
const SETUP = 425n;
const ENTER = 426n;
const REGISTER = 427n;

const IORING_SETUP_SUBMIT_ALL = 1 << 7;
const IORING_SETUP_SINGLE_ISSUER = 1 << 12;
const IORING_SETUP_DEFER_TASKRUN = 1 << 13;
const IORING_SETUP_NO_MMAP = 1 << 14;
const IORING_SETUP_NO_SQARRAY = 1 << 16;
const FLAGS = IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
  IORING_SETUP_NO_MMAP | IORING_SETUP_NO_SQARRAY;
const IORING_ENTER_GETEVENTS = 1n;
const IORING_REGISTER_BUFFERS = 0n;
const IORING_UNREGISTER_BUFFERS = 1n;
const IORING_REGISTER_FILES = 2n;
const IORING_UNREGISTER_FILES = 3n;
const NOTHING = new Uint8Array(0);

/** struct io_uring_params, and in it the offsets of both rings. */
const PARAMS_BYTES = 120;
const PARAMS_FLAGS = 8;
const SQ_OFFSETS = 40;
const CQ_OFFSETS = 80;
const USER_ADDRESS = 32;

const COUNTS = Array.from({ length: 1025 }, (_, n) => BigInt(n));

/** Operations that are used here, and IOSQE_FIXED_FILE. */
export const IORING_OP_READ_FIXED = 4;
export const IORING_OP_WRITE_FIXED = 5;
export const IORING_OP_SENDMSG = 9;
export const IORING_OP_RECVMSG = 10;
export const IORING_OP_READ = 22;
export const IORING_OP_WRITE = 23;
export const IOSQE_FIXED_FILE = 1;

/** Where in the memory the rings' words are. */
export interface IoRingWords {
  sqHead: number;
  sqTail: number;
  sqMask: number;
  cqHead: number;
  cqTail: number;
  cqMask: number;
  cqEntries: number;
}

/** Where the rings are to be, which is room of whole pages, and how many submissions they hold. */
export interface IoRingPlace {
  ring: number;
  entries: number;
  count: number;
}

/** One io_uring. */
export class IoUring implements Disposable {
  readonly words: IoRingWords;
  readonly #fd: Fd;
  readonly #fdBig: bigint;
  readonly #base: bigint;

  private constructor(fd: Fd, base: bigint, words: IoRingWords) {
    this.#fd = fd;
    this.#fdBig = BigInt(fd.number);
    this.#base = base;
    this.words = words;
  }

  /** Opens one; `undefined` if the kernel has or allows none. */
  static open(memory: WebAssembly.Memory, { ring, entries, count }: IoRingPlace): IoUring | undefined {
    const base = addressOf(new Uint8Array(memory.buffer));
    const params = new DataView(new ArrayBuffer(PARAMS_BYTES));
    params.setUint32(PARAMS_FLAGS, FLAGS, true);
    params.setBigUint64(SQ_OFFSETS + USER_ADDRESS, base + BigInt(entries), true);
    params.setBigUint64(CQ_OFFSETS + USER_ADDRESS, base + BigInt(ring), true);
    const fd = libc().io_uring_setup(SETUP, BigInt(count), new Uint8Array(params.buffer));
    if (fd < 0) return undefined;
    const at = (offset: number) => ring + params.getUint32(offset, true);
    const view = new DataView(memory.buffer);
    return new IoUring(new Fd(fd), base, {
      sqHead: at(SQ_OFFSETS),
      sqTail: at(SQ_OFFSETS + 4),
      sqMask: view.getUint32(at(SQ_OFFSETS + 8), true),
      cqHead: at(CQ_OFFSETS),
      cqTail: at(CQ_OFFSETS + 4),
      cqMask: view.getUint32(at(CQ_OFFSETS + 8), true),
      cqEntries: at(CQ_OFFSETS + 20),
    });
  }

  get number(): number {
    return this.#fd.number;
  }

  /** Registers a file, which is number 0 then: the kernel looks it up once, not for each submission. */
  registerFile(file: number): void {
    const files = new Int32Array([file]);
    check(
      libc().io_uring_register(REGISTER, this.#fdBig, IORING_REGISTER_FILES, files, 1n),
      "io_uring_register",
      "file",
    );
  }

  /**
   * Registers a range of the memory as buffer 0: its pages are pinned once, and stay in memory. False if the kernel does
   * not let this user have so much of it.
   */
  registerBuffer(offset: number, bytes: number): boolean {
    const vector = new BigUint64Array([this.#base + BigInt(offset), BigInt(bytes)]);
    return libc().io_uring_register(REGISTER, this.#fdBig, IORING_REGISTER_BUFFERS, vector, 1n) === 0;
  }

  /** Submits `count` entries and takes in what has completed. What it does not take it takes the next time. */
  enter(count: number): void {
    libc().io_uring_enter(ENTER, this.#fdBig, COUNTS[count] ?? 0n, 0n, IORING_ENTER_GETEVENTS, 0n, 0n);
  }

  /** The kernel takes a ring down later: its file and its buffers are given back at once. By the thread that opened it. */
  close(): void {
    if (this.#fd.closed) return;
    for (const call of [IORING_UNREGISTER_FILES, IORING_UNREGISTER_BUFFERS]) {
      libc().io_uring_register(REGISTER, this.#fdBig, call, NOTHING, 0n);
    }
    this.#fd.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
