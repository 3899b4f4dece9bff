/**
 * Modes: who drives which guest's data path, and changes of that. What a change of hands consists of is in handover.ts;
 * here is who may ask for one, and when. A failure leaves the guest on the path it had, or on its own; the reason is in
 * the answer and stays in the VF's mode. Nothing is kept here: who drives a VF is asked of those who know, so this
 * service may die at any time.
 */
import {
  ApiError,
  type DataPath,
  log,
  type ModeEvent,
  type ModeRequest,
  type ModeStep,
  type VfMode,
} from "../../shared/api/mod.ts";
import { Change } from "./change.ts";
import { Images } from "./images.ts";
import { Handover, LEAVE_MS, type ModeParts, type Port, type Shell, type VfPlace } from "./handover.ts";
import { type PathState, toldOf } from "./mode_view.ts";
import { checkRequest, named, withInForce } from "./mode_errors.ts";
import { nameOf, PortTurns } from "./port_turns.ts";
import type { StoredImage } from "./registry.ts";

/** However often a guest reports, it is looked at no more often. */
const LOOK_MS = 200;

/** Failures after which a guest is not asked for anything more. */
const WITHOUT_GUEST = new Set(["unreachable", "guest-unreachable", "taken-by-force"]);

/** What is remembered of a VF's last changes, for whoever asks. */
interface Memory {
  steps?: ModeStep[];
  lastFailure?: { reason: string; detail: string };
}

/** Modes of all ports. */
export class Modes {
  readonly #peers: ModeParts["peers"];
  readonly #guests: ModeParts["guests"];
  readonly #images: Images;
  readonly #handover: Handover;
  readonly #changes = new PortTurns();
  /** When a guest's reports were last compared with its port's data path. */
  readonly #lookedMs = new Map<Port, number>();
  readonly #memory = new Map<Port, Memory>();
  readonly #listeners = new Set<(event: ModeEvent) => void>();

  constructor(parts: ModeParts) {
    this.#peers = parts.peers;
    this.#guests = parts.guests;
    this.#images = new Images(parts);
    this.#handover = new Handover(parts);
  }

  /** Calls `listener` with every change, and every failure of one, until the returned function is called. */
  subscribe(listener: (event: ModeEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #tell(port: Port, type: ModeEvent["type"], what: Omit<ModeEvent, "type" | "port">): void {
    for (const listener of this.#listeners) listener({ type, port, ...what });
  }

  /** Who drives the data path of a port's guest. */
  async get(port: Port): Promise<VfMode> {
    const { state, driven } = await this.#now(port, true);
    return this.#view(port, driven ? { ...state, dataPath: "guest" } : state);
  }

  /** Who drives which VF, for all of them. */
  async list(): Promise<({ vf: number } & VfMode)[]> {
    return (await this.#peers.ports()).flatMap((state) =>
      typeof state.port === "number" ? [{ vf: state.port, ...this.#view(state.port, state) }] : []
    );
  }

  #view(port: Port, { dataPath, emulatedPath = "copy", session }: PathState): VfMode {
    const guest = dataPath === "guest" ? this.#guests.find(String(port))?.mode : undefined;
    return {
      mode: dataPath === "emulated" ? "emulated" : "passthrough",
      ...(guest?.plugin === undefined ? {} : { plugin: guest.plugin }),
      ...(guest?.version === undefined ? {} : { version: guest.version }),
      ...(dataPath === "emulated" ? { dataPath: emulatedPath } : {}),
      ...(session?.frames === undefined ? {} : { frames: session.frames }),
      changing: this.#changes.has(port),
      ...this.#memory.get(port),
    };
  }

  /**
   * Puts a port into a mode, within the time of `change`; throws ApiError with the reason if it does not come to that,
   * and with what is in force then.
   */
  async set(port: Port, request: ModeRequest, change = new Change()): Promise<VfMode> {
    checkRequest(request);
    if (!this.#guests.find(String(port))) await this.#awaitReport(port, request);
    return await this.#changes.take(port, { change, force: request.force === true }, async () => {
      const memory: Memory = { ...this.#memory.get(port) };
      this.#memory.set(port, memory);
      memory.steps = change.steps;
      try {
        await change.within(() => this.#make(port, request, change));
        delete memory.lastFailure;
      } catch (error) {
        await change.undo();
        const failure = named(error);
        memory.lastFailure = { reason: failure.reason ?? "step-failed", detail: failure.message };
        log("warn", "vf", `${nameOf(port)} is not ${request.mode}: ${failure.message}`);
        const refusal = await withInForce(failure, () => this.get(port));
        this.#tell(port, "mode-failed", { mode: null, ...toldOf(refusal.inForce ?? {}), ...memory.lastFailure });
        throw refusal;
      }
      const made = { ...this.#view(port, await this.#peers.port(port)), changing: false };
      this.#tell(port, "mode-changed", { ...toldOf(made), mode: made.mode });
      return made;
    });
  }

  /** A guest that is needed has a moment to report, before the change has its turn: the first report has one (`booted`). */
  async #awaitReport(port: Port, { plugin }: ModeRequest): Promise<void> {
    // Why the port cannot be looked at is said in the change's turn.
    const now = await this.#now(port).catch(() => undefined);
    // Only guests with a shell drive their VF, or can be told to.
    if (now?.dataPath === "guest" || now?.driven || plugin !== undefined) await this.#guests.findSoon(String(port));
  }

  async #make(port: Port, request: ModeRequest, change: Change): Promise<void> {
    const { mode, plugin } = request;
    const now = await this.#now(port);
    const guest = this.#guests.find(String(port));
    if (mode === "emulated") return await this.#makeEmulated(port, now, guest, change, request);
    if (now.dataPath === "guest" && !guest) {
      throw new ApiError(503, `the guest of ${nameOf(port)} does not report`, undefined, "guest-unreachable");
    }
    const at = await this.#allot(port, now.vf, change);
    const image = await this.#images.choose(at, guest, { plugin, driven: now.driven });
    if (!image || !guest) return await this.#handover.hand(at, now.dataPath, mode, change);
    if (now.dataPath !== "guest") {
      await this.#handover.inject(guest, image, change);
      return await this.#handover.enter(at, guest, now.dataPath, change);
    }
    await this.#swap(at, guest, image, now.driven, change);
  }

  /** Emulated mode, whoever drives the VF now, with or without the guest's consent. */
  async #makeEmulated(
    port: Port,
    { vf, dataPath, driven, state }: Now,
    guest: Shell | undefined,
    change: Change,
    { force = false, dataPath: wanted }: ModeRequest,
  ): Promise<void> {
    if (typeof port === "string" && wanted !== undefined && wanted !== "copy") {
      const detail = `${port} has no VF in emulated mode: its frames are the software switch's, and are copied`;
      throw new ApiError(409, detail, "dataPath", "incompatible-mode");
    }
    const emulatedPath = wanted === (state.emulatedPath ?? "copy") ? undefined : wanted;
    if (dataPath === "guest" || driven) {
      return await this.#handover.leave({ port, vf }, force ? undefined : guest, change, { emulatedPath });
    }
    if (emulatedPath !== undefined && dataPath === "emulated" && vf !== null) {
      return await this.#handover.hand({ port, vf }, dataPath, "emulated", change, emulatedPath);
    }
    if (dataPath === "emulated") {
      // The change that force has ended had no time to let the guest send again.
      if (force) this.#handover.allowTx(port);
      // A vport's guest may still have a VF, if the PF was away when it was to be given back.
      return vf === null ? undefined : await this.#handover.giveBack({ port, vf }, change);
    }
    if (force) {
      const detail = `no guest drives ${nameOf(port)} by itself: leave force out`;
      throw new ApiError(409, detail, "force", "incompatible-mode");
    }
    await this.#handover.hand({ port, vf: vf as number }, dataPath, "emulated", change, emulatedPath);
  }

  /** From one plugin to another, by way of emulated mode. If the new one fails the old one is put in its place again. */
  async #swap(at: VfPlace, guest: Shell, image: StoredImage, driven: boolean, change: Change): Promise<void> {
    const { name, version } = image.view;
    if (driven && guest.mode.plugin === name && guest.mode.version === version) return;
    const before = await this.#images.running(guest);
    // Injected first: a plugin that cannot be taken must not cost the one that runs.
    await this.#handover.inject(guest, image, change);
    await this.#handover.leave(at, guest, change, { forGood: false });
    try {
      await this.#handover.enter(at, guest, "emulated", change);
    } catch (error) {
      await change.undo();
      const again = new Change(change.msLeft);
      try {
        if (!before || WITHOUT_GUEST.has((error as ApiError).reason ?? "")) throw error;
        await this.#handover.inject(guest, before, again);
        await this.#handover.enter(at, guest, "emulated", again);
      } catch {
        await again.undo();
        // What fails of that is among the steps; why the new plugin failed is what is thrown.
        await this.#handover.leave(at, undefined, again).catch(() => again.undo());
      }
      change.steps.push(...again.steps);
      throw error;
    }
  }

  /** What is so on a port, by the word of those who know. Refuses a VF that is somebody else's for now, unless `looks`. */
  async #now(port: Port, looks = false): Promise<Now> {
    const vf = typeof port === "number" ? port : (await this.#peers.vport(port)).vf;
    const [state, lease] = await Promise.all([
      this.#peers.port(port, looks),
      vf === null ? undefined : this.#peers.leaseOf(vf),
    ]);
    const isOthers = typeof port === "number" && lease?.allotted === true;
    if (isOthers && !looks) {
      const detail = `vf ${port} is allotted to a vport's guest: change that vport's mode (fabric vport list)`;
      throw new ApiError(409, detail, "id", "vf-allotted");
    }
    return { vf, dataPath: state.dataPath, state, driven: !isOthers && lease?.driver === "guest" };
  }

  /** Where the change happens: at a VF's own port, or, for a guest without one, at a VF that is allotted to it. */
  async #allot(port: Port, vf: number | null, change: Change): Promise<VfPlace> {
    if (vf !== null) return { port, vf };
    const name = String(port);
    const allotted = await change.step(
      "a VF is allotted",
      () => this.#peers.allotVf(name),
      () => this.#peers.returnVf(name),
    );
    return { port, vf: allotted };
  }

  /** A guest has just booted: it begins emulated, whatever the one before it did. */
  async booted(port: Port): Promise<void> {
    await this.#changes.take(port, {}, async () => {
      const { dataPath, driven } = await this.#now(port);
      await this.#reset(port);
      if (dataPath !== "guest" && !driven) return;
      const detail = "another guest has booted on the port";
      this.#tell(port, "mode-changed", { mode: "emulated", reason: "guest-booted", detail });
    });
  }

  /** Emulated mode, without asking the guest: a process of one before it may still be there, and hold the VF. */
  async #reset(port: Port): Promise<void> {
    const { vf } = await this.#now(port);
    const change = new Change();
    try {
      await this.#handover.leave({ port, vf }, undefined, change);
    } catch (error) {
      await change.undo();
      throw error;
    }
  }

  /**
   * Whether a port's data path is as its guest reports. That it drives its VF is the NIC's to say: a guest that says so, and
   * does not, has lost its VF and has not noticed, or lies.
   */
  async #agrees(port: Port, guest: Shell): Promise<boolean> {
    const { dataPath, driven } = await this.#now(port);
    if (guest.mode.mode === "emulated") return dataPath !== "guest" && !driven;
    return (dataPath === "guest") === driven;
  }

  /** A guest reports that it is not on the path it was put on (its plugin failed, the NIC restarted): set it up again. */
  async reconcile(port: Port): Promise<void> {
    const guest = this.#guests.find(String(port));
    const nowMs = performance.now();
    if (!guest || nowMs - (this.#lookedMs.get(port) ?? -Infinity) < LOOK_MS) return;
    this.#lookedMs.set(port, nowMs);
    if (this.#changes.has(port) || await this.#agrees(port, guest) || this.#changes.has(port)) return;
    // Asked once more: what it has reported may be from before the last step. Nobody waits for that.
    await guest.refresh(LEAVE_MS).catch(() => {});
    if (this.#changes.has(port)) return;
    await this.#changes.take(port, {}, async () => {
      if (await this.#agrees(port, guest)) return;
      // Its connection to vhost was lost and has come back, while its plugin went on.
      if (guest.mode.mode === "passthrough" && (await this.#now(port)).driven) {
        return await this.#peers.setDataPath(port, "guest");
      }
      const detail = guest.mode.lastFault ?? "the guest left the VF by itself";
      this.#memory.set(port, { ...this.#memory.get(port), lastFailure: { reason: "plugin-failed", detail } });
      log("warn", "vf", `${nameOf(port)} is emulated again: ${detail}`);
      await this.#reset(port);
      this.#tell(port, "mode-changed", { mode: "emulated", reason: "plugin-failed", detail });
    });
  }
}

/** What is so on a port. */
interface Now {
  state: PathState;
  /** The VF that its guest has, if it has one. */
  vf: number | null;
  dataPath: DataPath;
  /** A guest drives that VF itself. */
  driven: boolean;
}
