/**
 * The guest as a machine: its RAM, which is a memory file mapped as its Wasm memory, its worker, and the memories of
 * its data paths' plugins, into each of which exactly what that plugin may touch is mapped.
 */
import { MessageChannel, type MessagePort } from "node:worker_threads";
import {
  AREA_EXCHANGE,
  AREA_RINGS,
  AREA_STATE,
  BUFFERS,
  GC,
  GC_ASLEEP,
  GC_NOW_NS,
  GC_REQUEST,
  GUEST_RAM_BYTES_MIN,
  PLUGIN_AREA,
  VIRTIO_AREA,
} from "../../shared/layout/guest.ts";
import {
  PC_BUFFERS_IOVA,
  PC_FEATURES,
  PC_HEADER_BYTES,
  PC_QUEUE_PAIRS,
  PC_RING_SIZE,
  PC_RINGS_IOVA,
  PLUGIN_BUFFER_BYTES,
  PLUGIN_BUFFER_COUNT,
  PLUGIN_BUFFERS,
  PLUGIN_DOORBELLS,
  PLUGIN_DOORBELLS_BYTES,
  PLUGIN_EXCHANGE,
  PLUGIN_EXCHANGE_BYTES,
  PLUGIN_MEMORY_BYTES,
  PLUGIN_QUEUE_STRIDE,
  PLUGIN_QUEUES,
  PLUGIN_RINGS,
  PLUGIN_RINGS_BYTES,
  PLUGIN_STATE,
  PLUGIN_STATE_BYTES,
  PQ_AVAIL,
  PQ_DESC,
  PQ_SIZE,
  PQ_USED,
} from "../../shared/layout/plugin.ts";
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
import type { GuestReply, GuestRequest, GuestStart, PathInstall } from "./worker.ts";

/** A range of the guest's RAM that a device may reach. */
export interface DeviceRange {
  address: number;
  bytes: number;
}

/** Rings as a plugin has laid them out. */
export interface RingPlace {
  desc: bigint;
  avail: bigint;
  used: bigint;
  size: number;
}

/** How a data path is set up. */
export interface PathOptions {
  queuePairs: number;
  ringSize: number;
  features: bigint;
  headerBytes: number;
}

/** A data path's plugin memory and eventfds. `path` 0 is the shell's own, 1 the injected one. */
export class PathMemory implements Disposable {
  readonly path: 0 | 1;
  readonly memory = new WasmMemory(PLUGIN_MEMORY_BYTES);
  readonly kicks: Fd[];
  readonly calls: Fd[];
  readonly ranges: DeviceRange[];

  constructor(path: 0 | 1, ram: Fd, options: PathOptions, doorbells: Fd | undefined) {
    this.path = path;
    const area = path === 0 ? VIRTIO_AREA : PLUGIN_AREA;
    this.memory.map(PLUGIN_STATE, ram.number, area + AREA_STATE, PLUGIN_STATE_BYTES);
    this.memory.map(PLUGIN_EXCHANGE, ram.number, area + AREA_EXCHANGE, PLUGIN_EXCHANGE_BYTES);
    this.memory.map(PLUGIN_RINGS, ram.number, area + AREA_RINGS, PLUGIN_RINGS_BYTES);
    this.memory.map(PLUGIN_BUFFERS, ram.number, BUFFERS, PLUGIN_BUFFER_COUNT * PLUGIN_BUFFER_BYTES);
    if (doorbells) this.memory.map(PLUGIN_DOORBELLS, doorbells.number, 0, PLUGIN_DOORBELLS_BYTES);
    // What the device may reach is what the plugin may reach: rings and buffers, by guest physical address.
    this.ranges = [
      { address: area + AREA_RINGS, bytes: PLUGIN_RINGS_BYTES },
      { address: BUFFERS, bytes: PLUGIN_BUFFER_COUNT * PLUGIN_BUFFER_BYTES },
    ];
    new Uint8Array(this.memory.buffer, PLUGIN_STATE, PLUGIN_STATE_BYTES).fill(0);
    const { view } = this.memory;
    view.setUint32(PLUGIN_STATE + PC_QUEUE_PAIRS, options.queuePairs, true);
    view.setUint32(PLUGIN_STATE + PC_RING_SIZE, options.ringSize, true);
    view.setBigUint64(PLUGIN_STATE + PC_FEATURES, options.features, true);
    view.setBigUint64(PLUGIN_STATE + PC_RINGS_IOVA, BigInt(area + AREA_RINGS), true);
    view.setBigUint64(PLUGIN_STATE + PC_BUFFERS_IOVA, BigInt(BUFFERS), true);
    view.setUint32(PLUGIN_STATE + PC_HEADER_BYTES, options.headerBytes, true);
    this.kicks = Array.from({ length: options.queuePairs * 2 }, () => createEventFd());
    this.calls = Array.from({ length: options.queuePairs * 2 }, () => createEventFd());
  }

  /** What the worker needs of it. */
  install(module: WebAssembly.Module): PathInstall {
    return {
      module,
      memory: this.memory.memory,
      kicks: this.kicks.map((fd) => fd.number),
      calls: this.calls.map((fd) => fd.number),
    };
  }

  /** Where the plugin has laid out the rings of a queue. The device checks that they are where it may reach. */
  ring(queue: number): RingPlace {
    const at = PLUGIN_QUEUES + queue * PLUGIN_QUEUE_STRIDE;
    const { view } = this.memory;
    return {
      desc: view.getBigUint64(at + PQ_DESC, true),
      avail: view.getBigUint64(at + PQ_AVAIL, true),
      used: view.getBigUint64(at + PQ_USED, true),
      size: view.getUint32(at + PQ_SIZE, true),
    };
  }

  [Symbol.dispose](): void {
    for (const fd of [...this.kicks, ...this.calls]) fd.close();
  }
}

const WATCHDOG_MS = 250;
/** How long a plugin may take to come back from a call. */
const HANG_MS = 2000;
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
  /** Told when a plugin did not come back, and the worker has been started anew without it. */
  onHang: () => void = () => {};
  readonly #module: WebAssembly.Module;
  readonly #options: MachineOptions;
  #worker: Worker | undefined;
  #port: MessagePort | undefined;
  readonly #wake = createEventFd();
  readonly #epoll = new Epoll();
  readonly #words: Int32Array;
  readonly #waiting = new Map<number, PromiseWithResolvers<unknown>>();
  #next = 1;
  readonly #watchdog: ReturnType<typeof setInterval>;
  #watching = false;
  #restarting: Promise<void> = Promise.resolve();
  #lastNs = 0;
  #looks = 0;

  private constructor(module: WebAssembly.Module, options: MachineOptions) {
    this.#module = module;
    this.#options = options;
    this.ram = createMemfd("ringfabric-guest", GUEST_RAM_BYTES_MIN);
    sealSize(this.ram.number);
    this.memory = new WasmMemory(GUEST_RAM_BYTES_MIN);
    this.memory.map(0, this.ram.number, 0, GUEST_RAM_BYTES_MIN);
    this.#words = new Int32Array(this.memory.buffer);
    this.#epoll.add(this.#wake.number, EPOLLIN, 0);
    this.#watchdog = setInterval(() => this.#watch(), WATCHDOG_MS);
  }

  /** Starts the machine. */
  static async start(options: MachineOptions): Promise<Machine> {
    const machine = new Machine(await loadWasm("guest"), options);
    await machine.#spawn(true);
    return machine;
  }

  async #spawn(boot: boolean): Promise<void> {
    const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module", name: "guest" });
    const { port1, port2 } = new MessageChannel();
    this.#worker = worker;
    this.#port = port1;
    port1.on("message", (reply: GuestReply) => this.#reply(reply));
    worker.addEventListener("error", (event) => {
      event.preventDefault();
      this.#watching = false;
      this.#failWaiting(`the guest's worker died: ${event.message}`);
      this.onDeath(event.message);
    });
    const ready = Promise.withResolvers<unknown>();
    this.#waiting.set(0, ready);
    const start: GuestStart = {
      memory: this.memory.memory,
      module: this.#module,
      port: port2,
      epollFd: this.#epoll.number,
      wakeFd: this.#wake.number,
      cpus: this.#options.cpus,
      spinNs: this.#options.spinUs * 1000,
      boot,
    };
    worker.postMessage(start, [port2 as unknown as Transferable]);
    await ready.promise;
    this.#watching = true;
  }

  /** A worker that is awake and does not look at the clock is inside a plugin that does not come back. */
  #watch(): void {
    if (!this.#watching) return;
    const nowNs = this.memory.view.getFloat64(GC + GC_NOW_NS, true);
    const stands = nowNs === this.#lastNs && Atomics.load(this.#words, (GC + GC_ASLEEP) / 4) === 0;
    this.#looks = stands ? this.#looks + 1 : 0;
    this.#lastNs = nowNs;
    if (this.#looks * WATCHDOG_MS < HANG_MS) return;
    this.#looks = 0;
    void this.#restart();
  }

  async #restart(): Promise<void> {
    this.#watching = false;
    const waiting = new Map(this.#waiting);
    this.#waiting.clear();
    this.#worker?.terminate();
    this.#port?.close();
    this.#restarting = this.#spawn(false);
    await this.#restarting;
    this.#failWaiting("the plugin did not come back from a call", waiting);
    this.onHang();
  }

  #failWaiting(reason: string, waiting = this.#waiting): void {
    const waiters = [...waiting.values()];
    waiting.clear();
    for (const waiter of waiters) waiter.reject(new Error(reason));
  }

  #reply(reply: GuestReply): void {
    if ("fault" in reply) return this.onFault(reply.path, reply.fault);
    const waiter = this.#waiting.get(reply.id);
    this.#waiting.delete(reply.id);
    if (reply.error === undefined) waiter?.resolve(reply.value);
    else waiter?.reject(new Error(reply.error));
  }

  /** Asks the worker between two bursts. */
  async ask(request: GuestRequest): Promise<unknown> {
    await this.#restarting;
    const id = this.#next++;
    const waiter = Promise.withResolvers<unknown>();
    this.#waiting.set(id, waiter);
    this.#port?.postMessage({ id, ...request });
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
    // A worker that is dead, or inside a plugin, does not answer.
    await Promise.race([this.ask({ op: "end" }), new Promise((done) => setTimeout(done, END_MS))]);
    this.#port?.close();
    this.#worker?.terminate();
    this.#epoll.close();
    this.#wake.close();
    this.ram.close();
  }
}
