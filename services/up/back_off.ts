/**
 * When a service that has died is started again: at once the first time, then after pauses that double up to a bound,
 * until it has run well for a while. A service that dies at each start so costs next to nothing, and one that is killed
 * now and then is back at once.
 */

/** The first pause that is one. */
const PAUSE_MIN_MS = 200;
const PAUSE_MAX_MS = 5000;
/** A service that was ready for so long has run well: what it dies of then is nothing that each start meets. */
const RAN_WELL_MS = 2000;

/** The pauses of one service. */
export class BackOff {
  #attempts = 0;

  /** How often it was started again since it last ran well. */
  get attempts(): number {
    return this.#attempts;
  }

  /** Whether there would be no pause if it died now. */
  isAtOnce(readyMs: number): boolean {
    return readyMs >= RAN_WELL_MS || this.#attempts === 0;
  }

  /** It has died. Answers how long to wait, in milliseconds; `readyMs`: for how long it was ready, 0 if it never was. */
  next(readyMs: number): number {
    const isWell = readyMs >= RAN_WELL_MS;
    this.#attempts = isWell ? 1 : this.#attempts + 1;
    if (this.#attempts === 1) return 0;
    return Math.min(PAUSE_MIN_MS * 2 ** Math.min(this.#attempts - 2, 10), PAUSE_MAX_MS);
  }
}
