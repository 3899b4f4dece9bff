/**
 * The guest's thread: the IPv4 host above, the data path's plugin below, some hundred frames between them at a time. No
 * JavaScript runs per packet. It sleeps when nothing is due, until a timer, an interrupt of the device or a request of
 * the control thread. A plugin that traps, that reports what cannot be, or that sends nothing of what it took is a
 * fault: the data path stops there, and the control thread is told. The control thread can end a plugin at any time, in
 * the middle of a call too, by its guard (shared/plugin/code.ts): this thread never waits for one.
 */
import { receiveMessageOnPort } from "node:worker_threads";
import {
  G_PLUGIN_FAULTS,
  GC,
  GC_ASLEEP,
  GC_COUNTERS,
  GC_PATH,
  GC_QUEUE_PAIRS,
  GC_REQUEST,
  GC_RUNNING,
} from "../../shared/layout/guest.ts";
import { PLUGIN_BUFFER_COUNT } from "../../shared/layout/plugin.ts";
import { EPOLLET, EPOLLIN, eventData, eventRoom, waitBlocking } from "../../shared/os/epoll.ts";
import { drainEventFd, monotonicNs, setAffinity } from "../../shared/os/fd.ts";
import { libc } from "../../shared/os/libc.ts";
import type { HostExports } from "./exports.ts";
import type { GuestReply, GuestRequest, GuestStart, PathInstall } from "./worker_messages.ts";
import { WorkerPath } from "./worker_path.ts";

const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
/** Looks again at least so often while the device has frames that it has not sent. */
const TX_HELD_MS = 1;

class GuestLoop {
  readonly #start: GuestStart;
  readonly #words: Int32Array;
  readonly #view: DataView;
  readonly #host: HostExports;
  readonly #paths: (WorkerPath | undefined)[] = [undefined, undefined];
  readonly #events = eventRoom();
  readonly #eventView = new DataView(this.#events.buffer);
  #requests = 0;
  #quiescing: { id: number; untilNs: number } | undefined;
  #ended = false;
  /** The guest stands still: it is being moved, or none is here yet. */
  #frozen = false;

  constructor(start: GuestStart) {
    this.#start = start;
    this.#words = new Int32Array(start.memory.buffer);
    this.#view = new DataView(start.memory.buffer);
    const imports = { env: { memory: start.memory } };
    this.#host = new WebAssembly.Instance(start.module, imports).exports as unknown as HostExports;
    this.#requests = Atomics.load(this.#words, (GC + GC_REQUEST) / 4);
    this.#host.boot();
  }

  #path(): WorkerPath | undefined {
    return this.#paths[this.#view.getUint32(GC + GC_PATH, true)];
  }

  run(): void {
    let lastWorkNs = monotonicNs();
    while (!this.#ended) {
      this.#takeRequests();
      if (this.#frozen) {
        this.#block(Infinity);
        continue;
      }
      const nowNs = monotonicNs();
      const dueNs = this.#host.poll(nowNs);
      const moved = this.#move(nowNs);
      this.#checkQuiet(nowNs);
      if (moved > 0) lastWorkNs = nowNs;
      else if (dueNs > nowNs && nowNs - lastWorkNs >= this.#start.spinNs) this.#sleep(dueNs - nowNs);
    }
  }

  /** Moves frames both ways; answers how many. */
  #move(nowNs: number): number {
    const path = this.#path();
    if (!path) return 0;
    const running = this.#view.getUint32(GC + GC_RUNNING, true) !== 0;
    const pairs = this.#view.getUint32(GC + GC_QUEUE_PAIRS, true);
    let moved = 0;
    try {
      // The shell's own plugin is not suspected of anything.
      if (this.#view.getUint32(GC + GC_PATH, true) !== 0) path.checkProgress(nowNs);
      for (let pair = 0; pair < pairs; pair++) moved += path.move(pair, running, nowNs);
    } catch (error) {
      this.#fault(`the plugin failed: ${(error as Error).message}`);
    }
    return moved;
  }

  #fault(reason: string): void {
    const path = this.#view.getUint32(GC + GC_PATH, true);
    this.#paths[path]?.shut();
    this.#uninstall(path);
    const at = GC + GC_COUNTERS + G_PLUGIN_FAULTS;
    this.#view.setBigUint64(at, this.#view.getBigUint64(at, true) + 1n, true);
    Atomics.store(this.#words, (GC + GC_RUNNING) / 4, 0);
    this.#start.port.postMessage({ fault: reason, path } satisfies GuestReply);
  }

  // Requests -------------------------------------------------------------------------------------------------

  #takeRequests(): void {
    const wanted = Atomics.load(this.#words, (GC + GC_REQUEST) / 4);
    while (this.#requests !== wanted) {
      const got = receiveMessageOnPort(this.#start.port);
      if (!got) return;
      this.#requests = (this.#requests + 1) | 0;
      const { id, ...request } = got.message as GuestRequest & { id: number };
      try {
        const value = this.#handle(id, request as GuestRequest);
        if (value !== "later") this.#start.port.postMessage({ id, value } satisfies GuestReply);
      } catch (error) {
        this.#start.port.postMessage({ id, error: (error as Error).message } satisfies GuestReply);
      }
    }
  }

  #handle(id: number, request: GuestRequest): unknown {
    switch (request.op) {
      case "install":
        return this.#install(request.path, request.install);
      case "remove":
        this.#uninstall(request.path);
        return this.#host.reclaim(request.path);
      case "use":
        this.#view.setUint32(GC + GC_PATH, request.path, true);
        this.#path()?.use(monotonicNs());
        return undefined;
      case "quiesce":
        Atomics.store(this.#words, (GC + GC_RUNNING) / 4, 0);
        this.#quiescing = { id, untilNs: monotonicNs() + request.deadlineMs * 1e6 };
        return "later";
      case "drain":
        return this.#drain();
      case "settle":
        return undefined;
      case "freeze":
        this.#drain();
        this.#frozen = true;
        return undefined;
      case "thaw":
        this.#frozen = false;
        return undefined;
      case "boot":
        return this.#host.boot();
      case "end":
        this.#ended = true;
        return undefined;
    }
  }

  #install(path: 0 | 1, install: PathInstall): void {
    this.#uninstall(path);
    this.#host.reclaim(path);
    const installed = new WorkerPath(install, this.#host, this.#view);
    for (const fd of installed.calls) this.#listen(EPOLL_CTL_ADD, fd);
    this.#paths[path] = installed;
  }

  #uninstall(path: number): void {
    const old = this.#paths[path];
    if (!old) return;
    this.#paths[path] = undefined;
    for (const fd of old.calls) this.#listen(EPOLL_CTL_DEL, fd);
    old.stop();
  }

  #listen(op: number, fd: number): void {
    const event = new DataView(new ArrayBuffer(12));
    event.setUint32(0, (EPOLLIN | EPOLLET) >>> 0, true);
    event.setBigUint64(4, 1n, true);
    libc().epoll_ctl(this.#start.epollFd, op, fd, new Uint8Array(event.buffer));
  }

  /** Nothing more is handed to the data path; the answer comes when it has sent all that it had. */
  #checkQuiet(nowNs: number): void {
    const waiting = this.#quiescing;
    if (!waiting) return;
    const held = this.#host.txHeld();
    if (held > 0 && nowNs < waiting.untilNs && this.#path()) return;
    this.#quiescing = undefined;
    const error = held > 0 ? `${held} frames were not sent in time` : undefined;
    this.#start.port.postMessage({ id: waiting.id, ...(error ? { error } : {}) } satisfies GuestReply);
  }

  /** Takes in everything that the data path has received; answers how many buffers. */
  #drain(): number {
    const path = this.#path();
    const pairs = this.#view.getUint32(GC + GC_QUEUE_PAIRS, true);
    let taken = 0;
    for (let pair = 0; path && pair < pairs; pair++) {
      // It has no more buffers than there are.
      for (let filled = -1; filled !== 0 && taken <= PLUGIN_BUFFER_COUNT;) taken += filled = path.receive(pair);
    }
    return taken;
  }

  // Idle -----------------------------------------------------------------------------------------------------

  #sleep(forNs: number): void {
    const path = this.#path();
    const pairs = this.#view.getUint32(GC + GC_QUEUE_PAIRS, true);
    try {
      if (path?.arm(pairs) !== true) this.#block(forNs);
      path?.disarm(pairs);
    } catch (error) {
      this.#fault(`the plugin failed: ${(error as Error).message}`);
    }
  }

  #block(forNs: number): void {
    const impatient = this.#quiescing !== undefined || this.#host.txHeld() > 0;
    const dueMs = forNs === Infinity ? -1 : Math.max(1, Math.ceil(forNs / 1e6));
    const timeoutMs = impatient ? TX_HELD_MS : dueMs;
    Atomics.store(this.#words, (GC + GC_ASLEEP) / 4, 1);
    const ready = waitBlocking(this.#start.epollFd, this.#events, timeoutMs);
    Atomics.store(this.#words, (GC + GC_ASLEEP) / 4, 0);
    for (let i = 0; i < ready; i++) if (eventData(this.#eventView, i) === 0) drainEventFd(this.#start.wakeFd);
  }
}

if (typeof WorkerGlobalScope !== "undefined" && self instanceof WorkerGlobalScope) {
  self.addEventListener("message", (event) => {
    const start = (event as MessageEvent<GuestStart>).data;
    if (start.cpus.length > 0) setAffinity(start.cpus);
    const loop = new GuestLoop(start);
    start.port.postMessage({ id: 0 } satisfies GuestReply);
    loop.run();
  }, { once: true });
}
