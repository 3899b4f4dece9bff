/**
 * An engine's thread (the NIC's, or the vhost service's): polls with Wasm, raises interrupts, sleeps when there is
 * nothing to do, stands still when the control thread asks. No JavaScript runs per packet: one `run` is up to a few
 * thousand polls.
 *
 * Idle: after `spinNs` without work it asks every driver for kicks, looks once more, and blocks in epoll on the kick
 * eventfds and its own wake eventfd. The kick eventfds are edge-triggered and never read: each kick is one wake-up.
 */
import {
  CALL_BLOCKED,
  CALL_LIST,
  CTL,
  CTL_CALL_COUNT,
  CTL_CALLING_FD,
  CTL_CALLING_SEQUENCE,
  CTL_CALLS,
  CTL_COLD_COUNT,
  CTL_FAULTS,
  CTL_HOT_COUNT,
  CTL_PARKED,
  CTL_PAUSE,
  CTL_RATE_BLOCKED,
  CTL_SLEEPS,
  CTL_SLEPT_NS,
  CTL_SPURIOUS_KICKS,
  CTL_START_NS,
  HOT_LIST,
  PAUSE_END,
  Q_CALL_FD,
  Q_CALL_PENDING,
  Q_ERROR,
  Q_IDLE_KICKS,
  Q_KICK_FD,
  Q_STATE,
  QUEUE_ERROR,
  RUN_CALLS,
  RUN_EVENT,
  RUN_PAUSE,
  RUN_WORK,
} from "../layout/nic.ts";
import { EPOLLET, EPOLLIN, eventData, eventRoom, waitBlocking } from "../os/epoll.ts";
import { drainEventFd, isWritable, monotonicNs, setAffinity, signalEventFd } from "../os/fd.ts";
import { libc } from "../os/libc.ts";

/** What the control thread hands over at the start. */
export interface WorkerStart {
  memory: WebAssembly.Memory;
  module: WebAssembly.Module;
  epollFd: number;
  wakeFd: number;
  cpus: number[];
  spinNs: number;
}

/** What the worker tells the control thread. */
export type WorkerReport = "ready" | "queue-error" | "memory-fault" | "ended";

/** What every engine exports. */
export interface EngineExports {
  calibrate(): void;
  run(nowNs: number, passes: number): number;
  /** Arms the queues without work; answers how many have work after all. */
  coolAll(): number;
  /** Polls a cold queue again. */
  heat(queue: number): void;
  hasWork(queue: number): number;
  bindRings(queue: number): number;
  startQueue(queue: number, base: number): number;
  continueQueue(queue: number, position: number, next: number): number;
  positionOf(queue: number): number;
  unfetched(queue: number): number;
  forgetRegions(queue: number): void;
}

/** Polls in one `run`, shared among the hot queues: a few microseconds when idle. */
const POLLS_PER_RUN = 2048;
/** Kicks in a row without work after which a queue's kicks are not listened to for THROTTLE_MS. */
const IDLE_KICKS_MAX = 16;
const THROTTLE_MS = 1;
const EPOLL_CTL_MOD = 3;

class EngineLoop {
  readonly #words: Int32Array;
  readonly #view: DataView;
  readonly #engine: EngineExports;
  readonly #start: WorkerStart;
  readonly #events = eventRoom();
  readonly #eventView = new DataView(this.#events.buffer);
  readonly #throttled = new Set<number>();
  #faults = 0;

  constructor(start: WorkerStart) {
    this.#start = start;
    this.#words = new Int32Array(start.memory.buffer);
    this.#view = new DataView(start.memory.buffer);
    const imports = { env: { memory: start.memory, now: monotonicNs } };
    this.#engine = new WebAssembly.Instance(start.module, imports).exports as unknown as EngineExports;
    this.#engine.calibrate();
    this.#view.setFloat64(CTL + CTL_START_NS, monotonicNs(), true);
  }

  #add(offset: number, n: bigint): void {
    this.#view.setBigUint64(CTL + offset, this.#view.getBigUint64(CTL + offset, true) + n, true);
  }

  /** Runs until the control thread asks for the end. */
  run(): void {
    let lastWorkNs = monotonicNs();
    while (Atomics.load(this.#words, (CTL + CTL_PAUSE) / 4) !== PAUSE_END) {
      const nowNs = monotonicNs();
      const hot = this.#view.getUint32(CTL + CTL_HOT_COUNT, true);
      const status = this.#engine.run(nowNs, Math.max(1, Math.floor(POLLS_PER_RUN / Math.max(hot, 1))));
      if (status & RUN_CALLS) this.#raiseCalls();
      if (status & RUN_EVENT) report("queue-error");
      this.#reportFaults();
      if (status & RUN_PAUSE) {
        this.#park();
        lastWorkNs = monotonicNs();
      } else if (status & RUN_WORK) {
        lastWorkNs = nowNs;
        if (this.#view.getUint32(CTL + CTL_COLD_COUNT, true) !== 0) this.#lookForKicks();
      } else if (hot === 0 || nowNs - lastWorkNs >= this.#start.spinNs) {
        this.#sleep();
      }
    }
  }

  /** Writes the call eventfds of the queues whose drivers want an interrupt. */
  #raiseCalls(): void {
    const count = this.#view.getUint32(CTL + CTL_CALL_COUNT, true);
    for (let i = 0; i < count; i++) {
      const queue = this.#view.getUint32(CALL_LIST + i * 4, true);
      this.#view.setUint32(queue + Q_CALL_PENDING, 0, true);
      const fd = this.#view.getInt32(queue + Q_CALL_FD, true);
      if (fd < 0) continue;
      // A driver can make its eventfd block a writer: then its queue stops. Should it fill up just now, the control
      // thread's watchdog sees here which one it is, and drains it.
      if (!isWritable(fd)) {
        this.#callBlocked(queue);
        continue;
      }
      Atomics.add(this.#words, (CTL + CTL_CALLING_SEQUENCE) / 4, 1);
      Atomics.store(this.#words, (CTL + CTL_CALLING_FD) / 4, fd);
      signalEventFd(fd);
      Atomics.store(this.#words, (CTL + CTL_CALLING_FD) / 4, -1);
    }
    this.#view.setUint32(CTL + CTL_CALL_COUNT, 0, true);
    this.#add(CTL_CALLS, BigInt(count));
  }

  #callBlocked(queue: number): void {
    this.#view.setInt32(queue + Q_CALL_FD, -1, true);
    this.#view.setUint32(queue + Q_ERROR, CALL_BLOCKED, true);
    this.#view.setUint32(queue + Q_STATE, QUEUE_ERROR, true);
    report("queue-error");
  }

  #reportFaults(): void {
    const faults = this.#view.getUint32(CTL + CTL_FAULTS, true);
    if (faults === this.#faults) return;
    this.#faults = faults;
    report("memory-fault");
  }

  /** Stands still until the control thread is done. */
  #park(): void {
    // Queues may go and their descriptors' numbers come back as other queues': nobody stays throttled across that.
    this.#listenAgain();
    const pause = (CTL + CTL_PAUSE) / 4;
    const parked = (CTL + CTL_PARKED) / 4;
    for (;;) {
      const ticket = Atomics.load(this.#words, pause);
      if (ticket === PAUSE_END || (ticket & 1) === 0) return;
      // The answer names the request: a request that follows at once must not be taken for this one.
      Atomics.store(this.#words, parked, ticket);
      Atomics.notify(this.#words, parked);
      Atomics.wait(this.#words, pause, ticket);
    }
  }

  #sleep(): void {
    const blocked = this.#view.getUint32(CTL + CTL_RATE_BLOCKED, true);
    if (this.#engine.coolAll() > blocked) return;
    const timeoutMs = blocked > 0 || this.#throttled.size > 0 || this.#hasKickless() ? THROTTLE_MS : -1;
    this.#add(CTL_SLEEPS, 1n);
    const from = monotonicNs();
    const ready = waitBlocking(this.#start.epollFd, this.#events, timeoutMs);
    const slept = monotonicNs() - from;
    this.#view.setFloat64(CTL + CTL_SLEPT_NS, this.#view.getFloat64(CTL + CTL_SLEPT_NS, true) + slept, true);
    for (let i = 0; i < ready; i++) this.#kicked(eventData(this.#eventView, i));
    if (timeoutMs >= 0 && slept >= THROTTLE_MS * 1e6) this.#listenAgain();
  }

  /** While there is work, the kicks of cold queues are looked for between two runs. */
  #lookForKicks(): void {
    const ready = waitBlocking(this.#start.epollFd, this.#events, 0);
    for (let i = 0; i < ready; i++) this.#kicked(eventData(this.#eventView, i));
  }

  /** Whether a polled queue has no kick eventfd: its driver expects to be looked at. */
  #hasKickless(): boolean {
    const hot = this.#view.getUint32(CTL + CTL_HOT_COUNT, true);
    for (let i = 0; i < hot; i++) {
      const queue = this.#view.getUint32(HOT_LIST + i * 4, true);
      if (this.#view.getInt32(queue + Q_KICK_FD, true) < 0) return true;
    }
    return false;
  }

  /** A kick for `queue` (0: the control thread's wake-up). One that brings no work is counted against its guest. */
  #kicked(queue: number): void {
    if (queue === 0) {
      drainEventFd(this.#start.wakeFd);
      return;
    }
    if (this.#engine.hasWork(queue)) {
      this.#view.setUint32(queue + Q_IDLE_KICKS, 0, true);
      this.#engine.heat(queue);
      return;
    }
    this.#add(CTL_SPURIOUS_KICKS, 1n);
    const idleKicks = this.#view.getUint32(queue + Q_IDLE_KICKS, true) + 1;
    this.#view.setUint32(queue + Q_IDLE_KICKS, idleKicks, true);
    if (idleKicks < IDLE_KICKS_MAX || this.#throttled.has(queue)) return;
    this.#throttled.add(queue);
    this.#listen(queue, EPOLLET);
  }

  #listenAgain(): void {
    for (const queue of this.#throttled) {
      const fd = this.#view.getInt32(queue + Q_KICK_FD, true);
      // Half the patience comes back with each pause; a guest that has stopped is forgiven, one that goes on is not.
      const hasWork = this.#engine.hasWork(queue) !== 0;
      if (hasWork) this.#engine.heat(queue);
      const idleKicks = hasWork ? 0 : IDLE_KICKS_MAX / 2;
      this.#view.setUint32(queue + Q_IDLE_KICKS, idleKicks, true);
      if (fd >= 0) drainEventFd(fd);
      this.#listen(queue, EPOLLIN | EPOLLET);
    }
    this.#throttled.clear();
  }

  #listen(queue: number, events: number): void {
    const fd = this.#view.getInt32(queue + Q_KICK_FD, true);
    if (fd < 0) return;
    const event = new DataView(new ArrayBuffer(12));
    event.setUint32(0, events >>> 0, true);
    event.setBigUint64(4, BigInt(queue), true);
    // A queue that was stopped meanwhile has left the set; nothing is lost then.
    libc().epoll_ctl(this.#start.epollFd, EPOLL_CTL_MOD, fd, new Uint8Array(event.buffer));
  }
}

function report(what: WorkerReport): void {
  (self as unknown as { postMessage(message: WorkerReport): void }).postMessage(what);
}

if (typeof WorkerGlobalScope !== "undefined" && self instanceof WorkerGlobalScope) {
  self.addEventListener("message", (event) => {
    const start = (event as MessageEvent<WorkerStart>).data;
    if (start.cpus.length > 0) setAffinity(start.cpus);
    const loop = new EngineLoop(start);
    report("ready");
    loop.run();
    report("ended");
  }, { once: true });
}
