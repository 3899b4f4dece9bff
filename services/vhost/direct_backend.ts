/**
 * Emulated mode with the guest's own buffers on the VF's queue pair: zero copy, or all but the headers. The NIC has the
 * guest's memory beside the pair's own, each region at the address at which this service's engine has it. Before a ring
 * stops, or the memory changes, what is outstanding is finished or taken back.
 */
import {
  HALT_RX,
  HALT_TX,
  MEMORY_GONE,
  Q_DIRECT,
  QUEUE_STRIDE,
  QUEUES,
  QUEUES_PER_POOL,
} from "../../shared/layout/nic.ts";
import type { PathFrames } from "../../shared/api/mod.ts";
import { Turns } from "../../shared/async/mod.ts";
import { DeviceRefusal, type MemoryRegion, Request, type RequestInput } from "../../shared/device/mod.ts";
import { isMemoryLost, type Tenant } from "../../shared/engine/mod.ts";
import { duplicateFd, type Fd, shutDown } from "../../shared/os/mod.ts";
import { DirectPath, HALT_ALL } from "./direct_path.ts";
import { EmulatedBackend, type PairPath } from "./emulated_backend.ts";
import type { Emulation } from "./emulation.ts";
import { type Directness, directState } from "./pair_layout.ts";
import type { PortContext } from "./port_context.ts";
import type { RingBackendEvents } from "./ring_backend.ts";
import type { KeptPart } from "./standby/mod.ts";

type MemoryRequest = Extract<Request, { op: "dmaSet" | "dmaMap" | "dmaUnmap" }>;

/** What a recall costs of the port's budget beside its request: the NIC stands still up to three times. */
const RECALL_COST = 3;
/** How long a change of the memory waits for a NIC that is away. */
const NIC_AWAY_MS = 20_000;

/** A region as the NIC has it, and its file. */
interface Shared {
  region: MemoryRegion;
  fd: Fd;
}

/** The direct paths of emulated mode. */
export class DirectBackend extends EmulatedBackend {
  readonly #directness: Directness;
  readonly #turns = new Turns();
  #path: DirectPath | undefined;
  /** What the guest's driver may leave to be finished, and what it accepts so. */
  #features = 0n;
  /** What the NIC has of the guest's memory, by address. */
  readonly #shared = new Map<number, Shared>();
  /** Part of the guest's memory was lost: the NIC has none of it until there is another table. */
  #isSuspended = false;

  constructor(emulation: Emulation, context: PortContext, events: RingBackendEvents, directness: Directness) {
    super(emulation, context, events);
    this.#directness = directness;
  }

  protected override pairOptions(): PairPath {
    return {
      directness: this.#directness,
      features: () => this.#features,
      guestMemory: () => ({
        regions: [...this.#shared.values()].map(({ region }) => region),
        fds: [...this.#shared.values()].map(({ fd }) => fd.number),
      }),
      guestQueues: () => this.tenant?.queues.transmitters ?? [],
      onLost: () => this.#path?.settle(),
      onFailed: (reason: string) => void this.#turns.take(() => this.#failed(reason)),
    };
  }

  override async attach(): Promise<void> {
    await super.attach();
    const { pair, tenant } = this;
    if (!pair || !tenant) return;
    this.#path = new DirectPath(this.emulation.engine, pair);
    tenant.onQueueError = (index, reason) => {
      this.events.queueFailed(index, reason);
      void this.#turns.take(() => isMemoryLost(reason) ? this.#suspend(reason) : this.#withoutQueue(index));
    };
  }

  /** What is outstanding at the NIC has gone with the books that the other process had: the path begins anew. */
  override adopt({ value, fds }: KeptPart): Promise<boolean> {
    const { pair } = value as { pair?: { isAttached: boolean } };
    const device = pair?.isAttached ? fds.pop() : undefined;
    if (device) shutDown(device.number);
    for (const fd of [...fds.splice(0), device]) fd?.close();
    return Promise.resolve(false);
  }

  protected override started(tenant: Tenant, index: number): void {
    super.started(tenant, index);
    if (index % 2 === 0 || !this.pair) return;
    const queue = QUEUES + (tenant.pool * QUEUES_PER_POOL + index) * QUEUE_STRIDE;
    this.emulation.engine.view.setUint32(queue + Q_DIRECT, directState(this.pair.memory), true);
  }

  override request(body: RequestInput, fds: readonly number[] = []): Promise<Record<string, unknown>> {
    return this.#turns.take(async () => {
      const request = Request.parse(body);
      switch (request.op) {
        case "dmaSet":
        case "dmaMap":
        case "dmaUnmap":
          await this.#changeMemory(request, fds);
          return {};
        case "queueStart":
          if (this.#isSuspended) {
            throw new DeviceRefusal("memory-gone", "the guest's memory file was truncated: share memory anew first");
          }
          await this.#setOffloads(request.index, request.features);
          return await super.request(body, fds);
        case "queueOffloads":
          await this.#setOffloads(request.index, request.features);
          return await super.request(body, fds);
        case "queueStop":
          return await this.#withRecalled(request.index % 2 === 0 ? HALT_RX : HALT_TX, () => super.request(body));
        default:
          return await super.request(body, fds);
      }
    });
  }

  /** Has the NIC finish for the guest what its driver does not accept, and refuse it what it may not ask for. */
  async #setOffloads(index: number, features: bigint): Promise<void> {
    this.#features = features;
    // A NIC that is away learns it when the pair attaches to it.
    await this.pair?.ask({ op: "queueOffloads", index: index % 2, features }).catch((error) => {
      if (!(error instanceof DeviceRefusal) || error.code !== "nic-gone") throw error;
    });
  }

  /** Does a step while nothing is outstanding in these directions. */
  async #withRecalled<T>(bits: number, step: () => Promise<T>): Promise<T> {
    await this.context.pace.step(RECALL_COST);
    await this.#path?.recall(bits);
    try {
      return await step();
    } finally {
      this.#path?.resume(bits, this.tenant?.queues.transmitters ?? []);
    }
  }

  // Memory ---------------------------------------------------------------------------------------------------

  /** The NIC first: it has to know a region before a buffer in it goes there, and until none is there any more. */
  async #changeMemory(request: MemoryRequest, fds: readonly number[]): Promise<void> {
    const { tenant, emulation: { tenants } } = this;
    if (!tenant) throw new DeviceRefusal("not-attached", "this data path has ended");
    const own = fds.map(duplicateFd);
    try {
      using staged = tenants.stageMemory(tenant, request, own);
      await this.#withRecalled(HALT_ALL, async () => {
        const next = this.#sharedBy(request, staged.pointers, own);
        await this.#tellNic(request, next);
        tenants.changeMemory(tenant, staged);
        this.#keep(next, own);
        if (!this.#isSuspended) return;
        await this.pair?.revive();
        this.#isSuspended = false;
      });
    } finally {
      for (const fd of own) fd.close();
    }
  }

  /** What the NIC is to have after a change of the memory. */
  #sharedBy(request: MemoryRequest, pointers: readonly number[], fds: readonly Fd[]): Map<number, Shared> {
    const place = (region: MemoryRegion, pointer: number) => ({ ...region, iova: BigInt(pointer) });
    if (request.op === "dmaSet") {
      return new Map(request.regions.map((region, i) => {
        const pointer = pointers[i] as number;
        return [pointer, { region: place(region, pointer), fd: fds[i] as Fd }];
      }));
    }
    const there = new Set(pointers);
    const next = new Map([...this.#shared].filter(([pointer]) => there.has(pointer)));
    const fresh = pointers.find((pointer) => !this.#shared.has(pointer));
    if (request.op === "dmaMap" && fresh !== undefined) {
      next.set(fresh, { region: place(request.region, fresh), fd: fds[0] as Fd });
    }
    return next;
  }

  /** Tells the NIC of a change of the memory; throws what it refuses with. */
  async #tellNic(request: MemoryRequest, next: ReadonlyMap<number, Shared>): Promise<void> {
    const { pair } = this;
    if (!pair || this.#isSuspended) return;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const away = new Promise<void>((resolve) => timer = setTimeout(resolve, NIC_AWAY_MS));
    await Promise.race([pair.attached, away]);
    clearTimeout(timer);
    const [fresh] = [...next].filter(([pointer]) => !this.#shared.has(pointer)).map(([, shared]) => shared);
    const [gone] = [...this.#shared].filter(([pointer]) => !next.has(pointer)).map(([, { region }]) => region);
    if (request.op === "dmaMap" && fresh) {
      await pair.ask({ op: "dmaMap", region: fresh.region }, [fresh.fd.number]);
    } else if (request.op === "dmaUnmap" && gone) {
      await pair.ask({ op: "dmaUnmap", iova: gone.iova, size: gone.size });
    } else {
      const all = [...next.values()];
      const regions = [pair.region, ...all.map(({ region }) => region)];
      await pair.ask({ op: "dmaSet", regions }, [pair.file, ...all.map(({ fd }) => fd.number)]);
    }
  }

  /** Keeps what is in force now; files that come with the request are duplicated, those that go are closed. */
  #keep(next: ReadonlyMap<number, Shared>, passing: readonly Fd[]): void {
    const before = [...this.#shared.values()];
    this.#shared.clear();
    for (const [pointer, { region, fd }] of next) {
      this.#shared.set(pointer, { region, fd: passing.includes(fd) ? fd.duplicate() : fd });
    }
    const kept = new Set([...this.#shared.values()].map(({ fd }) => fd));
    for (const { fd } of before) if (!kept.has(fd)) fd.close();
  }

  // What fails -----------------------------------------------------------------------------------------------

  /** A ring of the guest's has stopped by itself: its buffers leave the NIC. */
  async #withoutQueue(index: number): Promise<void> {
    if (index % 2 === 0) await this.#withRecalled(HALT_RX, () => Promise.resolve());
  }

  /** The NIC has stopped a queue of the pair. */
  async #failed(reason: string): Promise<void> {
    if (!isMemoryLost(reason)) {
      this.context.log("warn", `the NIC has stopped the driver pair: ${reason}`);
      return await this.pair?.sever();
    }
    const { tenant, emulation } = this;
    if (!tenant || this.#isSuspended) return;
    emulation.engine.between(() => tenant.queues.failAll(MEMORY_GONE));
    emulation.tenants.reportErrors();
    await this.#suspend(reason);
  }

  /** Part of the guest's memory is gone: the NIC gets none of it any more, and the guest's rings stay stopped. */
  async #suspend(reason: string): Promise<void> {
    if (this.#isSuspended || !this.pair) return;
    this.#isSuspended = true;
    await this.#path?.recall(HALT_ALL);
    await this.pair.suspend(reason);
    this.#path?.settle();
  }

  /** How the guest's frames have gone. */
  override get frames(): PathFrames | undefined {
    return this.#path?.frames;
  }

  override async release(reason: string): Promise<void> {
    await this.#turns.take(async () => {
      await this.#path?.recall(HALT_ALL);
      this.#path = undefined;
    });
    await super.release(reason);
    this.#keep(new Map(), []);
  }
}
