/**
 * A session's rings and memory, and the backend that serves them now. A ring runs when its size, addresses, kick and
 * enable have all come, in whatever order, and there is a backend; another backend can take over at any time, from the
 * positions at which the one before stopped.
 */
import { Turns } from "../../shared/async/mod.ts";
import { DeviceRefusal, type RequestInput } from "../../shared/device/mod.ts";
import type { Fd } from "../../shared/os/mod.ts";
import { isMemoryLost, LOST_MEMORY_COST, requestCost } from "../../shared/engine/mod.ts";
import { VIRTIO_F_RING_PACKED, VIRTQ_PACKED_BASE_INITIAL } from "../../shared/layout/virtio.ts";
import type { DataPath } from "../../shared/api/mod.ts";
import { VHOST_USER_F_PROTOCOL_FEATURES, type VhostRegion } from "../../shared/vhost_user/mod.ts";
import { MemoryTable, toDevice } from "./memory.ts";
import type { SessionContext } from "./port_context.ts";
import type { Ask, RingBackend } from "./ring_backend.ts";
import { startRequest } from "./ring_start.ts";
import { Vring } from "./vring.ts";

/** What it costs to get a backend, and to give it back when the front-end goes away. */
const ATTACH_COST = 2;

/** Rings, memory and backend of one session. */
export class Rings {
  #features = 0n;
  readonly #context: SessionContext;
  readonly #lost: () => void;
  #path: DataPath;
  #backend: RingBackend | undefined;
  #memory = new MemoryTable();
  readonly #vrings = new Map<number, Vring>();
  readonly #turns = new Turns();
  #closed = false;

  /** `lost` is told when nobody can serve the rings any more. */
  constructor(context: SessionContext, path: DataPath, lost: () => void) {
    this.#context = context;
    this.#path = path;
    this.#lost = lost;
  }

  get path(): DataPath {
    return this.#path;
  }

  get memory(): MemoryTable {
    return this.#memory;
  }

  get all(): Vring[] {
    return [...this.#vrings.values()];
  }

  /** What the front-end has negotiated; 0: nothing yet. */
  get features(): bigint {
    return this.#features;
  }

  /** Sets what was negotiated. A stopped ring of the other format has no position any more. */
  async setFeatures(features: bigint): Promise<void> {
    const wasPacked = this.isPacked;
    const isFirst = this.#features === 0n;
    this.#features = features;
    if (!isFirst && wasPacked !== this.isPacked) {
      for (const ring of this.all.filter(({ running }) => !running)) ring.base = undefined;
    }
    await this.settleAll();
  }

  /** Whether the rings are packed ones. */
  get isPacked(): boolean {
    return ((this.features >> BigInt(VIRTIO_F_RING_PACKED)) & 1n) === 1n;
  }

  /** Where a stopped ring goes on. */
  baseOf(ring: Vring): number {
    return ring.base ?? (this.isPacked ? VIRTQ_PACKED_BASE_INITIAL : 0);
  }

  /** Ring `index`, which may be new. */
  at(index: number): Vring {
    let ring = this.#vrings.get(index);
    if (!ring) {
      ring = new Vring(index);
      this.#vrings.set(index, ring);
    }
    return ring;
  }

  /** Messages of the front-end and changes of the backend come one after the other. */
  exclusively<T>(step: () => Promise<T>): Promise<T> {
    return this.#turns.take(step);
  }

  // The backend ----------------------------------------------------------------------------------------------

  #make(path: DataPath): RingBackend | undefined {
    return this.#context.makeBackend(path, {
      restoreRings: (ask) => this.#restore(ask),
      lost: this.#lost,
      queueFailed: (index, reason) => this.#queueFailed(index, reason),
    });
  }

  /** Gets a backend; answers the features that queues may have (0 if the guest drives its VF itself). */
  async attach(): Promise<bigint> {
    await this.#context.pace.step(ATTACH_COST);
    const backend = this.#make(this.#path);
    const features = await backend?.attach() ?? 0n;
    this.#backend = backend;
    return features;
  }

  /** Asks the backend when the port's budget has what it costs; without a backend there is nothing to be done. */
  async ask(body: RequestInput, fds: readonly number[] = []): Promise<Record<string, unknown>> {
    await this.#context.pace.step(requestCost(body));
    return await this.#backend?.request(body, fds) ?? {};
  }

  /**
   * Has another data path serve the rings. What is on its way is delivered first. If anything fails, the rings go on
   * with the one they had, and the reason is thrown. But a guest that has driven its VF itself does not get it again: if
   * nobody can serve its rings, its session ends.
   */
  switchTo(path: DataPath): Promise<void> {
    return this.exclusively(async () => {
      if (this.#closed) throw new DeviceRefusal("no-guest", "the front-end has gone");
      if (path === this.#path) return;
      const before = this.#path;
      const running = this.all.filter((ring) => ring.running);
      await this.#quiesce(running);
      await this.#backend?.release("its data path changes");
      try {
        await this.#takeOver(path);
      } catch (error) {
        if (before === "guest") {
          this.#context.log(
            "warn",
            `no longer drives its VF, and nobody serves its rings: ${(error as Error).message}`,
          );
          return this.#lost();
        }
        await this.#takeOver(before).catch((cause) => {
          this.#lost();
          throw new Error(`${(error as Error).message}; and the way back failed: ${(cause as Error).message}`);
        });
        throw error;
      }
    });
  }

  /** Stops the rings between two frames, transmit rings first, with nothing left on its way. */
  async #quiesce(running: readonly Vring[]): Promise<void> {
    const transmit = running.filter((ring) => ring.index % 2 === 1);
    for (const ring of transmit) await this.stop(ring);
    try {
      await this.#backend?.drain();
    } catch (error) {
      for (const ring of transmit) await this.#start(ring);
      throw error;
    }
    for (const ring of running) await this.stop(ring);
  }

  async #takeOver(path: DataPath): Promise<void> {
    const backend = this.#make(path);
    this.#backend = undefined;
    this.#path = path;
    if (!backend) return;
    try {
      await backend.attach();
      this.#backend = backend;
      if (this.#memory.size > 0) await this.ask({ op: "dmaSet", regions: this.#memory.regions }, this.#memory.fds);
      // Receive rings first: nobody's frame may come before there is room for it.
      for (const ring of this.all.sort((a, b) => a.index % 2 - b.index % 2)) await this.settle(ring);
    } catch (error) {
      // Where they got to is where the way back begins.
      for (const ring of this.all) await this.stop(ring).catch(() => ring.running = false);
      this.#backend = undefined;
      await backend.release((error as Error).message);
      throw error;
    }
  }

  /** Puts everything that was in force in force again, in a NIC that has just started. */
  async #restore(ask: Ask): Promise<void> {
    if (this.#memory.size > 0) await ask({ op: "dmaSet", regions: this.#memory.regions }, this.#memory.fds);
    for (const ring of this.#vrings.values()) {
      if (!ring.running) continue;
      try {
        await this.#startWith(ask, ring, -1);
      } catch (error) {
        if (error instanceof DeviceRefusal && error.code === "nic-gone") throw error;
        ring.running = false;
        this.#queueFailed(ring.index, (error as Error).message);
      }
    }
  }

  #queueFailed(index: number, reason: string): void {
    const ring = this.#vrings.get(index);
    if (!ring) return;
    ring.error = reason;
    if (isMemoryLost(reason)) this.#context.pace.exhaust(LOST_MEMORY_COST);
    this.#context.log("warn", `queue ${index} stopped: ${reason}`);
    if (ring.err) this.#context.notifier.raise(ring.err);
  }

  // Memory ---------------------------------------------------------------------------------------------------

  /** Replaces the memory table; takes it over if it is accepted. */
  async setMemory(table: MemoryTable): Promise<void> {
    await this.ask({ op: "dmaSet", regions: table.regions }, table.fds);
    this.#memory.close();
    this.#memory = table;
    await this.settleAll();
  }

  /** Adds a checked region and takes its descriptor over. */
  async addRegion(region: VhostRegion, fd: Fd): Promise<void> {
    await this.ask({ op: "dmaMap", region: toDevice(region) }, [fd.number]);
    this.#memory.add(region, fd);
    await this.settleAll();
  }

  /** Takes a region away. */
  async removeRegion(region: VhostRegion): Promise<void> {
    const { iova, size } = toDevice(region);
    await this.ask({ op: "dmaUnmap", iova, size });
    this.#memory.remove(region);
  }

  // Rings ----------------------------------------------------------------------------------------------------

  /** Starts or stops every ring, as what has been said of it demands. */
  async settleAll(): Promise<void> {
    for (const ring of this.#vrings.values()) await this.settle(ring);
  }

  /** Starts or stops a ring, as what has been said of it demands. */
  async settle(ring: Vring): Promise<void> {
    // Without protocol features there are no enable messages and rings count as enabled (vhost-user, "Ring states").
    const enabled = ring.enabled || ((this.features >> BigInt(VHOST_USER_F_PROTOCOL_FEATURES)) & 1n) === 0n;
    if (ring.running && !enabled) return await this.stop(ring);
    if (!ring.running && enabled && ring.ready && this.#memory.size > 0) await this.#start(ring);
  }

  #start(ring: Vring): Promise<void> {
    // A guest that drives its VF itself leaves its virtio rings alone; they wait where they are.
    if (!this.#backend) return Promise.resolve();
    return this.#startWith((body, fds) => this.ask(body, fds), ring, this.baseOf(ring));
  }

  async #startWith(ask: Ask, ring: Vring, base: number): Promise<void> {
    const fds = [ring.kick, ring.call].filter((fd) => fd !== undefined).map((fd) => fd.number);
    await ask(startRequest(ring, { memory: this.#memory, features: this.#features, packed: this.isPacked, base }), fds);
    ring.running = true;
    ring.hasRun = true;
    ring.error = undefined;
  }

  /** Stops a ring between two frames; its base is where it would go on. */
  async stop(ring: Vring): Promise<void> {
    if (!ring.running) return;
    const { base } = await this.ask({ op: "queueStop", index: ring.index });
    ring.running = false;
    ring.base = Number(base);
  }

  /** Gives a running ring its new call descriptor. */
  async setCall(ring: Vring, fd: Fd | undefined): Promise<void> {
    if (!ring.running) return;
    await this.ask({ op: "queueCall", index: ring.index, call: fd !== undefined }, fd ? [fd.number] : []);
  }

  /** Stops all rings and resets them; memory stays. Each ring keeps its base and its error descriptor. */
  async reset(): Promise<void> {
    for (const ring of this.all) await this.stop(ring);
    for (const ring of this.all) ring.reset();
  }

  /** The end: gives everything back. */
  close(reason: string): Promise<void> {
    return this.exclusively(async () => {
      this.#closed = true;
      await this.#backend?.release(reason);
      this.#backend = undefined;
      for (const ring of this.all) ring.close();
      this.#vrings.clear();
      this.#memory.close();
    });
  }
}
