/**
 * The NIC: pools, leases and queues over one engine. A lease is the right to drive one VF's queues; it belongs to a
 * connection of the device socket. If its owner dies without giving it back, the queues go on for a grace period in
 * which a successor may take over (docs/device-socket.md).
 */
import {
  CTL,
  CTL_BUSY_NS,
  CTL_BUSY_PASSES,
  CTL_CALLS,
  CTL_FILTER_COUNT,
  CTL_FRAMES,
  CTL_NOW_NS,
  CTL_PASSES,
  CTL_SLEEPS,
  CTL_SLEPT_NS,
  CTL_SPURIOUS_KICKS,
  CTL_START_NS,
  MEMORY_GONE,
  POOL_PF,
  POOL_UPLINK,
  QUEUE_PAIRS_MAX,
} from "../../shared/layout/nic.ts";
import { type Attached, DeviceRefusal, type PoolName, type Request } from "../../shared/device/mod.ts";
import { type Fd, monotonicNs } from "../../shared/os/mod.ts";
import type { EngineState, NicEvent, NicState, PoolState, Programme } from "../../shared/api/nic.ts";
import { Domain, type DomainLimits } from "./domain.ts";
import type { Engine } from "./engine.ts";
import { poolName, Pools } from "./pools.ts";
import { QUEUE_FEATURES, Queues, ringName } from "./queues.ts";

const AGE_PERIOD_MS = 30_000;

/** Settings of the NIC beside the engine's. */
export interface NicOptions extends DomainLimits {
  /** How long queues go on after their owner died. */
  graceMs: number;
}

/** One VF's lease. */
export interface Lease {
  readonly pool: number;
  readonly owner: string;
  readonly domain: Domain;
  readonly queues: Queues;
  /** The rings that ran when the lease was taken over from a dead owner. */
  readonly inherited: Set<string>;
  /** Told when the NIC takes the lease back. */
  onRevoked: (reason: string) => void;
  onQueueError: (index: number, reason: string) => void;
  orphanTimer?: ReturnType<typeof setTimeout>;
}

/** Everything the NIC knows and can do. */
export class Nic {
  readonly engine: Engine;
  readonly pools: Pools;
  readonly instance = crypto.randomUUID();
  readonly #options: NicOptions;
  readonly #leases = new Map<number, Lease>();
  readonly #listeners = new Set<(event: NicEvent) => void>();
  readonly #vfWatchers = new Set<(count: number) => void>();
  readonly #reported = new Set<string>();
  readonly #lastDetach = new Map<number, string>();
  readonly #ageTimer: ReturnType<typeof setInterval>;

  constructor(engine: Engine, options: NicOptions) {
    this.engine = engine;
    this.#options = options;
    this.pools = new Pools(engine);
    engine.onReport = (report) => report === "memory-fault" ? this.#memoryFault() : this.#reportQueueErrors();
    engine.onBlockedCall = (fd) => this.#blockedCall(fd);
    this.#ageTimer = setInterval(() => this.#age(), AGE_PERIOD_MS);
  }

  // Events ---------------------------------------------------------------------------------------------------

  /** Calls `listener` with every event until the returned function is called. */
  subscribe(listener: (event: NicEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Calls `watcher` with the number of VFs, now and at every change, until the returned function is called. */
  watchVfs(watcher: (count: number) => void): () => void {
    this.#vfWatchers.add(watcher);
    watcher(this.pools.vfCount);
    return () => this.#vfWatchers.delete(watcher);
  }

  #emit(event: NicEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  // Policy ---------------------------------------------------------------------------------------------------

  /** Puts the PF's programme in force. Refuses to take away a VF that somebody drives. */
  program(next: Programme): void {
    for (let vf = next.vfs.length; vf < this.pools.vfCount; vf++) {
      if (this.#leases.has(vf)) throw new DeviceRefusal("vf-in-use", `vf ${vf} cannot be removed: a guest is attached`);
    }
    const before = this.pools.vfCount;
    this.pools.apply(next);
    if (before !== next.vfs.length) { for (const watcher of this.#vfWatchers) watcher(next.vfs.length); }
  }

  // Leases ---------------------------------------------------------------------------------------------------

  #poolOf(name: PoolName): number {
    if (name === "uplink") return POOL_UPLINK;
    if (name >= this.pools.vfCount) {
      throw new DeviceRefusal("no-vf", `vf ${name} does not exist: the NIC has ${this.pools.vfCount} VFs`);
    }
    return name;
  }

  /** Gives the lease of a pool to `owner`; a lease whose owner died is taken over. */
  attach(name: PoolName, owner: string): { lease: Lease; attached: Attached } {
    const pool = this.#poolOf(name);
    const held = this.#leases.get(pool);
    let inherited = new Set<string>();
    if (held) {
      if (held.orphanTimer === undefined) {
        throw new DeviceRefusal("vf-in-use", `vf ${name} is driven by ${held.owner}`);
      }
      inherited = held.queues.rings();
      this.release(held, "taken over");
    }
    const lease: Lease = {
      pool,
      owner,
      domain: new Domain(this.engine.arena, pool, this.#options),
      queues: new Queues(this.engine, pool),
      inherited,
      onRevoked: () => {},
      onQueueError: () => {},
    };
    this.#leases.set(pool, lease);
    this.#emit({ type: "attached", pool: poolName(pool), owner });
    return { lease, attached: { maxQueuePairs: QUEUE_PAIRS_MAX, features: QUEUE_FEATURES } };
  }

  /** Ends a lease: its queues stop, its memory is unmapped. */
  release(lease: Lease, reason: string): void {
    if (this.#leases.get(lease.pool) !== lease) return;
    clearTimeout(lease.orphanTimer);
    this.#leases.delete(lease.pool);
    this.engine.between(() => {
      lease.queues.stopAll();
      this.#writeActive();
      lease.domain.clear();
    });
    this.#forgetReports(lease.pool);
    this.#lastDetach.set(lease.pool, reason);
    this.#emit({ type: "detached", pool: poolName(lease.pool), reason });
  }

  /** The owner's connection broke without a detach: the queues go on for a while. */
  orphan(lease: Lease): void {
    if (this.#leases.get(lease.pool) !== lease) return;
    lease.onRevoked = () => {};
    lease.onQueueError = () => {};
    lease.orphanTimer = setTimeout(() => this.release(lease, "its owner died"), this.#options.graceMs);
  }

  // What a lease's owner asks --------------------------------------------------------------------------------

  /** Replaces the memory table; running queues go on where their rings are still mapped. */
  setMemory(lease: Lease, request: Extract<Request, { op: "dmaSet" }>, fds: readonly Fd[]): void {
    const candidates = lease.domain.check(request.regions, fds);
    this.engine.between(() => {
      lease.domain.replace(candidates);
      lease.queues.rebind();
    });
    this.#reportQueueErrors();
  }

  /** Adds one region to the memory table. */
  mapMemory(lease: Lease, request: Extract<Request, { op: "dmaMap" }>, fd: Fd): void {
    const candidate = lease.domain.checkOne(request.region, fd);
    this.engine.between(() => {
      lease.domain.add(candidate);
      lease.queues.rebind();
    });
  }

  /** Takes one region away; queues whose rings were in it stop. */
  unmapMemory(lease: Lease, request: Extract<Request, { op: "dmaUnmap" }>): void {
    this.engine.between(() => {
      lease.domain.remove(request.iova, request.size);
      lease.queues.rebind();
    });
    this.#reportQueueErrors();
  }

  /**
   * Starts a queue. After a take-over it goes on where the ring's used index says, whatever the new owner believes:
   * the queue went on after the old one had died.
   */
  startQueue(lease: Lease, request: Extract<Request, { op: "queueStart" }>, fds: readonly (Fd | undefined)[]): void {
    if (lease.domain.poisoned) {
      throw new DeviceRefusal("memory-gone", "the guest's memory file was truncated: share memory anew first");
    }
    const takenOver = lease.inherited.has(ringName(request.index, request.desc));
    this.engine.between(() => {
      lease.queues.start({ ...request, base: takenOver ? -1 : request.base }, fds[0], fds[1]);
      this.#writeActive();
    });
    lease.inherited.clear();
    this.#reported.delete(`${lease.pool}.${request.index}`);
  }

  /** Stops a queue between two bursts; answers its next avail index. */
  stopQueue(lease: Lease, index: number): number {
    const base = this.engine.between(() => {
      const next = lease.queues.stop(index);
      this.#writeActive();
      return next;
    });
    this.#reported.delete(`${lease.pool}.${index}`);
    return base;
  }

  setCall(lease: Lease, index: number, call: Fd | undefined): void {
    this.engine.between(() => lease.queues.setCall(index, call));
  }

  #writeActive(): void {
    const pools = [...this.#leases.values()].sort((a, b) => a.pool - b.pool);
    this.engine.setActive(pools.flatMap((lease) => lease.queues.transmitters));
  }

  // Faults ---------------------------------------------------------------------------------------------------

  #reportQueueErrors(): void {
    for (const lease of this.#leases.values()) {
      for (const queue of lease.queues.states()) {
        const key = `${lease.pool}.${queue.index}`;
        // A queue that went on (its memory came back) is reported again when it stops again.
        if (queue.state !== "error") this.#reported.delete(key);
        if (queue.state !== "error" || this.#reported.has(key)) continue;
        this.#reported.add(key);
        const reason = `${queue.reason} (${queue.detail})`;
        lease.onQueueError(queue.index, reason);
        this.#emit({ type: "queue-error", pool: poolName(lease.pool), index: queue.index, reason });
      }
    }
  }

  #forgetReports(pool: number): void {
    for (const key of this.#reported) if (key.startsWith(`${pool}.`)) this.#reported.delete(key);
  }

  /** A guest truncated its memory: the guard mapped zero pages there, and that guest's queues stop. */
  #memoryFault(): void {
    const { offsets } = this.engine.faults();
    this.engine.between(() => {
      for (const lease of this.#leases.values()) {
        if (lease.domain.poison(offsets)) lease.queues.failAll(MEMORY_GONE);
      }
    });
    this.#reportQueueErrors();
  }

  /** A call eventfd held the engine: its queue stops. */
  #blockedCall(fd: number): void {
    this.engine.between(() => {
      for (const lease of this.#leases.values()) lease.queues.failCall(fd);
    });
    this.#reportQueueErrors();
  }

  #age(): void {
    const pools = Array.from({ length: this.pools.vfCount }, (_, vf) => vf);
    if (!pools.some((pool) => this.pools.learned(pool) > 0)) return;
    this.engine.between(() => {
      this.engine.view.setFloat64(CTL + CTL_NOW_NS, monotonicNs(), true);
      this.engine.wasm.ageFilters();
    });
  }

  // State ----------------------------------------------------------------------------------------------------

  #poolState(pool: number): PoolState {
    const lease = this.#leases.get(pool);
    const regions = lease?.domain.regions ?? [];
    return {
      attached: lease !== undefined,
      ...(lease ? { owner: lease.owner } : {}),
      memory: {
        bytes: lease?.domain.bytes ?? 0,
        regions: regions.length,
        sealed: regions.every((region) => region.sealed),
      },
      queues: lease?.queues.states() ?? [],
      ...(this.#lastDetach.has(pool) ? { lastDetach: this.#lastDetach.get(pool) } : {}),
      learnedMacs: this.pools.learned(pool),
      counters: this.pools.counters(pool),
    };
  }

  #engineState(): EngineState {
    const { view } = this.engine;
    const u64 = (offset: number) => Number(view.getBigUint64(CTL + offset, true));
    const f64 = (offset: number) => view.getFloat64(CTL + offset, true);
    const uptimeNs = monotonicNs() - f64(CTL_START_NS);
    return {
      busyRatio: Math.min(1, f64(CTL_BUSY_NS) / uptimeNs),
      busyNsTotal: f64(CTL_BUSY_NS),
      sleptNsTotal: f64(CTL_SLEPT_NS),
      uptimeNs,
      framesTotal: u64(CTL_FRAMES),
      passesTotal: u64(CTL_PASSES),
      busyPassesTotal: u64(CTL_BUSY_PASSES),
      sleepsTotal: u64(CTL_SLEEPS),
      callsTotal: u64(CTL_CALLS),
      spuriousKicksTotal: u64(CTL_SPURIOUS_KICKS),
      faultsTotal: this.engine.faults().count,
      filters: view.getUint32(CTL + CTL_FILTER_COUNT, true),
      arenaFreeBytes: this.engine.arena.freeBytes,
      sigbusGuard: this.engine.guarded,
    };
  }

  /** Everything the API shows. */
  state(): NicState {
    return {
      instance: this.instance,
      programmed: this.pools.programme !== undefined,
      engine: this.#engineState(),
      vfs: Array.from({ length: this.pools.vfCount }, (_, vf) => this.#poolState(vf)),
      pf: this.#poolState(POOL_PF),
      uplink: this.#poolState(POOL_UPLINK),
    };
  }

  /** Ends all leases and the engine. */
  async close(): Promise<void> {
    clearInterval(this.#ageTimer);
    for (const lease of [...this.#leases.values()]) {
      lease.onRevoked("the NIC stops");
      this.release(lease, "the NIC stops");
    }
    await this.engine.close();
  }
}
