/**
 * Who drives which VF. However a VF is lost (given back, taken back, rebooted, its owner's grace over), its lease ends
 * in one place and for good: its queues stop, its memory leaves the arena, its connection ends, and whatever its old
 * owner still asks is refused in one place too. Only then can the next owner attach.
 */
import { QUEUE_PAIRS_MAX } from "../../shared/layout/nic.ts";
import { type Attached, DeviceRefusal, type Request } from "../../shared/device/mod.ts";
import type { Fd } from "../../shared/os/mod.ts";
import type { Limits, Programme, TakenBack } from "../../shared/api/nic.ts";
import {
  type Engine,
  lastBatch,
  poolName,
  QUEUE_FEATURES,
  Queues,
  type TenantLimits,
  Tenants,
} from "../../shared/engine/mod.ts";
import type { NicExports } from "./exports.ts";
import { Holds } from "./holds.ts";
import { Lease, type LeaseTerms } from "./lease.ts";
import { serveLog, startQueue } from "./lease_requests.ts";
import type { Inherited } from "./standby/inherited.ts";
import type { NicMirror } from "./standby/messages.ts";
import { noteBuffer, noteRequest } from "./standby/notes.ts";

type Ask<Op extends Request["op"]> = Extract<Request, { op: Op }>;
/** What a lease's owner may ask. */
export type LeaseRequest = Exclude<Request, { op: "attach" | "watch" | "announce" }>;

/** Settings of leases. */
export interface LeaseOptions extends TenantLimits {
  /** How long queues go on after their owner died. */
  graceMs: number;
}

/** Whom leases tell. */
export interface LeaseEvents {
  attached(pool: number, owner: string): void;
  detached(pool: number, reason: string): void;
  queueError(pool: number, index: number, reason: string): void;
}

/** All leases of the NIC. */
export class Leases {
  /** What the PF has set of each VF. */
  policies: Programme["vfs"] = [];
  readonly holds: Holds;
  readonly #engine: Engine<NicExports>;
  readonly #options: LeaseOptions;
  readonly #events: LeaseEvents;
  readonly #leases = new Map<number, Lease>();
  /** Whom a lease is one of. */
  readonly tenants: Tenants;
  readonly #mirror: NicMirror;
  readonly #lastDetach = new Map<number, string>();

  constructor(engine: Engine<NicExports>, options: LeaseOptions, events: LeaseEvents, mirror: NicMirror) {
    this.#engine = engine;
    this.#mirror = mirror;
    this.#options = options;
    this.#events = events;
    this.tenants = new Tenants(engine, ({ pool }, index, reason) => events.queueError(pool, index, reason));
    this.tenants.poolsMax = () => this.policies.length;
    this.holds = new Holds({
      ...{ engine, mirror },
      divert: (pool, queue) => (this.#leases.get(pool)?.queues ?? new Queues(engine, pool)).divert(queue),
      reportErrors: () => this.tenants.reportErrors(),
    });
  }

  /** The lease of a pool. */
  of(pool: number): Lease | undefined {
    return this.#leases.get(pool);
  }

  /** All of them. */
  get all(): Iterable<Lease> {
    return this.#leases.values();
  }

  /** What a pool's guest has, and may have at most; frames that a hold keeps for it are buffered too. */
  usage(pool: number): Limits {
    const usage = this.tenants.usage(pool, this.#options);
    const held = this.holds.of(pool)?.heldBytes ?? 0;
    return { ...usage, buffered: { ...usage.buffered, used: usage.buffered.used + held } };
  }

  /** Whether a VF is allotted to a guest that has none: then nobody drives it but that guest. */
  isAllotted(pool: number): boolean {
    return this.policies[pool]?.fallback === "pf";
  }

  /** Why the last lease of a pool ended. */
  lastDetach(pool: number): string | undefined {
    return this.#lastDetach.get(pool);
  }

  /** Drops what waits for a pool's driver, or for its next one: it came in a VLAN that the pool has left. */
  discardWaiting(pool: number): void {
    this.#engine.between(() => {
      this.holds.discard(pool);
      this.#leases.get(pool)?.queues.buffer.discard();
    });
  }

  // Coming ---------------------------------------------------------------------------------------------------

  /**
   * Gives the lease of a pool to who asks; a lease whose owner died is taken over. A guest shows a token, which is used
   * up whatever the answer.
   */
  attach(pool: number, request: Ask<"attach">, fromGuest: boolean): { lease: Lease; attached: Attached } {
    const hold = fromGuest ? this.holds.redeem(request.token ?? "", pool) : undefined;
    const name = `vf ${poolName(pool)}`;
    if (!fromGuest && this.isAllotted(pool)) {
      throw new DeviceRefusal(
        "vf-allotted",
        `${name} is allotted to a vport's guest: put that into emulated mode first`,
      );
    }
    if (fromGuest && !hold) {
      throw new DeviceRefusal("bad-token", `${name}: the token is not good (any more); ask for another one`);
    }
    const before = this.#leases.get(pool);
    if (before && before.orphanTimer === undefined) {
      throw new DeviceRefusal("vf-in-use", `${name} is driven by ${before.owner}`);
    }
    if (before) this.end(before, "taken over");
    const isDirect = request.dataPath !== undefined && request.dataPath !== "copy";
    const graceMs = fromGuest || isDirect ? 0 : this.#options.graceMs;
    const lease = this.#make(pool, request, { hold, graceMs });
    for (const [ring, position] of before?.queues.left ?? []) lease.inherited.set(ring, position);
    lease.queues.divert(this.holds.of(pool)?.queue);
    this.#events.attached(pool, lease.owner);
    return { lease, attached: { maxQueuePairs: QUEUE_PAIRS_MAX, features: QUEUE_FEATURES } };
  }

  #make(pool: number, request: Ask<"attach">, terms: LeaseTerms): Lease {
    const lease = new Lease(this.#engine, pool, this.#options, request, terms);
    lease.queues.buffer.onGiven = (buffer) => {
      if (!lease.isOwn) noteBuffer(this.#mirror, buffer);
      this.#mirror.commit();
    };
    this.#leases.set(pool, lease);
    this.tenants.add(lease);
    return lease;
  }

  // Standing by ----------------------------------------------------------------------------------------------

  /** Knows a lease of the NIC's process for which this one stands by. */
  learn(pool: number, request: Ask<"attach">, terms: LeaseTerms): Lease {
    return this.#make(pool, request, terms);
  }

  /**
   * Goes on where that process has ended, in a pause of the engine. Answers the leases whose drivers have to begin anew,
   * to be ended when the engine goes on.
   */
  takeOver({ holds, buffers }: Inherited): Lease[] {
    for (const lease of this.#leases.values()) lease.mapRegisters();
    const batch = lastBatch(this.#engine.view);
    const broken = new Set(this.tenants.takeOver(buffers));
    for (const [pool, hold] of holds) this.holds.takeOver(pool, hold, { ...batch, file: hold.file });
    return [...this.#leases.values()].filter((lease) => broken.has(lease));
  }

  // Going ----------------------------------------------------------------------------------------------------

  /** Ends a lease; all ways to lose a VF lead here. Answers what a guest had offered and the NIC not fetched. */
  end(lease: Lease, reason: string): number {
    if (this.#leases.get(lease.pool) !== lease) return 0;
    clearTimeout(lease.orphanTimer);
    this.#leases.delete(lease.pool);
    let unfetched = 0;
    this.tenants.remove(lease, {
      before: () => unfetched = lease.byGuest ? lease.queues.countUnfetched() : 0,
      afterwards: () => lease.closeRegisters(),
    });
    this.#lastDetach.set(lease.pool, reason);
    if (!lease.isOwn) this.#mirror.note({ kind: "ended", pool: lease.pool, reason });
    this.#events.detached(lease.pool, reason);
    lease.onEnded(reason);
    return unfetched;
  }

  /** The owner's connection broke without a detach: the queues go on for a while. */
  orphan(lease: Lease): void {
    if (this.#leases.get(lease.pool) !== lease) return;
    lease.onEnded = () => {};
    lease.onQueueError = () => {};
    lease.connection = undefined;
    if (lease.graceMs === 0) {
      this.end(lease, "its owner died");
      return;
    }
    lease.orphanTimer = setTimeout(() => this.end(lease, "its owner died"), lease.graceMs);
  }

  /**
   * Takes a VF back from a guest that drives it itself, or was to drive it, whatever it says. The token that it may have
   * is void. Other leases are the hypervisor's own and stay. `final`: the VF is somebody else's from now on, so what is
   * held of its frames is dropped.
   */
  takeBack(pool: number, reason: string, final: boolean): TakenBack {
    this.holds.voidToken(pool);
    const lease = this.#leases.get(pool);
    const byGuest = lease?.byGuest === true;
    const unfetched = byGuest ? this.end(lease, reason) : 0;
    if (final) this.holds.drop(pool);
    return { takenBack: byGuest, unfetched };
  }

  /** Ends all leases: the NIC stops. */
  close(): void {
    this.holds.close();
    for (const lease of [...this.#leases.values()]) this.end(lease, "the NIC stops");
  }

  // What a lease's owner asks --------------------------------------------------------------------------------

  /**
   * Does what a lease's owner asks. Descriptors that it takes over leave `fds`; those that answer go into `reply`, and
   * stay the NIC's. Throws DeviceRefusal `revoked`, with nothing done, if the lease has ended: nothing else asks that.
   */
  serve(
    lease: Lease,
    request: LeaseRequest,
    fds: Fd[],
    reply: number[],
  ): Record<string, unknown> | Promise<Record<string, unknown>> {
    if (this.#leases.get(lease.pool) !== lease) {
      throw new DeviceRefusal("revoked", `vf ${poolName(lease.pool)} is no longer yours`);
    }
    const value = this.#serve(lease, request, fds, reply);
    noteRequest(this.#mirror, lease, request);
    return value;
  }

  #serve(
    lease: Lease,
    request: LeaseRequest,
    fds: Fd[],
    reply: number[],
  ): Record<string, unknown> | Promise<Record<string, unknown>> {
    switch (request.op) {
      case "detach":
        lease.onEnded = () => {};
        this.end(lease, request.reason);
        return {};
      case "region":
        reply.push(lease.registers());
        return {};
      case "resume":
        return this.#endHold(lease);
      case "queues":
        return { running: lease.queues.running.map(({ index }) => index) };
      case "fence":
        this.#engine.between(() => {});
        return {};
      case "dmaSet":
        this.tenants.setMemory(lease, request, fds);
        return {};
      case "dmaMap":
        if (!fds[0]) throw new DeviceRefusal("fd-count", "dmaMap needs a descriptor");
        this.tenants.mapMemory(lease, request, fds[0]);
        return {};
      case "dmaUnmap":
        this.tenants.unmapMemory(lease, request);
        return {};
      case "queueStart":
        startQueue({ tenants: this.tenants, policies: this.policies }, lease, request, fds);
        return {};
      case "queueStop":
        return { base: this.tenants.stopQueue(lease, request.index) };
      case "queueCall":
        this.tenants.setCall(lease, request.index, request.call ? fds[0] : undefined);
        if (request.call) fds.shift();
        return {};
      case "queueOffloads":
        this.tenants.setOffloads(lease, request.index, request.features);
        return {};
      case "logStart":
      case "logStop":
      case "logWritten":
      case "queueLog":
        return serveLog(this.tenants, lease, request, fds);
    }
  }

  /** Ends the hold with which the VF came to this owner; a guest has no say in any other. */
  async #endHold({ pool, byGuest, hold }: Lease): Promise<Record<string, unknown>> {
    if (!byGuest || this.holds.of(pool)?.id === hold?.id) await this.holds.end(pool);
    return {};
  }
}
