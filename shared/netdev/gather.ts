/**
 * When a port holds back the interrupt of its file. Whoever sends to a socket wakes its sleeper, and pays for it: on
 * another CPU that is a fifth of what a frame to a veth costs. So a port that has got many frames since it slept last
 * does not wait for the next one, but for a moment, and looks then. Only where frames are short: TCP in pieces of 64 KiB
 * waits for each look.
 */

/** So many frames between two sleeps are many. */
const FRAMES = 8;
/** The moment. What comes from the NIC ends it at once. */
export const GATHER_NS = 50_000;

/** The decision of one port. */
export class Gather {
  #frames = 0;

  /** The port goes to sleep, and `frames` have come from its file so far, modulo 2^32: whether it sleeps for a moment. */
  isDue(frames: number): boolean {
    const since = (frames - this.#frames) >>> 0;
    this.#frames = frames;
    return since >= FRAMES;
  }
}
