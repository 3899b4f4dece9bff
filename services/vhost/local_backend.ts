/** Ring backends in this service's engine: what the emulated path and the software switch have in common. */
import type { PathFrames } from "../../shared/api/mod.ts";
import { Q_STATE, QUEUE_STOPPED } from "../../shared/layout/nic.ts";
import { DeviceRefusal, Request, type RequestInput } from "../../shared/device/mod.ts";
import type { Tenant } from "../../shared/engine/mod.ts";
import { duplicateFd } from "../../shared/os/mod.ts";
import type { Emulation } from "./emulation.ts";
import type { PortContext } from "./port_context.ts";
import type { Ask, RingBackend, RingBackendEvents, Succession } from "./ring_backend.ts";
import type { KeptPart, Part } from "./standby/mod.ts";

/** What of the backend is kept. */
export interface KeptLocal {
  pool: number | undefined;
  /** Buffers of the pool's packet buffer, if it has one. */
  buffer: number | undefined;
}

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
    this.#take(this.enter());
  }

  #take(tenant: Tenant): void {
    this.tenant = tenant;
    tenant.onQueueError = (index, reason) => this.events.queueFailed(index, reason);
    tenant.queues.buffer.onGiven = () => void this.events.changed();
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

  get kept(): Part {
    const { there } = this.tenant?.queues.buffer ?? {};
    const value: KeptLocal = { pool: this.tenant?.pool, buffer: there?.count };
    return { value, fds: there ? [there.file] : [] };
  }

  async adopt({ value, fds }: KeptPart, { rings, tellMemory, startAgain }: Succession): Promise<boolean> {
    const { pool, buffer } = value as KeptLocal;
    const file = buffer === undefined ? undefined : fds.shift();
    if (pool === undefined) return false;
    this.#take(this.emulation.enterAt(pool));
    if (file && buffer !== undefined) this.emulation.adoptBuffer(pool, { count: buffer, file });
    const ask: Ask = (body, fds) => this.request(body, fds);
    await tellMemory(ask);
    // The engine stands by, so it takes note of them: they are where they are.
    for (const ring of rings) await startAgain(ask, ring);
    return true;
  }

  /** Rings that the engine had stopped, and nobody was told of it, are started again: whoever asked for it asks again. */
  async goOn({ wasAsked, rings, startAgain }: Succession): Promise<void> {
    if (!wasAsked || !this.tenant) return;
    const { view } = this.emulation.engine;
    for (const { index, pointer } of this.tenant.queues.running) {
      if (view.getUint32(pointer + Q_STATE, true) !== QUEUE_STOPPED) continue;
      const ring = rings.find((ring) => ring.index === index);
      await this.request({ op: "queueStop", index });
      if (ring) await startAgain((body, fds) => this.request(body, fds), ring);
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
