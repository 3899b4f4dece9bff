/** A port's counters by name, in the order of their places in shared/layout/netdev.ts. `in`: into the fabric. */
import { ND_COUNTERS } from "../layout/netdev.ts";

/** Name of each counter. */
export const PORT_COUNTER_NAMES = [
  "in_frames",
  "in_bytes",
  "out_frames",
  "out_bytes",
  /** Longer than a buffer, or shorter than a frame. */
  "in_cut_off",
  "in_runt",
  /** Reads that failed. */
  "in_errors",
  "out_runt",
  /** The kernel had no room for it. */
  "out_busy",
  /** The interface is down. */
  "out_down",
  /** Longer than the interface's MTU. */
  "out_too_long",
  /** The kernel did not want it for another reason. */
  "out_refused",
  /** Calls of the kernel for frames; sleeps; kicks of the NIC. */
  "calls",
  "sleeps",
  "kicks",
] as const;

/** What a port has counted. */
export function readCounters(view: DataView): Record<string, number> {
  return Object.fromEntries(
    PORT_COUNTER_NAMES.map((name, i) => [name, Number(view.getBigUint64(ND_COUNTERS + i * 8, true))]),
  );
}

/** The sums of two sets of counters. */
export function addCounters(a: Record<string, number>, b: Record<string, number>): Record<string, number> {
  const sum = { ...a };
  for (const [name, value] of Object.entries(b)) sum[name] = (sum[name] ?? 0) + value;
  return sum;
}
