/**
 * Changes of mode: the state machine that docs/plugin-api.md describes. A VF's driver changes hands while its guest and
 * everybody else go on: the NIC holds what comes for the VF, the guest stops sending, what is on its way is delivered,
 * and only then does somebody else drive. Each step has its undoing, so a failure leaves the guest on the path it had;
 * the reason is in the answer and stays in the VF's mode. Nothing is kept here: who drives a VF is asked of those who
 * know, so this service may die at any time.
 *
 * **A guest is asked, and never believed.** It has a bounded time for its part. Taking a VF back needs no consent: after
 * the guest was asked, the NIC ends its lease, whatever it answered. That it drives a VF is asked of the NIC.
 */
import { ApiError, type DataPath, log, type ModeRequest, type ModeStep, type VfMode } from "../../shared/api/mod.ts";
import { Change } from "./change.ts";
import type { GuestShell } from "./guests.ts";
import type { Peers } from "./peers.ts";
import type { Registry, StoredImage } from "./registry.ts";

const HOLD_DEADLINE_MS = 10_000;
/** How long a guest may take to give a VF back, and to take one over: all its steps together. */
const LEAVE_MS = 2000;
const ENTER_MS = 5000;

/** Codes with which the NIC refuses a guest's memory. */
const MEMORY_CODES = new Set([
  "memory-limit",
  "unsealed",
  "huge-pages",
  "arena-full",
  "bad-fd",
  "past-end",
  "memory-gone",
]);

/** What is remembered of a VF's last changes, for whoever asks. */
interface Memory {
  steps?: ModeStep[];
  lastFailure?: { reason: string; detail: string };
}

/** What changes of mode are made with. */
export interface ModeParts {
  peers: Pick<Peers, keyof Peers>;
  guests: { find(port: string): Shell | undefined };
  registry: Pick<Registry, "find">;
}

/** A guest's shell, as a change of mode sees it. */
type Shell = Pick<GuestShell, keyof GuestShell>;

/** A VF's number, or `vport3`: where a guest is. */
export type Port = number | `vport${number}`;

/** Modes of all ports. */
export class Modes {
  readonly #peers: ModeParts["peers"];
  readonly #guests: ModeParts["guests"];
  readonly #registry: ModeParts["registry"];
  readonly #changing = new Set<Port>();
  readonly #memory = new Map<Port, Memory>();

  constructor({ peers, guests, registry }: ModeParts) {
    this.#peers = peers;
    this.#guests = guests;
    this.#registry = registry;
  }

  /** Who drives the data path of a port's guest. */
  async get(port: Port): Promise<VfMode> {
    return this.#view(port, (await this.#peers.port(port)).dataPath);
  }

  /** Who drives which VF, for all of them. */
  async list(): Promise<({ vf: number } & VfMode)[]> {
    return (await this.#peers.ports()).flatMap(({ port, dataPath }) =>
      typeof port === "number" ? [{ vf: port, ...this.#view(port, dataPath) }] : []
    );
  }

  #view(port: Port, dataPath: DataPath): VfMode {
    const guest = dataPath === "guest" ? this.#guests.find(String(port))?.mode : undefined;
    return {
      mode: dataPath === "emulated" ? "emulated" : "passthrough",
      ...(guest?.plugin === undefined ? {} : { plugin: guest.plugin }),
      ...(guest?.version === undefined ? {} : { version: guest.version }),
      changing: this.#changing.has(port),
      ...this.#memory.get(port),
    };
  }

  /** Puts a port into a mode; throws ApiError with the reason if it stays in the one it was in. */
  async set(port: Port, request: ModeRequest): Promise<VfMode> {
    return await this.#exclusively(port, async () => {
      const change = new Change();
      const memory: Memory = { ...this.#memory.get(port) };
      this.#memory.set(port, memory);
      memory.steps = change.steps;
      try {
        await this.#make(port, request, change);
        delete memory.lastFailure;
      } catch (error) {
        await change.undo();
        const failure = named(error);
        memory.lastFailure = { reason: failure.reason ?? "step-failed", detail: failure.message };
        log("warn", "vf", `${nameOf(port)} stays as it was: ${failure.message}`);
        throw failure;
      }
      return { ...this.#view(port, (await this.#peers.port(port)).dataPath), changing: false };
    });
  }

  async #exclusively<T>(port: Port, act: () => Promise<T>): Promise<T> {
    if (this.#changing.has(port)) {
      throw new ApiError(
        409,
        `${nameOf(port)} is changing its mode already: try again`,
        "mode",
        "operation-in-progress",
      );
    }
    this.#changing.add(port);
    try {
      return await act();
    } finally {
      this.#changing.delete(port);
    }
  }

  async #make(port: Port, { mode, plugin, force = false }: ModeRequest, change: Change): Promise<void> {
    if (force && mode !== "emulated") {
      const detail = "force takes a VF back without asking its guest: put it into emulated mode";
      throw new ApiError(422, detail, "force", "incompatible-mode");
    }
    if (mode === "emulated" && plugin !== undefined) {
      throw new ApiError(422, "emulated mode needs no plugin: the shell has its own", "plugin", "incompatible-plugin");
    }
    const { dataPath } = await this.#peers.port(port);
    const guest = this.#guests.find(String(port));
    if (dataPath === "guest" && !guest && mode === "emulated") {
      return await change.step("whoever drove the VF loses it", () => this.#reset(port));
    }
    if (dataPath === "guest" && !guest) {
      throw new ApiError(503, `the guest of ${nameOf(port)} does not report`, undefined, "guest-unreachable");
    }
    const at = await this.#allot(port, mode, dataPath, change);
    const image = mode === "passthrough" ? await this.#choose(at, guest, plugin) : undefined;
    if (dataPath === "guest" && guest) {
      const { name, version } = image?.view ?? {};
      if (image && guest.mode.plugin === name && guest.mode.version === version) return;
      // Checked first: a plugin that cannot be taken must not cost the one that runs.
      const before = await this.#registry.find(`${guest.mode.plugin}@${guest.mode.version}`).catch(() => undefined);
      const undo = before ? () => guest.inject(before.image, change.undoMs) : undefined;
      if (image) await this.#inject(guest, image, change);
      await this.#leave(at, guest, change, { force, ...(undo ? { reinject: undo } : {}) });
      if (image) return await this.#enter(at, guest, image, "emulated", change, true);
      if (typeof port === "string") await change.step("the VF is given back", () => this.#peers.returnVf(port));
    } else if (image && guest) {
      await this.#enter(at, guest, image, dataPath, change);
    } else {
      await this.#hand(at, dataPath, mode, change);
    }
  }

  /** Where the change happens: at a VF's own port, or, for a guest without one, at a VF that is allotted to it. */
  async #allot(port: Port, mode: ModeRequest["mode"], dataPath: DataPath, change: Change): Promise<Place> {
    if (typeof port === "number") return { port, vf: port };
    const { vf } = await this.#peers.vport(port);
    if (vf !== null) return { port, vf };
    if (mode === "emulated" || dataPath === "guest") return { port, vf: -1 };
    const allotted = await change.step(
      "a VF is allotted",
      () => this.#peers.allotVf(port),
      () => this.#peers.returnVf(port),
    );
    return { port, vf: allotted };
  }

  /** The image that is to drive the VF; none for a guest without a shell, whose rings the NIC takes as they are. */
  async #choose(
    { port, vf }: Place,
    guest: Shell | undefined,
    plugin: string | undefined,
  ): Promise<StoredImage | undefined> {
    if (!guest && typeof port === "string") {
      const detail = `the guest of ${port} has no shell that could drive a VF: attach it to a VF's socket instead`;
      throw new ApiError(409, detail, "mode", "incompatible-plugin");
    }
    if (!guest) {
      if (plugin === undefined || plugin === "virtio") return undefined;
      const detail = `the guest of vf ${vf} has no shell that could take plugin ${plugin}: leave the plugin out`;
      throw new ApiError(409, detail, "plugin", "incompatible-plugin");
    }
    const { hardware } = await this.#peers.vf(vf);
    const image = await this.#registry.find(plugin ?? (hardware === "any" ? "advanced" : hardware));
    if (hardware !== "any" && image.view.hardware !== hardware) {
      const detail =
        `plugin ${image.view.name} drives ${image.view.hardware} rings: vf ${vf} presents ${hardware} ones`;
      throw new ApiError(409, detail, "plugin", "incompatible-plugin");
    }
    return image;
  }

  async #inject(guest: Shell, image: StoredImage, change: Change): Promise<void> {
    change.giveGuest(ENTER_MS);
    await change.step("inject the plugin", () => guest.inject(image.image, change.guestMs));
  }

  /** Emulated, or with the guest's rings in the NIC, to the guest's own plugin. */
  async #enter(
    { port, vf }: Place,
    guest: Shell,
    image: StoredImage,
    from: DataPath,
    change: Change,
    injected = false,
  ): Promise<void> {
    if (injected) change.giveGuest(ENTER_MS);
    else await this.#inject(guest, image, change);
    const token = await this.#hold(vf, change);
    await change.step(
      "the guest stops sending",
      () => guest.quiesce(change.guestMs),
      () => guest.resume(change.undoMs),
    );
    await change.step("vhost lets go of the VF", () => this.#peers.setDataPath(port, "guest"), async () => {
      // Whatever the guest has answered: it may have taken the VF, or still be about to.
      await this.#peers.takeBack(vf);
      await this.#peers.setDataPath(port, from);
    });
    await change.step("the plugin takes the VF", async () => {
      await guest.passthrough(vf, token, change.guestMs);
      if (await this.#isGuestDriven(vf)) return;
      throw new ApiError(409, "the guest says that it drives the VF, and does not", "plugin", "plugin-failed");
    });
    // The guest has ended the hold, or this does.
    await this.#peers.release(vf);
  }

  async #isGuestDriven(vf: number): Promise<boolean> {
    return (await this.#peers.leaseOf(vf)).driver === "guest";
  }

  /** From the guest's own plugin to emulated mode: with the guest's help if it gives it in time, or without. */
  async #leave({ port, vf }: Place, guest: Shell, change: Change, how: Leaving): Promise<void> {
    change.giveGuest(LEAVE_MS);
    await this.#hold(vf, change);
    if (!how.force) {
      await change.attempt(
        "the guest stops sending",
        () => guest.quiesce(change.guestMs / 2),
        () => guest.resume(change.undoMs),
      );
      await change.attempt("the plugin gives the VF back", () => guest.emulated(change.guestMs));
    }
    let token = "";
    const again = async () => {
      await how.reinject?.();
      await guest.passthrough(vf, token, change.undoMs);
    };
    const taken = await change.step("the NIC takes the VF back", () => this.#peers.takeBack(vf), again);
    change.noteLost(taken.unfetched);
    token = taken.token ?? "";
    await change.step(
      "vhost drives the VF",
      () => this.#peers.setDataPath(port, "emulated"),
      () => this.#peers.setDataPath(port, "guest"),
    );
    await change.step("held frames are delivered", () => this.#peers.release(vf), async () => {
      token = await this.#peers.hold(vf, HOLD_DEADLINE_MS);
    });
    const resume = () => guest.resume(change.undoMs);
    // A guest whose VF was taken sends again by itself; nobody waits for it.
    if (how.force) void resume().catch(() => {});
    else await change.attempt("the guest sends again", resume, () => guest.quiesce(change.undoMs));
  }

  /** A guest without a shell: its rings go from one driver to the other, and it need not know. */
  async #hand({ port, vf }: Place, from: DataPath, to: "emulated" | "passthrough", change: Change): Promise<void> {
    // A vport's guest that ended while it drove its VF has left it allotted.
    if (port !== vf && vf >= 0) return await change.step("the VF is given back", () => this.#reset(port));
    if (from === to || port !== vf) return;
    await this.#hold(vf, change);
    await change.step("the rings change hands", () => this.#peers.setDataPath(vf, to));
    await change.step("held frames are delivered", () => this.#peers.release(vf));
  }

  #hold(vf: number, change: Change): Promise<string> {
    return change.step(
      "the NIC holds the VF's frames",
      () => this.#peers.hold(vf, HOLD_DEADLINE_MS),
      () => this.#peers.release(vf),
    );
  }

  /** A guest has just booted: it begins emulated, whatever the one before it did. */
  async booted(port: Port): Promise<void> {
    await this.#exclusively(port, () => this.#reset(port));
  }

  /** Emulated mode, without asking the guest: a process of one before it may still be there, and hold the VF. */
  async #reset(port: Port): Promise<void> {
    const vf = await this.#vfOf(port);
    if (vf !== null) await this.#peers.takeBack(vf);
    await this.#peers.setDataPath(port, "emulated");
    if (typeof port === "string" && vf !== null) await this.#peers.returnVf(port);
  }

  async #vfOf(port: Port): Promise<number | null> {
    return typeof port === "number" ? port : (await this.#peers.vport(port)).vf;
  }

  /**
   * Whether a port is wired as its guest reports. That it drives its VF is the NIC's to say: a guest that says so, and
   * does not, has lost its VF and has not noticed, or lies.
   */
  async #agrees(port: Port, guest: Shell): Promise<boolean> {
    const { dataPath } = await this.#peers.port(port);
    if (guest.mode.mode === "emulated") return dataPath !== "guest";
    const vf = await this.#vfOf(port);
    return (dataPath === "guest") === (vf !== null && await this.#isGuestDriven(vf));
  }

  /** A guest reports that it is not on the path it was put on (its plugin failed, the NIC restarted): wire it up again. */
  async reconcile(port: Port): Promise<void> {
    const guest = this.#guests.find(String(port));
    if (!guest || this.#changing.has(port) || await this.#agrees(port, guest) || this.#changing.has(port)) return;
    await this.#exclusively(port, async () => {
      await guest.refresh(LEAVE_MS);
      if (await this.#agrees(port, guest)) return;
      const vf = await this.#vfOf(port);
      // Its connection to vhost was lost and has come back, while its plugin went on.
      if (guest.mode.mode === "passthrough" && vf !== null && await this.#isGuestDriven(vf)) {
        return await this.#peers.setDataPath(port, "guest");
      }
      const detail = guest.mode.lastFault ?? "the guest left the VF by itself";
      this.#memory.set(port, { ...this.#memory.get(port), lastFailure: { reason: "plugin-failed", detail } });
      log("warn", "vf", `${nameOf(port)} is emulated again: ${detail}`);
      await this.#reset(port);
      await guest.resume(LEAVE_MS);
    });
  }
}

/** How a VF is left. */
interface Leaving {
  /** Without asking the guest. */
  force: boolean;
  /** Puts the plugin that is left into the guest again, if another one has been put there. */
  reinject?: () => Promise<unknown>;
}

/** A port, and the VF that its guest drives or is to drive. */
interface Place {
  port: Port;
  vf: number;
}

function nameOf(port: Port): string {
  return typeof port === "number" ? `vf ${port}` : port;
}

/** A failure with the name that the API promises. */
function named(error: unknown): ApiError {
  if (!(error instanceof ApiError)) return new ApiError(500, (error as Error).message, undefined, "step-failed");
  const { reason } = error;
  if (reason === "held") return new ApiError(409, error.message, "mode", "operation-in-progress");
  if (reason !== undefined && MEMORY_CODES.has(reason)) {
    return new ApiError(409, error.message, "mode", "memory-not-shareable");
  }
  if (
    (error.field === "plugin" || error.field === "image") && error.status === 422 && reason !== "incompatible-plugin"
  ) {
    return new ApiError(409, error.message, "plugin", "plugin-rejected");
  }
  return reason === undefined ? new ApiError(error.status, error.message, error.field, "step-failed") : error;
}
