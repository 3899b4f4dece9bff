/** Who may change something on a port: one at a time, operators before guests, force before everybody. */
import { ApiError } from "../../shared/api/mod.ts";
import type { Change } from "./change.ts";
import type { Port } from "./handover.ts";

/** On whose behalf something is done: an operator's change, or, without one, what a guest's report has set off. */
export interface Claim {
  change?: Change;
  /** Ends an operator's change that is under way. */
  force?: boolean;
}

/** What is under way on each port. */
export class PortTurns {
  readonly #running = new Map<Port, { change: Change | undefined; done: Promise<void> }>();
  /** Operators' changes that wait for something to end. */
  readonly #waiting = new Map<Port, number>();

  /** Whether something is under way. */
  has(port: Port): boolean {
    return this.#running.has(port);
  }

  /**
   * Does something that nothing else on the port may happen beside. One operator's change refuses the next one, but
   * force ends it and has its turn; what a guest's report sets off gives way to all of them, and they wait for it.
   */
  async take<T>(port: Port, claim: Claim, act: () => Promise<T>): Promise<T> {
    for (let now = this.#running.get(port); now; now = this.#running.get(port)) {
      if (!claim.change || (now.change && !claim.force)) throw busy(port);
      now.change?.abort();
      this.#waiting.set(port, (this.#waiting.get(port) ?? 0) + 1);
      await now.done;
      this.#waiting.set(port, (this.#waiting.get(port) ?? 1) - 1);
    }
    if (!claim.change && this.#waiting.get(port)) throw busy(port);
    const done = Promise.withResolvers<void>();
    this.#running.set(port, { change: claim.change, done: done.promise });
    try {
      return await act();
    } finally {
      this.#running.delete(port);
      done.resolve();
    }
  }
}

function busy(port: Port): ApiError {
  const detail = `${nameOf(port)} is changing its mode already: try again in a moment`;
  return new ApiError(409, detail, "mode", "operation-in-progress");
}

/** A port, as messages name it. */
export function nameOf(port: Port): string {
  return typeof port === "number" ? `vf ${port}` : port;
}
