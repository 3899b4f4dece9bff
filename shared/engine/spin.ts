/**
 * How long a worker without work polls before it sleeps. To be woken from epoll costs some 50 µs on each CPU that has
 * to wake; a worker that still polls when the next frame comes answers at once.
 *
 * Adaptive, as KVM's halt polling is: a sleep that a longer window would have saved doubles the window, up to
 * SPIN_NS_MAX; a sleep longer than that halves it, so a quiet NIC soon goes to sleep after SPIN_NS_MIN. It is only done
 * where a CPU is free. The scheduler says how long the worker was ready to run and had no CPU: more than a quarter of
 * the time that it ran, and it sleeps at once for a while, since the guests that it polls for want the CPU.
 */

/** The shortest adaptive window where a CPU is free. */
export const SPIN_NS_MIN = 100_000;
/** The longest one: streams of 1,000 frames/s, with their jitter, are polled. */
export const SPIN_NS_MAX = 4_000_000;
/** How often a worker that polls for nothing looks who has the CPU, and how long it must have run to judge. */
const JUDGED_NS = 20_000_000;
const WAITED_SHARE_MAX = 0.25;
/** How long a worker that waits for its CPU does without polling. */
const BACK_OFF_NS = 500_000_000;

/** Polls in one run of the engine, shared among all that is polled: they take some 70 µs when there is no work. */
const POLLS_PER_RUN = 2048;
/** Polls in a run of a worker that is not to poll without work. */
const POLLS_BEFORE_SLEEP = 256;
/** Passes in such a short run at least: between two runs there is JavaScript. */
const PASSES_BEFORE_SLEEP = 4;

/**
 * How many passes over `polled` queues and packet buffers one run has. A worker with no window looks a few times only
 * before it sleeps: somebody may wait for its CPU.
 */
export function passesOf(polled: number, windowNs: number): number {
  return windowNs === 0
    ? Math.max(PASSES_BEFORE_SLEEP, Math.floor(POLLS_BEFORE_SLEEP / polled))
    : Math.max(1, Math.floor(POLLS_PER_RUN / polled));
}

/** A thread's times, in nanoseconds, as of the last `read` (`ThreadTimes`). */
interface Times {
  readonly ranNs: number;
  readonly waitedNs: number;
  read(): void;
}

/** The window of one worker. Nothing is allocated after the constructor. */
export class SpinWindow {
  readonly #times: Times | undefined;
  #windowNs: number;
  #judgedNs = 0;
  #ranNs = 0;
  #waitedNs = 0;
  #backOffEndNs = 0;

  /** `times`: the worker's own, for an adaptive window; a number: a window of so many nanoseconds, which stays as it is. */
  constructor(times: Times | number) {
    this.#times = typeof times === "number" ? undefined : times;
    this.#windowNs = typeof times === "number" ? times : SPIN_NS_MIN;
    this.#times?.read();
    this.#ranNs = this.#times?.ranNs ?? 0;
    this.#waitedNs = this.#times?.waitedNs ?? 0;
  }

  /** How long the worker polls without work now, in nanoseconds. */
  get windowNs(): number {
    return this.#windowNs;
  }

  /** A look at `nowNs` found no work, and none has been found since `idleSinceNs`: whether it is time to sleep. */
  isOver(nowNs: number, idleSinceNs: number): boolean {
    if (this.#times && nowNs - this.#judgedNs >= JUDGED_NS) this.#judge(this.#times, nowNs);
    return nowNs - idleSinceNs >= this.#windowNs;
  }

  #judge(times: Times, nowNs: number): void {
    this.#judgedNs = nowNs;
    times.read();
    const ran = times.ranNs - this.#ranNs;
    if (ran < JUDGED_NS) return;
    const waited = times.waitedNs - this.#waitedNs;
    this.#ranNs = times.ranNs;
    this.#waitedNs = times.waitedNs;
    if (waited <= ran * WAITED_SHARE_MAX) return;
    this.#windowNs = 0;
    this.#backOffEndNs = nowNs + BACK_OFF_NS;
  }

  /** A kick has ended a sleep of `sleptNs`, at `nowNs`. */
  woken(sleptNs: number, nowNs: number): void {
    if (!this.#times || nowNs < this.#backOffEndNs) return;
    const isInReach = this.#windowNs + sleptNs <= SPIN_NS_MAX;
    const next = isInReach ? Math.max(this.#windowNs * 2, this.#windowNs + sleptNs) : this.#windowNs / 2;
    this.#windowNs = Math.min(SPIN_NS_MAX, Math.max(SPIN_NS_MIN, next));
  }
}
