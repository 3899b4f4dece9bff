/** The clock of the engine's benchmark: it runs only while the engine does. */
import { median } from "../stats.ts";
import type { World } from "./world.ts";

/** How long a row runs, and before that without being counted. */
export interface Time {
  ms: number;
  warmMs: number;
}

/** What a row's load showed over some time. */
export interface Outcome {
  /** Median over the refills, for rows that drain their rings. */
  nsPerFrame: number;
  /** Time in the engine. */
  ns: number;
  /** What was added to a counter of a pool meanwhile. */
  gained(pool: number, name: string): number;
}

const PASSES_MAX = 50_000;

/** What reading the clock twice costs. */
function clockNs(): number {
  const takes = Array.from({ length: 200 }, () => {
    const begin = performance.now();
    return (performance.now() - begin) * 1e6;
  });
  return median(takes);
}

/** The engine's time for one pass, in nanoseconds. */
function passOnce(world: World, overheadNs: number): number {
  const begin = performance.now();
  world.rig.wasm.run(world.ranNs, 1);
  const ns = Math.max(0, (performance.now() - begin) * 1e6 - overheadNs);
  world.ranNs += ns;
  return ns;
}

/** The engine's time until it has taken everything. A pass a time: what finds nothing would count as the frames' time. */
function drainOnce(world: World, overheadNs: number): number {
  let ns = 0;
  for (let passes = 0; passes < PASSES_MAX; passes++) {
    ns += passOnce(world, overheadNs);
    if (world.drained()) break;
  }
  return ns;
}

/** Runs a world's load until its rings are empty (`drain`), or a pass at a time with rings that are always full. */
export function measure(world: World, drain: boolean, { ms, warmMs }: Time): Outcome {
  const overheadNs = clockNs();
  const once = () => {
    world.refill();
    return drain ? drainOnce(world, overheadNs) : passOnce(world, overheadNs);
  };
  for (const end = performance.now() + warmMs; performance.now() < end;) once();
  const pools = [...world.rig.guests.keys()];
  const counters = () => new Map(pools.map((pool) => [pool, world.rig.counters(pool)]));
  const [before, totalsBefore] = [counters(), world.totals()];
  const takes: number[] = [];
  for (const end = performance.now() + ms; performance.now() < end;) takes.push(once());
  const [after, totals] = [counters(), world.totals()];
  const sent = totals.sent - totalsBefore.sent;
  const received = totals.received - totalsBefore.received;
  if (drain && (sent !== received || sent === 0)) {
    throw new Error(`${sent} frames were sent and ${received} received: the row does not measure what it says`);
  }
  return {
    nsPerFrame: median(takes) * takes.length / sent,
    ns: takes.reduce((sum, ns) => sum + ns, 0),
    gained: (pool, name) => (after.get(pool)?.[name] ?? 0) - (before.get(pool)?.[name] ?? 0),
  };
}
