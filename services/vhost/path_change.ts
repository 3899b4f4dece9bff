/** Has another data path serve a session's rings, while they run, with nothing lost. */
import type { RingPath } from "./ring_backend.ts";
import { DeviceRefusal } from "../../shared/device/mod.ts";
import type { BackendSlot } from "./backend_slot.ts";
import type { GuestLog } from "./guest_log.ts";
import { type Ask, isDirectPath } from "./ring_backend.ts";
import type { RingMemory } from "./ring_memory.ts";
import type { RingRunner } from "./ring_runner.ts";
import type { Vring } from "./vring.ts";

/** The rings, as a change of their path needs them. */
export interface RingsOnPath {
  readonly all: Vring[];
  /** All but the control queue. */
  readonly data: Vring[];
  readonly memory: Pick<RingMemory, "tell">;
  readonly log: Pick<GuestLog, "isOn" | "tell">;
  stop(ring: Vring): Promise<void>;
  settleAll(): Promise<void>;
}

/** What serves them, and who is told. */
export interface PathParts {
  slot: BackendSlot;
  runner: Pick<RingRunner, "start">;
  log(level: "info" | "warn", message: string): void;
  /** Nobody can serve the rings any more. */
  lost(): void;
}

/** The front-end has gone while a change waited. */
export function gone(): never {
  throw new DeviceRefusal("no-guest", "the front-end has gone");
}

/** Changes the path of one session's rings. */
export class PathChange {
  readonly #rings: RingsOnPath;
  readonly #parts: PathParts;

  constructor(rings: RingsOnPath, parts: PathParts) {
    this.#rings = rings;
    this.#parts = parts;
  }

  /**
   * What is on its way is delivered first. If anything fails, the rings go on with the path they had, and the reason is
   * thrown. But a guest that has driven its VF itself does not get it again: if nobody can serve its rings, its session ends.
   */
  async to(path: RingPath): Promise<void> {
    const { slot, log, lost } = this.#parts;
    if (path === slot.path) return;
    if (path === "guest" && this.#rings.log.isOn) {
      throw new DeviceRefusal("moves", "the guest is being moved to another host");
    }
    const before = slot.path;
    await slot.beginChange();
    await this.#quiesce(this.#rings.data.filter((ring) => ring.running));
    await slot.release("its data path changes");
    try {
      await this.#takeOver(path);
    } catch (error) {
      if (before === "guest") {
        if (isDirectPath(path) && await this.#tryCopying(error as Error)) return;
        log("warn", `no longer drives its VF, and nobody serves its rings: ${(error as Error).message}`);
        return lost();
      }
      await this.#takeOver(before).catch((cause) => {
        lost();
        throw new Error(`${(error as Error).message}; and the way back failed: ${(cause as Error).message}`);
      });
      throw error;
    }
  }

  /** Serves the rings of a guest that has nobody else, for want of what zero copy takes; false if that fails too. */
  async #tryCopying({ message }: Error): Promise<boolean> {
    this.#parts.log("warn", `its frames are copied, since the NIC cannot have its memory: ${message}`);
    return await this.#takeOver("emulated").then(() => true, () => false);
  }

  /** Stops the rings between two frames, transmit rings first, with nothing left on its way. */
  async #quiesce(running: readonly Vring[]): Promise<void> {
    const { slot, runner } = this.#parts;
    const transmit = running.filter((ring) => ring.index % 2 === 1);
    for (const ring of transmit) await this.#rings.stop(ring);
    try {
      await slot.drain();
    } catch (error) {
      for (const ring of transmit) await runner.start(ring);
      throw error;
    }
    for (const ring of running) await this.#rings.stop(ring);
  }

  /** Has the path that is chosen serve the rings, which nobody serves. */
  begin(): Promise<void> {
    return this.#takeOver(this.#parts.slot.path);
  }

  async #takeOver(path: RingPath): Promise<void> {
    const { slot } = this.#parts;
    await slot.take(path);
    if (!slot.isTaken) return;
    try {
      const ask: Ask = (body, fds) => slot.ask(body, fds);
      await this.#rings.memory.tell(ask);
      await this.#rings.log.tell(ask);
      await this.#rings.settleAll();
    } catch (error) {
      // Where they got to is where the way back begins.
      for (const ring of this.#rings.data) await this.#rings.stop(ring).catch(() => ring.running = false);
      await slot.release((error as Error).message);
      throw error;
    }
  }
}
