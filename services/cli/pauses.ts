/**
 * When the guest of a VF, which is being moved, stands still, and its VF has given its address up: its PF tells so. It
 * gives it up by itself as long as this listens.
 */
import { bearer, type PausedAddress, type PausedEvent, readEvents } from "../../shared/api/mod.ts";

const RETRY_MS = 200;

/** What is heard of. */
interface Wanted {
  vf: number;
  /** What the VF's address becomes when its guest stands still. */
  address: PausedAddress;
}

/** A guest stands still. */
export interface Pause {
  /** When that was heard, as `performance.now` has it. */
  sinceMs: number;
  /** Resolves when the VF has given its address up. */
  given: Promise<void>;
}

/** Hears when the guest of one VF stands still. */
export class Pauses implements Disposable {
  readonly #ended = new AbortController();
  /** A pause that nobody has taken yet. */
  #pending: Pause | undefined;
  #news = Promise.withResolvers<void>();
  /** Resolves what has been heard last: what is told later is about a later pause. */
  #give: () => void = () => {};

  /** Listens to the PF at `api`. Resolves when it hears everything; throws if it cannot. */
  static async of(
    { api, token }: { api: string; token: string | undefined },
    { vf, address: { mac, macFixed } }: Wanted,
  ): Promise<Pauses> {
    const pauses = new Pauses();
    const opened = Promise.withResolvers<void>();
    const headers = { ...bearer(token), "content-type": "application/json" };
    const request = { method: "POST", headers, body: JSON.stringify({ mac, macFixed }) };
    void pauses.#follow(`${api}/api/v1/vfs/${vf}/pausedAddress`, request, opened);
    try {
      await opened.promise;
    } catch (error) {
      pauses[Symbol.dispose]();
      throw error;
    }
    return pauses;
  }

  /** A PF that has ended is listened to again as soon as it answers. What it told meanwhile is seen by looking at the VFs. */
  async #follow(url: string, request: RequestInit, opened: PromiseWithResolvers<void>): Promise<void> {
    const { signal } = this.#ended;
    while (!signal.aborted) {
      try {
        for await (const { type } of readEvents<PausedEvent>(url, { ...request, signal }, () => opened.resolve())) {
          if (type === "paused") this.#heard();
          else this.#give();
        }
      } catch (error) {
        opened.reject(error);
      }
      this.#give = () => {};
      if (!signal.aborted) await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }

  #heard(): void {
    const { promise: given, resolve } = Promise.withResolvers<void>();
    this.#give = resolve;
    this.#pending = { sinceMs: performance.now(), given };
    this.#news.resolve();
  }

  /** Resolves when there is a pause to take. */
  get news(): Promise<void> {
    return this.#news.promise;
  }

  /** Waits for the next pause, for so long at the most. */
  async next(waitMs: number): Promise<Pause | undefined> {
    await within(this.news, waitMs);
    const pause = this.#pending;
    this.#pending = undefined;
    this.#news = Promise.withResolvers();
    return pause;
  }

  [Symbol.dispose](): void {
    this.#ended.abort();
  }
}

/** Waits for `promise`, for so long at the most; answers whether it has resolved. */
export async function within(promise: Promise<void>, waitMs: number): Promise<boolean> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<boolean>((resolve) => timer = setTimeout(() => resolve(false), waitMs));
  return await Promise.race([promise.then(() => true), late]).finally(() => clearTimeout(timer));
}
