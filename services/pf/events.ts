/** What the PF tells whoever listens. */
import { log, type NicEvent, type PfEvent } from "../../shared/api/mod.ts";

/** The PF's event stream. */
export class Events {
  readonly #listeners = new Set<(event: PfEvent) => void>();

  /** Calls `listener` with every event until the returned function is called. */
  subscribe(listener: (event: PfEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  emit(event: PfEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  /** Passes on what the NIC has told. */
  relay(event: NicEvent): void {
    const { pool, type } = event;
    if (type === "attached") this.emit({ type, vf: pool });
    else if (type === "spoofed") {
      log("warn", "pf", `vf ${pool}: ${event.frames} frames with a source address that is not its own were dropped`);
      this.emit({ type, vf: pool, frames: event.frames });
    } else if (type === "detached") this.emit({ type, vf: pool, reason: event.reason });
    else this.emit({ type, vf: pool, index: event.index, reason: event.reason });
  }
}
