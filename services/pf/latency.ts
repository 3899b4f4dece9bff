/**
 * How long frames waited of late: histograms count on for ever, so what is shown as the present is their difference to
 * some seconds ago. Samples are few (one in some sixty visits), hence seconds and not one second.
 */
import { type LatencySummary, latencySummary } from "../../shared/api/mod.ts";

/** How far back the present reaches. */
const RECENT_MS = 10_000;

/** Histograms of all ports, by the ports' names, at a moment. */
interface Reading {
  atMs: number;
  counts: ReadonlyMap<string, readonly number[]>;
}

/** The histograms of the last seconds. */
export class RecentLatency {
  #readings: Reading[] = [];

  /** Takes the histograms that were read at a moment. */
  take(atMs: number, counts: Reading["counts"]): void {
    const last = this.#readings.at(-1);
    // While nobody listens nothing is read. What was gained meanwhile is not recent.
    if (last && atMs - last.atMs > RECENT_MS) this.#readings = [];
    this.#readings.push({ atMs, counts });
    // One that is at least as old as the window stays, so that the window is covered.
    while ((this.#readings[1]?.atMs ?? Infinity) <= atMs - RECENT_MS) this.#readings.shift();
  }

  /** What a port's histogram has gained in these seconds; undefined if it is not known. */
  of(port: string): LatencySummary | undefined {
    const now = this.#readings.at(-1)?.counts.get(port);
    const before = this.#readings[0]?.counts.get(port);
    if (this.#readings.length < 2 || !now || !before) return undefined;
    const gained = now.map((count, i) => count - (before[i] ?? 0));
    // A histogram that went back has begun anew.
    return latencySummary(gained.some((n) => n < 0) ? now : gained);
  }
}
