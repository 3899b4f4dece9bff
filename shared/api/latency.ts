/**
 * How long frames wait in their ring, as a histogram, and the questions that people ask of one. Every figure of latency
 * that the fabric shows is answered here, so that page, CLI and metrics cannot differ.
 */
import { z } from "@hono/zod-openapi";

/** Limits of a latency histogram's buckets but the last one, in µs. */
export const LATENCY_LIMITS_US: readonly number[] = Array.from({ length: 16 }, (_, i) => 2 ** i);

/** A histogram of times. */
export const Latency = z.object({
  counts: z.array(z.int()).openapi({ description: "Samples up to 1, 2, 4, … 32768 µs, and above; each counts once" }),
  sumNs: z.number().openapi({ description: "Their sum, in ns" }),
}).openapi("Latency");
export type Latency = z.output<typeof Latency>;

const quantile = (share: string) =>
  z.number().nullable().openapi({
    description: `${share} of the samples took at most so long, in µs; 32768: or longer; null: there is no sample yet`,
    example: 23.4,
  });

/** What a histogram says, in three figures. */
export const LatencySummary = z.object({
  samples: z.int(),
  p50Us: quantile("Half"),
  p99Us: quantile("99 of 100"),
}).openapi("LatencySummary");
export type LatencySummary = z.output<typeof LatencySummary>;

/** A histogram with what it says. */
export const LatencyView = Latency.extend(LatencySummary.shape).openapi("LatencyView");
export type LatencyView = z.output<typeof LatencyView>;

/**
 * The time, in µs, that a share of the samples did not exceed; undefined if there are none. Within a bucket times are
 * taken to be spread evenly, and the last bucket's are its lower limit, as Prometheus' histogram_quantile takes them.
 */
function quantileUs(counts: readonly number[], share: number): number | undefined {
  const samples = counts.reduce((sum, count) => sum + count, 0);
  if (samples === 0) return undefined;
  const rank = share * samples;
  let below = 0;
  for (const [i, upper] of LATENCY_LIMITS_US.entries()) {
    const count = counts[i] ?? 0;
    if (count > 0 && below + count >= rank) {
      const lower = i === 0 ? 0 : LATENCY_LIMITS_US[i - 1] ?? 0;
      return lower + (upper - lower) * (rank - below) / count;
    }
    below += count;
  }
  return LATENCY_LIMITS_US.at(-1);
}

/** A histogram in three figures, to a tenth of a microsecond. */
export function latencySummary(counts: readonly number[]): LatencySummary {
  const quantileOf = (share: number) => {
    const us = quantileUs(counts, share);
    return us === undefined ? null : Math.round(us * 10) / 10;
  };
  const samples = counts.reduce((sum, count) => sum + count, 0);
  return { samples, p50Us: quantileOf(0.5), p99Us: quantileOf(0.99) };
}

const NO_SAMPLES: Latency = { counts: [...LATENCY_LIMITS_US, Infinity].map(() => 0), sumNs: 0 };

/** A histogram with its three figures. */
export function latencyView(latency = NO_SAMPLES): LatencyView {
  return { ...latency, ...latencySummary(latency.counts) };
}
