/** A guest's shell as a test plays it: each part of a change of mode is done, refused, or never answered. */
import { ApiError, type GuestMode } from "../../shared/api/mod.ts";
import type { Shell } from "../../services/vf/handover.ts";
import type { StoredImage } from "../../services/vf/registry.ts";

/** What does not come to pass: an error that is answered, or silence for as long as anybody listens. */
export type Trouble = Error | "silence";

/** A refusal as the NIC, the PF and vhost pass it on. */
export function refusal(reason: string, status: 404 | 409 | 422 | 503 = 409): ApiError {
  return new ApiError(status, `refused: ${reason}`, undefined, reason);
}

const UNREACHABLE = () => new ApiError(503, "the guest does not answer", undefined, "unreachable");

/** Calls that can fail, by name. Trouble is for the next call, or, with `always`, for every one. */
export class Troubles {
  readonly #next = new Map<string, Trouble>();
  readonly #always = new Map<string, Trouble>();

  next(call: string, trouble: Trouble): void {
    this.#next.set(call, trouble);
  }

  always(call: string, trouble: Trouble): void {
    this.#always.set(call, trouble);
  }

  clear(): void {
    this.#next.clear();
    this.#always.clear();
  }

  take(call: string): Trouble | undefined {
    const trouble = this.#next.get(call) ?? this.#always.get(call);
    this.#next.delete(call);
    return trouble;
  }
}

/** What a guest reaches: images that were put into it, and the NIC. */
export interface ShellWorld {
  readonly images: ReadonlyMap<string, StoredImage>;
  /** Throws if the token is not good. */
  attachGuest(vf: number, token: string): void;
  detachGuest(vf: number): void;
}

/** A guest with a shell. */
export class FakeShell implements Shell {
  readonly api = "http://guest";
  readonly boot = "boot-1";
  seenMs = 0;
  groupsAreStale = false;
  mode: GuestMode = { mode: "emulated", connected: true };
  /** What it has been asked for, in order, and how long it was given for each. */
  readonly asked: string[] = [];
  readonly givenMs: number[] = [];
  readonly troubles = new Troubles();
  /** How long it takes for a part of a change. */
  readonly tookMs = new Map<string, number>();
  /** Frames go out. */
  sends = true;
  /** It says that it has done what it has not. */
  lies = false;
  #injected: StoredImage | undefined;
  #vf: number | undefined;
  readonly #world: ShellWorld;

  constructor(world: ShellWorld) {
    this.#world = world;
  }

  async #part(name: string, ms: number): Promise<void> {
    this.asked.push(name);
    this.givenMs.push(ms);
    const trouble = this.troubles.take(name);
    const tookMs = trouble === "silence" ? ms : this.tookMs.get(name) ?? 0;
    if (tookMs > 0) await new Promise((resolve) => setTimeout(resolve, tookMs));
    if (trouble !== undefined) throw trouble === "silence" ? UNREACHABLE() : trouble;
  }

  async inject(image: Uint8Array, ms: number): Promise<void> {
    await this.#part("inject", ms);
    this.#injected = [...this.#world.images.values()].find((stored) => stored.image === image);
  }

  async quiesce(ms: number): Promise<void> {
    await this.#part("quiesce", ms);
    this.sends = false;
  }

  async passthrough(vf: number, token: string, ms: number): Promise<void> {
    await this.#part("passthrough", ms);
    if (!this.lies) this.take(vf, token);
    const { name, version } = this.#injected?.view ?? {};
    this.mode = { mode: "passthrough", plugin: name, version, connected: true };
    this.sends = true;
  }

  async emulated(ms: number): Promise<void> {
    await this.#part("emulated", ms);
    this.mode = { mode: "emulated", connected: true };
    if (!this.lies) this.giveBack();
  }

  /** Attaches to a VF, whatever it says of that. */
  take(vf: number, token: string): void {
    this.#world.attachGuest(vf, token);
    this.#vf = vf;
  }

  /** Its lease ends: it has given its VF back, or died. */
  giveBack(): void {
    if (this.#vf !== undefined) this.#world.detachGuest(this.#vf);
    this.#vf = undefined;
  }

  async refresh(ms: number): Promise<void> {
    await this.#part("refresh", ms);
  }

  async allowTx(ms: number): Promise<void> {
    await this.#part("allowTx", ms);
    this.sends = true;
  }
}
