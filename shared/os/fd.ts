/**
 * File descriptors as values with an owner. A descriptor that reaches this process belongs to one `Fd`, which closes
 * it once; `using fd = …` closes it on every path.
 */
import { F_GET_SEALS, type FdKind, isMemoryFile, kindOf } from "./kinds.ts";
import { addressOf, check, EAGAIN, EINVAL, errno, libc, OsError } from "./libc.ts";

// fcntl.h, sys/eventfd.h, linux/memfd.h
const F_ADD_SEALS = 1033;
const F_SEAL_SHRINK = 0x0002;
const F_SEAL_SEAL = 0x0001;
const F_SEAL_GROW = 0x0004;
const F_DUPFD_CLOEXEC = 1030;
const O_NONBLOCK = 0o4000;
const EFD_CLOEXEC = 0o2000000;
const EFD_NONBLOCK = O_NONBLOCK;
const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;

/** An open file descriptor and its end. */
export class Fd implements Disposable {
  #fd: number;
  readonly #close: (fd: number) => void;

  /** `close`: how it is closed, if that is not for this thread to do. */
  constructor(fd: number, close: (fd: number) => void = (fd) => libc().close(fd)) {
    this.#fd = fd;
    this.#close = close;
  }

  /** The number, for system calls. Throws after `close`. */
  get number(): number {
    if (this.#fd < 0) throw new Error("Cannot use a file descriptor that is closed");
    return this.#fd;
  }

  get closed(): boolean {
    return this.#fd < 0;
  }

  /** Closes the descriptor; further calls do nothing. */
  close(): void {
    if (this.#fd < 0) return;
    const fd = this.#fd;
    this.#fd = -1;
    this.#close(fd);
  }

  /** Gives the descriptor away: the number's new owner closes it. */
  detach(): number {
    const { number } = this;
    this.#fd = -1;
    return number;
  }

  /** Another descriptor of the same open file, with an owner of its own. */
  duplicate(): Fd {
    return new Fd(duplicateFd(this.number).detach(), this.#close);
  }

  #kind: FdKind | undefined;

  /** What kind of file it is, looked up once. */
  get kind(): FdKind {
    return this.#kind ??= kindOf(this.number);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** Closes a descriptor whose owner, another thread, has died. */
export function closeNumber(fd: number): void {
  libc().close(fd);
}

/** Another descriptor of the open file `fd`, with an owner of its own. */
export function duplicateFd(fd: number): Fd {
  return new Fd(check(libc().fcntl(fd, F_DUPFD_CLOEXEC, 0n), "fcntl F_DUPFD_CLOEXEC", `fd ${fd}`));
}

/** A new eventfd, non-blocking, with counter 0. */
export function createEventFd(): Fd {
  return new Fd(check(libc().eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd", "0"));
}

const ONE = new BigUint64Array([1n]);

/**
 * Adds one to an eventfd of our own. False if its counter is full, which is as good: its reader has been told. Somebody
 * else's eventfd may make its writer wait: that is for a `Notifier`.
 */
export function signalEventFd(fd: number): boolean {
  if (libc().write(fd, ONE, 8n) === 8n) return true;
  const code = errno();
  if (code === EAGAIN) return false;
  throw new OsError("write", `eventfd ${fd}`, code);
}

const RWF_NOWAIT = 0x8;
const DRAIN = new BigUint64Array(1);
const DRAIN_IOV = new BigUint64Array(2);

/**
 * Takes an eventfd's counter; 0n if it was not signalled. Never waits, even where the file's own flags say it should:
 * they belong to whoever sent the descriptor and may change at any time.
 */
export function drainEventFd(fd: number): bigint {
  DRAIN_IOV[0] = addressOf(DRAIN);
  DRAIN_IOV[1] = 8n;
  return libc().preadv2(fd, DRAIN_IOV, 1, -1n, RWF_NOWAIT) === 8n ? DRAIN[0] ?? 0n : 0n;
}

/** A new memory file of `bytes` bytes that may be sealed and shared. */
export function createMemfd(name: string, bytes: number): Fd {
  const cName = new TextEncoder().encode(`${name}\0`);
  const fd = new Fd(check(libc().memfd_create(cName, MFD_CLOEXEC | MFD_ALLOW_SEALING), "memfd_create", name));
  try {
    check(libc().ftruncate(fd.number, BigInt(bytes)), "ftruncate", name);
  } catch (error) {
    fd.close();
    throw error;
  }
  return fd;
}

/** What is known of a file: its identity, its size and its preferred block (the page size on hugetlbfs). */
export interface FileStatus {
  device: bigint;
  inode: bigint;
  bytes: bigint;
  blockBytes: bigint;
  isRegular: boolean;
}

const STAT = new Uint8Array(144);
const STAT_VIEW = new DataView(STAT.buffer);

/** fstat(2) of a descriptor (struct stat of x86-64); undefined, without asking it, if it is no file in memory. */
export function memoryFileStatus(fd: number): FileStatus | undefined {
  return isMemoryFile(fd) ? fileStatus(fd) : undefined;
}

/** fstat(2) of a descriptor of our own (struct stat of x86-64). */
export function fileStatus(fd: number): FileStatus {
  check(libc().fstat(fd, STAT), "fstat", `fd ${fd}`);
  return {
    device: STAT_VIEW.getBigUint64(0, true),
    inode: STAT_VIEW.getBigUint64(8, true),
    isRegular: (STAT_VIEW.getUint32(24, true) & 0o170000) === 0o100000,
    bytes: STAT_VIEW.getBigUint64(48, true),
    blockBytes: STAT_VIEW.getBigUint64(56, true),
  };
}

/**
 * Makes sure that a memory file cannot shrink under its mappings: true if it is sealed so, or could be sealed now.
 * hugetlbfs files that are not memfds take no seals.
 */
export function sealShrink(fd: number): boolean {
  const seals = libc().fcntl(fd, F_GET_SEALS, 0n);
  if (seals < 0) return false;
  if (seals & F_SEAL_SHRINK) return true;
  return libc().fcntl(fd, F_ADD_SEALS, BigInt(F_SEAL_SHRINK)) === 0;
}

const TIMESPEC = new BigInt64Array(2);

/** CLOCK_MONOTONIC in nanoseconds, the same clock in every process and thread. */
export function monotonicNs(): number {
  libc().clock_gettime(1, TIMESPEC);
  return Number(TIMESPEC[0]) * 1e9 + Number(TIMESPEC[1]);
}

/** Runs the calling thread on these CPUs only. */
export function setAffinity(cpus: readonly number[]): void {
  const mask = new Uint8Array(128);
  for (const cpu of cpus) {
    if (cpu < 0 || cpu >= 1024) throw new Error(`Cannot run on cpu ${cpu}: CPUs are 0–1023`);
    mask[cpu >> 3] = (mask[cpu >> 3] ?? 0) | (1 << (cpu & 7));
  }
  if (libc().sched_setaffinity(0, 128n, mask) === 0) return;
  const error = new OsError("sched_setaffinity", `cpus ${cpus.join(",")}`, errno());
  if (error.errno !== EINVAL) throw error;
  throw new Error(`Cannot run on CPUs ${cpus.join(",")}: none of them is there for this process; name others`);
}

/** Fixes the size of a memory file of our own for good. */
export function sealSize(fd: number): void {
  check(
    libc().fcntl(fd, F_ADD_SEALS, BigInt(F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)),
    "fcntl F_ADD_SEALS",
    `fd ${fd}`,
  );
}
