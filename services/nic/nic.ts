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
  POOL_PF,
  POOL_UPLINK,
  QUEUE_PAIRS_MAX,
} from "../../shared/layout/nic.ts";
import { type Attached, DeviceRefusal, type PoolName, type Request } from "../../shared/device/mod.ts";
import { type Fd, monotonicNs } from "../../shared/os/mod.ts";
import type { EngineState, NicEvent, NicState, PoolState, Programme } from "../../shared/api/nic.ts";
import {
  type DomainLimits,
  type Engine,
  poolName,
  Pools,
  QUEUE_FEATURES,
  Queues,
  ringName,
  Tenant,
  Tenants,
} from "../../shared/engine/mod.ts";
import type { NicExports } from "./exports.ts";
import { Hold, HOLD_BUFFERS } from "./hold.ts";
import { RegisterPage } from "./registers.ts";
import { Tokens } from "./tokens.ts";

const AGE_PERIOD_MS = 30_000;
/** Frames of a hold that are handed on in one pause of the engine; how long a receiver is waited for. */
const RELEASE_FRAMES = 256;
/** Pauses in which a receiver that has all but has little room is waited for: some never have more. */
const RELEASE_WAITS_MAX = 20;
const RELEASE_PAUSE_MS = 1;
const RELEASE_DEADLINE_MS = 1000;

/** Settings of the NIC beside the engine's. */
export interface NicOptions extends DomainLimits {
  /** How long queues go on after their owner died. */
  graceMs: number;
}

type AttachRequest = Extract<Request, { op: "attach" }>;

/** One VF's lease. */
export class Lease extends Tenant {
  readonly owner: string;
  readonly mode: "emulated" | "passthrough";
  readonly plugin: string | undefined;
  /** How long the queues go on after the owner's death; a guest that drives its VF itself has no successor. */
  readonly graceMs: number;
  /** The rings that ran when the lease was taken over from a dead owner. */
  inherited = new Set<string>();
  /** Doorbells, once the driver has asked for them. */
  registers: RegisterPage | undefined;
  /** Told when the NIC takes the lease back. */
  onRevoked: (reason: string) => void = () => {};
  orphanTimer: ReturnType<typeof setTimeout> | undefined;

  constructor(engine: Engine, pool: number, limits: DomainLimits, request: AttachRequest, graceMs: number) {
    super(engine, pool, limits);
    this.owner = request.owner;
    this.mode = request.mode;
    this.plugin = request.plugin;
    this.graceMs = graceMs;
  }
}

/** Everything the NIC knows and can do. */
export class Nic {
  readonly engine: Engine<NicExports>;
  readonly pools: Pools;
  readonly instance = crypto.randomUUID();
  readonly #options: NicOptions;
  readonly #leases = new Map<number, Lease>();
  readonly #holds = new Map<number, Hold>();
  readonly #tokens = new Tokens();
  #hardware: Programme["vfs"][number]["hardware"][] = [];
  readonly #listeners = new Set<(event: NicEvent) => void>();
  readonly #vfWatchers = new Set<(count: number) => void>();
  readonly #tenants: Tenants;
  readonly #lastDetach = new Map<number, string>();
  readonly #ageTimer: ReturnType<typeof setInterval>;

  constructor(engine: Engine<NicExports>, options: NicOptions) {
    this.engine = engine;
    this.#options = options;
    this.pools = new Pools(engine);
    this.#tenants = new Tenants(engine, ({ pool }, index, reason) => {
      this.#emit({ type: "queue-error", pool: poolName(pool), index, reason });
    });
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
      if (this.#leases.has(vf) || this.#holds.has(vf)) {
        throw new DeviceRefusal(
          "vf-in-use",
          `vf ${vf} cannot be removed: a guest is attached, or changing hands: detach it first`,
        );
      }
    }
    const before = this.pools.vfCount;
    this.pools.apply(next);
    this.#hardware = next.vfs.map((vf) => vf.hardware);
    if (before !== next.vfs.length) { for (const watcher of this.#vfWatchers) watcher(next.vfs.length); }
  }

  // Leases ---------------------------------------------------------------------------------------------------

  #poolOf(name: PoolName): number {
    if (name === "uplink") return POOL_UPLINK;
    if (name === "pf") return POOL_PF;
    if (name >= this.pools.vfCount) {
      throw new DeviceRefusal("no-vf", `vf ${name} does not exist: the NIC has ${this.pools.vfCount} VFs`);
    }
    return name;
  }

  /**
   * Gives the lease of a pool to `owner`; a lease whose owner died is taken over. A guest that attaches by itself shows
   * a token, which is used up whatever the answer.
   */
  attach(request: AttachRequest, fromGuest = false): { lease: Lease; attached: Attached } {
    const { vf: name, token = "" } = request;
    // What a guest drives itself is passthrough, whatever it calls it.
    const owner = request.owner;
    const mode = fromGuest ? "passthrough" : request.mode;
    const pool = this.#poolOf(name);
    if (fromGuest && !this.#tokens.redeem(token, pool)) {
      throw new DeviceRefusal("bad-token", `vf ${name}: the token is not good (any more); ask for another one`);
    }
    const held = this.#leases.get(pool);
    let inherited = new Set<string>();
    if (held) {
      if (held.orphanTimer === undefined) {
        throw new DeviceRefusal("vf-in-use", `vf ${name} is driven by ${held.owner}`);
      }
      inherited = held.queues.rings();
      this.release(held, "taken over");
    }
    const lease = new Lease(
      this.engine,
      pool,
      this.#options,
      { ...request, mode },
      fromGuest ? 0 : this.#options.graceMs,
    );
    lease.inherited = inherited;
    lease.queues.divert(this.#holds.get(pool)?.queue);
    this.#leases.set(pool, lease);
    this.#tenants.add(lease);
    this.#emit({ type: "attached", pool: poolName(pool), owner });
    return { lease, attached: { maxQueuePairs: QUEUE_PAIRS_MAX, features: QUEUE_FEATURES } };
  }

  /** Ends a lease: its queues stop, its memory is unmapped. */
  release(lease: Lease, reason: string): void {
    if (this.#leases.get(lease.pool) !== lease) return;
    clearTimeout(lease.orphanTimer);
    this.#leases.delete(lease.pool);
    this.#tenants.remove(lease, () => lease.registers?.close());
    this.#lastDetach.set(lease.pool, reason);
    this.#emit({ type: "detached", pool: poolName(lease.pool), reason });
  }

  /** The owner's connection broke without a detach: the queues go on for a while. */
  orphan(lease: Lease): void {
    if (this.#leases.get(lease.pool) !== lease) return;
    lease.onRevoked = () => {};
    lease.onQueueError = () => {};
    if (lease.graceMs === 0) return this.release(lease, "its owner died");
    lease.orphanTimer = setTimeout(() => this.release(lease, "its owner died"), lease.graceMs);
  }

  // Change of hands ------------------------------------------------------------------------------------------

  /**
   * Holds the frames for a pool while its driver changes hands, for at most `deadlineMs`; answers a token with which
   * a guest may attach. Nothing is lost as long as the hold has room.
   */
  hold(name: PoolName, deadlineMs: number): string {
    const pool = this.#poolOf(name);
    if (this.#holds.has(pool)) throw new DeviceRefusal("held", `vf ${name} is changing hands already`);
    const hold = new Hold(this.engine.arena, this.engine.view, pool);
    this.#holds.set(pool, hold);
    this.engine.between(() => this.#divert(pool, hold.queue));
    hold.timer = setTimeout(() => void this.resume(name), deadlineMs);
    return this.#tokens.issue(pool);
  }

  /**
   * Ends the hold: what came meanwhile is delivered, in order, to the queues that run now, some of it in each of several
   * short pauses of the engine. A receiver that has no buffers yet is waited for, a while; what it then still does not
   * take is dropped.
   */
  async resume(name: PoolName): Promise<void> {
    const pool = this.#poolOf(name);
    const hold = this.#holds.get(pool);
    if (!hold || hold.releasing) return;
    hold.releasing = true;
    clearTimeout(hold.timer);
    const end = performance.now() + RELEASE_DEADLINE_MS;
    let emptied = 0;
    let leftBefore = Infinity;
    for (;;) {
      const last = performance.now() > end;
      const { done, room, left } = this.engine.between(() => {
        this.#divert(pool, undefined);
        const { wasm } = this.engine;
        const left = wasm.releaseHeld(hold.queue, pool, last ? HOLD_BUFFERS : RELEASE_FRAMES, last ? 1 : 0);
        const room = wasm.hasRoom(pool) !== 0;
        // A receiver that is full now would lose what comes before its driver wakes up.
        const done = left === 0 && (room || last || ++emptied === RELEASE_WAITS_MAX);
        // New frames queue up behind those that are left.
        if (!done) this.#divert(pool, hold.queue);
        return { done, room, left };
      });
      this.#tenants.reportErrors();
      if (done) break;
      // The engine does not stand still while a receiver is waited for, be it for room or for what one frame needs.
      const goesOn = room && left < leftBefore;
      leftBefore = left;
      await new Promise<void>((resolve) => goesOn ? setImmediate(resolve) : setTimeout(resolve, RELEASE_PAUSE_MS));
    }
    this.#holds.delete(pool);
    hold.close();
  }

  /**
   * Takes a VF back from a guest that drives it itself, whatever it says: it has gone, or does not give it up. Other
   * leases are the hypervisor's own and stay.
   */
  revoke(name: PoolName, reason: string): void {
    const lease = this.#leases.get(this.#poolOf(name));
    if (!lease || lease.graceMs > 0) return;
    lease.onRevoked(reason);
    this.release(lease, reason);
  }

  #divert(pool: number, queue: number | undefined): void {
    const lease = this.#leases.get(pool);
    (lease?.queues ?? new Queues(this.engine, pool)).divert(queue);
  }

  /** The descriptor of the page with a lease's doorbells; it stays the NIC's. */
  registers(lease: Lease): number {
    lease.registers ??= new RegisterPage(this.engine.arena, lease.pool);
    return lease.registers.fd.number;
  }

  // What a lease's owner asks --------------------------------------------------------------------------------

  setMemory(lease: Lease, request: Extract<Request, { op: "dmaSet" }>, fds: readonly Fd[]): void {
    this.#tenants.setMemory(lease, request, fds);
  }

  mapMemory(lease: Lease, request: Extract<Request, { op: "dmaMap" }>, fd: Fd): void {
    this.#tenants.mapMemory(lease, request, fd);
  }

  unmapMemory(lease: Lease, request: Extract<Request, { op: "dmaUnmap" }>): void {
    this.#tenants.unmapMemory(lease, request);
  }

  /**
   * Starts a queue. After a take-over it goes on where the ring's used index says, whatever the new owner believes:
   * the queue went on after the old one had died.
   */
  startQueue(lease: Lease, request: Extract<Request, { op: "queueStart" }>, fds: readonly (Fd | undefined)[]): void {
    if (request.flavour === "advanced" && !lease.registers) {
      throw new DeviceRefusal("no-registers", "an advanced queue needs doorbells: ask for region registers first");
    }
    // Emulated mode is the hypervisor's own driver; a guest finds the hardware that the PF presents to it.
    const hardware = this.#hardware[lease.pool] ?? "any";
    const flavour = request.flavour === "split" ? "virtio" : "advanced";
    if (lease.mode === "passthrough" && hardware !== "any" && hardware !== flavour) {
      throw new DeviceRefusal("wrong-hardware", `vf ${lease.pool} presents ${hardware} rings, not ${flavour} ones`);
    }
    const takenOver = lease.inherited.has(ringName(request.index, request.desc));
    this.#tenants.startQueue(lease, { ...request, base: takenOver ? -1 : request.base }, fds);
    lease.inherited.delete(ringName(request.index, request.desc));
  }

  stopQueue(lease: Lease, index: number): number {
    return this.#tenants.stopQueue(lease, index);
  }

  setCall(lease: Lease, index: number, call: Fd | undefined): void {
    this.#tenants.setCall(lease, index, call);
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
      ...(lease ? { owner: lease.owner, mode: lease.mode } : {}),
      ...(lease?.plugin === undefined ? {} : { plugin: lease.plugin }),
      held: this.#holds.has(pool),
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
    for (const hold of this.#holds.values()) clearTimeout(hold.timer);
    for (const lease of [...this.#leases.values()]) {
      lease.onRevoked("the NIC stops");
      this.release(lease, "the NIC stops");
    }
    await this.engine.close();
  }
}
