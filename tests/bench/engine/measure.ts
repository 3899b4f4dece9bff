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

/** The engine's time until it has taken everything. */
function drainOnce(world: World): number {
  const { wasm } = world.rig;
  const begin = performance.now();
  // A pass a call: a pass that finds nothing would count as the frames' time.
  for (let passes = 0; passes < PASSES_MAX; passes++) {
    wasm.run(begin * 1e6, 1);
    if (world.drained()) break;
  }
  return (performance.now() - begin) * 1e6;
}

/** The engine's time for one pass. */
function passOnce({ rig }: World): number {
  const begin = performance.now();
  rig.wasm.run(begin * 1e6, 1);
  return (performance.now() - begin) * 1e6;
}

/** Runs a world's load until its rings are empty (`drain`), or a pass at a time with rings that are always full. */
export function measure(world: World, drain: boolean, { ms, warmMs }: Time): Outcome {
  const once = () => {
    world.refill();
    return drain ? drainOnce(world) : passOnce(world);
  };
  for (const end = performance.now() + warmMs; performance.now() < end;) once();
  const pools = [...world.rig.guests.keys()];
  const counters = () => new Map(pools.map((pool) => [pool, world.rig.counters(pool)]));
  const [before, totalsBefore, overheadNs] = [counters(), world.totals(), clockNs()];
  const takes: number[] = [];
  for (const end = performance.now() + ms; performance.now() < end;) takes.push(Math.max(0, once() - overheadNs));
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
