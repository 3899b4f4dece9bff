/**
 * A netdev port: one pool's queue pair of the NIC, driven from here, with a backend behind it. It attaches by the device
 * socket as every driver does, and it ends once: because it is closed, or by itself, with a reason, when the NIC or the
 * file is gone. The backend stays, for another port.
 */
import * as N from "../layout/netdev.ts";
import { DeviceClient, type PoolName } from "../device/mod.ts";
import { createEventFd, type Reactor } from "../os/mod.ts";
import { loadWasm } from "../wasm/load.ts";
import type { Backend, Link } from "./backend.ts";
import { readCounters } from "./counters.ts";
import { offloadNames, RING_FEATURES } from "./features.ts";
import { PortThread, within } from "./port_thread.ts";
import { Room } from "./room.ts";
import type { PortIo } from "./worker_messages.ts";

/** How long the NIC may take to take what was read. */
const QUIET_MS = 300;
/** How long the NIC may take to answer when a port is closed. */
const DETACH_MS = 1000;
const RX = 0;
const TX = 1;

/** Which pool a port drives, and how it is reached. */
export interface PortOptions {
  deviceSocket: string;
  reactor: Reactor;
  pool: PoolName;
  /** Who drives the pool, as the API shows it. */
  owner: string;
  /** One call for each frame, whether there is io_uring or not. */
  plain?: boolean;
}

/** A port. */
export class Port {
  readonly backend: Backend;
  readonly #options: PortOptions;
  readonly #room = new Room();
  readonly #kick = createEventFd();
  readonly #roomKick = createEventFd();
  readonly #call = createEventFd();
  readonly #ended = Promise.withResolvers<string | undefined>();
  #device: DeviceClient | undefined;
  #thread: PortThread | undefined;
  #features = 0n;
  #queueSize = 0;
  #io: PortIo | undefined;
  #isDriving = false;
  #hasFailed = false;
  /** What it had counted when its memory was given back. */
  #counted: Record<string, number> | undefined;
  #closing: Promise<void> | undefined;

  private constructor(backend: Backend, options: PortOptions) {
    this.backend = backend;
    this.#options = options;
    void this.ended.then((reason) => this.#hasFailed = reason !== undefined);
  }

  /** Opens a port on `backend`. Throws what the NIC or the kernel refuses with; nothing is left open then. */
  static async open(backend: Backend, options: PortOptions): Promise<Port> {
    const port = await Port.prepare(backend, options);
    await port.start();
    return port;
  }

  /** Has everything ready but the pool, which may still be somebody else's. Throws as `open` does. */
  static async prepare(backend: Backend, options: PortOptions): Promise<Port> {
    const module = await loadWasm("netdev");
    const port = new Port(backend, options);
    return await port.#orClose(() => port.#prepare(module));
  }

  /** Takes the pool, and begins. Throws what the NIC refuses with; the port is closed then. */
  async start(): Promise<void> {
    await this.#orClose(() => this.#start());
  }

  async #orClose(step: () => Promise<void>): Promise<this> {
    try {
      await step();
      return this;
    } catch (error) {
      await this.close((error as Error).message);
      throw error;
    }
  }

  async #prepare(module: WebAssembly.Module): Promise<void> {
    const { memory } = this.#room;
    const { view } = memory;
    const drive = await this.backend.open(memory);
    const isXdp = drive.kind === "xdp";
    this.#queueSize = isXdp ? N.ND_XDP_QUEUE_SIZE : N.ND_QUEUE_SIZE;
    view.setBigUint64(N.ND_CONTROL + N.NC_BASE, memory.base, true);
    view.setUint32(N.ND_CONTROL + N.NC_IS_PACKET, drive.kind === "messages" ? 1 : 0, true);
    view.setUint32(N.ND_CONTROL + N.NC_QUEUE_SIZE, this.#queueSize, true);
    view.setUint32(N.ND_CONTROL + N.NC_RX_STRIDE, isXdp ? N.ND_CHUNK_BYTES : N.ND_BUFFER_STRIDE, true);
    const thread = new PortThread({
      ...{ memory, module, drive, plain: this.#options.plain === true },
      ...{ kick: this.#kick, room: this.#roomKick, call: this.#call },
    });
    this.#thread = thread;
    this.#io = await thread.ready;
    void thread.ended.then((reason) => this.#ended.resolve(reason));
  }

  async #start(): Promise<void> {
    const { deviceSocket, reactor, pool, owner } = this.#options;
    const device = this.#device = DeviceClient.connect(deviceSocket, reactor);
    device.onEvent = (event) => {
      if (event.event === "queueError") this.#ended.resolve(`the NIC stopped queue ${event.index}: ${event.reason}`);
      if (event.event === "revoked") this.#ended.resolve(`the NIC took the pool back: ${event.reason}`);
    };
    void device.closed.then(() => this.#ended.resolve("the NIC is gone"));
    const attached = await device.request({ op: "attach", vf: pool, owner, mode: "emulated" });
    this.#features = BigInt(attached.features as bigint) & (RING_FEATURES | this.backend.features);
    if ((this.#features & RING_FEATURES) !== RING_FEATURES) throw new Error("the NIC's rings are too old for a port");
    this.backend.accept(this.#features);
    const regions = [{ iova: BigInt(N.ND_SHARED), size: N.ND_SHARED_BYTES, offset: 0 }];
    await device.request({ op: "dmaSet", regions }, [this.#room.file.number]);
    await this.#startQueue(device, RX, [N.ND_RX_DESC, N.ND_RX_AVAIL, N.ND_RX_USED]);
    await this.#startQueue(device, TX, [N.ND_TX_DESC, N.ND_TX_AVAIL, N.ND_TX_USED]);
    this.#isDriving = true;
    this.#thread?.run();
    this.backend.begin?.();
  }

  async #startQueue(device: DeviceClient, index: number, places: [number, number, number]): Promise<void> {
    const [desc, avail, used] = places;
    const kick = index === TX ? this.#kick : this.#roomKick;
    await device.request({
      ...{ op: "queueStart", index, flavour: "split", size: this.#queueSize, base: 0 },
      ...{ desc: BigInt(desc), avail: BigInt(avail), used: BigInt(used) },
      ...{ features: this.#features, kick: true, call: true },
    }, [kick.number, this.#call.number]);
  }

  /** Resolves with the reason when it has ended by itself, with none when it was closed. It is to be closed then. */
  get ended(): Promise<string | undefined> {
    return this.#ended.promise;
  }

  get io(): PortIo | undefined {
    return this.#io;
  }

  /** The offloads that are in force, by name. */
  get offloads(): string[] {
    return offloadNames(this.#features);
  }

  /** How what is behind it is; `undefined`: it is gone. */
  get link(): Link | undefined {
    return this.backend.link(this.#thread?.note);
  }

  /** What it has counted. */
  get counters(): Record<string, number> {
    return this.#counted ?? { ...readCounters(this.#room.memory.view), ...this.backend.kernelDrops() };
  }

  /**
   * Closes the port: what was read goes to the NIC, and what the NIC has handed over is written. The reason is shown in
   * the pool's state. Its backend stays open.
   */
  close(reason: string): Promise<void> {
    return this.#closing ??= this.#close(reason);
  }

  async #close(reason: string): Promise<void> {
    this.#ended.resolve(undefined);
    const device = this.#device;
    // A NIC that is gone, or has stopped a queue by itself, answers so; the rest is done all the same.
    if (this.#isDriving && !this.#hasFailed) {
      await this.#thread?.quiet(QUIET_MS);
      const stopped = [RX, TX].map((index) => device?.request({ op: "queueStop", index }));
      await within(DETACH_MS, Promise.all(stopped).catch(() => {}));
    }
    await this.#thread?.close();
    const detached = device?.request({ op: "detach", reason: reason.slice(0, 500) }).catch(() => {});
    if (detached) await within(DETACH_MS, detached);
    device?.close();
    this.#counted = this.counters;
    this.backend.release?.();
    this.#giveBack();
  }

  #giveBack(): void {
    for (const resource of [this.#room, this.#kick, this.#roomKick, this.#call]) resource[Symbol.dispose]();
  }
}
