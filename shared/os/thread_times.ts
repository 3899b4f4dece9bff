/** How long a thread has run, and how long it has waited for a CPU, as the kernel's scheduler counts it (proc(5), schedstat). */
import type { Fd } from "./fd.ts";
import { openToRead, readAt } from "./files.ts";

/** Three numbers of up to 20 digits. */
const LINE_BYTES = 64;
const [SPACE, ZERO] = [0x20, 0x30];

/** The times of the thread that makes one. A read allocates no string. */
export class ThreadTimes {
  /** How long the thread has run, in nanoseconds, as of the last `read`. */
  ranNs = 0;
  /** How long it was ready to run and had no CPU. */
  waitedNs = 0;
  readonly #fd: Fd | undefined;
  readonly #line = new Uint8Array(LINE_BYTES);

  constructor() {
    try {
      this.#fd = openToRead("/proc/thread-self/schedstat");
    } catch {
      // A kernel without CONFIG_SCHED_INFO, or a sandbox without /proc: nothing is known, and both times stay 0.
    }
  }

  /** Reads both times. */
  read(): void {
    if (!this.#fd || readAt(this.#fd.number, this.#line, 0) <= 0) return;
    const end = this.#line.indexOf(SPACE);
    this.ranNs = this.#number(0, end);
    this.waitedNs = this.#number(end + 1, this.#line.indexOf(SPACE, end + 1));
  }

  #number(from: number, to: number): number {
    let value = 0;
    for (let i = from; i < to; i++) value = value * 10 + (this.#line[i] ?? ZERO) - ZERO;
    return value;
  }

  close(): void {
    this.#fd?.close();
  }
}
