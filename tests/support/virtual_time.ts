/**
 * Time that a test lets pass: while it is in force, timers and clocks of this thread are its own. Nobody waits for real;
 * time jumps to the next timer whenever everything else has come to rest.
 */

interface Timer {
  id: number;
  atMs: number;
  act: () => void;
  everyMs: number | undefined;
}

/** Turns of the real event loop in which whatever can go on does. */
const TURNS = 5;
/** Real milliseconds after which something that waits, with no timer to come, waits for ever. */
const STUCK_MS = 500;

const real = {
  setTimeout,
  clearTimeout,
  setInterval,
  clearInterval,
  now: performance.now,
  timeout: AbortSignal.timeout,
};

/** Virtual time, until it is disposed of. */
export class VirtualTime implements Disposable {
  #nowMs = 1_000_000;
  #timers: Timer[] = [];
  #next = 1;

  constructor() {
    const add = (act: () => void, afterMs: number, isRepeated: boolean) => {
      const timer = { id: this.#next++, atMs: this.#nowMs + afterMs, act, everyMs: isRepeated ? afterMs : undefined };
      this.#timers.push(timer);
      return timer.id;
    };
    const remove = (id: number | undefined) => {
      this.#timers = this.#timers.filter((timer) => timer.id !== id);
    };
    Object.assign(globalThis, {
      setTimeout: (act: () => void, ms = 0) => add(act, ms, false),
      setInterval: (act: () => void, ms = 0) => add(act, ms, true),
      ...{ clearTimeout: remove, clearInterval: remove },
    });
    performance.now = () => this.#nowMs;
    AbortSignal.timeout = (ms) => {
      const controller = new AbortController();
      add(() => controller.abort(new DOMException("Signal timed out.", "TimeoutError")), ms, false);
      return controller.signal;
    };
  }

  /** Milliseconds since some moment. */
  get now(): number {
    return this.#nowMs;
  }

  /** Lets whatever can go on without time passing go on. */
  async settle(): Promise<void> {
    for (let i = 0; i < TURNS; i++) await new Promise((resolve) => setImmediate(resolve));
  }

  /** Lets as much time pass as `promise` takes; passes its end on. Throws if it waits for something that never comes. */
  async run<T>(promise: Promise<T>): Promise<T> {
    let isSettled = false;
    const settled = () => {
      isSettled = true;
    };
    promise.then(settled, settled);
    for (;;) {
      await this.settle();
      for (let i = 0; !isSettled && this.#timers.length === 0; i++) {
        if (i === STUCK_MS) throw new Error("it waits, and no timer will ever end that");
        await new Promise((resolve) => real.setTimeout(resolve, 1));
      }
      if (isSettled) return await promise;
      this.#jump();
    }
  }

  /** Lets `ms` milliseconds pass. */
  async pass(ms: number): Promise<void> {
    const endMs = this.#nowMs + ms;
    await this.settle();
    while (this.#timers.some(({ atMs }) => atMs <= endMs)) {
      this.#jump();
      await this.settle();
    }
    this.#nowMs = endMs;
  }

  /** To the next timer. */
  #jump(): void {
    const timer = this.#timers.reduce((first, other) => other.atMs < first.atMs ? other : first);
    this.#nowMs = Math.max(this.#nowMs, timer.atMs);
    if (timer.everyMs === undefined) this.#timers = this.#timers.filter((other) => other !== timer);
    else timer.atMs = this.#nowMs + Math.max(1, timer.everyMs);
    timer.act();
  }

  [Symbol.dispose](): void {
    const { setTimeout, clearTimeout, setInterval, clearInterval } = real;
    Object.assign(globalThis, { setTimeout, clearTimeout, setInterval, clearInterval });
    performance.now = real.now;
    AbortSignal.timeout = real.timeout;
  }
}
