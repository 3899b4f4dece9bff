/** One end of the cache-line ping-pong of core_distance.ts. */
import { setAffinity } from "../../shared/os/fd.ts";
import { libc } from "../../shared/os/libc.ts";

const SCHED_FIFO = 1;
const SCHED_OTHER = 0;

/** What one end is told. */
export interface ProbeStart {
  memory: SharedArrayBuffer;
  cpu: number;
  leads: boolean;
  batches: number;
  iterations: number;
}

const TURN = 0;
const READY = 16;
const STOP = 32;

/** Waits for `value`; false if the other end gave up. */
function awaitTurn(words: Int32Array, value: number): boolean {
  while (Atomics.load(words, TURN) !== value) if (Atomics.load(words, STOP) === 1) return false;
  return true;
}

function pingPong({ memory, cpu, leads, batches, iterations }: ProbeStart): number[] {
  const words = new Int32Array(memory);
  setAffinity([cpu]);
  // Above the pollers that occupy these CPUs, for a few milliseconds.
  libc().sched_setscheduler(0, SCHED_FIFO, new Uint8Array(new Int32Array([1]).buffer));
  Atomics.add(words, READY, 1);
  const deadline = performance.now() + 500;
  while (Atomics.load(words, READY) !== 2) if (performance.now() > deadline) Atomics.store(words, STOP, 1);
  const roundTripsNs: number[] = [];
  for (let batch = 0; batch < batches; batch++) {
    const started = performance.now();
    if (started > deadline) Atomics.store(words, STOP, 1);
    for (let i = 0; i < iterations; i++) {
      if (leads) {
        Atomics.store(words, TURN, 1);
        if (!awaitTurn(words, 0)) return roundTripsNs;
      } else {
        if (!awaitTurn(words, 1)) return roundTripsNs;
        Atomics.store(words, TURN, 0);
      }
    }
    roundTripsNs.push((performance.now() - started) * 1e6 / iterations);
  }
  libc().sched_setscheduler(0, SCHED_OTHER, new Uint8Array(4));
  return roundTripsNs;
}

if (typeof WorkerGlobalScope !== "undefined" && self instanceof WorkerGlobalScope) {
  self.addEventListener("message", (event) => {
    const answer = pingPong((event as MessageEvent<ProbeStart>).data);
    (self as unknown as { postMessage(message: number[]): void }).postMessage(answer);
  });
}
