/** One change of mode under way: its steps, how to take them back, and how long its guest may take for its part. */
import { ApiError, log, MODE_MS_MAX, type ModeStep, msLeft, withDeadline } from "../../shared/api/mod.ts";

/** What a change may take in all: a little less than the PF waits for it. */
const CHANGE_MS = MODE_MS_MAX - 1000;
/** Of that, what is kept for taking back what was done, and for what has to be done whatever came before. */
const LAST_MS = 5000;
/** What has to be done is tried for so long even if no time is left. */
const TRY_MS = 200;
/** A guest's part of a change may take so long in all, however many steps it has. */
const GUEST_MS = 8000;
/** And so long in all for taking back what it has done. */
const UNDO_MS = 1000;

/** A change of mode, step by step. */
export class Change {
  readonly steps: ModeStep[] = [];
  readonly #undo: (() => Promise<unknown>)[] = [];
  /** The step that is under way. */
  now: string | undefined;
  /** When all of it has ended; and when no further step is begun, until what was done is kept or taken back. */
  readonly #lastMs: number;
  #stepsEndMs: number;
  /** When the guest's time in all is over. It begins with the guest's first step: a change may wait for its turn. */
  #guestLastMs: number | undefined;
  #guestEndsMs = 0;
  #undoing = false;
  readonly #aborted = Promise.withResolvers<never>();
  #isAborted = false;

  /** A change that has ended in `ms` milliseconds, however it ends. */
  constructor(ms = CHANGE_MS) {
    this.#lastMs = performance.now() + Math.min(ms, CHANGE_MS);
    this.#stepsEndMs = this.#lastMs - Math.min(LAST_MS, ms / 2);
    this.#aborted.promise.catch(() => {});
  }

  /** What is left of its time, all of it. */
  get msLeft(): number {
    return Math.max(1, Math.floor(this.#lastMs - performance.now()));
  }

  /** From now on the guest has `ms` milliseconds for its next steps, if it has so much left of its time in all. */
  giveGuest(ms: number): void {
    const nowMs = performance.now();
    this.#guestLastMs ??= nowMs + GUEST_MS;
    this.#guestEndsMs = Math.min(this.#guestLastMs, nowMs + ms);
  }

  /** The guest is not waited for any more: somebody takes the VF by force. */
  abort(): void {
    this.#isAborted = true;
    this.#aborted.reject(new ApiError(409, "the VF is taken back by force", "mode", "taken-by-force"));
  }

  /** Asks the guest, for at most what is left of its time or `mostMs`. Throws if it does not answer in time. */
  async askGuest<T>(ask: (ms: number) => Promise<T>, mostMs = Infinity): Promise<T> {
    const leftMs = Math.min(mostMs, msLeft(), Math.ceil(this.#guestEndsMs - performance.now()));
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
    this.now = name;
    try {
      const value = await this.within(act);
      this.steps.push({ step: name, ms: ms() });
      return value;
    } catch (error) {
      this.steps.push({ step: name, ms: ms(), error: (error as Error).message });
      throw error;
    } finally {
      this.now = undefined;
    }
  }

  /** Does something in the time that the change has for it. Throws if that is over, unless it has to be done. */
  within<T>(act: () => Promise<T>): Promise<T> {
    const nowMs = performance.now();
    const isLast = this.#stepsEndMs === this.#lastMs;
    if (!isLast && nowMs >= this.#stepsEndMs) {
      throw new ApiError(503, "the change has had its time", undefined, "deadline");
    }
    return withDeadline({ endsMs: isLast ? Math.max(this.#lastMs, nowMs + TRY_MS) : this.#stepsEndMs }, act);
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
    this.#stepsEndMs = this.#lastMs;
  }

  /** Notes what the last step has cost. */
  noteLost(descriptors: number): void {
    const last = this.steps.at(-1);
    if (last && descriptors > 0) last.lost = descriptors;
  }

  /** Takes back what was done. What cannot be taken back is said. */
  async undo(): Promise<void> {
    this.#undoing = true;
    this.#stepsEndMs = this.#lastMs;
    this.#guestEndsMs = performance.now() + (this.#isAborted ? 0 : UNDO_MS);
    const undos = this.#undo.splice(0);
    for (const [i, undo] of undos.entries()) {
      // One that nobody answers leaves the others their share of the time.
      const shareMs = Math.max(TRY_MS, (this.#lastMs - performance.now()) / (undos.length - i));
      try {
        await withDeadline({ endsMs: performance.now() + shareMs }, undo);
      } catch (error) {
        log("warn", "vf", `while undoing a change of mode: ${(error as Error).message}`);
      }
    }
    this.#undoing = false;
  }
}
