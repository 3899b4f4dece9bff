/** The memory that a session's rings and buffers lie in, and what becomes of the rings when it changes. */
import type { Fd } from "../../shared/os/mod.ts";
import type { VhostRegion } from "../../shared/vhost_user/mod.ts";
import type { BackendSlot } from "./backend_slot.ts";
import { Inflight } from "./inflight.ts";
import { MemoryTable, toDevice } from "./memory.ts";
import type { Ask } from "./ring_backend.ts";
import { isMapped } from "./ring_start.ts";
import { fdsOf, type KeptObject, type Part, valueOf } from "./standby/mod.ts";
import type { Vring } from "./vring.ts";

/** The rings, as a change of their memory needs them. */
export interface RingsInMemory {
  readonly all: Vring[];
  stop(ring: Vring): Promise<void>;
  /** Starts or stops every ring, as what has been said of it demands. */
  settleAll(): Promise<void>;
}

/** The memory of one session. */
export class RingMemory {
  readonly #rings: RingsInMemory;
  readonly #slot: Pick<BackendSlot, "ask">;
  #table = new MemoryTable();
  /** Where the front-end keeps the rings' positions, if it does. */
  #inflight: Inflight | undefined;

  constructor(rings: RingsInMemory, slot: Pick<BackendSlot, "ask">) {
    this.#rings = rings;
    this.#slot = slot;
  }

  /** What is mapped now. */
  get table(): MemoryTable {
    return this.#table;
  }

  get inflight(): Inflight | undefined {
    return this.#inflight;
  }

  /** Gives a backend that knows nothing all of it. */
  async tell(ask: Ask): Promise<void> {
    if (this.#table.size > 0 || this.#inflight) await this.#give(ask, this.#table);
  }

  async #give(ask: Ask, table: MemoryTable): Promise<void> {
    const [regions, fds] = this.#inflight ? [[this.#inflight.region], [this.#inflight.fd.number]] : [[], []];
    await ask({ op: "dmaSet", regions: [...table.regions, ...regions] }, [...table.fds, ...fds]);
  }

  /**
   * Has the rings' positions kept in `inflight` from now on, which is taken over. No ring runs. What was kept before stays
   * if the backend refuses: both would be at one address.
   */
  async keepIn(inflight: Inflight): Promise<void> {
    const before = this.#inflight;
    if (before) {
      const { iova, size } = before.region;
      await this.#slot.ask({ op: "dmaUnmap", iova, size });
    }
    try {
      await this.#map(inflight);
    } catch (error) {
      if (before) await this.#map(before);
      throw error;
    }
    this.#inflight = inflight;
    before?.fd.close();
  }

  async #map({ fd, region }: Inflight): Promise<void> {
    await this.#slot.ask({ op: "dmaMap", region }, [fd.number]);
  }

  /** Replaces the table; takes the new one over if it is accepted. */
  async set(table: MemoryTable): Promise<void> {
    await this.#leaving(table, () => this.#give((body, fds) => this.#slot.ask(body, fds), table));
    this.#table.close();
    this.#table = table;
    await this.#rings.settleAll();
  }

  /** Adds a checked region and takes its descriptor over. */
  async add(region: VhostRegion, fd: Fd): Promise<void> {
    await this.#slot.ask({ op: "dmaMap", region: toDevice(region) }, [fd.number]);
    this.#table.add(region, fd);
    await this.#rings.settleAll();
  }

  /** Takes a region away. Rings in it stop, and go on when it is there again. */
  async remove(region: VhostRegion): Promise<void> {
    const { iova, size } = toDevice(region);
    await this.#leaving(this.#table.without(region), () => this.#slot.ask({ op: "dmaUnmap", iova, size }));
    this.#table.remove(region);
  }

  /**
   * Has the backend change the memory to `next`. Rings that will not be where they are now stop before: they go on when
   * they are somewhere again, or if the backend refuses.
   */
  async #leaving(next: MemoryTable, change: () => Promise<unknown>): Promise<void> {
    for (const ring of this.#rings.all) {
      if (ring.running && !isMapped(ring, next, this.#table)) await this.#rings.stop(ring);
    }
    try {
      await change();
    } catch (error) {
      await this.#rings.settleAll();
      throw error;
    }
  }

  /** What whoever stands by has of it. */
  get kept(): { memory: Part; inflight: Part | undefined } {
    return { memory: this.#table.kept, inflight: this.#inflight?.kept };
  }

  /** Goes on with the memory of a process that has ended. */
  adopt(object: KeptObject): void {
    this.#table = MemoryTable.of(valueOf<VhostRegion[]>(object, "memory"), fdsOf(object, "memory"));
    const inflight = object.get("inflight");
    this.#inflight = inflight && Inflight.adopt(inflight);
  }

  close(): void {
    this.#inflight?.fd.close();
    this.#table.close();
  }
}
