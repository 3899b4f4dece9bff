/**
 * The settings, in force in the NIC and the software switch and kept on disk. Changes come one after the other, and each
 * is in force and on disk, or not at all. When a service comes back the whole programme is sent again, in turn with the
 * changes.
 */
import { Turns } from "../../shared/async/mod.ts";
import type { VhostEvent } from "../../shared/api/mod.ts";
import type { Events } from "./events.ts";
import type { Links } from "./links.ts";
import { concernsSwitch, nicProgramme, switchProgramme } from "./programme.ts";
import type { Settings, Store } from "./store.ts";

/** The settings, and how they change. */
export class SettingsInForce {
  readonly #store: Store;
  readonly #links: Links;
  readonly #turns = new Turns();
  readonly #following: Promise<unknown>;
  #now: Settings;
  /** Told what guests wish by their control queues. */
  onWish: (event: VhostEvent) => void = () => {};

  /** Keeps NIC and switch programmed with what `store` has, until `close`; what the NIC tells goes to `events`. */
  constructor(store: Store, links: Links, events: Events) {
    this.#store = store;
    this.#links = links;
    this.#now = store.load();
    const { nic, software } = links;
    this.#following = Promise.all([
      nic.follow(
        () => this.#turns.take(() => nic.program(nicProgramme(this.#now))),
        (event) => events.relay(event),
        (up) => events.emit({ type: up ? "nic-up" : "nic-down" }),
      ),
      software.follow(
        () => this.#turns.take(() => software.program(switchProgramme(this.#now))),
        (event) => this.onWish(event),
        () => {},
      ),
    ]);
  }

  get now(): Settings {
    return this.#now;
  }

  /** Makes one change. Throws what `step` throws, or why it cannot be in force; nothing has changed then. */
  change(step: (before: Settings) => Settings | Promise<Settings>): Promise<void> {
    return this.#turns.take(async () => {
      const { nic, software } = this.#links;
      const before = this.#now;
      const next = await step(before);
      if (next === before) return;
      let isSwitchAsked = false;
      try {
        await this.#store.save(next, async () => {
          await nic.program(nicProgramme(next));
          if (!concernsSwitch(next, before)) return;
          isSwitchAsked = true;
          await software.program(switchProgramme(next));
        });
      } catch (error) {
        // The NIC may have taken what the disk then refused, or take late what timed out here.
        await nic.program(nicProgramme(before)).catch(() => nic.reconnect());
        if (isSwitchAsked) software.reconnect();
        throw error;
      }
      this.#now = next;
    });
  }

  async close(): Promise<void> {
    this.#links.nic.close();
    this.#links.software.close();
    await this.#following;
    await this.#turns.settled;
  }
}
