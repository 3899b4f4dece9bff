/**
 * How far two CPUs are apart right now: the round trip of a cache line in nanoseconds. On a virtual machine this flips
 * between about 80 and 380 ns while the host moves its CPUs, and every poll-mode rate follows it by a factor of two; so
 * a sample counts only if the round trip just before and just after it was short.
 */
import type { ProbeStart } from "./core_distance_worker.ts";

/** Round trips above this mean that the sample says more about the host than about the program. */
export const NEAR_NS = 150;

/** A probe between two CPUs. */
export class CoreProbe implements Disposable {
  readonly #workers: Worker[];
  readonly #cpus: [number, number];

  constructor(a: number, b: number) {
    this.#cpus = [a, b];
    const url = new URL("./core_distance_worker.ts", import.meta.url);
    this.#workers = [0, 1].map(() => new Worker(url, { type: "module" }));
  }

  /** Median round trip of a few short batches, in nanoseconds. */
  async measure(batches = 16, iterations = 400): Promise<number> {
    const memory = new SharedArrayBuffer(4096);
    const answers = this.#workers.map((worker, i) => {
      const answer = new Promise<number[]>((resolve, reject) => {
        worker.onmessage = (event) => resolve(event.data);
        worker.onerror = (event) => reject(new Error(event.message));
      });
      const start: ProbeStart = { memory, cpu: this.#cpus[i as 0 | 1], leads: i === 0, batches, iterations };
      worker.postMessage(start);
      return answer;
    });
    const [lead = []] = await Promise.all(answers);
    const sorted = lead.slice(1).sort((x, y) => x - y);
    return sorted[Math.floor(sorted.length / 2)] ?? Infinity;
  }

  [Symbol.dispose](): void {
    for (const worker of this.#workers) worker.terminate();
  }
}

/** Waits until the two CPUs are near each other, or as long as that; answers their distance. */
export async function untilNear(probe: CoreProbe, deadlineMs: number): Promise<number> {
  const end = performance.now() + deadlineMs;
  for (;;) {
    const distance = await probe.measure();
    if (distance <= NEAR_NS || performance.now() > end) return distance;
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
}
