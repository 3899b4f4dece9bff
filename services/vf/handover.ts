/**
 * How a VF's driver changes: the steps of docs/plugin-api.md, each with its undoing. The NIC holds what comes for the VF,
 * the guest stops sending, what is on its way is delivered, and only then does somebody else drive.
 *
 * **A guest is asked, and never believed.** It has a bounded time for its part. Taking a VF back needs no consent: after
 * the guest was asked, the NIC ends its lease, whatever it answered. That it drives a VF is asked of the NIC.
 */
import { ApiError, type DataPath, type EmulatedPath, type HoldGrant, msLeft } from "../../shared/api/mod.ts";
import type { Change } from "./change.ts";
import type { GuestShell } from "./guests.ts";
import type { Peers } from "./peers.ts";
import type { Registry, StoredImage } from "./registry.ts";

const HOLD_DEADLINE_MS = 10_000;
/** How long a guest may take to give a VF back, and to take one over: all its steps together. */
export const LEAVE_MS = 2000;
const ENTER_MS = 5000;
/** And to send again. */
const ALLOW_TX_MS = 1000;

/** What changes of mode are made with. */
export interface ModeParts {
  peers: Pick<Peers, keyof Peers>;
  guests: { find(port: string): Shell | undefined; findSoon(port: string): Promise<Shell | undefined> };
  registry: Pick<Registry, "find">;
}

/** A guest's shell, as a change of mode sees it. */
export type Shell = Omit<Pick<GuestShell, keyof GuestShell>, "seat">;

/** A VF's number, or `vport3`: where a guest is. */
export type Port = number | `vport${number}`;

/** A port, and the VF that its guest drives or is to drive, if it has one. */
export interface Place {
  port: Port;
  vf: number | null;
}
export type VfPlace = Place & { vf: number };

/** The steps by which a VF changes hands. */
export class Handover {
  readonly #parts: ModeParts;

  constructor(parts: ModeParts) {
    this.#parts = parts;
  }

  /** Puts an image into a guest, where its shell says. */
  async inject(guest: Shell, image: StoredImage, change: Change): Promise<void> {
    change.giveGuest(ENTER_MS);
    await change.step("inject the plugin", () => change.askGuest((ms) => guest.inject(image.image, ms)));
  }

  /** From another data path to the plugin that has been injected. */
  async enter({ port, vf }: VfPlace, guest: Shell, from: DataPath, change: Change): Promise<void> {
    change.giveGuest(ENTER_MS);
    const { token, id } = await this.#hold(vf, change);
    await change.step(
      "the guest stops sending",
      () => change.askGuest((ms) => guest.quiesce(ms)),
      () => change.askGuest((ms) => guest.allowTx(ms)),
    );
    // Whatever the guest will have answered: it may have taken the VF, or still be about to.
    const takeBack = async () => {
      try {
        await this.#parts.peers.takeBack(vf);
      } finally {
        await this.#parts.peers.setDataPath(port, from);
      }
    };
    await change.step("vhost lets go of the VF", () => this.#parts.peers.setDataPath(port, "guest"), takeBack);
    await change.step("the plugin takes the VF", async () => {
      await change.askGuest((ms) => guest.passthrough(vf, token, ms));
      if ((await this.#parts.peers.leaseOf(vf)).hold === id) return;
      throw new ApiError(409, "the guest says that it drives the VF, and does not", "plugin", "plugin-failed");
    });
    // The guest has ended the hold, or this does.
    await change.within(() => this.#parts.peers.release(vf));
  }

  /**
   * To emulated mode, from a guest that drives its VF itself or is to: with its help if `guest` is given and helps in
   * time, or without. From the moment the NIC has taken the VF nothing of it is undone: the guest does not get it again.
   */
  async leave(
    { port, vf }: Place,
    guest: Shell | undefined,
    change: Change,
    { forGood = true, emulatedPath }: { forGood?: boolean; emulatedPath?: EmulatedPath | undefined } = {},
  ): Promise<void> {
    change.giveGuest(LEAVE_MS);
    // Without room for a hold, or with somebody else's, the VF is taken all the same.
    if (vf !== null) {
      await change.attempt(
        "the NIC holds the VF's frames",
        () => this.#parts.peers.hold(vf, holdMs(change)),
        () => this.#parts.peers.release(vf),
      );
    }
    if (guest) {
      await change.attempt(
        "the guest stops sending",
        () => change.askGuest((ms) => guest.quiesce(ms), LEAVE_MS / 2),
        () => change.askGuest((ms) => guest.allowTx(ms)),
      );
      await change.attempt("the plugin gives the VF back", () => change.askGuest((ms) => guest.emulated(ms)));
    }
    if (vf !== null) {
      const { unfetched } = await change.step("the NIC takes the VF back", () => this.#parts.peers.takeBack(vf));
      change.noteLost(unfetched);
    }
    change.keep();
    try {
      const drive = () => this.#parts.peers.setDataPath(port, "emulated", emulatedPath);
      await change.step("vhost drives the rings", drive);
    } finally {
      if (vf !== null) await change.attempt("held frames are delivered", () => this.#parts.peers.release(vf));
      await this.#sendAgain(port, guest, change);
      // Last: a PF that is away must not keep the guest at rest.
      if (forGood && vf !== null) await this.giveBack({ port, vf }, change);
    }
  }

  /** Ends the allotment of a VF to a vport's guest, if `port` is a vport. */
  async giveBack({ port }: VfPlace, change: Change): Promise<void> {
    if (typeof port === "string") await change.step("the VF is given back", () => this.#parts.peers.returnVf(port));
  }

  /** Has a guest send again. One that was not asked for its VF goes back to its own path by itself, or never. */
  async #sendAgain(port: Port, guest: Shell | undefined, change: Change): Promise<void> {
    if (guest) await change.attempt("the guest sends again", () => guest.allowTx(Math.min(ALLOW_TX_MS, msLeft())));
    else this.allowTx(port);
  }

  /** Tells a guest that it may send. Nobody waits for that. */
  allowTx(port: Port): void {
    void this.#parts.guests.find(String(port))?.allowTx(ALLOW_TX_MS).catch(() => {});
  }

  /**
   * A guest without a shell: its rings go from one driver to the other, and it need not know. `emulatedPath`: how frames are
   * to go in emulated mode, if that changes; then the rings change hands even if they stay in that mode.
   */
  async hand(
    { port, vf }: VfPlace,
    from: DataPath,
    to: "emulated" | "passthrough",
    change: Change,
    emulatedPath?: EmulatedPath,
  ): Promise<void> {
    if ((from === to && emulatedPath === undefined) || port !== vf) return;
    await this.#hold(vf, change);
    await change.step("the rings change hands", () => this.#parts.peers.setDataPath(vf, to, emulatedPath));
    await change.step("held frames are delivered", () => this.#parts.peers.release(vf));
  }

  #hold(vf: number, change: Change): Promise<HoldGrant> {
    return change.step(
      "the NIC holds the VF's frames",
      () => this.#parts.peers.hold(vf, holdMs(change)),
      () => this.#parts.peers.release(vf),
    );
  }
}

/** How long the NIC holds frames if nobody tells it to stop: no longer than the change may take. */
function holdMs({ msLeft }: Change): number {
  return Math.min(HOLD_DEADLINE_MS, msLeft);
}
