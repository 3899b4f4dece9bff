/** The PF's events, as they come. */
import { readEvents } from "../../shared/api/mod.ts";
import { TEST_TOKEN } from "./token.ts";
import { until, within } from "./wait.ts";

/** An event of whatever kind. */
export type AnyEvent = Record<string, unknown> & { type: string };

/** Everything that the PF has told since it was made. */
export class EventLog implements AsyncDisposable {
  readonly all: AnyEvent[] = [];
  readonly #stop = new AbortController();
  readonly #done: Promise<void>;
  readonly #open = Promise.withResolvers<void>();

  private constructor(url: string, headers: Record<string, string>) {
    this.#done = this.#read(url, headers).catch(() => {});
  }

  /** Subscribes to the events of the PF at `api`. */
  static async start(
    api: string,
    headers: Record<string, string> = { authorization: `Bearer ${TEST_TOKEN}` },
  ): Promise<EventLog> {
    const log = new EventLog(`${api}/api/v1/events`, headers);
    await within("the PF to take the subscription", log.#open.promise, 5000);
    return log;
  }

  async #read(url: string, headers: Record<string, string>): Promise<void> {
    const { signal } = this.#stop;
    for await (const event of readEvents<AnyEvent>(url, { headers, signal }, () => this.#open.resolve())) {
      this.all.push(event);
    }
  }

  /** Waits for an event. */
  until(isIt: (event: AnyEvent) => boolean): Promise<AnyEvent> {
    return until("an event of the PF", () => this.all.find(isIt));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#done;
  }
}
