/** The guests that have a shell: each reports which port it is on and how it is; what it hears is what the PF has set. */
import { z } from "zod";
import {
  ApiError,
  type GuestConfig,
  GuestMode,
  type GuestReport,
  type GuestSeat,
  type GuestView,
  hashToken,
  isLinkUp,
  type LinkPatch,
  log,
  oneLine,
  Peer,
  receivedMulticast,
} from "../../shared/api/mod.ts";
import type { Peers } from "./peers.ts";

/** The longest answer of a shell that is read. */
const ANSWER_BYTES_MAX = 16 * 1024;
const Nothing = z.looseObject({});
const MODE_PATH = "/api/v1/mode";
/** Of a shell's time for a step, what its answer may take. */
const ANSWER_MS = 200;
/** A port's guests boot no more often than this. */
const BOOT_MS = 200;
/** How long a guest that was unknown may take to hear that it is to send. */
const ALLOW_TX_MS = 2000;

/** A guest that has not reported for so long is gone. */
const GONE_MS = 15_000;
/** By then whoever is there has reported to a service that has just started; how often it is looked. */
const FIRST_REPORTS_MS = 3000;
const LOOK_MS = 20;

/**
 * A guest's shell, as steps of a change of mode are asked of it, each within a number of milliseconds. What it answers
 * is read by a schema, and believed nowhere.
 */
export class GuestShell {
  readonly api: string;
  readonly boot: string;
  readonly #peer: Peer;
  mode: GuestMode;
  seat: GuestSeat;
  seenMs = performance.now();
  /** The groups that the guest before it had joined are still to be left. */
  groupsAreStale: boolean;

  constructor({ api, boot, mode, first, seat }: GuestReport, token: string | undefined) {
    this.api = api;
    this.boot = boot;
    this.mode = mode;
    this.seat = seat;
    this.groupsAreStale = first;
    this.#peer = new Peer("the guest", api, token, { answerBytesMax: ANSWER_BYTES_MAX });
  }

  async #ask<T extends z.ZodType>(schema: T, ms: number, path: string, body?: unknown): Promise<z.output<T>> {
    const method = path === MODE_PATH ? "GET" : body instanceof Uint8Array ? "PUT" : "POST";
    const said = await this.#peer.ask(method, path, body, ms).catch((error) => {
      if (!(error instanceof ApiError)) throw error;
      // Names for programs are this side's to give, but for the one that a shell has to tell.
      const { status, message, field, reason } = error;
      const named = reason === "plugin-failed" || reason === "unreachable" ? reason : undefined;
      throw new ApiError(status, message, field === "plugin" ? field : undefined, named);
    });
    const answer = schema.safeParse(said);
    if (answer.success) return answer.data;
    throw new ApiError(503, `the guest answers nonsense to ${path}`, undefined, "guest-unreachable");
  }

  /** Puts an image where the shell says; throws the shell's own reason if it does not take it. */
  async inject(image: Uint8Array, ms: number): Promise<void> {
    const end = performance.now() + ms;
    await this.#ask(Nothing, ms, "/api/v1/plugin", { bytes: image.length });
    await this.#ask(Nothing, Math.max(1, end - performance.now()), "/api/v1/plugin", image);
  }

  async quiesce(ms: number): Promise<void> {
    await this.#ask(Nothing, ms + ANSWER_MS, "/api/v1/path/quiesce", { deadlineMs: Math.max(1, Math.floor(ms)) });
  }

  async passthrough(vf: number, token: string, ms: number): Promise<void> {
    this.mode = await this.#ask(GuestMode, ms, "/api/v1/path/passthrough", { vf, token });
  }

  async emulated(ms: number): Promise<void> {
    const deadlineMs = Math.max(1, Math.floor(ms - ANSWER_MS));
    this.mode = await this.#ask(GuestMode, ms, "/api/v1/path/emulated", { deadlineMs });
  }

  /** Asks how it is now: what it has reported may be from before the last step. */
  async refresh(ms: number): Promise<void> {
    this.mode = await this.#ask(GuestMode, ms, MODE_PATH);
  }

  async allowTx(ms: number): Promise<void> {
    await this.#ask(Nothing, ms, "/api/v1/path/resume", {});
  }
}

/** What guests need of the PF, and the token with which services speak to each other. */
export type GuestPeers = Pick<Peers, "token" | "config" | "carrier" | "wish" | "leaveGroups">;

/** All guests that report. */
export class Guests {
  readonly #peers: GuestPeers;
  readonly #tokens: ReadonlyMap<string, string>;
  readonly #guests = new Map<string, GuestShell>();
  readonly #configs = new Map<string, GuestConfig>();
  readonly #bootMs = new Map<string, number>();
  readonly #allowing = new Set<string>();
  readonly #startMs = performance.now();

  /** `tokens`: with which the guest on a port shows that it is the one, and the vf service to it; port to token. */
  constructor(peers: GuestPeers, tokens: ReadonlyMap<string, string> = new Map()) {
    this.#peers = peers;
    this.#tokens = tokens;
  }

  /** Whether `token` is that of the guest on a port, which has one of its own. */
  isOwnToken(port: string, token: string): boolean {
    const own = this.#tokens.get(port);
    return own !== undefined && hashToken(own) === hashToken(token);
  }

  /** The guest on a port, `undefined` if none with a shell runs there. */
  find(port: string): GuestShell | undefined {
    const guest = this.#guests.get(port);
    const runs = guest?.seat === "running" || guest?.seat === "leaving";
    return guest && runs && performance.now() - guest.seenMs < GONE_MS ? guest : undefined;
  }

  /** As `find`; if this service has just started, the guest has a moment to report. */
  async findSoon(port: string): Promise<GuestShell | undefined> {
    return await this.#soon(() => this.find(port));
  }

  /** What is known of the guest on a port, whatever its seat is; if this service has just started, it has a moment. */
  async viewSoon(port: string): Promise<GuestView | undefined> {
    return await this.#soon(() => this.list.find((guest) => guest.port === port));
  }

  async #soon<T>(look: () => T | undefined): Promise<T | undefined> {
    while (look() === undefined && performance.now() < this.#startMs + FIRST_REPORTS_MS) {
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
    return look();
  }

  get list(): GuestView[] {
    const now = performance.now();
    return [...this.#guests].filter(([, guest]) => now - guest.seenMs < GONE_MS).map((
      [port, { api, mode, seat, seenMs }],
    ) => ({
      port,
      api,
      mode,
      seat,
      seenSecondsAgo: Math.round((now - seenMs) / 100) / 10,
    }));
  }

  /**
   * Takes a report; answers what the guest's interface is to be. `booted` runs before a guest that has just booted is
   * answered. While the PF is away a guest keeps what it had.
   */
  async report(port: string, report: GuestReport, booted: () => Promise<void>): Promise<GuestConfig> {
    const before = this.#guests.get(port);
    if (before?.boot === report.boot) {
      before.mode = report.mode;
      before.seat = report.seat;
      before.seenMs = performance.now();
    } else {
      this.#paceBoots(port);
      // Unknown here is not yet new: this service may have been away while the guest went on.
      if (report.mode.mode === "emulated") await booted();
      const guest = new GuestShell(report, this.#tokens.get(port) ?? this.#peers.token);
      this.#guests.set(port, guest);
      log("info", "vf", `a guest booted on ${port} (${report.api})`);
      this.#allowTx(port, guest);
    }
    await this.#leaveGroups(port);
    return await this.config(port);
  }

  /** Throws if a guest boots too often: each time its port is set up anew. */
  #paceBoots(port: string): void {
    const nowMs = performance.now();
    if (nowMs - (this.#bootMs.get(port) ?? -Infinity) < BOOT_MS) {
      throw new ApiError(503, `the guest on ${port} has booted just now: report again in ${BOOT_MS} ms`, "boot");
    }
    this.#bootMs.set(port, nowMs);
  }

  /** A service before this one may have ended while the guest was told not to send. */
  #allowTx(port: string, guest: GuestShell): void {
    if (this.#allowing.has(port)) return;
    this.#allowing.add(port);
    void guest.allowTx(ALLOW_TX_MS).catch((error) => log("warn", "vf", oneLine(error)))
      .finally(() => this.#allowing.delete(port));
  }

  /** Has the PF forget what the guest before this one wanted to hear; while the PF is away, with a later report. */
  async #leaveGroups(port: string): Promise<void> {
    const guest = this.#guests.get(port);
    if (!guest?.groupsAreStale) return;
    try {
      await this.#peers.leaveGroups(port);
      guest.groupsAreStale = false;
    } catch (error) {
      if (error instanceof ApiError && error.status === 503) return;
      guest.groupsAreStale = false;
      log("warn", "vf", `${port}: the groups of the guest before are still joined: ${oneLine(error)}`);
    }
  }

  /** What the interface on a port is to be. */
  async config(port: string): Promise<GuestConfig> {
    try {
      const [vf, carrier] = await Promise.all([this.#peers.config(port), this.#peers.carrier()]);
      const up = isLinkUp(vf.linkState, carrier);
      const config: GuestConfig = { mac: vf.mac, up, promisc: vf.promisc, multicast: receivedMulticast(vf) };
      this.#configs.set(port, config);
      return config;
    } catch (error) {
      const known = this.#configs.get(port);
      if (known && error instanceof ApiError && error.status === 503) return known;
      throw error;
    }
  }

  /** Passes a guest's wish to the PF; answers what the interface is now. Throws the PF's reason if it refuses. */
  async wish(port: string, wish: LinkPatch): Promise<GuestConfig> {
    await this.#peers.wish(port, wish);
    const guest = this.#guests.get(port);
    if (guest && wish.multicast !== undefined) guest.groupsAreStale = false;
    return await this.config(port);
  }
}
