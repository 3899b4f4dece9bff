/** How many of a device's queue pairs its driver uses, if it says so on its control queue. */
import type { Vring } from "./vring.ts";

/** The queue pairs of one session that are in use. */
export class PairsInUse {
  pairs = 1;

  /** As in the beginning: one. */
  reset(): void {
    this.pairs = 1;
  }

  /** The driver uses so many from now on; answers why not, if `settle` finds that their rings cannot be served. */
  async use(pairs: number, settle: () => Promise<void>): Promise<string | undefined> {
    const before = this.pairs;
    this.pairs = pairs;
    try {
      await settle();
      return undefined;
    } catch (error) {
      this.pairs = before;
      return (error as Error).message;
    }
  }

  /**
   * Whether a ring is served, where the control queue is number `control`, if there is one. Transmit rings always are:
   * some front-ends never say how many pairs the driver uses. Receive rings are up to the number that the driver has set.
   */
  has({ index }: Vring, control: number | undefined): boolean {
    return control === undefined || index >= control || index % 2 === 1 || index < 2 * this.pairs;
  }
}
