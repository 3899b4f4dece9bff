/**
 * What coalescing saves: interrupts a frame, as the engine counts them, and one-way latency beside it, at three rates,
 * without it and adaptively. The NIC has one CPU; sender and receiver are one thread on another one
 * (interrupt_driver.ts), so that nobody but the engine decides how many frames an interrupt has.
 */
import { table } from "../../services/cli/views.ts";
import type { VfPatch } from "../../shared/api/mod.ts";
import { setAffinity } from "../../shared/os/mod.ts";
import { TestFabric } from "../support/fabric.ts";
import { FrontEnd } from "../support/front_end.ts";
import { FRONT_CPU } from "./back_ends.ts";
import { InterruptDriver } from "./interrupt_driver.ts";
import { figureText } from "./judged.ts";
import { median } from "./stats.ts";

/** Name of the part, for `--only`. */
export const INTERRUPTS_NAME = "interrupts";

const RATES = [10_000, 100_000, 1_000_000] as const;
const SECONDS = 0.4;
const SETTINGS: Record<string, Partial<VfPatch>> = {
  "off": { rxUsecs: 0 },
  "adaptive": { adaptiveRx: true, rxUsecs: 50, rxFrames: 64 },
  "fixed, 50 µs": { adaptiveRx: false, rxUsecs: 50, rxFrames: 64 },
};

/** What one run showed. */
interface Sample {
  /** Frames a second that arrived. */
  arrived: number;
  /** A frame that arrived: interrupts raised, times that the engine slept. */
  calls: number;
  sleeps: number;
  p50Us: number;
  p90Us: number;
  p99Us: number;
}

/** One rate with one setting. */
export interface InterruptsResult {
  rate: number;
  setting: string;
  samples: Sample[];
}

async function sample(fabric: TestFabric, driver: InterruptDriver, rate: number): Promise<Sample> {
  const look = async () => (await fabric.get("/api/v1/nic")).engine;
  const before = await look();
  const { received, ...percentiles } = driver.run(rate, SECONDS);
  const after = await look();
  return {
    ...{ arrived: received / SECONDS, ...percentiles },
    calls: (after.callsTotal - before.callsTotal) / received,
    sleeps: (after.sleepsTotal - before.sleepsTotal) / received,
  };
}

/** Runs all rates with all settings in turn. */
export async function interrupts(rounds: number, report: (line: string) => void): Promise<InterruptsResult[]> {
  await using fabric = await TestFabric.start(2, ["--engine-cpus", "0"]);
  const [from, to] = [fabric.vf(0), fabric.vf(1)];
  await using sender = await FrontEnd.connect(from.socket, { queueSize: 1024 }).start();
  await using receiver = await FrontEnd.connect(to.socket, { queueSize: 1024 }).start();
  const driver = new InterruptDriver(sender, receiver, { from: from.mac, to: to.mac });
  setAffinity([FRONT_CPU]);
  // What runs first runs code that is not compiled yet.
  driver.run(100_000, SECONDS);
  const results = RATES.flatMap((rate) =>
    Object.keys(SETTINGS).map((setting): InterruptsResult => ({ rate, setting, samples: [] }))
  );
  for (let round = 0; round < rounds; round++) {
    for (const { rate, setting, samples } of round % 2 === 0 ? results : results.toReversed()) {
      await fabric.patch(1, SETTINGS[setting] ?? {});
      const seen = await sample(fabric, driver, rate);
      samples.push(seen);
      report(`interrupts, ${rate} frames/s, ${setting}: ${JSON.stringify(seen)}`);
    }
  }
  setAffinity(Array.from({ length: navigator.hardwareConcurrency }, (_, cpu) => cpu));
  return results;
}

/** The medians in a table. */
export function interruptsTable(results: readonly InterruptsResult[]): string {
  return table(
    [
      "FRAMES/S",
      "COALESCING",
      "ARRIVED/S",
      "INTERRUPTS A FRAME",
      "FRAMES EACH",
      "SLEEPS A FRAME",
      "P50 US",
      "P90 US",
      "P99 US",
    ],
    results.map(({ rate, setting, samples }) => {
      const of = (key: keyof Sample) => median(samples.map((sample) => sample[key]));
      return [
        rate,
        setting,
        of("arrived").toFixed(0),
        figureText(of("calls"), 3),
        figureText(1 / of("calls"), 1),
        figureText(of("sleeps"), 3),
        ...(["p50Us", "p90Us", "p99Us"] as const).map((key) => figureText(of(key), 1)),
      ];
    }),
  );
}
