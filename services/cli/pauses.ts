/** When guests of a fabric that are being moved stand still: its PF tells, by its events. */
import { bearer, type PfEvent, readEvents } from "../../shared/api/mod.ts";

const RETRY_MS = 200;

/** Hears when the guest of one VF stands still. */
export class Pauses implements Disposable {
  readonly #ended = new AbortController();
  /** Pauses that nobody has asked for yet. */
  #isPending = false;
  #tell: () => void = () => {};

  /** Listens to the PF at `api`. Resolves when it hears everything; throws if it cannot. */
  static async of({ api, token }: { api: string; token: string | undefined }, vf: number): Promise<Pauses> {
    const pauses = new Pauses();
    const opened = Promise.withResolvers<void>();
    void pauses.#follow(`${api}/api/v1/events`, bearer(token), vf, opened);
    try {
      await opened.promise;
    } catch (error) {
      pauses[Symbol.dispose]();
      throw error;
    }
    return pauses;
  }

  /** A PF that has ended is listened to again as soon as it answers. What it told meanwhile is seen by looking at the VFs. */
  async #follow(
    url: string,
    headers: Record<string, string>,
    vf: number,
    opened: PromiseWithResolvers<void>,
  ): Promise<void> {
    const { signal } = this.#ended;
    while (!signal.aborted) {
      try {
        for await (const event of readEvents<PfEvent>(url, { headers, signal }, () => opened.resolve())) {
          if (event.type === "guest-paused" && event.vf === vf) this.#heard();
        }
      } catch (error) {
        opened.reject(error);
      }
      if (!signal.aborted) await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }

  #heard(): void {
    this.#isPending = true;
    this.#tell();
  }

  /** Waits for the next pause, for so long at the most; answers whether there was one. */
  async next(waitMs: number): Promise<boolean> {
    if (!this.#isPending) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, waitMs);
        this.#tell = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    const was = this.#isPending;
    this.#isPending = false;
    return was;
  }

  [Symbol.dispose](): void {
    this.#ended.abort();
  }
}
