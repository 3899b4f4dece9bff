/** One change of mode under way: its steps, how to take them back, and how long its guest may take for its part. */
import { ApiError, log, type ModeStep } from "../../shared/api/mod.ts";

/** A guest's part of taking a step back may take so long, however much of its time it has used up. */
const UNDO_MS = 1000;

/** A change of mode, step by step. */
export class Change {
  readonly steps: ModeStep[] = [];
  readonly #undo: (() => Promise<unknown>)[] = [];
  #guestEndsMs = 0;

  /** From now on the guest has `ms` milliseconds for its part of the change, in all. */
  giveGuest(ms: number): void {
    this.#guestEndsMs = performance.now() + ms;
  }

  /** What is left of the guest's time. Throws if it has used it up. */
  get guestMs(): number {
    const left = Math.ceil(this.#guestEndsMs - performance.now());
    if (left > 0) return left;
    throw new ApiError(503, "the guest has had its time for the change", undefined, "guest-unreachable");
  }

  /** How long a guest may take to take something back. */
  get undoMs(): number {
    return Math.max(UNDO_MS, Math.ceil(this.#guestEndsMs - performance.now()));
  }

  async #time<T>(name: string, act: () => Promise<T>): Promise<T> {
    const start = performance.now();
    const ms = () => Math.round((performance.now() - start) * 100) / 100;
    try {
      const value = await act();
      this.steps.push({ step: name, ms: ms() });
      return value;
    } catch (error) {
      this.steps.push({ step: name, ms: ms(), error: (error as Error).message });
      throw error;
    }
  }

  /** Does a step; if it or a later one fails, `undo` is called, last step first. */
  async step<T>(name: string, act: () => Promise<T>, undo?: () => Promise<unknown>): Promise<T> {
    const value = await this.#time(name, act);
    if (undo) this.#undo.unshift(undo);
    return value;
  }

  /** Asks for something that the change goes on without: whether it failed is only shown. */
  async attempt(name: string, act: () => Promise<unknown>, undo?: () => Promise<unknown>): Promise<void> {
    await this.#time(name, act).catch(() => {});
    // Whoever has not answered may have done it all the same.
    if (undo) this.#undo.unshift(undo);
  }

  /** Notes how many frames a step has cost. */
  noteLost(frames: number): void {
    const last = this.steps.at(-1);
    if (last && frames > 0) last.lost = frames;
  }

  /** Takes back what was done. What cannot be taken back is said. */
  async undo(): Promise<void> {
    for (const undo of this.#undo) {
      try {
        await undo();
      } catch (error) {
        log("warn", "vf", `while undoing a change of mode: ${(error as Error).message}`);
      }
    }
  }
}
