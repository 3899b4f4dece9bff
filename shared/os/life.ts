/**
 * Seeing another process's threads die, at once. A process that is killed closes its sockets only when its memory has been
 * taken down, which takes tens of milliseconds. The robust locks that a thread holds the kernel gives up before that, as
 * soon as the thread can no longer run: whoever waits for such a lock, in memory that both share, has it then.
 */
import { MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE } from "./arena.ts";
import { createMemfd, Fd } from "./fd.ts";
import { check, errno, libc, OsError } from "./libc.ts";

const BYTES = 4096;
/** pthread_mutex_t is 40 bytes on x86-64 and 48 on aarch64; pthread_mutexattr_t 4 and 8. */
const LOCK_STRIDE = 64;
const ATTRIBUTE_BYTES = 8;
// linux/futex.h, asm/unistd.h: a lock's word has its owner's thread, and these two marks
const FUTEX_CALL = Deno.build.arch === "aarch64" ? 98n : 202n;
const FUTEX_WAIT = 0n;
const FUTEX_WAITERS = -0x8000_0000;
const FUTEX_OWNER_DIED = 0x4000_0000;
// fcntl.h
const O_RDWR = 2;
const O_CLOEXEC = 0o2000000;
// pthread.h
const PTHREAD_PROCESS_SHARED = 1;
const PTHREAD_MUTEX_ROBUST = 1;
/** What whoever waited is told: the lock's owner has died. */
const EOWNERDEAD = 130;

function mapped(file: Fd): bigint {
  const address = libc().mmap(0n, BigInt(BYTES), PROT_READ | PROT_WRITE, MAP_SHARED, file.number, 0n);
  if (address === MAP_FAILED) throw new OsError("mmap", "a process's life", errno());
  return address;
}

function mappedAndClosed(file: Fd): bigint {
  try {
    return mapped(file);
  } finally {
    file.close();
  }
}

function must(result: number, call: string): void {
  if (result !== 0) throw new OsError(call, "a process's life", result);
}

/** Locks that threads of this process hold for as long as they live. */
export class Life {
  /** The memory with the locks, for whoever watches. */
  readonly file: Fd;
  readonly #address: bigint;

  /** `threads`: how many hold one. Each takes its own by `holdForLife`. */
  constructor(threads: number) {
    this.file = createMemfd("ringfabric-life", BYTES);
    this.#address = mapped(this.file);
    const attributes = new Uint8Array(ATTRIBUTE_BYTES);
    must(libc().pthread_mutexattr_init(attributes), "pthread_mutexattr_init");
    must(libc().pthread_mutexattr_setpshared(attributes, PTHREAD_PROCESS_SHARED), "pthread_mutexattr_setpshared");
    must(libc().pthread_mutexattr_setrobust(attributes, PTHREAD_MUTEX_ROBUST), "pthread_mutexattr_setrobust");
    for (let i = 0; i < threads; i++) must(libc().pthread_mutex_init(this.lock(i), attributes), "pthread_mutex_init");
  }

  /** The address of a thread's lock. */
  lock(thread: number): bigint {
    return this.#address + BigInt(thread * LOCK_STRIDE);
  }
}

/** Has the calling thread hold a lock until it dies. */
export function holdForLife(lock: bigint): void {
  must(libc().pthread_mutex_lock(lock), "pthread_mutex_lock");
}

/** Where the life of a process is that has nobody standing by: what it says of itself, for whoever starts it again. */
export interface LifePlace {
  /** The number of its `file` in that process. */
  fd: number;
  threads: number;
}

/**
 * Resolves when all threads of process `pid` are dead that touch rings. Rejects if its life cannot be watched from here.
 * It waits as a lock does, and takes none: so nothing stays here of processes that come and go.
 */
export async function whenProcessDead(pid: number, { fd, threads }: LifePlace): Promise<void> {
  const path = new TextEncoder().encode(`/proc/${pid}/fd/${fd}\0`);
  const opened = check(libc().open(path, O_RDWR | O_CLOEXEC), "open", `descriptor ${fd} of process ${pid}`);
  const address = mappedAndClosed(new Fd(opened));
  try {
    await Promise.all(Array.from({ length: threads }, (_, i) => ownerDead(address + BigInt(i * LOCK_STRIDE))));
  } finally {
    libc().munmap(address, BigInt(BYTES));
  }
}

/** Resolves when the owner of the lock at `address` is dead: the kernel marks it then, and wakes one who waits (futex(2)). */
async function ownerDead(address: bigint): Promise<void> {
  const pointer = Deno.UnsafePointer.create(address);
  if (!pointer) throw new Error("a lock lies nowhere");
  const word = new Int32Array(Deno.UnsafePointerView.getArrayBuffer(pointer, 4));
  for (;;) {
    const value = Atomics.or(word, 0, FUTEX_WAITERS) | FUTEX_WAITERS;
    if ((value & FUTEX_OWNER_DIED) !== 0) return;
    await libc().futex_async(FUTEX_CALL, address, FUTEX_WAIT, BigInt(value), 0n);
  }
}

/** Resolves when all `threads` threads of the process whose life `file` is, which becomes this function's, are dead. */
export async function whenDead(file: Fd, threads: number): Promise<void> {
  const address = mappedAndClosed(file);
  // The memory stays mapped: whoever has waited owns the locks now.
  await Promise.all(Array.from({ length: threads }, async (_, i) => {
    const result = await libc().pthread_mutex_lock_async(address + BigInt(i * LOCK_STRIDE));
    if (result !== EOWNERDEAD) must(result || EOWNERDEAD, "pthread_mutex_lock");
  }));
}
