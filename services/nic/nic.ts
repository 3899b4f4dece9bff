/** The NIC: what the PF has set, who drives which VF, and one engine that does it. */
import {
  CTL,
  CTL_BUSY_NS,
  CTL_BUSY_PASSES,
  CTL_CALLS,
  CTL_FILTER_COUNT,
  CTL_FRAMES,
  CTL_PASSES,
  CTL_SLEEPS,
  CTL_SLEPT_NS,
  CTL_SPURIOUS_KICKS,
  CTL_START_NS,
  POOL_PF,
  POOL_UPLINK,
} from "../../shared/layout/nic.ts";
import { type Attached, DeviceRefusal, type PoolName, type Request } from "../../shared/device/mod.ts";
import { type Fd, monotonicNs } from "../../shared/os/mod.ts";
import {
  type EngineState,
  type HoldGrant,
  type LeaseView,
  type NicEvent,
  type NicState,
  type PoolState,
  type Programme,
  type TakenBack,
  uplinkMac,
} from "../../shared/api/nic.ts";
import { untaggedVlan } from "../../shared/api/policy.ts";
import { announce, Captures, type Engine, latencyOf, poolName, Pools } from "../../shared/engine/mod.ts";
import type { NicExports } from "./exports.ts";
import type { Lease, LeaseConnection } from "./lease.ts";
import { type LeaseOptions, Leases } from "./leases.ts";
import { newMirror, type NicMirror } from "./standby/messages.ts";
import type { Inherited } from "./standby/inherited.ts";
import { noteProgramme } from "./standby/notes.ts";
import { type VfsEvent, vfsEvent } from "./vfs_event.ts";

const AGE_PERIOD_MS = 30_000;
/** How often spoofed frames are told of, as PF drivers do: a flood of them is one event. */
const SPOOF_PERIOD_MS = 2000;

/** Everything the NIC knows and can do. */
export class Nic {
  readonly engine: Engine<NicExports>;
  readonly pools: Pools;
  readonly leases: Leases;
  readonly captures: Captures;
  /** What a standby is told. */
  readonly mirror: NicMirror;
  #instance: string = crypto.randomUUID();
  #programme: Programme | undefined;
  readonly #listeners = new Set<(event: NicEvent) => void>();
  readonly #vfWatchers = new Map<(vfs: VfsEvent) => void, LeaseConnection>();
  #vfs: VfsEvent = vfsEvent(undefined);
  readonly #ageTimer: ReturnType<typeof setInterval>;
  readonly #spoofTimer: ReturnType<typeof setInterval>;
  /** Spoofed frames of each VF, as they were last told. */
  readonly #spoofed = new Map<number, number>();

  constructor(engine: Engine<NicExports>, options: LeaseOptions) {
    this.engine = engine;
    this.pools = new Pools(engine);
    this.captures = new Captures(engine);
    this.mirror = newMirror(engine.view);
    this.leases = new Leases(engine, options, {
      attached: (pool, owner) => this.tell({ type: "attached", pool: poolName(pool), owner }),
      detached: (pool, reason) => this.tell({ type: "detached", pool: poolName(pool), reason }),
      queueError: (pool, index, reason) => this.tell({ type: "queue-error", pool: poolName(pool), index, reason }),
    }, this.mirror);
    this.#ageTimer = setInterval(() => this.pools.age(monotonicNs()), AGE_PERIOD_MS);
    this.#spoofTimer = setInterval(() => this.#tellSpoofed(), SPOOF_PERIOD_MS);
  }

  // Events ---------------------------------------------------------------------------------------------------

  /** Calls `listener` with every event until the returned function is called. */
  subscribe(listener: (event: NicEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Calls `watcher` with the VFs' links, now and at every change, until the returned function is called. `connection`:
   * whose it is.
   */
  watchVfs(watcher: (vfs: VfsEvent) => void, connection: LeaseConnection): () => void {
    this.#vfWatchers.set(watcher, connection);
    watcher(this.#vfs);
    return () => this.#vfWatchers.delete(watcher);
  }

  /** The connections of those who watch the VFs. */
  get watchers(): Iterable<LeaseConnection> {
    return this.#vfWatchers.values();
  }

  /** Tells which VFs have spoofed since it was last told, at most once a period each. */
  #tellSpoofed(): void {
    for (let vf = 0; vf < this.pools.vfCount; vf++) {
      const now = this.pools.counter(vf, "tx_spoofed");
      const frames = now - (this.#spoofed.get(vf) ?? 0);
      if (frames > 0) this.tell({ type: "spoofed", pool: vf, frames });
      this.#spoofed.set(vf, now);
    }
  }

  /** Tells all listeners an event. */
  tell(event: NicEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  // Policy ---------------------------------------------------------------------------------------------------

  /** Puts the PF's programme in force. Refuses to take away a VF that somebody drives. */
  program(next: Programme): void {
    for (let vf = next.vfs.length; vf < this.pools.vfCount; vf++) {
      const owner = this.leases.of(vf)?.owner;
      if (owner !== undefined) {
        throw new DeviceRefusal("vf-in-use", `vf ${vf} cannot be removed: ${owner} drives it; stop its guest first`);
      }
      if (this.leases.holds.of(vf)) {
        throw new DeviceRefusal("vf-in-use", `vf ${vf} cannot be removed: its driver is changing; try again`);
      }
    }
    const before = this.pools.programme?.vfs ?? [];
    this.pools.apply(next);
    for (const [vf, policy] of next.vfs.entries()) {
      const old = before[vf];
      if (old && untaggedVlan(old) !== untaggedVlan(policy)) this.leases.discardWaiting(vf);
    }
    this.leases.policies = next.vfs;
    this.#programme = next;
    noteProgramme(this.mirror, next);
    const vfs = vfsEvent(next);
    if (JSON.stringify(vfs) === JSON.stringify(this.#vfs)) return;
    this.#vfs = vfs;
    for (const watcher of this.#vfWatchers.keys()) watcher(vfs);
  }

  /** What the PF has set, `undefined` before it has spoken. */
  get programme(): Programme | undefined {
    return this.#programme;
  }

  /** Changes when the NIC has to be programmed anew. */
  get instance(): string {
    return this.#instance;
  }

  /** Whether a standby stands ready. */
  get standby(): NicState["standby"] {
    return this.mirror.standby;
  }

  /** Goes on with the queues of the process for which this one stood by, whose engine's state is in the file `state`. */
  takeOver(instance: string, state: Fd, inherited: Inherited): void {
    this.#instance = instance;
    let broken: Lease[] = [];
    this.engine.takeOver(state, (wasChanging) => {
      this.pools.takeOver(wasChanging);
      this.captures.takeOver();
      broken = this.leases.takeOver(inherited);
    });
    for (const lease of broken) this.leases.end(lease, "the NIC died while it wrote to the VF's ring");
    // What came before, that process has told: nobody listens to this one yet.
    this.#tellSpoofed();
  }

  /** The address of whoever drives a pool, if the PF has set one. */
  macOf(name: PoolName): string | undefined {
    const { programme } = this.pools;
    if (typeof name === "number") return programme?.vfs[name]?.mac;
    const pfMac = programme?.pfMac;
    return pfMac === undefined || name === "pf" ? pfMac : uplinkMac(pfMac);
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

  /** Gives a VF's lease to who asks, or a guest that shows a token for it. */
  attach(request: Extract<Request, { op: "attach" }>, fromGuest: boolean): { lease: Lease; attached: Attached } {
    return this.leases.attach(this.#poolOf(request.vf), request, fromGuest);
  }

  /** Sends a frame of a pool that announces an address to everybody in its VLAN. */
  announce(name: PoolName, mac: string): void {
    announce(this.engine, this.#poolOf(name), mac);
  }

  /** Holds a VF's frames while its driver changes hands; answers the token with which a guest may attach meanwhile. */
  hold(name: PoolName, deadlineMs: number): HoldGrant {
    return this.leases.holds.begin(this.#poolOf(name), deadlineMs);
  }

  /** Ends the hold: answers when what came meanwhile has been delivered. */
  async release(name: PoolName): Promise<void> {
    await this.leases.holds.end(this.#poolOf(name));
  }

  /** Takes a VF back from the guest that drives it, if one does; `final`: the VF is to be somebody else's. */
  takeBack(name: PoolName, reason: string, final = false): TakenBack {
    return this.leases.takeBack(this.#poolOf(name), reason, final);
  }

  /** Who has a VF's lease. */
  leaseOf(name: PoolName): LeaseView {
    const pool = this.#poolOf(name);
    const allotted = this.leases.isAllotted(pool);
    const lease = this.leases.of(pool);
    if (!lease) return { driver: "nobody", allotted };
    const { owner, plugin, hold } = lease;
    return {
      ...{ driver: hold ? "guest" : "hypervisor", owner, allotted },
      ...(plugin === undefined ? {} : { plugin }),
      ...(hold ? { hold: hold.id } : {}),
    };
  }

  // State ----------------------------------------------------------------------------------------------------

  #poolState(pool: number): PoolState {
    const lease = this.leases.of(pool);
    const lastDetach = this.leases.lastDetach(pool);
    const regions = lease?.domain.regions ?? [];
    return {
      attached: lease !== undefined,
      ...(lease ? { owner: lease.owner, mode: lease.mode } : {}),
      ...(lease?.plugin === undefined ? {} : { plugin: lease.plugin }),
      ...(lease?.dataPath === undefined ? {} : { dataPath: lease.dataPath }),
      held: this.leases.holds.of(pool) !== undefined,
      memory: {
        bytes: lease?.domain.bytes ?? 0,
        regions: regions.length,
        sealed: regions.every((region) => region.sealed),
      },
      queues: lease?.queues.states() ?? [],
      limits: this.leases.usage(pool),
      ...(lastDetach === undefined ? {} : { lastDetach }),
      learnedMacs: this.pools.learned(pool),
      counters: this.pools.counters(pool),
      latency: latencyOf(this.engine.view, pool),
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
      ...{ captures: this.captures.count, sigbusGuard: this.engine.guarded },
    };
  }

  /** Everything the API shows, but for uplinks. */
  state(): Omit<NicState, "uplinks"> {
    return {
      instance: this.instance,
      ...{ pid: Deno.pid, standby: this.standby },
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
    clearInterval(this.#spoofTimer);
    this.captures.close();
    this.leases.close();
    await this.engine.close();
  }
}
