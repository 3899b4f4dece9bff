/**
 * The addresses that VFs get when their guests, which are moved to other hosts, stand still: each millisecond counts then,
 * so nothing is asked of whoever moves the guest, and the disk is written afterwards. What may happen is on it beforehand.
 */
import {
  ApiError,
  type Hold,
  type Listener,
  log,
  oneLine,
  type PausedAddress,
  type PausedAddressHandlers,
  type PausedEvent,
  type PortState,
} from "../../shared/api/mod.ts";
import type { Events } from "./events.ts";
import { isForeseen, withPair } from "./paused_address_rules.ts";
import { difference, findVf, patchVf } from "./policy.ts";
import type { SettingsInForce } from "./settings_in_force.ts";
import type { Settings } from "./store.ts";

/** A VF whose guest is moved. */
interface Move {
  to: PausedAddress;
  /** How many hold it: one that was cut off and is back is there twice for a while. */
  holds: number;
  listeners: Set<Listener<PausedEvent>>;
}

/** Keeps them, and puts them in force. */
export class PausedAddresses implements PausedAddressHandlers {
  readonly #settings: SettingsInForce;
  readonly #events: Events;
  readonly #moves = new Map<number, Move>();

  constructor(settings: SettingsInForce, events: Events) {
    [this.#settings, this.#events] = [settings, events];
    settings.onPaused = (port) => void this.#paused(port);
  }

  /** Holds one, on disk when this resolves. Throws why the VF may not have it. */
  async hold(vf: number, to: PausedAddress): Promise<Hold> {
    findVf(this.#settings.now, vf);
    const move = this.#moves.get(vf) ?? { to, holds: 0, listeners: new Set() };
    if (move.to.mac !== to.mac || move.to.macFixed !== to.macFixed) {
      throw new ApiError(409, `somebody else moves its guest, and vf ${vf} gets ${move.to.mac} then`, "mac");
    }
    move.holds++;
    this.#moves.set(vf, move);
    let isHeld = true;
    const end = () => {
      if (isHeld) this.#end(vf, move);
      isHeld = false;
    };
    try {
      await this.#settings.keep((before) => {
        patchVf(before, vf, to);
        const { mac, macFixed } = findVf(before, vf);
        if (mac === to.mac || isForeseen(before, vf, to)) return before;
        return withPair(before, vf, { from: { mac, macFixed }, to });
      });
    } catch (error) {
      end();
      throw error;
    }
    const listen = (listener: Listener<PausedEvent>) => {
      move.listeners.add(listener);
      return () => {
        move.listeners.delete(listener);
        end();
      };
    };
    return { listen, end };
  }

  /** Whoever moves the guest is done, or gone: the VF keeps the address that it has. */
  #end(vf: number, move: Move): void {
    if (--move.holds > 0) return;
    this.#moves.delete(vf);
    // Somebody may move it again meanwhile.
    this.#keep(vf, (before) => this.#moves.has(vf) ? before : withPair(before, vf, undefined));
  }

  /** A guest that is moved stands still. */
  async #paused(port: PortState["port"]): Promise<void> {
    // The uplink and vports do not move.
    if (typeof port !== "number") return;
    const move = this.#moves.get(port);
    const given = move && this.#give(port, move);
    this.#events.emit({ type: "guest-paused", vf: port });
    for (const tell of move?.listeners ?? []) tell({ type: "paused" });
    await given?.catch((error) => {
      log("warn", "pf", `vf ${port}: its guest stands still, and its address is not given up (${oneLine(error)})`);
    });
  }

  async #give(vf: number, move: Move): Promise<void> {
    let changes: Record<string, unknown> = {};
    const step = (before: Settings) => {
      const now = findVf(before, vf);
      if (this.#moves.get(vf) !== move || now.mac === move.to.mac) return before;
      const next = patchVf(before, vf, move.to);
      changes = difference(now, findVf(next, vf));
      return next;
    };
    await this.#settings.changeAsForeseen((before) => isForeseen(before, vf, move.to) ? step(before) : before);
    // Somebody has given it another address since; that it may change is not on disk.
    if (Object.keys(changes).length === 0) {
      await this.#settings.change((before) => {
        const next = step(before);
        return next === before ? before : withPair(next, vf, undefined);
      });
    }
    if (Object.keys(changes).length === 0) return;
    for (const tell of move.listeners) tell({ type: "given" });
    this.#keep(vf, (before) => withPair(before, vf, undefined));
    this.#events.emit({ type: "vf-changed", vf, changes });
    log("info", "pf", `vf ${vf}: its guest stands still: ${JSON.stringify(changes)}`);
  }

  /** Writes what there is to know of a VF's pair, when others have had their turns. */
  #keep(vf: number, step: (before: Settings) => Settings): void {
    this.#settings.keep((before) => before.pausedAddresses[vf] ? step(before) : before).catch((error) => {
      log("warn", "pf", `vf ${vf}: which address it has is not on disk (${oneLine(error)})`);
    });
  }
}
