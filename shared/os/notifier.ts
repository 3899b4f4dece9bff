/**
 * Interrupts for descriptors that somebody else owns, raised without a call that could wait for the owner.
 *
 * A plain write is no such call: whoever shares an open file may fill it and take O_NONBLOCK away between any two of
 * our instructions. So eventfds are not written. Each is the "result descriptor" of an empty read of /dev/null by the
 * kernel's asynchronous I/O: the kernel adds one to it under a spinlock, whatever its counter and its flags say. A full
 * counter stays full, and its reader stays woken. One io_submit serves a whole batch. Unix sockets are sent eight bytes
 * with MSG_DONTWAIT; if there is no room, the reader has unread bytes and is awake.
 *
 * Pipes have no place here. Write, vmsplice, even the last close take a pipe's mutex, which its owner can hold for as
 * long as it likes, by a read or write whose buffer lies on a page that never comes. `PipeRelay` serves them.
 */
import { type Fd } from "./fd.ts";
import { addressOf, check, EAGAIN, ENOSYS, EPERM, errno, libc, OsError } from "./libc.ts";

// asm/unistd.h
const CALLS = Deno.build.arch === "aarch64"
  ? { setup: 0n, destroy: 1n, submit: 2n, getevents: 4n }
  : { setup: 206n, destroy: 207n, submit: 209n, getevents: 208n };

// linux/aio_abi.h: struct iocb
const IOCB_BYTES = 64;
const IOCB_OPCODE = 16;
const IOCB_FD = 20;
const IOCB_FLAGS = 56;
const IOCB_RESULT_FD = 60;
const IOCB_CMD_PREAD = 0;
const IOCB_FLAG_RESFD = 1;
const IO_EVENT_BYTES = 32;

const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const O_CLOEXEC = 0o2000000;

/** Eventfds in one io_submit. */
const BATCH_MAX = 64;
/** Completions that may lie unread in the kernel's ring: they are taken away by the ringful, not one by one. */
const UNREAD_MAX = 256;
const COUNTS = Array.from({ length: UNREAD_MAX + 1 }, (_, n) => BigInt(n));

/** What a writer of an eventfd would write: readers of sockets and pipes expect the same eight bytes. */
export const NOTIFICATION = new BigUint64Array([1n]);
export const NOTIFICATION_BYTES = 8n;

/** Raises interrupts of one thread. Nothing is allocated after the constructor. */
export class Notifier implements Disposable {
  readonly #context: bigint;
  readonly #devNull: number;
  readonly #iocbs = new DataView(new ArrayBuffer(IOCB_BYTES * BATCH_MAX));
  readonly #pointers = new BigUint64Array(BATCH_MAX);
  readonly #events = new Uint8Array(IO_EVENT_BYTES * UNREAD_MAX);
  readonly #noTime = new BigInt64Array(2);
  #staged = 0;
  #unread = 0;
  #closed = false;

  /** Throws, saying what to do, if the kernel does not let this process have asynchronous I/O. */
  constructor() {
    this.#context = setUp();
    const path = new TextEncoder().encode("/dev/null\0");
    this.#devNull = check(libc().open(path, O_CLOEXEC), "open", "/dev/null");
    const base = addressOf(this.#iocbs);
    for (let i = 0; i < BATCH_MAX; i++) {
      const at = i * IOCB_BYTES;
      this.#pointers[i] = base + BigInt(at);
      this.#iocbs.setUint16(at + IOCB_OPCODE, IOCB_CMD_PREAD, true);
      this.#iocbs.setUint32(at + IOCB_FD, this.#devNull, true);
      this.#iocbs.setUint32(at + IOCB_FLAGS, IOCB_FLAG_RESFD, true);
    }
  }

  /** Raises eventfd `fd` at the next `flush`, or sooner. It must be one, and stay open until then. */
  addEventFd(fd: number): void {
    if (this.#staged === BATCH_MAX) this.flush();
    this.#iocbs.setUint32(this.#staged * IOCB_BYTES + IOCB_RESULT_FD, fd, true);
    this.#staged++;
  }

  /** Raises Unix socket `fd` at once. One that nobody reads any more is its owner's own loss. */
  addSocket(fd: number): void {
    libc().send(fd, NOTIFICATION, NOTIFICATION_BYTES, MSG_DONTWAIT | MSG_NOSIGNAL);
  }

  /** Raises what was added since the last time. */
  flush(): void {
    const count = this.#staged;
    this.#staged = 0;
    if (this.#unread + count > UNREAD_MAX) this.#takeCompletions();
    for (let done = 0; done < count;) {
      const pointers = done === 0 ? this.#pointers : this.#pointers.subarray(done);
      const taken = libc().io_submit(CALLS.submit, this.#context, COUNTS[count - done] ?? 0n, pointers);
      if (taken < 0) {
        const code = errno();
        // The ring has room for UNREAD_MAX. A kernel that says otherwise gets it emptied, once.
        if (code !== EAGAIN || this.#unread === 0) throw new OsError("io_submit", `${count - done} eventfds`, code);
        this.#takeCompletions();
        continue;
      }
      done += taken;
      this.#unread += taken;
    }
  }

  /** Raises one descriptor, an eventfd or a Unix socket. */
  raise(fd: Fd): void {
    if (fd.kind === "socket") return this.addSocket(fd.number);
    this.addEventFd(fd.number);
    this.flush();
  }

  /** Every read had ended when io_submit returned, so there is nothing to wait for. */
  #takeCompletions(): void {
    const room = COUNTS[UNREAD_MAX] ?? 0n;
    const taken = libc().io_getevents(CALLS.getevents, this.#context, 0n, room, this.#events, this.#noTime);
    check(taken, "io_getevents", `${this.#unread} completions`);
    this.#unread = 0;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    libc().io_destroy(CALLS.destroy, this.#context);
    libc().close(this.#devNull);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function setUp(): bigint {
  const context = new BigUint64Array(1);
  if (libc().io_setup(CALLS.setup, BigInt(UNREAD_MAX), context) === 0) return context[0] ?? 0n;
  const code = errno();
  const advice = code === EAGAIN
    ? "all contexts of this machine are taken: raise fs.aio-max-nr (sysctl fs.aio-max-nr=1048576)"
    : code === ENOSYS || code === EPERM
    ? "it is forbidden here, or left out of the kernel: let the container's seccomp profile allow io_setup, io_submit, " +
      "io_getevents and io_destroy (Docker's default profile does)"
    : "see the error for why";
  const { message } = new OsError("io_setup", `${UNREAD_MAX}`, code);
  throw new Error(`Cannot raise interrupts without the kernel's asynchronous I/O: ${advice}: ${message}`);
}
