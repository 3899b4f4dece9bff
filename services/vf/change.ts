/** One change of mode under way: its steps, how to take them back, and how long its guest may take for its part. */
import { ApiError, log, type ModeStep } from "../../shared/api/mod.ts";

/** A guest's part of a change may take so long in all, however many steps it has. */
const GUEST_MS = 8000;
/** And so long in all for taking back what it has done. */
const UNDO_MS = 1000;

/** A change of mode, step by step. */
export class Change {
  readonly steps: ModeStep[] = [];
  readonly #undo: (() => Promise<unknown>)[] = [];
  /** When the guest's time in all is over. It begins with the guest's first step: a change may wait for its turn. */
  #endsMs: number | undefined;
  #guestEndsMs = 0;
  #undoing = false;
  readonly #aborted = Promise.withResolvers<never>();
  #isAborted = false;

  constructor() {
    this.#aborted.promise.catch(() => {});
  }

  /** From now on the guest has `ms` milliseconds for its next steps, if it has so much left of its time in all. */
  giveGuest(ms: number): void {
    const nowMs = performance.now();
    this.#endsMs ??= nowMs + GUEST_MS;
    this.#guestEndsMs = Math.min(this.#endsMs, nowMs + ms);
  }

  /** The guest is not waited for any more: somebody takes the VF by force. */
  abort(): void {
    this.#isAborted = true;
    this.#aborted.reject(new ApiError(409, "the VF is taken back by force", "mode", "taken-by-force"));
  }

  /** Asks the guest, for at most what is left of its time or `mostMs`. Throws if it does not answer in time. */
  async askGuest<T>(ask: (ms: number) => Promise<T>, mostMs = Infinity): Promise<T> {
    const leftMs = Math.min(mostMs, Math.ceil(this.#guestEndsMs - performance.now()));
    if (leftMs <= 0) {
      throw new ApiError(503, "the guest has had its time for the change", undefined, "guest-unreachable");
    }
    // What is taken back is taken back by force too, in the little time that the guest has for it.
    if (this.#undoing) return await ask(leftMs);
    return await Promise.race([ask(leftMs), this.#aborted.promise]);
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
    await this.step(name, act, undo).catch(() => {});
  }

  /** What has been done so far stays, whatever fails from now on. */
  keep(): void {
    this.#undo.length = 0;
  }

  /** Notes what the last step has cost. */
  noteLost(descriptors: number): void {
    const last = this.steps.at(-1);
    if (last && descriptors > 0) last.lost = descriptors;
  }

  /** Takes back what was done. What cannot be taken back is said. */
  async undo(): Promise<void> {
    this.#undoing = true;
    this.#guestEndsMs = performance.now() + (this.#isAborted ? 0 : UNDO_MS);
    for (const undo of this.#undo.splice(0)) {
      try {
        await undo();
      } catch (error) {
        log("warn", "vf", `while undoing a change of mode: ${(error as Error).message}`);
      }
    }
    this.#undoing = false;
  }
}
