/** Ring backends in this service's engine: what the emulated path and the software switch have in common. */
import type { PathFrames } from "../../shared/api/mod.ts";
import { DeviceRefusal, Request, type RequestInput } from "../../shared/device/mod.ts";
import type { Tenant } from "../../shared/engine/mod.ts";
import { duplicateFd } from "../../shared/os/mod.ts";
import type { Emulation } from "./emulation.ts";
import type { PortContext } from "./port_context.ts";
import type { RingBackend, RingBackendEvents } from "./ring_backend.ts";

/** A guest's rings in this service's engine. */
export abstract class LocalBackend implements RingBackend {
  protected readonly emulation: Emulation;
  protected readonly context: PortContext;
  protected readonly events: RingBackendEvents;
  protected tenant: Tenant | undefined;

  constructor(emulation: Emulation, context: PortContext, events: RingBackendEvents) {
    this.emulation = emulation;
    this.context = context;
    this.events = events;
  }

  /** Gets a pool of the engine. */
  protected abstract enter(): Tenant;

  get rings(): RingBackend["rings"] {
    const { tenant, emulation: { tenants, limits } } = this;
    return tenant && { queues: tenant.queues.states(), limits: tenants.usage(tenant.pool, limits) };
  }

  // deno-lint-ignore require-await
  async attach(): Promise<void> {
    this.tenant = this.enter();
    this.tenant.onQueueError = (index, reason) => this.events.queueFailed(index, reason);
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
        case "queueOffloads":
          tenants.setOffloads(tenant, request.index, request.features);
          return {};
        case "logStart":
        case "logStop":
        case "logWritten":
        case "queueLog":
          return tenants.serveLog(tenant, request, own);
        default:
          throw new DeviceRefusal("bad-request", `${request.op} is not for this data path`);
      }
    } finally {
      for (const fd of own) fd.close();
    }
  }

  /** A queue has started; the engine stands still. */
  protected started(_tenant: Tenant, _index: number): void {}

  abstract settingsChanged(): void;
  get frames(): PathFrames | undefined {
    return undefined;
  }

  abstract drain(): Promise<void>;

  release(_reason: string): Promise<void> {
    if (this.tenant) this.emulation.leave(this.tenant);
    this.tenant = undefined;
    return Promise.resolve();
  }
}
