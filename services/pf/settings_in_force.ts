/**
 * The settings, in force in the NIC and the software switch and kept on disk. Changes come one after the other, and each
 * is in force and on disk, or not at all. When a service comes back the whole programme is sent again, in turn with the
 * changes.
 */
import { Turns } from "../../shared/async/mod.ts";
import { log, type NicEvent, oneLine, type PoolName, type PortState, type WishEvent } from "../../shared/api/mod.ts";
import type { Events } from "./events.ts";
import type { Links } from "./links.ts";
import { settled } from "./paused_address_rules.ts";
import { concernsSwitch, nicProgramme, switchProgramme } from "./programme.ts";
import type { Settings, Store } from "./store.ts";
import { carrierOf } from "./uplink_rules.ts";
import { UplinksInForce } from "./uplinks_in_force.ts";

/** The settings, and how they change. */
export class SettingsInForce {
  readonly uplinks: UplinksInForce;
  readonly #store: Store;
  readonly #links: Links;
  readonly #events: Events;
  readonly #turns = new Turns();
  readonly #following: Promise<unknown>;
  #now: Settings;
  /** The NIC has said once what there is: before that nobody knows whether the uplink is up. */
  #hasLearned = false;
  /** Which address each VF has is known. */
  #isSettled: boolean;
  /** The carrier that NIC and switch are programmed with. */
  #carrier: "up" | "down";
  /** Told what guests wish by their control queues. */
  onWish: (event: WishEvent) => void = () => {};
  /** Told which port's guest, which is being moved, has come to stand still. */
  onPaused: (port: PortState["port"]) => void = () => {};

  /** Keeps NIC and switch programmed with what `store` has, until `close`; what the NIC tells goes to `events`. */
  constructor(store: Store, links: Links, events: Events) {
    this.#store = store;
    this.#links = links;
    this.#events = events;
    this.#now = store.load();
    this.#isSettled = Object.keys(this.#now.pausedAddresses).length === 0;
    const { nic, software } = links;
    this.uplinks = new UplinksInForce(nic, events);
    this.#carrier = this.#carrierOf(this.#now);
    this.#following = Promise.all([
      nic.follow(
        () => this.#turns.take(() => this.#restore()),
        (event) => this.#onNic(event),
        (up) => events.emit({ type: up ? "nic-up" : "nic-down" }),
      ),
      software.follow(
        () =>
          this.#turns.take(async () => {
            // With a NIC that is away there is no link.
            await this.#learn().catch(() => {});
            await software.program(switchProgramme(this.#now, this.#carrier));
          }),
        (event) => event.type === "wish" ? this.onWish(event) : this.onPaused(event.port),
        () => {},
      ),
    ]);
  }

  get now(): Settings {
    return this.#now;
  }

  /** The link that ports with linkState auto have. */
  get carrier(): "up" | "down" {
    return this.#carrier;
  }

  #carrierOf(settings: Settings): "up" | "down" {
    return carrierOf(settings, this.uplinks.outcome("uplink"));
  }

  /** The NIC has come back, or this PF: everything is put in force, and a link that is up does not go down for it. */
  async #restore(): Promise<void> {
    await this.#settle();
    await this.uplinks.learn(this.#now);
    this.#hasLearned = true;
    await this.#program(this.#carrierOf(this.#now));
    await this.uplinks.restore(this.#now);
    await this.#follow();
  }

  /** This PF has just started, and something is to be done before the NIC's line is there. Throws if the NIC is away. */
  async #learn(): Promise<void> {
    if (!this.#hasLearned) await this.#restore();
  }

  /** An earlier PF has ended while a guest was moved: the NIC says which address its VF has. Throws if that is away. */
  async #settle(): Promise<void> {
    if (this.#isSettled) return;
    this.#now = settled(this.#now, await this.#links.nic.filters());
    this.#isSettled = true;
    await this.#store.save(this.#now, () => Promise.resolve()).catch((error) => {
      log("warn", "pf", `which addresses VFs have whose guests were being moved is not on disk: ${oneLine(error)}`);
    });
  }

  #onNic(event: NicEvent): void {
    if (event.type !== "uplink") return this.#events.relay(event);
    this.uplinks.relay(event);
    // Whether there is something to follow is seen in its turn: a programme that is under way may be of the state before.
    void this.#turns.take(() => this.#follow()).catch((error) => {
      log("warn", "pf", `cannot follow the uplink: ${oneLine(error)}`);
      this.#links.nic.reconnect();
    });
  }

  /** Tries a pool's uplink again, if it has failed. Throws why it still cannot be. */
  retryUplink(pool: PoolName): Promise<void> {
    return this.#turns.take(async () => {
      await this.uplinks.again(this.#now, pool);
      await this.#follow();
    });
  }

  /** Has NIC and switch follow the uplink's interface. */
  async #follow(): Promise<void> {
    const carrier = this.#carrierOf(this.#now);
    if (carrier !== this.#carrier) await this.#program(carrier);
  }

  async #program(carrier: "up" | "down"): Promise<void> {
    const { nic, software } = this.#links;
    await nic.program(nicProgramme(this.#now, carrier));
    if (carrier === this.#carrier) return;
    this.#carrier = carrier;
    this.#events.emit({ type: "nic-changed", changes: { carrier } });
    if (this.#now.vports.length === 0) return;
    await software.program(switchProgramme(this.#now, carrier)).catch(() => software.reconnect());
  }

  /** Makes one change. Throws what `step` throws, or why it cannot be in force; nothing has changed then. */
  change(step: (before: Settings) => Settings | Promise<Settings>): Promise<void> {
    return this.#turns.take(async () => {
      const { nic, software } = this.#links;
      await this.#settle();
      const before = this.#now;
      const next = await step(before);
      if (next === before) return;
      await this.#learn();
      let carrier = this.#carrier;
      let isSwitchAsked = false;
      try {
        await this.#store.save(next, async () => {
          // The PF's pool is the switch's until that has let go of it.
          if (next.uplinks.pf && !before.uplinks.pf) {
            isSwitchAsked = true;
            await software.program(switchProgramme(next, carrier));
          }
          await this.uplinks.change(next, before);
          carrier = this.#carrierOf(next);
          await nic.program(nicProgramme(next, carrier));
          const isFollowed = carrier !== this.#carrier && next.vports.length > 0;
          if (isSwitchAsked || !(concernsSwitch(next, before) || isFollowed)) return;
          isSwitchAsked = true;
          await software.program(switchProgramme(next, carrier));
        });
      } catch (error) {
        // The NIC may have taken what the disk then refused, or take late what timed out here.
        await this.uplinks.change(before, next).then(() => nic.program(nicProgramme(before, this.#carrier)))
          .catch(() => nic.reconnect());
        if (isSwitchAsked) software.reconnect();
        throw error;
      }
      this.#now = next;
      this.#carrier = carrier;
    });
  }

  /** Makes a change of what is kept, and in force nowhere. Throws what `step` throws, or why it cannot be written. */
  keep(step: (before: Settings) => Settings): Promise<void> {
    return this.#turns.take(async () => {
      await this.#settle();
      const next = step(this.#now);
      if (next === this.#now) return;
      await this.#store.save(next, () => Promise.resolve());
      this.#now = next;
    });
  }

  /**
   * Makes a change that is in force at once, and that what is on disk foresees: whoever makes it has it written afterwards
   * (`keep`), and until then the NIC says whether it was made. Throws why it cannot be in force.
   */
  changeAsForeseen(step: (before: Settings) => Settings): Promise<void> {
    return this.#turns.take(async () => {
      const { nic } = this.#links;
      await this.#settle();
      const before = this.#now;
      const next = step(before);
      if (next === before) return;
      await this.#learn();
      try {
        await nic.program(nicProgramme(next, this.#carrier));
      } catch (error) {
        await nic.program(nicProgramme(before, this.#carrier)).catch(() => nic.reconnect());
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
