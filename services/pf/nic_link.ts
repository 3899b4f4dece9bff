/**
 * The PF's line to the NIC: programmes it, reads its state, follows its events. When either side has restarted the
 * whole programme is sent again, which changes nothing that is already in force.
 */
import {
  ApiError,
  Filter,
  log,
  type NicEvent,
  NicState,
  oneLine,
  type Programme,
  readEvents,
} from "../../shared/api/mod.ts";
import { z } from "zod";

const RETRY_MS = 200;
const TIMEOUT_MS = 5000;

/** A NIC's control API at `url`. */
export class NicLink {
  readonly #url: string;
  readonly #headers: Record<string, string>;
  #attempt = new AbortController();
  #ended = false;
  /** Whether the NIC has the PF's programme and its events are heard. */
  connected = false;

  constructor(url: string, token: string | undefined) {
    this.#url = url;
    this.#headers = token ? { authorization: `Bearer ${token}` } : {};
  }

  async #fetch(path: string, init: RequestInit = {}): Promise<unknown> {
    let response: Response;
    let body: unknown;
    try {
      response = await fetch(this.#url + path, {
        ...init,
        headers: { ...this.#headers, "content-type": "application/json" },
        signal: AbortSignal.timeout(TIMEOUT_MS),
      });
      body = await response.json();
    } catch (error) {
      throw new ApiError(503, `the NIC at ${this.#url} does not answer (${oneLine(error)}); the change was not made`);
    }
    if (response.ok) return body;
    const { detail, field } = body as { detail?: string; field?: string };
    const status = response.status === 409 || response.status === 422 ? response.status : 503;
    throw new ApiError(status, `the NIC refused: ${detail ?? response.status}`, field);
  }

  /** Puts a programme in force. */
  async program(programme: Programme): Promise<void> {
    await this.#fetch("/api/v1/programme", { method: "PUT", body: JSON.stringify(programme) });
  }

  async state(): Promise<NicState> {
    return NicState.parse(await this.#fetch("/api/v1/state"));
  }

  async filters(): Promise<Filter[]> {
    return z.array(Filter).parse(await this.#fetch("/api/v1/filters"));
  }

  /** Drops the line to the NIC, so that it is programmed anew when the line is back. */
  reconnect(): void {
    this.#attempt.abort();
  }

  /** Keeps the NIC programmed and passes its events on, until `close`. */
  async follow(
    program: () => Promise<void>,
    onEvent: (event: NicEvent) => void,
    onChange: (connected: boolean) => void,
  ): Promise<void> {
    let lastTrouble = "";
    while (!this.#ended) {
      this.#attempt = new AbortController();
      const { signal } = this.#attempt;
      try {
        const opened = Promise.withResolvers<void>();
        const events = readEvents<NicEvent>(`${this.#url}/api/v1/events`, { headers: this.#headers, signal }, () => {
          opened.resolve();
        });
        // Subscribed before it is programmed, so that nothing in between goes unheard.
        const first = events.next();
        await Promise.race([opened.promise, first]);
        await program();
        this.connected = true;
        lastTrouble = "";
        onChange(true);
        for (let next = await first; !next.done; next = await events.next()) onEvent(next.value);
      } catch (error) {
        const trouble = `${this.connected ? "lost" : "cannot programme"} the NIC: ${oneLine(error)}`;
        const starting = error instanceof TypeError && !this.connected;
        if (!this.#ended && !starting && trouble !== lastTrouble) log("warn", "pf", trouble);
        lastTrouble = trouble;
      }
      this.#attempt.abort();
      if (this.connected) onChange(false);
      this.connected = false;
      if (!this.#ended) await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }

  close(): void {
    this.#ended = true;
    this.#attempt.abort();
  }
}
