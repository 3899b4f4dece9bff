/**
 * A thread of a hostile guest that rewrites words of its rings while the engine reads them. It runs beside the test,
 * over the same memory, until it is told to stop.
 */

/** What is rewritten: 16-bit words at `offsets`, with each of `values` in turn. */
export interface FlipOrder {
  memory: SharedArrayBuffer;
  offsets: number[];
  values: number[];
  /** Counts the rounds; its second element is 1 when the thread is to end. */
  control: Int32Array;
}

/** The thread. */
export class Flipper implements AsyncDisposable {
  readonly #worker: Worker;
  readonly #control = new Int32Array(new SharedArrayBuffer(8));

  constructor(order: Omit<FlipOrder, "control">) {
    this.#worker = new Worker(import.meta.resolve("./flipper_worker.ts"), { type: "module" });
    this.#worker.postMessage({ ...order, control: this.#control } satisfies FlipOrder);
  }

  /** How often it has rewritten everything. */
  get rounds(): number {
    return Atomics.load(this.#control, 0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = new Promise((resolve) => this.#worker.addEventListener("message", resolve, { once: true }));
    Atomics.store(this.#control, 1, 1);
    await ended;
    this.#worker.terminate();
  }
}
