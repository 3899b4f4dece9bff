/**
 * The guest as a machine: its RAM, which is a memory file mapped as its Wasm memory, its worker, and its data paths'
 * plugins. The machine can end the injected plugin at any time, whatever it does: its guard stops it where it is, and
 * the worker goes on.
 */
import { MessageChannel, type MessagePort } from "node:worker_threads";
import { GC, GC_ASLEEP, GC_NOW_NS, GC_REQUEST, GUEST_RAM_BYTES_MIN } from "../../shared/layout/guest.ts";
import {
  createEventFd,
  createMemfd,
  Epoll,
  EPOLLIN,
  type Fd,
  sealSize,
  signalEventFd,
  WasmMemory,
} from "../../shared/os/mod.ts";
import { loadWasm } from "../../shared/wasm/load.ts";
import { PathMemory, type PathOptions, PathRoom } from "./path_memory.ts";
import type { GuestReply, GuestRequest, GuestStart } from "./worker_messages.ts";

const WATCHDOG_MS = 250;
/** How long a plugin may take to come back from a call. */
const HANG_MS = 2000;
/** After so long without a look at the clock the worker is dead: no plugin holds it up for longer than HANG_MS. */
const DEAD_MS = 10_000;
/** How long the worker may take to end. */
const END_MS = 1000;

/** Settings of the machine. */
export interface MachineOptions {
  cpus: number[];
  spinUs: number;
}

/** RAM and worker. */
export class Machine {
  readonly ram: Fd;
  readonly memory: WasmMemory;
  /** Told when a plugin breaks its contract. */
  onFault: (path: number, reason: string) => void = () => {};
  /** Told when the worker cannot go on. */
  onDeath: (reason: string) => void = () => {};
  readonly #worker: Worker;
  readonly #port: MessagePort;
  readonly #workerPort: MessagePort;
  readonly #wake = createEventFd();
  readonly #epoll = new Epoll();
  readonly #words: Int32Array;
  readonly #waiting = new Map<number, PromiseWithResolvers<unknown>>();
  #next = 1;
  #watchdog: ReturnType<typeof setInterval> | undefined;
  #dead: string | undefined;
  #lastNs = 0;
  #looks = 0;
  readonly #rooms = [new PathRoom(), new PathRoom()] as const;
  /** The injected plugin, and why it has been ended. */
  #plugin: { path: PathMemory; ended?: string } | undefined;

  private constructor() {
    this.ram = createMemfd("ringfabric-guest", GUEST_RAM_BYTES_MIN);
    sealSize(this.ram.number);
    this.memory = new WasmMemory(GUEST_RAM_BYTES_MIN);
    this.memory.map(0, this.ram.number, 0, GUEST_RAM_BYTES_MIN);
    this.#words = new Int32Array(this.memory.buffer);
    this.#epoll.add(this.#wake.number, EPOLLIN, 0);
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    this.#workerPort = port2;
    port1.on("message", (reply: GuestReply) => this.#reply(reply));
    this.#worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module", name: "guest" });
    this.#worker.addEventListener("error", (event) => {
      event.preventDefault();
      this.#die(event.message);
    });
  }

  /** Starts the machine. */
  static async start(options: MachineOptions): Promise<Machine> {
    const module = await loadWasm("guest");
    const machine = new Machine();
    await machine.#boot(module, options);
    return machine;
  }

  async #boot(module: WebAssembly.Module, { cpus, spinUs }: MachineOptions): Promise<void> {
    const ready = Promise.withResolvers<unknown>();
    this.#waiting.set(0, ready);
    const start: GuestStart = {
      memory: this.memory.memory,
      module,
      port: this.#workerPort,
      epollFd: this.#epoll.number,
      wakeFd: this.#wake.number,
      cpus,
      spinNs: spinUs * 1000,
    };
    this.#worker.postMessage(start, [this.#workerPort as unknown as Transferable]);
    await ready.promise;
    this.#watchdog = setInterval(() => this.#watch(), WATCHDOG_MS);
  }

  #die(reason: string): void {
    clearInterval(this.#watchdog);
    this.#dead = `the guest's worker died: ${reason}`;
    for (const waiter of this.#waiting.values()) waiter.reject(new Error(this.#dead));
    this.#waiting.clear();
    this.onDeath(reason);
  }

  /** A worker that is awake and does not look at the clock is inside a plugin, which is then ended. */
  #watch(): void {
    const nowNs = this.memory.view.getFloat64(GC + GC_NOW_NS, true);
    const stands = nowNs === this.#lastNs && Atomics.load(this.#words, (GC + GC_ASLEEP) / 4) === 0;
    this.#looks = stands ? this.#looks + 1 : 0;
    this.#lastNs = nowNs;
    const standsMs = this.#looks * WATCHDOG_MS;
    if (standsMs >= HANG_MS && this.#plugin) {
      this.endPlugin(this.#plugin.path, "the plugin did not come back from a call");
    }
    if (standsMs >= DEAD_MS) this.#die(`it has not looked at the clock for ${DEAD_MS} ms`);
  }

  #reply(reply: GuestReply): void {
    // A plugin that has been ended traps: what is said of that is not why.
    if ("fault" in reply) {
      if (reply.path !== 1 || !this.#plugin) return this.onFault(reply.path, reply.fault);
      return this.onFault(1, this.#plugin.ended ??= reply.fault);
    }
    const ended = this.#plugin?.ended;
    const waiter = this.#waiting.get(reply.id);
    this.#waiting.delete(reply.id);
    if (reply.error === undefined) waiter?.resolve(reply.value);
    else waiter?.reject(new Error(ended ?? reply.error));
  }

  /** Makes room for a plugin on a data path, on which none is installed. */
  layOut(path: 0 | 1, options: PathOptions, doorbells?: Fd): PathMemory {
    return new PathMemory(path, this.ram, options, doorbells, this.#rooms[path]);
  }

  /** Has the worker drive a data path with `module`. Throws why it cannot be, with nothing installed. */
  async install(path: PathMemory, module: WebAssembly.Module): Promise<void> {
    if (path.path === 1) this.#plugin = { path };
    await this.ask({ op: "install", path: path.path, install: path.install(module) });
  }

  /** Takes a data path's plugin away; the buffers that it had are the host's again. */
  async remove(path: PathMemory): Promise<void> {
    await this.ask({ op: "remove", path: path.path });
    if (this.#plugin?.path === path) this.#plugin = undefined;
  }

  /** Ends a plugin at once and for good, whatever it does. `reason` is what whoever waits for it is told. */
  endPlugin(path: PathMemory, reason: string): void {
    // Another one may run in its place.
    if (this.#plugin?.path !== path) return;
    path.end();
    this.#plugin.ended ??= reason;
  }

  /** Why the plugin of a data path has ended; `undefined` while it has not. */
  whyEnded(path: PathMemory): string | undefined {
    return this.#plugin?.path === path ? this.#plugin.ended : "the plugin has been taken away";
  }

  /** Asks the worker between two bursts. */
  async ask(request: GuestRequest): Promise<unknown> {
    if (this.#dead !== undefined) throw new Error(this.#dead);
    const id = this.#next++;
    const waiter = Promise.withResolvers<unknown>();
    this.#waiting.set(id, waiter);
    this.#port.postMessage({ id, ...request });
    Atomics.add(this.#words, (GC + GC_REQUEST) / 4, 1);
    this.wake();
    return await waiter.promise;
  }

  /** Has the worker look at what was written for it. */
  wake(): void {
    signalEventFd(this.#wake.number);
  }

  async close(): Promise<void> {
    clearInterval(this.#watchdog);
    if (this.#plugin) this.endPlugin(this.#plugin.path, "the guest ends");
    // A worker that is dead does not answer.
    const end = this.ask({ op: "end" }).catch(() => {});
    await Promise.race([end, new Promise((done) => setTimeout(done, END_MS))]);
    this.#port.close();
    this.#worker.terminate();
    this.#epoll.close();
    this.#wake.close();
    this.ram.close();
  }
}
