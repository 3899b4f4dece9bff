/** Latency histograms for tests. */
import { type Latency, LATENCY_LIMITS_US } from "../../shared/api/mod.ts";

/** A histogram with so many samples in some buckets, by their number; the rest is 0. */
export function histogram(counts: Record<number, number> = {}, sumNs = 0): Latency {
  return { counts: [...LATENCY_LIMITS_US, Infinity].map((_, i) => counts[i] ?? 0), sumNs };
}
