/**
 * Drivers that run in this service's engine: the emulated data path of a VF's guest, which has a trunk to its VF, and
 * that of a guest on the software switch, which has a pool there and nothing else.
 */
import { Q_WIRE, QUEUE_STRIDE, QUEUES, QUEUES_PER_POOL } from "../../shared/layout/nic.ts";
import { DeviceRefusal, Request, type RequestInput } from "../../shared/device/mod.ts";
import { QUEUE_FEATURES, type Tenant } from "../../shared/engine/mod.ts";
import { duplicateFd } from "../../shared/os/mod.ts";
import { type Driver, type DriverEvents, poolOf, type PortContext } from "./driver.ts";
import type { Emulation } from "./emulation.ts";
import type { Trunk } from "./trunk.ts";

/** A guest's rings in this service's engine. */
class LocalDriver implements Driver {
  protected readonly emulation: Emulation;
  protected readonly context: PortContext;
  readonly #events: DriverEvents;
  protected tenant: Tenant | undefined;

  constructor(emulation: Emulation, context: PortContext, events: DriverEvents) {
    this.emulation = emulation;
    this.context = context;
    this.#events = events;
  }

  protected enter(): Tenant {
    return this.emulation.enter();
  }

  attach(): Promise<bigint> {
    this.tenant = this.enter();
    this.tenant.onQueueError = (index, reason) => this.#events.queueFailed(index, reason);
    return Promise.resolve(QUEUE_FEATURES);
  }

  // deno-lint-ignore require-await
  async request(body: RequestInput, fds: readonly number[] = []): Promise<Record<string, unknown>> {
    const { tenant } = this;
    if (!tenant) throw new DeviceRefusal("not-attached", "this data path has ended");
    const request = Request.parse(body);
    const { tenants } = this.emulation;
    const own = fds.map(duplicateFd);
    try {
      switch (request.op) {
        case "dmaSet":
          tenants.setMemory(tenant, request, own);
          return {};
        case "dmaMap":
          if (!own[0]) throw new DeviceRefusal("fd-count", "dmaMap needs a descriptor");
          tenants.mapMemory(tenant, request, own[0]);
          return {};
        case "dmaUnmap":
          tenants.unmapMemory(tenant, request);
          return {};
        case "queueStart": {
          const kick = request.kick ? own[0] : undefined;
          const call = request.call ? own[request.kick ? 1 : 0] : undefined;
          tenants.startQueue(tenant, request, [kick, call], () => this.started(tenant, request.index));
          own.length = 0;
          return {};
        }
        case "queueStop":
          return { base: tenants.stopQueue(tenant, request.index) };
        case "queueCall":
          tenants.setCall(tenant, request.index, own.shift());
          return {};
        default:
          throw new DeviceRefusal("bad-request", `${request.op} is not for this data path`);
      }
    } finally {
      for (const fd of own) fd.close();
    }
  }

  /** A queue has started; the engine stands still. */
  protected started(_tenant: Tenant, _index: number): void {}

  drain(): Promise<void> {
    return Promise.resolve();
  }

  release(_reason: string): Promise<void> {
    if (this.tenant) this.emulation.leave(this.tenant);
    this.tenant = undefined;
    return Promise.resolve();
  }
}

/** Emulated mode of a guest with a VF. */
export class EmulatedDriver extends LocalDriver {
  #trunk: Trunk | undefined;

  override async attach(): Promise<bigint> {
    const features = await super.attach();
    const { deviceSocket, reactor, name, log } = this.context;
    const pool = this.tenant?.pool ?? 0;
    try {
      this.#trunk = await this.emulation.connect({
        deviceSocket,
        reactor,
        remote: poolOf(name),
        pool,
        owner: `vhost (pid ${Deno.pid})`,
        wired: true,
        isReceiving: () => this.tenant?.queues.isReceiving ?? false,
        log,
      });
      return features;
    } catch (error) {
      await super.release((error as Error).message);
      throw error;
    }
  }

  protected override started(tenant: Tenant, index: number): void {
    if (index % 2 === 0 || !this.#trunk) return;
    const queue = QUEUES + (tenant.pool * QUEUES_PER_POOL + index) * QUEUE_STRIDE;
    this.emulation.engine.view.setUint32(queue + Q_WIRE, this.#trunk.sink, true);
  }

  override async drain(): Promise<void> {
    await this.#trunk?.drain();
  }

  override async release(reason: string): Promise<void> {
    // The guest's queues first: nothing may be sent into a trunk that is being taken down. The pool stays claimed.
    if (this.tenant) this.emulation.tenants.remove(this.tenant);
    const trunk = this.#trunk;
    this.#trunk = undefined;
    if (trunk) await this.emulation.disconnect(trunk, reason);
    await super.release(reason);
  }
}

/** A guest on the software switch. */
export class SwitchDriver extends LocalDriver {
  readonly #pool: number;

  constructor(emulation: Emulation, context: PortContext, events: DriverEvents, pool: number) {
    super(emulation, context, events);
    this.#pool = pool;
  }

  protected override enter(): Tenant {
    return this.emulation.enterAt(this.#pool);
  }

  /** What came by the uplink before the guest's frames went elsewhere is to be with the guest first. */
  override async drain(): Promise<void> {
    await this.emulation.drainUplink();
  }
}
