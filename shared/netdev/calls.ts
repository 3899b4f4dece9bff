/**
 * How a port's rounds reach the kernel. The Wasm module writes submissions and reads completions as io_uring has them;
 * where there is none, the worker plays its part, with one call for each frame.
 */
import * as N from "../layout/netdev.ts";
import type { IoRingWords } from "../os/io_uring.ts";
import { EAGAIN, errno, libc } from "../os/libc.ts";
import type { FileDrive } from "./backend.ts";
import type { PortIo } from "./worker_messages.ts";

// linux/fs.h, sys/socket.h
export const RWF_NOWAIT = 0x8;
export const MSG_DONTWAIT = 0x40;

/** The kernel's side of a port's rounds. */
export interface Calls {
  readonly io: PortIo;
  /** A descriptor that is readable when something has completed later; none: everything completes at once. */
  readonly pollFd: number | undefined;
  /** Has the kernel take the `count` submissions that it has not taken; answers how many calls that took. */
  submit(count: number): number;
  /** There is nothing to do for now: how long at most, in ms; -1: until something comes. */
  idle(): number;
  close(): void;
}

/** What the module has to know of the rings and of its submissions. */
export interface CallWords extends IoRingWords {
  file: number;
  entryFlags: number;
  readOp: number;
  writeOp: number;
  opFlags: number;
}

/** Writes these words where the module looks for them. */
export function writeWords(memory: WebAssembly.Memory, words: CallWords): void {
  const view = new DataView(memory.buffer);
  const places: Record<keyof CallWords, number> = {
    sqHead: N.NC_SQ_HEAD,
    sqTail: N.NC_SQ_TAIL,
    sqMask: N.NC_SQ_MASK,
    cqHead: N.NC_CQ_HEAD,
    cqTail: N.NC_CQ_TAIL,
    cqMask: N.NC_CQ_MASK,
    cqEntries: N.NC_CQ_ENTRIES,
    file: N.NC_FILE,
    entryFlags: N.NC_ENTRY_FLAGS,
    readOp: N.NC_READ_OP,
    writeOp: N.NC_WRITE_OP,
    opFlags: N.NC_OP_FLAGS,
  };
  for (const [name, at] of Object.entries(places)) {
    view.setUint32(N.ND_CONTROL + at, words[name as keyof CallWords], true);
  }
}

/** Where the rings' words are if they are not the kernel's. */
const SQ_HEAD = N.ND_IO_RING;
const SQ_TAIL = N.ND_IO_RING + 4;
const CQ_HEAD = N.ND_IO_RING + 8;
const CQ_TAIL = N.ND_IO_RING + 12;
const CQ_ENTRIES = N.ND_IO_RING + 64;
const MASK = N.ND_IO_ENTRY_COUNT - 1;

/** The worker in the kernel's place: it does the submissions itself, at once. */
export abstract class LocalCalls implements Calls {
  abstract readonly io: PortIo;
  readonly pollFd = undefined;
  protected readonly view: DataView;

  constructor(memory: WebAssembly.Memory) {
    this.view = new DataView(memory.buffer);
    writeWords(memory, {
      ...{ sqHead: SQ_HEAD, sqTail: SQ_TAIL, sqMask: MASK },
      ...{ cqHead: CQ_HEAD, cqTail: CQ_TAIL, cqMask: MASK, cqEntries: CQ_ENTRIES },
      ...{ file: 0, entryFlags: 0, readOp: 0, writeOp: 0, opFlags: 0 },
    });
  }

  /** Does the submission at `entry`, of buffer `id`: answers bytes moved, or -errno, as io_uring does. */
  protected abstract do(entry: number, id: number, isRead: boolean): number;

  submit(): number {
    const { view } = this;
    let head = view.getUint32(SQ_HEAD, true);
    const tail = view.getUint32(SQ_TAIL, true);
    let done = view.getUint32(CQ_TAIL, true);
    // Who finds nothing to read once need not look for more.
    let isDry = false;
    let calls = 0;
    for (; head !== tail; head = (head + 1) >>> 0) {
      const entry = N.ND_IO_ENTRIES + (head & MASK) * N.SQE_BYTES;
      const what = view.getUint32(entry + N.SQE_USER_DATA, true);
      const isRead = (what & N.DID_WRITE) === 0;
      const skips: boolean = isRead && isDry;
      const result: number = skips ? -EAGAIN : this.do(entry, what & 0xffff, isRead);
      if (!skips) calls++;
      isDry ||= isRead && result === -EAGAIN;
      const completion = CQ_ENTRIES + (done & MASK) * N.CQE_BYTES;
      view.setUint32(completion, what, true);
      view.setInt32(completion + N.CQE_RESULT, result, true);
      done = (done + 1) >>> 0;
    }
    view.setUint32(SQ_HEAD, head, true);
    view.setUint32(CQ_TAIL, done, true);
    return calls;
  }

  idle(): number {
    return -1;
  }

  close(): void {}
}

/** One call for each frame. The file must not block. */
export class PlainCalls extends LocalCalls {
  readonly io = "readv";
  readonly #file: number;
  readonly #isPacket: boolean;

  constructor(memory: WebAssembly.Memory, drive: FileDrive) {
    super(memory);
    this.#file = drive.file;
    this.#isPacket = drive.kind === "messages";
  }

  protected override do(entry: number, _id: number, isRead: boolean): number {
    const address = this.view.getBigUint64(entry + N.SQE_ADDRESS, true);
    const { read_at, write_at, recvmsg_at, sendmsg_at } = libc();
    let result: bigint | number;
    if (this.#isPacket) result = (isRead ? recvmsg_at : sendmsg_at)(this.#file, address, MSG_DONTWAIT);
    else {
      const bytes = BigInt(this.view.getUint32(entry + N.SQE_LENGTH, true));
      result = (isRead ? read_at : write_at)(this.#file, address, bytes);
    }
    return result < 0 ? -errno() : Number(result);
  }
}
