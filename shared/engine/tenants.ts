/**
 * Who drives an engine's pools: a tenant has one pool's memory table and queues. The NIC's leases are tenants, and so
 * are the guests of emulated mode. Here is what every tenant may ask, and what happens when one breaks its memory, its
 * rings: it stops, with a reason, and nobody else notices.
 */
import { HOLD_BUFFER_BYTES, LOG_GONE, MEMORY_GONE, WINDOWS } from "../layout/nic.ts";
import type { Limits } from "../api/nic.ts";
import type { Request } from "../device/mod.ts";
import { DeviceRefusal } from "../device/refusal.ts";
import { ARENA_BYTES, type Fd } from "../os/mod.ts";
import { DirtyLog } from "./dirty_log.ts";
import { Domain, type StagedTable } from "./domain.ts";
import type { Engine } from "./engine.ts";
import { Queues } from "./queues.ts";
import { Refusals, type RingQuotas, ringQuotas, type TenantLimits } from "./limits.ts";
import { type LogRequest, serveLog } from "./log_requests.ts";
import { buffersOf, bufferWindowBytes } from "./packet_buffer.ts";
import { windowBytes } from "./regions.ts";
import { adoptPools, type PoolBuffers } from "./take_over.ts";

type Ask<Op extends Request["op"]> = Extract<Request, { op: Op }>;

/** One pool's memory and queues. */
export class Tenant {
  readonly pool: number;
  readonly domain: Domain;
  readonly queues: Queues;
  readonly log: DirtyLog;
  /** Told when one of its queues stops by itself. */
  onQueueError: (index: number, reason: string) => void = () => {};

  readonly limits: TenantLimits;
  readonly quotas: RingQuotas;

  constructor(engine: Engine, pool: number, limits: TenantLimits) {
    this.pool = pool;
    this.limits = limits;
    this.quotas = ringQuotas(limits);
    this.domain = new Domain(engine.arena, pool, limits);
    this.log = new DirtyLog(engine.arena, pool);
    this.queues = new Queues(engine, pool, this.quotas, this.log);
  }

  /** What it takes of the arena: its memory and its dirty log, and the frames that wait for it. */
  get windowBytes(): number {
    return this.domain.windowBytes + this.log.windowBytes + this.queues.buffer.windowBytes;
  }
}

/** All tenants of one engine. */
export class Tenants {
  readonly #engine: Engine;
  readonly #tenants = new Map<number, Tenant>();
  readonly #reported = new Set<string>();
  readonly #onQueueError: (tenant: Tenant, index: number, reason: string) => void;
  readonly #refusals = new Refusals();
  /** How many pools may have a tenant: the arena is shared out among so many. */
  poolsMax: () => number = () => 1;
  /** Polled queues beside the tenants' own transmit queues. */
  extraActive: () => number[] = () => [];

  constructor(engine: Engine, onQueueError: (tenant: Tenant, index: number, reason: string) => void) {
    this.#engine = engine;
    this.#onQueueError = onQueueError;
    engine.onReport = (report) => {
      // A pause has the engine attribute its faults.
      if (report === "memory-fault") engine.between(() => {});
      this.reportErrors();
      for (const tenant of this.#tenants.values()) if (tenant.queues.buffer.isWanted) this.#giveBuffer(tenant);
    };
    engine.onMemoryFaults = (offsets) => this.#memoryFaults(offsets);
  }

  /** Whether the pool has a tenant. */
  has(pool: number): boolean {
    return this.#tenants.has(pool);
  }

  /** Lets a tenant into its pool, which is free. */
  add(tenant: Tenant): void {
    this.#tenants.set(tenant.pool, tenant);
  }

  /**
   * Ends a tenancy: queues stop, memory is unmapped. `before` runs in the same pause of the engine, while the queues are
   * still there; `afterwards` when the engine goes on without them.
   */
  remove(tenant: Tenant, { before, afterwards }: { before?: () => void; afterwards?: () => void } = {}): void {
    if (this.#tenants.get(tenant.pool) !== tenant) return;
    this.#tenants.delete(tenant.pool);
    using nothing = tenant.domain.stage([], []);
    const log = this.#engine.between(() => {
      before?.();
      tenant.queues.stopAll();
      this.writeActive();
      nothing.commit();
      return tenant.log.put(undefined, 0);
    });
    if (log) this.#engine.arena.release(log);
    tenant.log.keep(undefined, undefined);
    for (const key of this.#reported) if (key.startsWith(`${tenant.pool}.`)) this.#reported.delete(key);
    afterwards?.();
  }

  /**
   * Goes on with the tenants of an engine that has ended, which this one was told of while it stood by. `buffers`: their
   * packet buffers, by pool. Answers those whose driver has to begin anew. The engine stands still.
   */
  takeOver(buffers: PoolBuffers): Tenant[] {
    const broken = adoptPools(this.#engine, [...this.#tenants.values()], buffers);
    this.writeActive();
    return broken;
  }

  /** Writes the list of polled queues. Inside `between`. */
  writeActive(): void {
    const tenants = [...this.#tenants.values()].sort((a, b) => a.pool - b.pool);
    this.#engine.setActive([...tenants.flatMap(({ queues }) => queues.transmitters), ...this.extraActive()]);
  }

  /**
   * Gives the pool of `tenant` a packet buffer if it receives and has none: as large as any other's. One that would take of
   * what is kept for others is not given.
   */
  #giveBuffer(tenant: Tenant): void {
    const { queues: { buffer, isReceiving }, limits } = tenant;
    // One that stands by goes on with the other engine's.
    if (this.#engine.standsBy) return;
    const count = buffersOf(limits.bufferBytesMax, this.poolsMax());
    if (buffer.isThere || !isReceiving || count === 0 || this.#shortage(tenant, bufferWindowBytes(count))) return;
    buffer.give(count);
  }

  /** What a pool's guest has, and may have at most; `common`: the limits of one that is not there. */
  usage(pool: number, common: TenantLimits): Limits {
    const tenant = this.#tenants.get(pool);
    const { bytesMax, receivesMax, submissionsMax, bufferBytesMax } = tenant?.limits ?? common;
    const posted = tenant?.queues.offered() ?? { receives: 0, submissions: 0 };
    const used = (of: "receives" | "submissions") => tenant?.quotas[of].used ?? 0;
    const buffers = buffersOf(bufferBytesMax, this.poolsMax());
    return {
      memory: { used: tenant?.domain.windowBytes ?? 0, limit: bytesMax },
      buffered: { used: tenant?.queues.buffer.heldBytes ?? 0, limit: buffers * HOLD_BUFFER_BYTES },
      receives: { used: used("receives"), limit: receivesMax, posted: posted.receives },
      submissions: { used: used("submissions"), limit: submissionsMax, posted: posted.submissions },
      refused: this.#refusals.of(pool),
    };
  }

  // What a tenant asks ---------------------------------------------------------------------------------------

  /** Replaces the memory table; running queues go on where their rings are still mapped. */
  setMemory(tenant: Tenant, request: Ask<"dmaSet">, fds: readonly Fd[]): void {
    this.changeMemory(tenant, this.stageMemory(tenant, request, fds));
  }

  /** Adds one region to the memory table. */
  mapMemory(tenant: Tenant, request: Ask<"dmaMap">, fd: Fd): void {
    this.changeMemory(tenant, this.stageMemory(tenant, request, [fd]));
  }

  /** Takes one region away; queues whose rings were in it stop. */
  unmapMemory(tenant: Tenant, request: Ask<"dmaUnmap">): void {
    this.changeMemory(tenant, this.stageMemory(tenant, request, []));
  }

  /** Checks a change of the memory table and maps what is new; it comes into force with `changeMemory`. */
  stageMemory(tenant: Tenant, request: Ask<"dmaSet" | "dmaMap" | "dmaUnmap">, fds: readonly Fd[]): StagedTable {
    return this.#refusals.counting(tenant.pool, () => this.#stageMemory(tenant, request, fds));
  }

  #stageMemory(tenant: Tenant, request: Ask<"dmaSet" | "dmaMap" | "dmaUnmap">, fds: readonly Fd[]): StagedTable {
    const { domain } = tenant;
    if (request.op === "dmaUnmap") return domain.stageWithout(request.iova, request.size);
    const [fd] = fds;
    if (request.op === "dmaMap") {
      if (!fd) throw new DeviceRefusal("fd-count", "dmaMap needs a descriptor");
      this.#checkShare(tenant, domain.windowBytes + windowBytes([request.region]));
      return domain.stageWith(request.region, fd);
    }
    this.#checkShare(tenant, windowBytes(request.regions));
    return domain.stage(request.regions, fds);
  }

  /**
   * Half of the arena is kept for all pools in equal parts: whatever some guests have, each of the others gets that much.
   * Answers what is free and what of it is kept for others, if a tenant that takes `more` would take of that.
   */
  #shortage(tenant: Tenant, more: number): { free: number; kept: number } | undefined {
    const pools = Math.max(1, this.poolsMax());
    const part = Math.floor((ARENA_BYTES - WINDOWS) / 2 / pools);
    if (more <= 0 || tenant.windowBytes + more <= part) return undefined;
    const others = [...this.#tenants.values()].filter((other) => other !== tenant);
    const there = others.reduce((sum, { windowBytes }) => sum + Math.max(0, part - windowBytes), 0);
    const kept = there + Math.max(0, pools - 1 - others.length) * part;
    const free = this.#engine.arena.freeBytes;
    return free - more >= kept ? undefined : { free, kept };
  }

  /** Throws DeviceRefusal if a tenant that is to have `bytes` of memory would take of what is kept for others. */
  #checkShare(tenant: Tenant, bytes: number): void {
    const more = bytes - tenant.domain.windowBytes;
    const shortage = this.#shortage(tenant, more);
    if (!shortage) return;
    throw new DeviceRefusal(
      "arena-share",
      `the guest's memory needs ${more} bytes more, of ${shortage.free} that are free ${shortage.kept} are kept for the ` +
        `other ${this.poolsMax() - 1} guests that may come: give the guest less memory, or have fewer VFs`,
    );
  }

  /** Puts a staged table in force. What takes time, mapping and unmapping, is done before and after the pause. */
  changeMemory({ queues }: Tenant, staged: StagedTable): void {
    using table = staged;
    this.#engine.between(() => {
      table.commit();
      queues.rebind();
    });
    this.reportErrors();
  }

  /** Does what a tenant asks about its dirty log: it may bring a file. */
  serveLog(tenant: Tenant, request: LogRequest, [file]: readonly Fd[]): Record<string, unknown> {
    this.#refusals.counting(tenant.pool, () => {
      if (request.op === "logStart") this.#checkShare(tenant, tenant.domain.windowBytes + windowBytes([request]));
      serveLog(this.#engine, tenant, request, file);
    });
    this.reportErrors();
    return {};
  }

  /** Starts a queue; takes its eventfds over if it starts. `alongside` runs in the same pause of the engine. */
  startQueue(
    tenant: Tenant,
    request: Ask<"queueStart">,
    fds: readonly (Fd | undefined)[],
    alongside: () => void = () => {},
  ): void {
    this.#engine.between(() => {
      if (tenant.domain.poisoned) {
        throw new DeviceRefusal("memory-gone", "the guest's memory file was truncated: share memory anew first");
      }
      this.#refusals.counting(tenant.pool, () => tenant.queues.start(request, fds[0], fds[1]));
      alongside();
      this.writeActive();
    });
    this.#reported.delete(`${tenant.pool}.${request.index}`);
    this.#giveBuffer(tenant);
  }

  /** Stops a queue between two bursts; answers its next avail index. */
  stopQueue(tenant: Tenant, index: number): number {
    const base = this.#engine.between(() => {
      const next = tenant.queues.stop(index);
      this.writeActive();
      return next;
    });
    this.#reported.delete(`${tenant.pool}.${index}`);
    return base;
  }

  /** Gives a running queue another call eventfd, which becomes the queue's. */
  setCall({ queues }: Tenant, index: number, call: Fd | undefined): void {
    this.#engine.between(() => queues.setCall(index, call));
  }

  /** What the driver of a running virtqueue accepts from now on, by its features. */
  setOffloads({ queues }: Tenant, index: number, features: bigint): void {
    this.#engine.between(() => queues.setOffloads(index, features));
  }

  // Faults ---------------------------------------------------------------------------------------------------

  /** Tells of every queue that has stopped by itself and of which nobody has been told yet. */
  reportErrors(): void {
    for (const tenant of this.#tenants.values()) {
      for (const queue of tenant.queues.states()) {
        const key = `${tenant.pool}.${queue.index}`;
        // A queue that went on (its memory came back) is reported again when it stops again.
        if (queue.state !== "error") this.#reported.delete(key);
        if (queue.state !== "error" || this.#reported.has(key)) continue;
        this.#reported.add(key);
        const reason = `${queue.reason} (${queue.detail})`;
        tenant.onQueueError(queue.index, reason);
        this.#onQueueError(tenant, queue.index, reason);
      }
    }
  }

  /**
   * Guests truncated their memory, and the guard mapped zero pages there: the queues of whoever has these places now
   * stop. Inside `between`.
   */
  #memoryFaults(offsets: readonly number[]): void {
    for (const { domain, queues, log } of this.#tenants.values()) {
      if (log.isHit(offsets)) queues.failAll(LOG_GONE);
      if (domain.poison(offsets)) queues.failAll(MEMORY_GONE);
    }
  }
}
