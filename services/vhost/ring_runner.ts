/** Starts and stops a session's rings: data rings with the backend, the control queue with this service. */
import { VIRTQ_PACKED_BASE_INITIAL } from "../../shared/layout/virtio.ts";
import { DeviceRefusal } from "../../shared/device/mod.ts";
import type { Fd } from "../../shared/os/mod.ts";
import { GUEST_OFFLOADS, isMemoryLost, LOST_MEMORY_COST } from "../../shared/engine/mod.ts";
import type { BackendSlot } from "./backend_slot.ts";
import type { ControlQueue } from "./control/queue.ts";
import type { GuestLog } from "./guest_log.ts";
import type { Inflight } from "./inflight.ts";
import type { MemoryTable } from "./memory.ts";
import type { SessionContext } from "./port_context.ts";
import type { Ask } from "./ring_backend.ts";
import { baseOf, controlPlace, startRequest } from "./ring_start.ts";
import type { Vring } from "./vring.ts";

/** What of the session's rings their starts depend on. */
export interface RingsPart {
  readonly memory: { readonly table: MemoryTable; readonly inflight: Inflight | undefined };
  readonly log: Pick<GuestLog, "written" | "settled">;
  readonly features: bigint;
  readonly isPacked: boolean;
  readonly controlIndex: number | undefined;
  /** The control queue, for front-ends that leave it to this back-end. */
  readonly control: Pick<ControlQueue, "start" | "stop" | "kept"> | undefined;
  readonly all: Vring[];
}

/** Runs the rings of one session. */
export class RingRunner {
  readonly #rings: RingsPart;
  readonly #slot: BackendSlot;
  readonly #context: SessionContext;
  /** Offloads that the driver has negotiated and switched off. */
  declined = 0n;

  constructor(rings: RingsPart, slot: BackendSlot, context: SessionContext) {
    this.#rings = rings;
    this.#slot = slot;
    this.#context = context;
  }

  /** Starts a ring where it goes on. Without a backend it waits: a guest that drives its VF itself leaves it alone. */
  async start(ring: Vring): Promise<void> {
    const { controlIndex, memory: { table: memory }, features } = this.#rings;
    const base = baseOf(ring, memory, features);
    if (ring.index === controlIndex) {
      // Paid in the front-end's turn, as the starts of other rings are: it cannot ask for more than it waits for.
      await this.#context.pace.step();
      return this.#startControl(ring, base);
    }
    if (!this.#slot.isTaken) return;
    await this.#startWith((body, fds) => this.#slot.ask(body, fds), ring, base);
  }

  /** Has a NIC that has just started go on with rings where the one before stopped. One that it refuses has failed. */
  async continueWith(ask: Ask, rings: readonly Vring[]): Promise<void> {
    for (const ring of rings) {
      try {
        await this.#startWith(ask, ring, -1);
      } catch (error) {
        if (error instanceof DeviceRefusal && error.code === "nic-gone") throw error;
        ring.running = false;
        this.failed(ring.index, (error as Error).message);
      }
    }
  }

  /** Has a backend go on with a ring that ran, wherever that is: a packed ring says it itself. */
  async startAgain(ask: Ask, ring: Vring): Promise<void> {
    ring.hasRun = false;
    await this.#startWith(ask, ring, this.#rings.isPacked ? VIRTQ_PACKED_BASE_INITIAL : 0);
  }

  async #startWith(ask: Ask, ring: Vring, base: number): Promise<void> {
    const { memory: { table: memory, inflight }, isPacked: packed } = this.#rings;
    const [features, at] = [this.#features, inflight?.iovaOf(ring.index, ring.size, packed)];
    const fds = [ring.kick, ring.call].filter((fd) => fd !== undefined).map((fd) => fd.number);
    await ask(startRequest(ring, { memory, features, packed, base, inflight: at }), fds);
    ring.started();
  }

  #startControl(ring: Vring, base: number): void {
    const { memory: { table: memory }, features, isPacked } = this.#rings;
    this.#rings.control?.start({
      packed: isPacked,
      place: controlPlace(ring, { memory, features, packed: isPacked, base }),
      memory: {
        read: (at, bytes) => this.#rings.memory.table.read(at, bytes),
        write: (at, bytes) => {
          const isWritten = this.#rings.memory.table.write(at, bytes);
          if (isWritten) this.#rings.log.written(at, bytes.byteLength);
          return isWritten;
        },
      },
      kick: ring.kick,
      raise: () => void (ring.call && this.#context.notifier.raise(ring.call)),
      failed: (reason) => {
        // It starts again when its driver has set it up anew.
        ring.running = ring.kicked = false;
        this.failed(ring.index, reason);
      },
    });
    ring.started();
  }

  /** Stops a ring between two frames; its base is where it would go on. */
  async stop(ring: Vring): Promise<void> {
    if (!ring.running) return;
    if (ring.index === this.#rings.controlIndex) {
      ring.base = this.#rings.control?.stop() ?? 0;
      await this.#rings.log.settled;
    } else ring.base = Number((await this.#slot.ask({ op: "queueStop", index: ring.index })).base);
    ring.isBaseOurs = true;
    ring.running = false;
  }

  /** Gives a running ring its new call descriptor. */
  async setCall(ring: Vring, fd: Fd | undefined): Promise<void> {
    if (!ring.running || ring.index === this.#rings.controlIndex) return;
    await this.#slot.ask({ op: "queueCall", index: ring.index, call: fd !== undefined }, fd ? [fd.number] : []);
  }

  /** Has writes into a running ring's used ring logged where it says now. The control queue's are, wherever they go. */
  async setUsedLog({ index, running, usedLog }: Vring): Promise<void> {
    if (!running || index === this.#rings.controlIndex) return;
    await this.#slot.ask({ op: "queueLog", index, ...(usedLog === undefined ? {} : { log: usedLog }) });
  }

  /** The features of the data rings: without the offloads that the driver has switched off. */
  get #features(): bigint {
    return this.#rings.features & ~this.declined;
  }

  /** The driver accepts every offload that it has negotiated, as in the beginning. */
  acceptAll(): void {
    this.declined = 0n;
  }

  /** The driver accepts these of its offloads from now on; answers why not, if it has not negotiated them. */
  async useOffloads(offloads: bigint): Promise<string | undefined> {
    const { features, all, controlIndex } = this.#rings;
    const negotiated = features & GUEST_OFFLOADS;
    if ((offloads & ~negotiated) !== 0n) return `offloads 0x${offloads.toString(16)} were not negotiated`;
    this.declined = negotiated & ~offloads;
    for (const { index, running } of all) {
      if (!running || index === controlIndex || index % 2 === 1) continue;
      await this.#slot.ask({ op: "queueOffloads", index, features: this.#features });
    }
    return undefined;
  }

  /** A ring has stopped by itself. */
  failed(index: number, reason: string): void {
    const ring = this.#rings.all.find((ring) => ring.index === index);
    if (!ring) return;
    ring.error = reason;
    if (isMemoryLost(reason)) this.#context.pace.exhaust(LOST_MEMORY_COST);
    this.#context.log("warn", `queue ${index} stopped: ${reason}`);
    if (ring.err) this.#context.notifier.raise(ring.err);
  }
}
