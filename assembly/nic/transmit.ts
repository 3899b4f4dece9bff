/**
 * One visit to one TX queue: up to a burst of frames, as far as its pool's rate and share allow. Used elements are
 * published once, interrupts raised at most once. A pool whose frames cost more than their share of work (endless
 * chains, one frame to two hundred receivers) sits out the next passes in proportion, with all its queues.
 */
import {
  BURST_WORK,
  CTL,
  CTL_RATE_BLOCKED,
  FLAVOUR_SOURCE,
  FLAVOUR_SPLIT,
  P_RESUME_PASS,
  P_VISIT_FRAMES,
  POOL_STRIDE,
  POOLS,
  Q_FLAVOUR,
  Q_POOL,
  Q_STATE,
  Q_WIRE,
  QUEUE_RUNNING,
} from "../../shared/layout/nic.ts";
import { checkPending, pending, publish, publishTouched } from "../lib/ring.ts";
import { forwardRun, selectRun, touchAhead } from "./forward.ts";
import { allowance, charge } from "./rate.ts";
import { runBytes } from "./run.ts";
import { frameLength, frameWork, switchedBytes, switchFrame } from "./switch.ts";
import { wireBurst, wireWork } from "./wire.ts";

/** Passes sat out for each descriptor or copy beyond BURST_WORK, as a shift: 64 cost one pass. */
const PENALTY_SHIFT: u32 = 6;

/** Polls TX queue `q` in pass number `pass`; answers how many frames it took. */
export function transmitBurst(q: usize, pass: u64): u32 {
  const waiting = pending(q);
  if (waiting == 0 || load<u32>(q, Q_STATE) != QUEUE_RUNNING) return 0;
  if (!checkPending(q, waiting)) return 0;
  const p: usize = POOLS + load<u32>(q, Q_POOL) * POOL_STRIDE;
  if (load<u64>(p, P_RESUME_PASS) > pass) return 0;
  if (load<u32>(q, Q_WIRE) != 0) {
    const moved = wireBurst(q, load<u32>(p, P_VISIT_FRAMES), waiting);
    if (wireWork >= <u32> BURST_WORK) store<u64>(p, pass + (wireWork >> PENALTY_SHIFT), P_RESUME_PASS);
    return moved;
  }
  const byteLimit = allowance(p, <u32> pass);
  if (byteLimit <= 0) {
    store<u32>(CTL, load<u32>(CTL, CTL_RATE_BLOCKED) + 1, CTL_RATE_BLOCKED);
    return 0;
  }
  const n = min(waiting, load<u32>(p, P_VISIT_FRAMES));
  const flavour = load<u32>(q, Q_FLAVOUR);
  if (flavour == FLAVOUR_SPLIT) touchAhead(q, n);
  let done: u32 = 0;
  // Heads of a split ring, descriptors of an advanced one.
  let left = waiting;
  let work: u32 = 0;
  let bytes: i32 = 0;
  while (done < n && left > 0 && bytes < byteLimit && work < <u32> BURST_WORK) {
    const most = min(n - done, left);
    let taken: u32 = 0;
    if (flavour != FLAVOUR_SOURCE) {
      taken = forwardRun(q, most, byteLimit - bytes);
      if (taken == 0 && selectRun(q)) taken = forwardRun(q, most, byteLimit - bytes);
    }
    if (taken == 0) {
      if (!switchFrame(q, left)) break;
      taken = 1;
      left -= frameLength;
      work += frameWork;
      bytes += <i32> switchedBytes;
    } else {
      left -= taken;
      bytes += <i32> runBytes;
    }
    done += taken;
  }
  if (work >= <u32> BURST_WORK) store<u64>(p, pass + (work >> PENALTY_SHIFT), P_RESUME_PASS);
  if (done != 0) publish(q);
  publishTouched();
  charge(p, bytes);
  return done;
}
