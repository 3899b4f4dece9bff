/**
 * The guest's thread: the IPv4 host above, the data path's plugin below, some hundred frames between them at a time. No
 * JavaScript runs per packet. It sleeps when nothing is due, until a timer, an interrupt of the device or a request of
 * the control thread. A plugin that traps, that reports what cannot be, or that sends nothing of what it took is a
 * fault: the data path stops there, and the control thread is told. The control thread can end a plugin at any time, in
 * the middle of a call too, by its guard (shared/plugin/code.ts): this thread never waits for one.
 */
import { type MessagePort, receiveMessageOnPort } from "node:worker_threads";
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
import { LIST_MAX, PLUGIN_BUFFER_COUNT } from "../../shared/layout/plugin.ts";
import { EPOLLET, EPOLLIN, eventData, eventRoom, waitBlocking } from "../../shared/os/epoll.ts";
import { drainEventFd, monotonicNs, setAffinity, signalEventFd } from "../../shared/os/fd.ts";
import { libc } from "../../shared/os/libc.ts";
import { whyNotBelieved } from "./reports.ts";

/** What the control thread hands over at the start. */
export interface GuestStart {
  memory: WebAssembly.Memory;
  module: WebAssembly.Module;
  port: MessagePort;
  epollFd: number;
  wakeFd: number;
  cpus: number[];
  spinNs: number;
}

/** A data path as the worker gets it: a plugin, its memory, and an eventfd for each of its queues, each way. */
export interface PathInstall {
  module: WebAssembly.Module;
  memory: WebAssembly.Memory;
  /** Whose first word ends the plugin when it is not 0. The shell's own plugin does not look at it. */
  guard: WebAssembly.Memory;
  kicks: number[];
  calls: number[];
}

/** What the control thread may ask of the worker. `path` 0 is the shell's own, 1 the injected plugin's. */
export type GuestRequest =
  | { op: "install"; path: 0 | 1; install: PathInstall }
  | { op: "remove"; path: 0 | 1 }
  | { op: "use"; path: 0 | 1 }
  | { op: "quiesce"; deadlineMs: number }
  | { op: "drain" }
  | { op: "end" };

/** The worker's answers: `error` is a sentence; a fault comes unasked. */
export type GuestReply = { id: number; value?: unknown; error?: string } | { fault: string; path: number };

interface HostExports {
  boot(): void;
  poll(nowNs: number): number;
  prepareTx(pair: number): number;
  txAccepted(pair: number, n: number): number;
  txCompleted(pair: number, n: number): number;
  preparePost(pair: number): number;
  posted(pair: number, n: number, taken: number): void;
  received(pair: number, n: number): number;
  reclaim(path: number): void;
  txHeld(): number;
  txWaiting(): number;
}

interface PluginInstance {
  start(): number;
  stop(): void;
  tx(pair: number, n: number): number;
  txDone(pair: number, max: number): number;
  post(pair: number, n: number): number;
  rx(pair: number, max: number): number;
  arm(pair: number): number;
  disarm(pair: number): void;
}

interface Path {
  plugin: PluginInstance;
  guard: Int32Array;
  calls: number[];
}

const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
/** Looks again at least so often while the device has frames that it has not sent. */
const TX_HELD_MS = 1;
/** A plugin that has frames to send and reports none of them as sent for so long is ended. */
const TX_STUCK_NS = 5e9;

class GuestLoop {
  readonly #start: GuestStart;
  readonly #words: Int32Array;
  readonly #view: DataView;
  readonly #host: HostExports;
  readonly #paths: (Path | undefined)[] = [undefined, undefined];
  readonly #events = eventRoom();
  readonly #eventView = new DataView(this.#events.buffer);
  #requests = 0;
  #quiescing: { id: number; untilNs: number } | undefined;
  /** When the data path last reported frames as sent, or had none to send. */
  #sentNs = 0;
  #ended = false;

  constructor(start: GuestStart) {
    this.#start = start;
    this.#words = new Int32Array(start.memory.buffer);
    this.#view = new DataView(start.memory.buffer);
    const imports = { env: { memory: start.memory } };
    this.#host = new WebAssembly.Instance(start.module, imports).exports as unknown as HostExports;
    this.#requests = Atomics.load(this.#words, (GC + GC_REQUEST) / 4);
    this.#host.boot();
  }

  #path(): Path | undefined {
    return this.#paths[this.#view.getUint32(GC + GC_PATH, true)];
  }

  run(): void {
    let lastWorkNs = monotonicNs();
    while (!this.#ended) {
      this.#takeRequests();
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
      this.#checkProgress(nowNs);
      for (let pair = 0; pair < pairs; pair++) moved += this.#movePair(path, pair, running, nowNs);
    } catch (error) {
      this.#fault(`the plugin failed: ${(error as Error).message}`);
    }
    return moved;
  }

  #movePair(path: Path, pair: number, running: boolean, nowNs: number): number {
    const host = this.#host;
    const { plugin } = path;
    let moved = 0;
    if (running) {
      const n = host.prepareTx(pair);
      if (n > 0) {
        const taken = plugin.tx(pair, n);
        mustLive(path);
        if (taken < 0 || taken > n) throw new Error(`tx took ${taken} of ${n} entries`);
        if (host.txAccepted(pair, taken) === 0) throw new Error(`tx took ${taken} entries, which are not whole frames`);
        moved += taken;
      }
    }
    const done = plugin.txDone(pair, LIST_MAX);
    mustLive(path);
    if (done !== 0) {
      if (host.txCompleted(pair, done) === 0) throw new Error(whyNotBelieved(this.#view, "txDone", pair, done));
      this.#sentNs = nowNs;
    }
    const filled = this.#receive(path, pair);
    moved += filled;
    const wanted = host.preparePost(pair);
    if (wanted > 0) {
      const taken = plugin.post(pair, wanted);
      mustLive(path);
      if (taken < 0 || taken > wanted) throw new Error(`post took ${taken} of ${wanted} buffers`);
      host.posted(pair, wanted, taken);
    }
    return moved + done;
  }

  /** Takes in what a plugin reports as received; answers how many entries. */
  #receive(path: Path, pair: number): number {
    const filled = path.plugin.rx(pair, LIST_MAX);
    mustLive(path);
    if (filled !== 0 && this.#host.received(pair, filled) === 0) {
      throw new Error(whyNotBelieved(this.#view, "rx", pair, filled));
    }
    return filled;
  }

  /**
   * Throws if the plugin has had frames to send for long, and has reported none as sent. Asked before it is handed more:
   * a guest that was idle has none.
   */
  #checkProgress(nowNs: number): void {
    if (nowNs - this.#sentNs < TX_STUCK_NS || this.#view.getUint32(GC + GC_PATH, true) === 0) return;
    const held = this.#host.txHeld();
    if (held > 0) throw new Error(`it has sent none of the ${held} buffers it took for ${TX_STUCK_NS / 1e9} s`);
    this.#sentNs = nowNs;
  }

  #fault(reason: string): void {
    const path = this.#view.getUint32(GC + GC_PATH, true);
    // It does not run again, not even to be told that it is over.
    const faulty = this.#paths[path];
    if (faulty) Atomics.store(faulty.guard, 0, 1);
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
        this.#sentNs = monotonicNs();
        return undefined;
      case "quiesce":
        Atomics.store(this.#words, (GC + GC_RUNNING) / 4, 0);
        this.#quiescing = { id, untilNs: monotonicNs() + request.deadlineMs * 1e6 };
        return "later";
      case "drain":
        return this.#drain();
      case "end":
        this.#ended = true;
        return undefined;
    }
  }

  /** Instantiates a plugin over its memory and has it lay out its rings. */
  #install(path: 0 | 1, install: PathInstall): void {
    this.#uninstall(path);
    this.#host.reclaim(path);
    const notify = (queue: number) => {
      const fd = install.kicks[queue];
      if (fd !== undefined) signalEventFd(fd);
    };
    const imports = { env: { memory: install.memory }, shell: { notify, guard: install.guard } };
    const plugin = new WebAssembly.Instance(install.module, imports).exports as unknown as PluginInstance;
    const guard = new Int32Array(install.guard.buffer);
    if (plugin.start() !== 0) throw new Error("the plugin refused to start with these rings");
    // Only receive interrupts are listened to; what was sent is looked at in passing.
    const calls = install.calls.filter((_, queue) => queue % 2 === 0);
    for (const fd of calls) this.#listen(EPOLL_CTL_ADD, fd);
    this.#paths[path] = { plugin, guard, calls };
  }

  #uninstall(path: number): void {
    const old = this.#paths[path];
    if (!old) return;
    this.#paths[path] = undefined;
    for (const fd of old.calls) this.#listen(EPOLL_CTL_DEL, fd);
    try {
      old.plugin.stop();
    } catch {
      // It is gone, whatever it says; one that has been ended says nothing any more.
    }
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
      for (let filled = -1; filled !== 0 && taken <= PLUGIN_BUFFER_COUNT;) taken += filled = this.#receive(path, pair);
    }
    return taken;
  }

  // Idle -----------------------------------------------------------------------------------------------------

  #sleep(forNs: number): void {
    const path = this.#path();
    const pairs = this.#view.getUint32(GC + GC_QUEUE_PAIRS, true);
    let work = 0;
    try {
      for (let pair = 0; path && pair < pairs; pair++) work |= path.plugin.arm(pair);
      if (path) mustLive(path);
      if (work === 0) this.#block(forNs);
      for (let pair = 0; path && pair < pairs; pair++) path.plugin.disarm(pair);
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

/** Throws if the plugin has been ended: what it answered meanwhile is not looked at. */
function mustLive({ guard }: Path): void {
  if (Atomics.load(guard, 0) !== 0) throw new Error("it has been ended");
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
