/** What the PF tells whoever listens. */
import { log, type NicEvent, type PfEvent } from "../../shared/api/mod.ts";

/** Events that are kept for listeners that come back. */
const KEPT_MAX = 1000;
/** Those of one VF among them: its guest causes as many as it likes, and is not to have the others forgotten. */
const OF_ONE_MAX = 250;

/** Whom events are told: each with its id, and when it happened, as ISO 8601 has it. */
export type EventListener = (event: PfEvent, id?: string, at?: string) => void;

interface KeptEvent {
  count: number;
  whose: string | undefined;
  id: string;
  event: PfEvent;
  at: string;
}

/** Whose an event is, among those that guests cause. */
function whoseOf(event: PfEvent): string | undefined {
  if ("vf" in event) return `vf ${event.vf}`;
  return "vport" in event ? `vport ${event.vport}` : undefined;
}

/** The PF's event stream. */
export class Events {
  readonly #listeners = new Set<EventListener>();
  /** Ids are good for this PF alone. */
  readonly #instance = crypto.randomUUID().slice(0, 8);
  readonly #kept: KeptEvent[] = [];
  #count = 0;
  /** The latest of those that are not kept any more. */
  #forgotten = 0;

  /**
   * Calls `listener` with every event until the returned function is called. One that says which it has heard last gets
   * those since then first; if some of them are not kept any more, it is told that it has missed some.
   */
  subscribe(listener: EventListener, lastId?: string): () => void {
    if (lastId !== undefined) {
      const at = this.#kept.findIndex(({ id }) => id === lastId);
      if (at < 0 || (this.#kept[at]?.count ?? 0) < this.#forgotten) listener({ type: "missed" });
      for (const { id, event, at: time } of this.#kept.slice(at + 1)) listener(event, id, time);
    }
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Calls `listener` with the latest `most` events that are kept, oldest first. */
  tellLatest(most: number, listener: EventListener): void {
    for (const { event, id, at } of this.#kept.slice(Math.max(0, this.#kept.length - most))) listener(event, id, at);
  }

  emit(event: PfEvent): void {
    const id = `${this.#instance}-${++this.#count}`;
    const at = new Date().toISOString();
    this.#keep({ count: this.#count, whose: whoseOf(event), id, event, at });
    for (const listener of this.#listeners) listener(event, id, at);
  }

  /** Keeps an event in place of the oldest one of the same VF, or of all, if they are too many. */
  #keep(kept: KeptEvent): void {
    this.#kept.push(kept);
    const own = kept.whose === undefined ? [] : this.#kept.filter(({ whose }) => whose === kept.whose);
    const most = own.length > OF_ONE_MAX ? own[0] : this.#kept.length > KEPT_MAX ? this.#kept[0] : undefined;
    if (most === undefined) return;
    this.#kept.splice(this.#kept.indexOf(most), 1);
    this.#forgotten = Math.max(this.#forgotten, most.count);
  }

  /** Passes on what the NIC has told. */
  relay(event: Exclude<NicEvent, { type: "uplink" }>): void {
    const { pool, type } = event;
    if (type === "attached") this.emit({ type, vf: pool });
    else if (type === "spoofed") {
      log("warn", "pf", `vf ${pool}: ${event.frames} frames with a source address that is not its own were dropped`);
      this.emit({ type, vf: pool, frames: event.frames });
    } else if (type === "detached") this.emit({ type, vf: pool, reason: event.reason });
    else this.emit({ type, vf: pool, index: event.index, reason: event.reason });
  }
}
