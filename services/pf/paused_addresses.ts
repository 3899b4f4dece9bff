/**
 * The addresses that VFs get when their guests, which are moved to other hosts, stand still: each second counts then, so
 * nothing is asked of whoever moves the guest, and nothing is written to disk. What may happen is on disk beforehand.
 */
import { log, oneLine, type PausedAddress, type PausedAddressHandlers, type PortState } from "../../shared/api/mod.ts";
import type { Events } from "./events.ts";
import { withPair } from "./paused_address_rules.ts";
import { difference, findVf, patchVf } from "./policy.ts";
import type { SettingsInForce } from "./settings_in_force.ts";

/** Keeps them, and puts them in force. */
export class PausedAddresses implements PausedAddressHandlers {
  readonly #settings: SettingsInForce;
  readonly #events: Events;
  /** Until when whoever moves a guest is to be heard of again. */
  readonly #patience = new Map<number, ReturnType<typeof setTimeout>>();

  constructor(settings: SettingsInForce, events: Events) {
    [this.#settings, this.#events] = [settings, events];
    settings.onPaused = (port) => void this.#paused(port);
  }

  /** Sets one, on disk when this resolves. Throws why the VF may not have it. */
  async set(vf: number, { mac, macFixed, forMs }: PausedAddress): Promise<void> {
    findVf(this.#settings.now, vf);
    const to = { mac, macFixed };
    clearTimeout(this.#patience.get(vf));
    this.#patience.set(vf, setTimeout(() => void this.#late(vf), forMs));
    await this.#settings.change((before) => {
      const { mac: own, macFixed: isOwnFixed } = findVf(before, vf);
      const known = before.pausedAddresses[vf];
      const isKnown = known?.to.mac === mac && known.to.macFixed === macFixed;
      if (isKnown && (own === known.from.mac || own === mac)) return before;
      patchVf(before, vf, to);
      return withPair(before, vf, { from: { mac: own, macFixed: isOwnFixed }, to });
    });
  }

  /** The VF keeps the address that it has, on disk when this resolves. */
  async remove(vf: number): Promise<void> {
    findVf(this.#settings.now, vf);
    clearTimeout(this.#patience.get(vf));
    this.#patience.delete(vf);
    // It may have been said again meanwhile.
    await this.#settings.change((before) => {
      return this.#patience.has(vf) || !before.pausedAddresses[vf] ? before : withPair(before, vf, undefined);
    });
  }

  /** Whoever moves the guest is not heard of any more. */
  async #late(vf: number): Promise<void> {
    await this.remove(vf).catch((error) => {
      log("warn", "pf", `vf ${vf}: that its address does not change is not on disk (${oneLine(error)})`);
    });
  }

  /** A guest that is moved stands still. */
  async #paused(port: PortState["port"]): Promise<void> {
    // The uplink and vports do not move.
    if (typeof port !== "number") return;
    const given = this.#give(port);
    this.#events.emit({ type: "guest-paused", vf: port });
    await given.catch((error) => {
      log("warn", "pf", `vf ${port}: its guest stands still, and its address is not given up (${oneLine(error)})`);
    });
  }

  async #give(vf: number): Promise<void> {
    let changes: Record<string, unknown> = {};
    await this.#settings.changeAsForeseen((before) => {
      const pair = before.pausedAddresses[vf];
      if (!pair || !this.#patience.has(vf) || findVf(before, vf).mac !== pair.from.mac) return before;
      const next = patchVf(before, vf, pair.to);
      changes = difference(findVf(before, vf), findVf(next, vf));
      return next;
    });
    if (Object.keys(changes).length === 0) return;
    this.#events.emit({ type: "vf-changed", vf, changes });
    log("info", "pf", `vf ${vf}: its guest stands still: ${JSON.stringify(changes)}`);
  }

  /** What was set stays on disk, for the next PF. */
  close(): void {
    for (const timer of this.#patience.values()) clearTimeout(timer);
  }
}
