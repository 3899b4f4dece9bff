/**
 * The shell's own data path: the virtio plugin that is part of the shell, over a vhost-user back-end, which may go away
 * and come back at any time. Whoever the back-end is (this project's, DPDK's), it gets what a driver gives a device:
 * the rings, the buffers, nothing else of the guest's RAM.
 */
import { GC_PATH, GC_QUEUE_PAIRS, GC_RUNNING, GC_RX_WANTED } from "../../shared/layout/guest.ts";
import {
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1,
  VIRTIO_NET_F_MQ,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from "../../shared/layout/virtio.ts";
import { log, oneLine } from "../../shared/api/mod.ts";
import type { Reactor } from "../../shared/os/mod.ts";
import { VhostUserFrontEnd } from "../../shared/vhost_user/mod.ts";
import { loadWasm } from "../../shared/wasm/load.ts";
import { coherent, featureBit, firstBase, isPacked, pathOffloads, ringSizeFor, USED_OFFLOADS } from "./features.ts";
import type { Host } from "./host.ts";
import type { Machine } from "./machine.ts";
import type { PathMemory } from "./path_memory.ts";

const RETRY_MS = 100;
/** Of the guest's 4096 buffers: a quarter is for this path's receive rings, half for a plugin's, the rest is to send. */
const RX_BUFFERS = 1024;
const FEATURES = [
  VIRTIO_F_VERSION_1,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_IN_ORDER,
].reduce((bits, bit) => bits | featureBit(bit), USED_OFFLOADS);

/** How the path is set up. */
export interface VirtioOptions {
  socket: string;
  reactor: Reactor;
  queuePairs: number;
  ringSize: number;
  /** Features not to ask for. */
  declined: bigint;
}

/** The virtio path of one guest. */
export class VirtioPath {
  readonly #machine: Machine;
  readonly #host: Host;
  readonly #options: VirtioOptions;
  #frontEnd: VhostUserFrontEnd | undefined;
  #memory: PathMemory | undefined;
  #closed = false;
  /** Resolves when the path is wanted again; none while it is. */
  #away: PromiseWithResolvers<void> | undefined;
  #letGo = Promise.withResolvers<void>();
  #connected = Promise.withResolvers<void>();
  features = 0n;
  /** Descriptors of each ring that the back-end has, or would have. */
  #ringSize: number;
  /** Whether the back-end has the rings. */
  connected = false;
  /** Runs when the rings are the back-end's; the host may be on another path. */
  onConnected: () => void = () => {};

  constructor(machine: Machine, host: Host, options: VirtioOptions) {
    this.#machine = machine;
    this.#host = host;
    this.#options = options;
    this.#ringSize = options.ringSize;
  }

  /** Resolves when the back-end has been there once. */
  get ready(): Promise<void> {
    return this.#connected.promise;
  }

  /** Keeps the connection until `close`. */
  async run(): Promise<void> {
    const module = await loadWasm("plugin-virtio");
    let trouble = "";
    while (!this.#closed) {
      if (this.#away) {
        await this.#release();
        await this.#away?.promise;
        continue;
      }
      try {
        const frontEnd = VhostUserFrontEnd.connect(this.#options.socket, this.#options.reactor);
        this.#frontEnd = frontEnd;
        await this.#handshake(frontEnd, module);
        trouble = "";
        await frontEnd.ended();
        if (!this.#closed && !this.#away) log("warn", "guest", "the back-end went away; connecting again");
      } catch (error) {
        const text = oneLine(error);
        if (text !== trouble && !this.#closed) log("info", "guest", `waiting for the back-end: ${text}`);
        trouble = text;
      }
      this.connected = false;
      this.#frontEnd?.close();
      if (this.inUse) this.#host.set(GC_RUNNING, 0);
      if (!this.#closed && !this.#away) await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }

  /** Gives the back-end up, until `attach`; resolves when the rings are nobody's. `run` is under way, or will be. */
  detach(): Promise<void> {
    this.#away ??= Promise.withResolvers();
    this.#letGo = Promise.withResolvers();
    this.#frontEnd?.close();
    return this.#letGo.promise;
  }

  /** Looks for the back-end again; resolves when it has the rings. */
  attach(): Promise<void> {
    this.#connected = Promise.withResolvers();
    this.#away?.resolve();
    this.#away = undefined;
    return this.#connected.promise;
  }

  async #release(): Promise<void> {
    if (this.#memory) await this.#machine.remove(this.#memory);
    this.#memory?.[Symbol.dispose]();
    this.#memory = undefined;
    this.#letGo.resolve();
  }

  /** Whether the host's frames go this way. */
  get inUse(): boolean {
    return this.#host.get(GC_PATH) === 0;
  }

  /** Buffers that its receive rings are to have. */
  get rxWanted(): number {
    return Math.min(this.#ringSize, Math.floor(RX_BUFFERS / this.#options.queuePairs));
  }

  async #handshake(frontEnd: VhostUserFrontEnd, module: WebAssembly.Module): Promise<void> {
    const { queuePairs, declined } = this.#options;
    const many = queuePairs > 1 ? featureBit(VIRTIO_NET_F_MQ) : 0n;
    const wanted = (FEATURES | many) & ~declined;
    const { features, queues } = await frontEnd.negotiate((offered) => coherent(offered & wanted));
    if (queuePairs > queues) throw new Error(`the back-end has ${queues} queue pairs, not ${queuePairs}`);
    this.features = features;
    const ringSize = this.#ringSize = ringSizeFor(this.#options.ringSize, isPacked(features));
    if (this.inUse) this.#host.set(GC_RUNNING, 0);
    if (this.#memory) await this.#machine.remove(this.#memory);
    this.#memory?.[Symbol.dispose]();
    this.#host.setOffloads(0, pathOffloads(features));
    const memory = this.#machine.layOut(0, { queuePairs, ringSize, features, headerBytes: 0 });
    this.#memory = memory;
    this.#host.set(GC_QUEUE_PAIRS, queuePairs);
    await this.#machine.install(memory, module);
    const regions = memory.ranges.map(({ address, bytes }) => ({
      guestAddress: BigInt(address),
      size: BigInt(bytes),
      userAddress: BigInt(address),
      mmapOffset: BigInt(address),
    }));
    await frontEnd.setMemory(regions, regions.map(() => this.#machine.ram.number));
    for (let queue = 0; queue < queuePairs * 2; queue++) {
      const [kick, call] = [memory.kicks[queue], memory.calls[queue]];
      if (kick && call) await frontEnd.startVring(queue, memory.ring(queue), firstBase(features), kick, call);
    }
    this.connected = true;
    if (this.inUse) this.use();
    this.onConnected();
    this.#connected.resolve();
  }

  /** Begins anew: the worker has lost the rings' state. */
  reconnect(): void {
    this.#frontEnd?.close();
  }

  /** Lets the host's frames go this way. */
  use(): void {
    this.#host.set(GC_RX_WANTED, this.rxWanted);
    this.#host.allowTx();
    this.#host.announce();
  }

  close(): void {
    this.#closed = true;
    this.#away?.resolve();
    this.#frontEnd?.close();
    this.#memory?.[Symbol.dispose]();
  }
}
