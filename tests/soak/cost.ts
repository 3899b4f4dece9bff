/** What a step may cost the streams. Whoever does something says so as it does it; all else is a fault. */

/** What became of one stream. */
export interface Outcome {
  /** Such as `0→1`. */
  name: string;
  from: number;
  to: number;
  sent: number;
  received: number;
  lost: number;
  /** Frames that came a second time. */
  twice: number;
  /** Frames that came behind a later one. */
  outOfOrder: number;
  /** The longest time without a frame, in milliseconds. */
  outageMs: number;
}

/** What may be lost, come twice, or attach again in one step. */
export class Cost {
  readonly #guests: readonly number[];
  /** Guests that are killed: their streams do not count. */
  readonly killed = new Set<number>();
  readonly #losesFrom = new Set<number>();
  readonly #losesTo = new Set<number>();
  readonly #repeats = new Set<number>();
  readonly #attachesAgain = new Set<number>();

  constructor(guests: number) {
    this.#guests = Array.from({ length: guests }, (_, i) => i);
  }

  kill(guest: number): void {
    this.killed.add(guest);
    this.mayAttachAgain(guest);
  }

  /** Frames from and to a guest may be lost. */
  mayLose(guest: number): void {
    this.#losesFrom.add(guest);
    this.mayLoseTo(guest);
  }

  mayLoseTo(guest: number): void {
    this.#losesTo.add(guest);
  }

  /** A guest's frames may be lost or come twice: its path begins anew. */
  mayBeginAnew(guest: number): void {
    this.mayLose(guest);
    this.#repeats.add(guest);
  }

  mayAttachAgain(guest: number): void {
    this.#attachesAgain.add(guest);
  }

  /** A process is gone for which nobody stood by: every guest loses frames and attaches again. */
  isOutage(): void {
    for (const guest of this.#guests) {
      this.mayLose(guest);
      this.mayAttachAgain(guest);
    }
  }

  /** What of a stream's outcome nothing explains. */
  faultsOf({ name, from, to, sent, lost, twice, outOfOrder }: Outcome): string[] {
    const faults: string[] = [];
    const mayRepeat = this.#repeats.has(from) || this.#repeats.has(to);
    if (twice > 0 && !mayRepeat) faults.push(`stream ${name}: ${twice} of ${sent} frames came twice`);
    if (outOfOrder > 0 && !mayRepeat) faults.push(`stream ${name}: ${outOfOrder} of ${sent} frames came out of order`);
    if (lost !== 0 && !this.#losesFrom.has(from) && !this.#losesTo.has(to)) {
      faults.push(`stream ${name}: ${lost} of ${sent} frames were lost, and nothing explains it`);
    }
    return faults;
  }

  /** Guests that have attached again though nothing explains it. */
  unexplained(attachedAgain: readonly number[]): number[] {
    return attachedAgain.filter((guest) => !this.#attachesAgain.has(guest));
  }
}
