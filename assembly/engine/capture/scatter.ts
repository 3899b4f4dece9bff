/** A scatter, seen by whoever captures the pool that receives. */
import { P_WATCH } from "../../../shared/layout/nic.ts";
import { poolAt } from "../context.ts";
import { beginMarks, clearResults, endMarks } from "../deliver/results.ts";
import { scatter } from "../queue/format.ts";
import { captureReceived } from "./watch.ts";

/**
 * As `scatter`, of a group for `pool` that has just begun. `isTaken`: what goes in has come to the pool; else it goes
 * into a ring of the engine's own, and is seen when it is handed on.
 */
export function scatterSeen(pool: u32, rx: usize, first: usize, wait: bool, isTaken: bool): u32 {
  clearResults();
  if (load<u32>(poolAt(pool), P_WATCH) == 0) return scatter(rx, first, wait);
  beginMarks();
  const done = scatter(rx, first, wait);
  captureReceived(pool, first, done, endMarks(), isTaken);
  return done;
}
