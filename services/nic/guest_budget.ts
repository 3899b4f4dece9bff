/** What guests may ask of the device socket, all of them together. */
import { Pace } from "../../shared/async/mod.ts";
import { ALL_GUESTS_PACE } from "../../shared/engine/mod.ts";

/** Of them, those of one guest's process that have no VF yet: each comes for one. */
const WITHOUT_VF_MAX = 64;

/**
 * What all guests' connections share. Those that have no VF yet cannot make the engine stand still, so they have a
 * budget of their own: however many of them flood, guests with a VF do not wait for them.
 */
export class GuestBudget {
  readonly withVf = new Pace(ALL_GUESTS_PACE);
  readonly withoutVf = new Pace(ALL_GUESTS_PACE);
  /** Connections without a VF, by the process that has made them. */
  readonly #waiting = new Map<number, number>();

  /** Counts a connection of `pid` until it has a VF or ends, which it says by what is answered. None: it has enough. */
  enter(pid: number): (() => void) | undefined {
    const count = this.#waiting.get(pid) ?? 0;
    // Processes of other containers cannot be told apart: all of them are 0.
    if (pid !== 0 && count >= WITHOUT_VF_MAX) return undefined;
    this.#waiting.set(pid, count + 1);
    let isCounted = true;
    return () => {
      if (!isCounted) return;
      isCounted = false;
      const left = (this.#waiting.get(pid) ?? 0) - 1;
      if (left > 0) this.#waiting.set(pid, left);
      else this.#waiting.delete(pid);
    };
  }
}
