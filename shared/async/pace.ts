/**
 * A budget of work. Every request has a cost, and a client has so many units a second, with a reserve for a start or a
 * change that asks for much at once. A client that has used its budget up waits for its turn.
 *
 * The algorithm is GCRA (ITU-T I.371): one number says until when the units so far are paid for. A request takes its
 * place there as soon as it is made, so requests wait in their order, once each, and what is served in any second is
 * never more than the budget and the reserve.
 */

/** How much work a client may ask for. */
export interface PaceOptions {
  perSecond: number;
  /** Units in reserve when nothing was asked for a while. */
  burst: number;
}

/** Time in milliseconds, and waiting. Tests bring their own. */
export interface Clock {
  now(): number;
  wait(ms: number): Promise<void>;
}

const CLOCK: Clock = {
  now: () => performance.now(),
  wait: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
};

/** One client's budget, or that of several clients together. */
export class Pace {
  readonly #unitMs: number;
  readonly #burstMs: number;
  readonly #parent: Pace | undefined;
  readonly #clock: Clock;
  /** Until when what was asked for so far takes, at the budget's rate. */
  #paidUntil = 0;

  /** `parent`: a budget that is shared with others, from which each step takes too. */
  constructor({ perSecond, burst }: PaceOptions, parent?: Pace, clock = CLOCK) {
    this.#unitMs = 1000 / perSecond;
    this.#burstMs = burst * this.#unitMs;
    this.#parent = parent;
    this.#clock = clock;
  }

  /**
   * Takes `cost` units; resolves when the request may be served. What the client's own budget does not have is not asked
   * of the shared one yet. So nobody takes a place there too early, and clients with one request each at a time have
   * their turns one after the other.
   */
  async step(cost = 1): Promise<void> {
    const now = this.#clock.now();
    const waitMs = this.#take(cost, now) - this.#burstMs - now;
    if (waitMs > 0) await this.#clock.wait(Math.ceil(waitMs));
    await this.#parent?.step(cost);
  }

  /**
   * For work that shows only when it is done: takes the whole reserve, and `cost` units that the next step waits for.
   * Several calls at a time are as good as one.
   */
  exhaust(cost: number): void {
    const now = this.#clock.now();
    const owedMs = Math.max(0, this.#paidUntil - now);
    const units = cost + (this.#burstMs - owedMs) / this.#unitMs;
    if (units <= 0) return;
    this.#take(units, now);
    if (this.#parent) this.#parent.#take(units, now);
  }

  /** Notes `cost` units; answers until when everything so far takes. */
  #take(cost: number, now: number): number {
    this.#paidUntil = Math.max(this.#paidUntil, now) + cost * this.#unitMs;
    return this.#paidUntil;
  }
}
