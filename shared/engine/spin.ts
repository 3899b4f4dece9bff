/**
 * How long a worker without work polls before it sleeps. To be woken from epoll costs some 50 µs on each CPU that has
 * to wake; a worker that still polls when the next frame comes answers at once.
 *
 * Adaptive, as KVM's halt polling is: a sleep that a longer window would have saved doubles the window, up to
 * SPIN_NS_MAX; a sleep longer than that halves it, so a quiet NIC soon goes to sleep after SPIN_NS_MIN. It is only done
 * where a CPU is free. While the worker polls for nothing, its clock shows whether somebody else had the CPU meanwhile;
 * more than a quarter of the time, and the worker spins no longer than SPIN_NS_MIN for a while.
 */

/** The shortest adaptive window. */
export const SPIN_NS_MIN = 100_000;
/** The longest one: streams of 1,000 frames/s, with their jitter, are polled. */
export const SPIN_NS_MAX = 4_000_000;
/** Two looks at the clock that lie further apart were not made in a row: an empty `run` takes some 30 µs. */
const ROW_NS = 100_000;
/** Idle polling after which it is judged who had the CPU. */
const JUDGED_NS = 20_000_000;
const LOST_SHARE_MAX = 0.25;
/** How long a worker that has lost its CPU does without long windows. */
const BACK_OFF_NS = 500_000_000;

/** The window of one worker. Nothing is allocated after the constructor. */
export class SpinWindow {
  readonly #adaptive: boolean;
  #windowNs: number;
  #lookedNs = 0;
  #idleSinceNs = 0;
  #spunNs = 0;
  #lostNs = 0;
  #backOffEndNs = 0;

  /** `fixedNs`: a window that stays as it is; else it is adaptive. */
  constructor(fixedNs?: number) {
    this.#adaptive = fixedNs === undefined;
    this.#windowNs = fixedNs ?? SPIN_NS_MIN;
  }

  /** How long the worker polls without work now, in nanoseconds. */
  get windowNs(): number {
    return this.#windowNs;
  }

  /** A look at `nowNs` found no work, and none has been found since `idleSinceNs`: whether it is time to sleep. */
  isOver(nowNs: number, idleSinceNs: number): boolean {
    if (this.#adaptive) this.#watchCpu(nowNs, idleSinceNs);
    return nowNs - idleSinceNs >= this.#windowNs;
  }

  #watchCpu(nowNs: number, idleSinceNs: number): void {
    const looked = this.#lookedNs;
    this.#lookedNs = nowNs;
    if (idleSinceNs !== this.#idleSinceNs) {
      this.#idleSinceNs = idleSinceNs;
      return;
    }
    const apart = nowNs - looked;
    this.#spunNs += apart;
    if (apart > ROW_NS) this.#lostNs += apart;
    if (this.#spunNs < JUDGED_NS) return;
    if (this.#lostNs > this.#spunNs * LOST_SHARE_MAX) {
      this.#windowNs = SPIN_NS_MIN;
      this.#backOffEndNs = nowNs + BACK_OFF_NS;
    }
    this.#spunNs = this.#lostNs = 0;
  }

  /** A kick has ended a sleep of `sleptNs`, at `nowNs`. */
  woken(sleptNs: number, nowNs: number): void {
    if (!this.#adaptive || nowNs < this.#backOffEndNs) return;
    const isInReach = this.#windowNs + sleptNs <= SPIN_NS_MAX;
    const next = isInReach ? Math.max(this.#windowNs * 2, this.#windowNs + sleptNs) : this.#windowNs / 2;
    this.#windowNs = Math.min(SPIN_NS_MAX, Math.max(SPIN_NS_MIN, next));
  }
}
