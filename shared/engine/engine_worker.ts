/**
 * An engine's thread (the NIC's, or the vhost service's): polls with Wasm, raises interrupts, sleeps when there is
 * nothing to do, stands still when the control thread asks. No JavaScript runs per packet: one `run` is up to a few
 * thousand polls.
 *
 * Idle: after a while without work (`spin.ts`) it asks every driver for kicks, looks once more, and blocks in epoll on
 * the kick eventfds and its own wake eventfd. The kick eventfds are edge-triggered and never read: each kick is one wake-up.
 */
import {
  CALL_LIST,
  CALL_SOCKET,
  CTL,
  CTL_BUFFERED_COUNT,
  CTL_CALL_COUNT,
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
  Q_CALL_KIND,
  Q_CALL_PENDING,
  Q_KICK_FD,
  RUN_CALLS,
  RUN_EVENT,
  RUN_PAUSE,
  RUN_WORK,
} from "../layout/nic.ts";
import { eventData, eventRoom, waitBlocking, waitPrecisely } from "../os/epoll.ts";
import { drainEventFd, monotonicNs, setAffinity } from "../os/fd.ts";
import { holdForLife } from "../os/life.ts";
import type { Notifier } from "../os/notifier.ts";
import type { ThreadTimes } from "../os/thread_times.ts";
import { Quarantine } from "./quarantine.ts";
import { passesOf, SpinWindow } from "./spin.ts";
import { madeEarly, makeParts, type WorkerParts } from "./worker_parts.ts";

/** What the control thread hands over at the start. */
export interface WorkerStart {
  memory: WebAssembly.Memory;
  module: WebAssembly.Module;
  epollFd: number;
  wakeFd: number;
  /** The lock that it holds for as long as it lives. */
  life: bigint;
  cpus: number[];
  /** How long it polls without work before it sleeps; adaptive if it is not said. */
  spinNs: number | undefined;
}

/** What the worker tells the control thread. */
export type WorkerReport = "ready" | "queue-error" | "memory-fault" | "ended";

/** What every engine exports. */
export interface EngineExports {
  /** Has the instance work on the state at this base of the arena. */
  setContext(base: number): void;
  calibrate(): void;
  /** Whether a queue waited for room that somebody else makes, in the last pass. */
  waitsForRoom(): number;
  run(nowNs: number, passes: number): number;
  /** Arms the queues without work; answers how many have work after all. */
  coolAll(): number;
  /** Raises interrupts that wait for more frames; answers in how many ns the first of the rest is due, or Infinity. */
  raiseBeforeSleep(): number;
  /** Takes a queue off the list of those whose interrupt is deferred. */
  forgetDeferral(queue: number): void;
  /** Polls a cold queue again. */
  heat(queue: number): void;
  hasWork(queue: number): number;
  bindRings(queue: number): number;
  startQueue(queue: number, base: number): number;
  continueQueue(queue: number, position: number, next: number): number;
  resumeQueue(queue: number, base: number, kept: number): number;
  /** Has a queue of an engine that has ended go on; answers OK, or why it cannot. */
  adoptQueue(queue: number): number;
  /** Forgets the batch in which that engine ended. */
  endAdoption(): void;
  resumeInflight(queue: number, base: number, kept: number): number;
  positionOf(queue: number): number;
  unfetched(queue: number): number;
  forgetRegions(queue: number): void;
  /** Logs all that the device writes of a queue's rings, where its pool has a dirty log. */
  logRings(queue: number): void;
  /** Logs a write of somebody else's for a pool's guest; 0 if its dirty log is too small. */
  logWritten(pool: number, iova: bigint, bytes: number): number;
  /** Hands on what a packet buffer holds; answers how many of its buffers are left. */
  releaseHeld(buffer: number, pool: number, most: number, last: number): number;
  /** Drops what a packet buffer holds. */
  discardHeld(buffer: number, pool: number): void;
  /** Sends a frame of a pool that announces an address. */
  announce(pool: number, mac: bigint): void;
}

/** How often a sleeper looks at what nobody kicks for: queues without a kick eventfd or held back by their rate, packet buffers. */
const POLL_MS = 1;
/** How long after its last work a worker looks for room without a pause: a side that is at work makes some sooner. */
const FOR_ROOM_NS = 200_000;

class EngineLoop {
  readonly #words: Int32Array;
  readonly #view: DataView;
  readonly #engine: EngineExports;
  readonly #start: WorkerStart;
  readonly #events = eventRoom();
  readonly #eventView = new DataView(this.#events.buffer);
  readonly #quarantine: Quarantine;
  readonly #notifier: Notifier;
  readonly #times: ThreadTimes;
  readonly #spin: SpinWindow;
  #faults = 0;

  constructor(start: WorkerStart, { notifier, times }: WorkerParts) {
    [this.#start, this.#notifier, this.#times] = [start, notifier, times];
    this.#words = new Int32Array(start.memory.buffer);
    this.#view = new DataView(start.memory.buffer);
    this.#quarantine = new Quarantine(this.#view, start.epollFd);
    this.#spin = new SpinWindow(start.spinNs ?? this.#times);
    const imports = { env: { memory: start.memory, now: monotonicNs } };
    this.#engine = new WebAssembly.Instance(start.module, imports).exports as unknown as EngineExports;
    this.#view.setFloat64(CTL + CTL_START_NS, monotonicNs(), true);
  }

  #add(offset: number, n: bigint): void {
    this.#view.setBigUint64(CTL + offset, this.#view.getBigUint64(CTL + offset, true) + n, true);
  }

  /** Runs until the control thread asks for the end. */
  run(): void {
    // The control thread has enough to do meanwhile.
    this.#engine.calibrate();
    let lastWorkNs = monotonicNs();
    while (Atomics.load(this.#words, (CTL + CTL_PAUSE) / 4) !== PAUSE_END) {
      const nowNs = monotonicNs();
      const hot = this.#view.getUint32(CTL + CTL_HOT_COUNT, true);
      const status = this.#engine.run(nowNs, this.#passes(hot));
      if (status & RUN_CALLS) this.#raiseCalls();
      if (status & RUN_EVENT) report("queue-error");
      this.#reportFaults();
      if (status & RUN_PAUSE) {
        this.#park();
        lastWorkNs = monotonicNs();
      } else if (status & RUN_WORK) {
        lastWorkNs = nowNs;
        this.#lookForKicks();
      } else if (hot === 0 || (this.#spin.isOver(nowNs, lastWorkNs) && !this.#looksForRoom(nowNs - lastWorkNs))) {
        this.#sleep();
      } else {
        this.#lookForKicks();
      }
    }
    this.#notifier.close();
    this.#times.close();
  }

  /** Whether a queue waits for room that may come any moment. */
  #looksForRoom(idleNs: number): boolean {
    return idleNs < FOR_ROOM_NS && this.#engine.waitsForRoom() !== 0;
  }

  /** How many passes a run may have: one is enough where only packet buffers are looked at. */
  #passes(hot: number): number {
    const buffered = this.#view.getUint32(CTL + CTL_BUFFERED_COUNT, true);
    return hot === 0 ? 1 : passesOf(hot + buffered, this.#spin.windowNs);
  }

  /** Interrupts the drivers that want it, all in one batch, and waits for none of them. */
  #raiseCalls(): void {
    const count = this.#view.getUint32(CTL + CTL_CALL_COUNT, true);
    if (count === 0) return;
    for (let i = 0; i < count; i++) {
      const queue = this.#view.getUint32(CALL_LIST + i * 4, true);
      this.#view.setUint32(queue + Q_CALL_PENDING, 0, true);
      const fd = this.#view.getInt32(queue + Q_CALL_FD, true);
      if (fd < 0) continue;
      if (this.#view.getUint32(queue + Q_CALL_KIND, true) === CALL_SOCKET) this.#notifier.addSocket(fd);
      else this.#notifier.addEventFd(fd);
    }
    this.#notifier.flush();
    this.#view.setUint32(CTL + CTL_CALL_COUNT, 0, true);
    this.#add(CTL_CALLS, BigInt(count));
  }

  #reportFaults(): void {
    const faults = this.#view.getUint32(CTL + CTL_FAULTS, true);
    if (faults === this.#faults) return;
    this.#faults = faults;
    report("memory-fault");
  }

  /** Stands still until the control thread is done. */
  #park(): void {
    const pause = (CTL + CTL_PAUSE) / 4;
    const parked = (CTL + CTL_PARKED) / 4;
    for (;;) {
      const ticket = Atomics.load(this.#words, pause);
      if (ticket === PAUSE_END || (ticket & 1) === 0) break;
      // The answer names the request: a request that follows at once must not be taken for this one.
      Atomics.store(this.#words, parked, ticket);
      Atomics.notify(this.#words, parked);
      Atomics.wait(this.#words, pause, ticket);
    }
    // Queues may have been stopped and started: those are listened to, and their time is over.
    this.#release(monotonicNs());
  }

  #sleep(): void {
    this.#release(monotonicNs());
    const blocked = this.#view.getUint32(CTL + CTL_RATE_BLOCKED, true);
    if (this.#engine.coolAll() > blocked) return;
    const dueNs = this.#engine.raiseBeforeSleep();
    this.#raiseCalls();
    this.#add(CTL_SLEEPS, 1n);
    const from = monotonicNs();
    const buffered = this.#view.getUint32(CTL + CTL_BUFFERED_COUNT, true);
    const timeoutMs = blocked + buffered > 0 || this.#hasKickless() ? POLL_MS : this.#quarantine.timeoutMs(from);
    const isDueFirst = dueNs !== Infinity && (timeoutMs < 0 || dueNs < timeoutMs * 1e6);
    const ready = isDueFirst
      ? waitPrecisely(this.#start.epollFd, this.#events, dueNs)
      : waitBlocking(this.#start.epollFd, this.#events, timeoutMs);
    const nowNs = monotonicNs();
    const slept = nowNs - from;
    this.#view.setFloat64(CTL + CTL_SLEPT_NS, this.#view.getFloat64(CTL + CTL_SLEPT_NS, true) + slept, true);
    if (ready > 0) this.#spin.woken(slept, nowNs);
    for (let i = 0; i < ready; i++) this.#kicked(eventData(this.#eventView, i), nowNs);
  }

  /** The kicks of cold queues are looked for between two runs. */
  #lookForKicks(): void {
    if (this.#view.getUint32(CTL + CTL_COLD_COUNT, true) === 0) return;
    const ready = waitBlocking(this.#start.epollFd, this.#events, 0);
    const nowNs = monotonicNs();
    for (let i = 0; i < ready; i++) this.#kicked(eventData(this.#eventView, i), nowNs);
    this.#release(nowNs);
  }

  /** Listens again to those whose quarantine is over, and looks what they have to send. */
  #release(nowNs: number): void {
    for (const queue of this.#quarantine.release(nowNs)) {
      if (this.#engine.hasWork(queue)) this.#engine.heat(queue);
    }
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
  #kicked(queue: number, nowNs: number): void {
    if (queue === 0) {
      drainEventFd(this.#start.wakeFd);
      return;
    }
    if (this.#engine.hasWork(queue)) {
      this.#quarantine.heeded(queue);
      this.#engine.heat(queue);
      return;
    }
    this.#add(CTL_SPURIOUS_KICKS, 1n);
    this.#quarantine.spurious(queue, nowNs);
  }
}

function report(what: WorkerReport): void {
  (self as unknown as { postMessage(message: WorkerReport): void }).postMessage(what);
}

if (typeof WorkerGlobalScope !== "undefined" && self instanceof WorkerGlobalScope) {
  // Whoever starts the engine still loads what it needs: what can be had without it is made now.
  const parts = madeEarly();
  self.addEventListener("message", (event) => {
    const start = (event as MessageEvent<WorkerStart>).data;
    if (start.cpus.length > 0) setAffinity(start.cpus);
    holdForLife(start.life);
    const loop = new EngineLoop(start, parts ?? makeParts());
    report("ready");
    loop.run();
    report("ended");
  }, { once: true });
}
