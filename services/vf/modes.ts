/**
 * Changes of mode: the state machine that docs/plugin-api.md describes. A VF's driver changes hands while its guest and
 * everybody else go on: the NIC holds what comes for the VF, the guest stops sending, what is on its way is delivered,
 * and only then does somebody else drive. Each step has its undoing, so a failure leaves the guest on the path it had;
 * the reason is in the answer and stays in the VF's mode. Nothing is kept here: who drives a VF is asked of those who
 * know, so this service may die at any time.
 */
import { ApiError, type DataPath, log, type ModeRequest, type ModeStep, type VfMode } from "../../shared/api/mod.ts";
import type { Guests, GuestShell } from "./guests.ts";
import type { Peers } from "./peers.ts";
import type { Registry, StoredImage } from "./registry.ts";

const HOLD_DEADLINE_MS = 10_000;

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

/** One change under way: its steps, and how to take them back. */
class Change {
  readonly steps: ModeStep[] = [];
  readonly #undo: (() => Promise<unknown>)[] = [];

  /** Does a step; if it or a later one fails, `undo` is called, last step first. */
  async step<T>(name: string, act: () => Promise<T>, undo?: () => Promise<unknown>): Promise<T> {
    const start = performance.now();
    const ms = () => Math.round((performance.now() - start) * 100) / 100;
    try {
      const value = await act();
      this.steps.push({ step: name, ms: ms() });
      if (undo) this.#undo.unshift(undo);
      return value;
    } catch (error) {
      this.steps.push({ step: name, ms: ms(), error: (error as Error).message });
      throw error;
    }
  }

  /** Takes back what was done. What cannot be taken back is said. */
  async undo(): Promise<void> {
    for (const undo of this.#undo) {
      try {
        await undo();
      } catch (error) {
        log("warn", "vf", `while undoing a change of mode: ${(error as Error).message}`);
      }
    }
  }
}

/** What is remembered of a VF's last changes, for whoever asks. */
interface Memory {
  steps?: ModeStep[];
  lastFailure?: { reason: string; detail: string };
}

/** Modes of all VFs. */
export class Modes {
  readonly #peers: Peers;
  readonly #guests: Guests;
  readonly #registry: Registry;
  readonly #changing = new Set<number>();
  readonly #memory = new Map<number, Memory>();

  constructor(peers: Peers, guests: Guests, registry: Registry) {
    this.#peers = peers;
    this.#guests = guests;
    this.#registry = registry;
  }

  /** Who drives a VF. */
  async get(vf: number): Promise<VfMode> {
    return this.#view(vf, (await this.#peers.port(vf)).dataPath);
  }

  /** Who drives which VF, for all of them. */
  async list(): Promise<({ vf: number } & VfMode)[]> {
    return (await this.#peers.ports()).flatMap(({ port, dataPath }) =>
      typeof port === "number" ? [{ vf: port, ...this.#view(port, dataPath) }] : []
    );
  }

  #view(vf: number, dataPath: DataPath): VfMode {
    const guest = dataPath === "guest" ? this.#guests.find(String(vf))?.mode : undefined;
    return {
      mode: dataPath === "emulated" ? "emulated" : "passthrough",
      ...(guest?.plugin === undefined ? {} : { plugin: guest.plugin }),
      ...(guest?.version === undefined ? {} : { version: guest.version }),
      changing: this.#changing.has(vf),
      ...this.#memory.get(vf),
    };
  }

  /** Puts a VF into a mode; throws ApiError with the reason if it stays in the one it was in. */
  async set(vf: number, request: ModeRequest): Promise<VfMode> {
    return await this.#exclusively(vf, async () => {
      const change = new Change();
      const memory: Memory = { ...this.#memory.get(vf) };
      this.#memory.set(vf, memory);
      memory.steps = change.steps;
      try {
        await this.#make(vf, request, change);
        delete memory.lastFailure;
      } catch (error) {
        await change.undo();
        const failure = named(error);
        memory.lastFailure = { reason: failure.reason ?? "step-failed", detail: failure.message };
        log("warn", "vf", `vf ${vf} stays as it was: ${failure.message}`);
        throw failure;
      }
      return { ...this.#view(vf, (await this.#peers.port(vf)).dataPath), changing: false };
    });
  }

  async #exclusively<T>(vf: number, act: () => Promise<T>): Promise<T> {
    if (this.#changing.has(vf)) {
      throw new ApiError(409, `vf ${vf} is changing its mode already: try again`, "mode", "operation-in-progress");
    }
    this.#changing.add(vf);
    try {
      return await act();
    } finally {
      this.#changing.delete(vf);
    }
  }

  async #make(vf: number, { mode, plugin }: ModeRequest, change: Change): Promise<void> {
    if (mode === "emulated" && plugin !== undefined) {
      throw new ApiError(422, "emulated mode needs no plugin: the shell has its own", "plugin", "incompatible-plugin");
    }
    const { dataPath } = await this.#peers.port(vf);
    const guest = this.#guests.find(String(vf));
    if (dataPath === "guest" && !guest) {
      throw new ApiError(503, `the guest of vf ${vf} does not report`, undefined, "guest-unreachable");
    }
    const image = mode === "passthrough" ? await this.#choose(vf, guest, plugin) : undefined;
    if (dataPath === "guest" && guest) {
      const { name, version } = image?.view ?? {};
      if (image && guest.mode.plugin === name && guest.mode.version === version) return;
      // Checked first: a plugin that cannot be taken must not cost the one that runs.
      const before = await this.#registry.find(`${guest.mode.plugin}@${guest.mode.version}`).catch(() => undefined);
      const undo = before ? () => guest.inject(before.image) : undefined;
      if (image) await change.step("inject the plugin", () => guest.inject(image.image));
      await this.#leave(vf, guest, change, undo);
      if (image) await this.#enter(vf, guest, image, "emulated", change, true);
    } else if (image && guest) {
      await this.#enter(vf, guest, image, dataPath, change);
    } else {
      await this.#hand(vf, dataPath, mode, change);
    }
  }

  /** The image that is to drive the VF; none for a guest without a shell, whose rings the NIC takes as they are. */
  async #choose(
    vf: number,
    guest: GuestShell | undefined,
    plugin: string | undefined,
  ): Promise<StoredImage | undefined> {
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

  /** Emulated, or with the guest's rings in the NIC, to the guest's own plugin. */
  async #enter(
    vf: number,
    guest: GuestShell,
    image: StoredImage,
    from: DataPath,
    change: Change,
    injected = false,
  ): Promise<void> {
    if (!injected) await change.step("inject the plugin", () => guest.inject(image.image));
    const token = await this.#hold(vf, change);
    await change.step("the guest stops sending", () => guest.quiesce(), () => guest.resume());
    await change.step(
      "vhost lets go of the VF",
      () => this.#peers.setDataPath(vf, "guest"),
      () => this.#peers.setDataPath(vf, from),
    );
    await change.step("the plugin takes the VF", () => guest.passthrough(vf, token));
  }

  /** From the guest's own plugin to emulated mode. */
  async #leave(vf: number, guest: GuestShell, change: Change, reinject?: () => Promise<void>): Promise<void> {
    const token = await this.#hold(vf, change);
    await change.step("the guest stops sending", () => guest.quiesce(), () => guest.resume());
    // The way back is the plugin again, with the token that has not been used.
    await change.step("the plugin gives the VF back", () => guest.emulated(), async () => {
      await reinject?.();
      await guest.passthrough(vf, token);
    });
    await change.step(
      "vhost drives the VF",
      () => this.#peers.setDataPath(vf, "emulated"),
      () => this.#peers.setDataPath(vf, "guest"),
    );
    await change.step("held frames are delivered", () => this.#peers.release(vf));
    await change.step("the guest sends again", () => guest.resume());
  }

  /** A guest without a shell: its rings go from one driver to the other, and it need not know. */
  async #hand(vf: number, from: DataPath, to: "emulated" | "passthrough", change: Change): Promise<void> {
    if (from === to) return;
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

  /** A guest has just booted on a VF: it begins emulated, whatever the one before it did. */
  async booted(vf: number): Promise<void> {
    await this.#exclusively(vf, async () => {
      // A process of the guest before it may still be there, and hold the VF.
      await this.#peers.revoke(vf);
      await this.#peers.setDataPath(vf, "emulated");
    });
  }

  /** A guest reports that it is not on the path it was put on (its plugin failed, the NIC restarted): wire it up again. */
  async reconcile(vf: number): Promise<void> {
    const guest = this.#guests.find(String(vf));
    if (!guest || guest.mode.mode !== "emulated" || this.#changing.has(vf)) return;
    await this.#exclusively(vf, async () => {
      const { dataPath } = await this.#peers.port(vf);
      if (dataPath !== "guest" || guest.mode.mode !== "emulated") return;
      const detail = guest.mode.lastFault ?? "the guest left the VF by itself";
      this.#memory.set(vf, { ...this.#memory.get(vf), lastFailure: { reason: "plugin-failed", detail } });
      log("warn", "vf", `vf ${vf} is emulated again: ${detail}`);
      await this.#peers.revoke(vf);
      await this.#peers.setDataPath(vf, "emulated");
      await guest.resume();
    });
  }
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
