/**
 * The PF's line to a service that it programmes: the NIC, or the vhost service's software switch. When either side has
 * restarted the whole programme is sent again, which changes nothing that is already in force.
 */
import { pauseMs } from "../../shared/async/mod.ts";
import { bearer, log, oneLine, Peer, readEvents } from "../../shared/api/mod.ts";

const TIMEOUT_MS = 5000;

/** A service that is programmed, and whose events are followed. */
export class Link<Event> {
  protected readonly peer: Peer;
  readonly #name: string;
  readonly #headers: Record<string, string>;
  #attempt = new AbortController();
  #ended = false;
  /** Whether the service has the PF's programme and its events are heard. */
  connected = false;
  /** Why it has not, as far as that is known. */
  trouble: string | undefined;
  /** Since when that is so, in milliseconds since 1970. */
  sinceMs = Date.now();

  constructor(name: string, url: string, token: string | undefined) {
    this.#name = name;
    this.#headers = bearer(token);
    this.peer = new Peer(name, url, token, { timeoutMs: TIMEOUT_MS });
  }

  /** Opens a capture of what its engine has; `search`: of what. */
  capture(search: string): Promise<ReadableStream<Uint8Array<ArrayBuffer>>> {
    return this.peer.open(`/api/v1/captures${search}`);
  }

  /** Drops the line, so that the service is programmed anew when the line is back. */
  reconnect(): void {
    this.#attempt.abort();
  }

  /** Keeps the service programmed and passes its events on, until `close`. */
  async follow(
    program: () => Promise<void>,
    onEvent: (event: Event) => void,
    onChange: (connected: boolean) => void,
  ): Promise<void> {
    while (!this.#ended) {
      this.#attempt = new AbortController();
      const { signal } = this.#attempt;
      try {
        const opened = Promise.withResolvers<void>();
        const events = readEvents<Event>(`${this.peer.url}/api/v1/events`, { headers: this.#headers, signal }, () => {
          opened.resolve();
        });
        // Subscribed before it is programmed, so that nothing in between goes unheard.
        const first = events.next();
        await Promise.race([opened.promise, first]);
        await program();
        this.#turn(true);
        this.trouble = undefined;
        onChange(true);
        for (let next = await first; !next.done; next = await events.next()) onEvent(next.value);
      } catch (error) {
        const trouble = `${this.connected ? "lost" : "cannot programme"} ${this.#name}: ${oneLine(error)}`;
        const starting = error instanceof TypeError && !this.connected;
        if (!this.#ended && !starting && trouble !== this.trouble) log("warn", "pf", trouble);
        this.trouble = trouble;
      }
      this.#attempt.abort();
      if (this.connected) onChange(false);
      this.#turn(false);
      if (!this.#ended) await new Promise((resolve) => setTimeout(resolve, pauseMs(Date.now() - this.sinceMs)));
    }
  }

  #turn(connected: boolean): void {
    if (connected !== this.connected) this.sinceMs = Date.now();
    this.connected = connected;
  }

  close(): void {
    this.#ended = true;
    this.#attempt.abort();
  }
}
