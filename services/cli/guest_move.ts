/**
 * A built-in guest on its way to another fabric, as the command line moves it: what the guest's seat here sends goes to
 * the seat there. Neither has to reach the other, and neither learns the other's token.
 */
import {
  ApiError,
  type Arrival,
  bearer,
  type Departure,
  type DepartureCommit,
  type DepartureRequest,
  type GuestView,
  NO_GUEST,
  oneLine,
  Peer,
} from "../../shared/api/mod.ts";
import { UsageError } from "./values.ts";

/** How often it is looked at how far the move is. */
const LOOK_MS = 250;
/** How long a seat may take for a step. */
const STEP_MS = 2000;
const BAR_WIDTH = 24;

/** A fabric's guests: its vf service, and a token that is good for them. */
export interface GuestsAt {
  vf: Peer;
  token: string | undefined;
}

/** One end: a guest's API. */
interface End {
  api: string;
  token: string | undefined;
  peer: Peer;
}

function list({ vf }: GuestsAt): Promise<GuestView[]> {
  return vf.ask("GET", "/api/v1/guests");
}

/** The seat on VF `vf`, if there is one; a vf service that has just started waits until it may have heard of it. */
async function seatOn({ vf: service }: GuestsAt, vf: number): Promise<GuestView | undefined> {
  try {
    return await service.ask("GET", `/api/v1/guests/${vf}`);
  } catch (error) {
    if (error instanceof ApiError && error.reason === NO_GUEST) return undefined;
    throw error;
  }
}

/** The built-in guest on VF `vf`, if there is one. */
export async function builtInGuest(at: GuestsAt, vf: number): Promise<GuestView | undefined> {
  const guest = await seatOn(at, vf);
  return guest?.seat === "waiting" ? undefined : guest;
}

/** The move of one guest. */
export class GuestMove {
  readonly #near: End;
  readonly #far: End;
  readonly #isKnown: Record<"near" | "far", () => Promise<boolean>>;
  #key: string | undefined;

  private constructor(near: End, far: End, isKnown: Record<"near" | "far", () => Promise<boolean>>) {
    [this.#near, this.#far, this.#isKnown] = [near, far, isKnown];
  }

  /** Finds the seat on VF `vf` of the target, for `guest`. Throws what to do if none is free there. */
  static async find(near: GuestsAt, guest: GuestView, far: GuestsAt, vf: number): Promise<GuestMove> {
    const seat = await seatOn(far, vf);
    if (seat?.seat !== "waiting") {
      const free = (await list(far)).filter(({ seat }) => seat === "waiting").map(({ port }) => port).sort();
      const how = free.length > 0
        ? `--to-vf ${free.join(" or ")} has one`
        : 'start one there: up --guests N --guest-args="--incoming"';
      throw new UsageError(`no seat waits for a built-in guest on the target's vf ${vf}: ${how}`);
    }
    const end = (name: string, { api }: GuestView, { token }: GuestsAt) => ({
      api,
      token,
      peer: new Peer(name, api, token, { timeoutMs: STEP_MS }),
    });
    const runsOn = (at: GuestsAt, on: string) => async () =>
      (await list(at)).some(({ port, seat }) => port === on && seat === "running");
    const isKnown = { near: runsOn(near, guest.port), far: runsOn(far, seat.port) };
    return new GuestMove(end("the guest", guest, near), end("the seat there", seat, far), isKnown);
  }

  /** Has all of the guest sent there. It is stopped when this resolves. Throws with the guest running on here. */
  async copy(request: DepartureRequest, tell: (text: string) => void, signal: AbortSignal): Promise<void> {
    const ended = new AbortController();
    const either = AbortSignal.any([signal, ended.signal]);
    const watching = this.#watch(tell, ended.signal);
    try {
      const out = await this.#open(
        this.#near,
        "/api/v1/departure",
        "application/json",
        JSON.stringify(request),
        either,
      );
      // Once that is aborted its body ends in an error, and with it the other request.
      const into = this.#open(this.#far, "/api/v1/arrival", "application/octet-stream", out.body);
      await unlessAborted(into, either);
      this.#key = (await this.#near.peer.ask<DepartureCommit>("POST", "/api/v1/departure/commit", {})).key;
    } catch (error) {
      ended.abort();
      throw await this.#whyNot(signal.aborted ? signal.reason : error);
    } finally {
      ended.abort();
      await watching;
    }
  }

  async #open(end: End, path: string, type: string, body: BodyInit | null, signal?: AbortSignal) {
    const headers = { "content-type": type, ...bearer(end.token) };
    const init = { method: "POST", headers, body, redirect: "error", ...(signal ? { signal } : {}) } as const;
    const response = await fetch(end.api + path, init).catch((error) => {
      throw new UsageError(`the guest's way is broken (${oneLine(error)})`);
    });
    if (response.ok) return response;
    throw end.peer.refusal(response.status, await response.json().catch(() => undefined));
  }

  /** What to say of a copy that has failed: a seat that has ended it knows more than whoever carries it. */
  async #whyNot(error: unknown): Promise<unknown> {
    if (!(error instanceof UsageError) || !error.message.startsWith("the guest's way")) return error;
    const { problem } = await this.#near.peer.ask<Departure>("GET", "/api/v1/departure").catch(() => ({})) as Departure;
    return problem && !problem.detail.includes("not read to its end") ? new UsageError(problem.detail) : error;
  }

  async #watch(tell: (text: string) => void, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const departure = await this.#near.peer.ask<Departure>("GET", "/api/v1/departure").catch(() => undefined);
      if (departure?.state === "running") tell(progressBar(departure));
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, LOOK_MS);
        signal.addEventListener("abort", () => {
          clearTimeout(timer);
          resolve();
        }, { once: true });
      });
    }
  }

  /** The guest goes on here, and what is of it there is forgotten. Throws if it is not known whether it does. */
  async cancel(): Promise<void> {
    const query = this.#key === undefined ? "" : `?key=${this.#key}`;
    const [near] = await Promise.allSettled([
      this.#near.peer.ask("DELETE", `/api/v1/departure${query}`),
      this.#far.peer.ask("DELETE", "/api/v1/arrival"),
    ]);
    if (near.status === "rejected" && (near.reason as { status?: number }).status !== 404) throw near.reason;
  }

  /** The guest runs there: its VF has its address. Throws if it does not. */
  async run(): Promise<Arrival> {
    try {
      return await this.#far.peer.ask("POST", "/api/v1/arrival/run", {});
    } catch (error) {
      // It may have had the request, or have seen its address by itself.
      const there = await this.#far.peer.ask<Arrival>("GET", "/api/v1/arrival").catch(() => undefined);
      if (there?.seat === "running") return there;
      throw error;
    }
  }

  /** Its seat here is cleared. */
  async finish(): Promise<void> {
    await this.#near.peer.ask("POST", "/api/v1/departure/finish", { key: this.#key });
  }

  /** Waits until the hypervisor of one end knows that the guest runs there: only then does it give it a plugin. */
  async known(where: "near" | "far"): Promise<void> {
    for (const end = performance.now() + STEP_MS; performance.now() < end;) {
      if (await this.#isKnown[where]()) return;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

/** What a promise comes to, if that is before `signal` is aborted. */
async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  const aborted = Promise.withResolvers<never>();
  // Whichever comes second is nobody's.
  for (const one of [aborted.promise, promise]) one.catch(() => {});
  signal.addEventListener("abort", () => aborted.reject(signal.reason), { once: true });
  return await Promise.race([promise, aborted.promise]);
}

/** A bar, and what is known of the rest. */
export function progressBar({ now, transfer }: Departure): string {
  const { bytesTotal, bytesRemaining, rounds, bytesPerSecond, expectedDowntimeMs } = transfer;
  const share = bytesTotal === 0 ? 0 : 1 - bytesRemaining / bytesTotal;
  const full = Math.round(share * BAR_WIDTH);
  const bar = `[${"#".repeat(full)}${"·".repeat(BAR_WIDTH - full)}] ${Math.floor(share * 100)} %`;
  const megabytes = (bytes: number) => (bytes / 1e6).toFixed(1);
  const parts = [`round ${rounds}`, `${megabytes(bytesRemaining)} MB left`, `${megabytes(bytesPerSecond)} MB/s`];
  if (expectedDowntimeMs !== undefined) parts.push(`would stop for ${expectedDowntimeMs} ms`);
  return [bar, ...parts, ...(now === undefined ? [] : [now])].join(" · ");
}
