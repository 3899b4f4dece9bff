/**
 * A limit for clients each of whose requests makes an engine stand still for a moment: so many in a row are free, whoever
 * asks for more in the same window waits before each.
 */
const BURST = 256;
const WINDOW_MS = 200;
const PAUSE_MS = 20;

/** One client's requests. */
export class Pace {
  #recent = 0;
  #windowStart = 0;

  /** Notes a request; resolves when it may be served. */
  async step(): Promise<void> {
    const now = performance.now();
    if (now - this.#windowStart > WINDOW_MS) {
      this.#windowStart = now;
      this.#recent = 0;
    }
    if (++this.#recent > BURST) await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}
