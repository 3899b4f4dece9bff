/**
 * Waiting for descriptors. `Epoll` is the plain thing, for a worker that blocks in it; `Reactor` turns it into
 * promises for the main thread: one wait at a time runs on Deno's thread pool, and everything else is events.
 */
import { createEventFd, drainEventFd, Fd, signalEventFd } from "./fd.ts";
import { check, EINTR, ENOSYS, EPERM, errno, libc, OsError } from "./libc.ts";

// sys/epoll.h
export const EPOLLIN = 0x001;
const EPOLLRDHUP = 0x2000;
const EPOLLONESHOT = 1 << 30;
export const EPOLLET = 1 << 31;
const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const EPOLL_CTL_MOD = 3;
const EPOLL_CLOEXEC = 0o2000000;
const EVENTS_MAX = 64;
/** struct epoll_event is packed on x86-64: u32 events, u64 data. */
const EVENT_BYTES = 12;

/** An epoll instance. `data` numbers are the caller's, up to 2^53. */
export class Epoll implements Disposable {
  readonly #fd: Fd;
  readonly #event = new Uint8Array(EVENT_BYTES);
  readonly #events = new Uint8Array(EVENT_BYTES * EVENTS_MAX);
  readonly #view = new DataView(this.#events.buffer);

  constructor() {
    this.#fd = new Fd(check(libc().epoll_create1(EPOLL_CLOEXEC), "epoll_create1", ""));
  }

  /** The instance's descriptor: another thread of the process may wait on it. */
  get number(): number {
    return this.#fd.number;
  }

  #control(op: number, name: string, fd: number, events: number, data: number): void {
    const view = new DataView(this.#event.buffer);
    view.setUint32(0, events >>> 0, true);
    view.setBigUint64(4, BigInt(data), true);
    check(libc().epoll_ctl(this.number, op, fd, this.#event), `epoll_ctl ${name}`, `fd ${fd}`);
  }

  add(fd: number, events: number, data: number): void {
    this.#control(EPOLL_CTL_ADD, "ADD", fd, events, data);
  }

  modify(fd: number, events: number, data: number): void {
    this.#control(EPOLL_CTL_MOD, "MOD", fd, events, data);
  }

  remove(fd: number): void {
    this.#control(EPOLL_CTL_DEL, "DEL", fd, 0, 0);
  }

  /** Waits on a thread of the pool; answers the ready ones as [data, events]. */
  async wait(timeoutMs: number): Promise<[number, number][]> {
    const n = await libc().epoll_wait_async(this.number, this.#events, EVENTS_MAX, timeoutMs);
    return this.#ready(n);
  }

  #ready(n: number): [number, number][] {
    const ready: [number, number][] = [];
    for (let i = 0; i < n; i++) {
      const at = i * EVENT_BYTES;
      ready.push([Number(this.#view.getBigUint64(at + 4, true)), this.#view.getUint32(at, true)]);
    }
    return ready;
  }

  close(): void {
    this.#fd.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** Blocks the calling thread until a descriptor of epoll instance `epfd` is ready. Answers the data numbers. */
export function waitBlocking(epfd: number, events: Uint8Array<ArrayBuffer>, timeoutMs: number): number {
  const n = libc().epoll_wait(epfd, events, events.byteLength / EVENT_BYTES, timeoutMs);
  if (n >= 0) return n;
  const code = errno();
  if (code === EINTR) return 0;
  throw new OsError("epoll_wait", `fd ${epfd}`, code);
}

// poll.h
const POLLIN = 1;

/**
 * Waits for an epoll instance and for a file beside it, which is not in the instance: the kernel wakes whoever waits for
 * a socket at each frame that comes and at each that has been sent, and a file in an epoll instance is waited for all
 * the time. So nobody does while its thread moves frames.
 */
export class FileWait {
  /** Whether the file can be read, as of the last `wait`. */
  isReadable = false;
  readonly #epfd: number;
  /** Two struct pollfd {fd i32, events i16, revents i16}. */
  readonly #polled: Int32Array<ArrayBuffer>;

  constructor(epfd: number, file: number) {
    this.#epfd = epfd;
    this.#polled = new Int32Array([file, POLLIN, epfd, POLLIN]);
  }

  /** Blocks the calling thread; answers as `waitBlocking` does for the epoll instance. */
  wait(events: Uint8Array<ArrayBuffer>, timeoutMs: number): number {
    this.#polled[1] = this.#polled[3] = POLLIN;
    const n = libc().poll(this.#polled, 2n, timeoutMs);
    const code = n < 0 ? errno() : 0;
    if (code !== 0 && code !== EINTR) throw new OsError("poll", `fd ${this.#polled[0]}`, code);
    this.isReadable = n > 0 && ((this.#polled[1] ?? 0) >>> 16) !== 0;
    return n > 0 && ((this.#polled[3] ?? 0) >>> 16) !== 0 ? waitBlocking(this.#epfd, events, 0) : 0;
  }
}

/** Has epoll instance `epfd`, which may be another thread's, wait for `fd` too. */
export function addEvents(epfd: number, fd: number, events: number, data: number): void {
  const event = new DataView(new ArrayBuffer(EVENT_BYTES));
  event.setUint32(0, events >>> 0, true);
  event.setBigUint64(4, BigInt(data), true);
  check(libc().epoll_ctl(epfd, EPOLL_CTL_ADD, fd, new Uint8Array(event.buffer)), "epoll_ctl ADD", `fd ${fd}`);
}

/** epoll_pwait2 (Linux 5.11), whose number is the same everywhere. */
const SYS_EPOLL_PWAIT2 = 441n;
let hasPwait2 = true;
const timespec = new BigInt64Array(2);

/** As `waitBlocking`, for `timeoutNs`. A kernel or container that has no such call has it rounded up to a millisecond. */
export function waitPrecisely(epfd: number, events: Uint8Array<ArrayBuffer>, timeoutNs: number): number {
  const wholeMs = Math.ceil(timeoutNs / 1e6);
  if (!hasPwait2) return waitBlocking(epfd, events, wholeMs);
  timespec[0] = BigInt(Math.floor(timeoutNs / 1e9));
  timespec[1] = BigInt(Math.floor(timeoutNs % 1e9));
  const room = BigInt(events.byteLength / EVENT_BYTES);
  const n = libc().epoll_pwait2(SYS_EPOLL_PWAIT2, BigInt(epfd), events, room, timespec, 0n, 0n);
  if (n >= 0) return n;
  const code = errno();
  if (code === EINTR) return 0;
  if (code !== ENOSYS && code !== EPERM) throw new OsError("epoll_pwait2", `fd ${epfd}`, code);
  hasPwait2 = false;
  return waitBlocking(epfd, events, wholeMs);
}

/** Has the calling thread's sleeps end when they are to, and not up to 50 µs later. */
export function wakePunctually(): void {
  // linux/prctl.h
  const PR_SET_TIMERSLACK = 29;
  libc().prctl(PR_SET_TIMERSLACK, 1n, 0n, 0n, 0n);
}

/** Changes what epoll instance `epfd` waits for on `fd`. False if `fd` is not in it. */
export function modifyEvents(epfd: number, fd: number, events: number, data: number): boolean {
  const event = new DataView(new ArrayBuffer(EVENT_BYTES));
  event.setUint32(0, events >>> 0, true);
  event.setBigUint64(4, BigInt(data), true);
  return libc().epoll_ctl(epfd, EPOLL_CTL_MOD, fd, new Uint8Array(event.buffer)) === 0;
}

/** Room for `n` events, for `waitBlocking`; `eventData(view, i)` reads the i-th data number. */
export function eventRoom(n = EVENTS_MAX): Uint8Array<ArrayBuffer> {
  return new Uint8Array(n * EVENT_BYTES);
}

/** Data number of event `i`. */
export function eventData(view: DataView, i: number): number {
  return Number(view.getBigUint64(i * EVENT_BYTES + 4, true));
}

/** Somebody stopped waiting: the descriptor or the reactor was closed. */
class StoppedWaiting extends Error {
  override readonly name = "StoppedWaiting";
}

interface Waiter {
  resolve(): void;
  reject(error: Error): void;
}

/** Readiness of descriptors as promises. */
export class Reactor implements AsyncDisposable {
  readonly #epoll = new Epoll();
  readonly #wake = createEventFd();
  /** By descriptor number; undefined while nobody waits for it. */
  readonly #waiters = new Map<number, Waiter | undefined>();
  readonly #loop: Promise<void>;
  #closing = false;

  constructor() {
    this.#epoll.add(this.#wake.number, EPOLLIN, this.#wake.number);
    this.#loop = this.#run();
  }

  async #run(): Promise<void> {
    while (!this.#closing) {
      const ready = await this.#epoll.wait(-1);
      for (const [fd] of ready) {
        if (fd === this.#wake.number) {
          drainEventFd(fd);
          continue;
        }
        const waiter = this.#waiters.get(fd);
        if (!waiter) continue;
        this.#waiters.set(fd, undefined);
        waiter.resolve();
      }
    }
  }

  /** Resolves when `fd` can be read (or has hung up). One waiter for a descriptor at a time. */
  readable(fd: number): Promise<void> {
    if (this.#closing) return Promise.reject(new StoppedWaiting("the reactor is closed"));
    if (this.#waiters.get(fd)) throw new Error(`Cannot wait for fd ${fd} twice at a time`);
    const events = EPOLLIN | EPOLLRDHUP | EPOLLONESHOT;
    if (this.#waiters.has(fd)) this.#epoll.modify(fd, events, fd);
    else this.#epoll.add(fd, events, fd);
    return new Promise((resolve, reject) => this.#waiters.set(fd, { resolve, reject }));
  }

  /** Forgets `fd`, which is about to be closed; its waiter is told. */
  forget(fd: number): void {
    if (!this.#waiters.has(fd)) return;
    const waiter = this.#waiters.get(fd);
    this.#waiters.delete(fd);
    if (!this.#closing) this.#epoll.remove(fd);
    waiter?.reject(new StoppedWaiting(`fd ${fd} is closed`));
  }

  async close(): Promise<void> {
    if (this.#closing) return;
    this.#closing = true;
    signalEventFd(this.#wake.number);
    await this.#loop;
    for (const fd of [...this.#waiters.keys()]) this.forget(fd);
    this.#epoll.close();
    this.#wake.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
