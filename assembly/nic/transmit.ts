/**
 * One visit to one TX queue: up to a burst of frames, as far as its pool's rate and share allow. Used elements are
 * published once, interrupts raised at most once. A pool whose frames cost more than their share of work (endless
 * chains, one frame to two hundred receivers) sits out the next passes in proportion, with all its queues.
 */
import {
  BAD_AVAIL_IDX,
  BURST_WORK,
  CTL,
  CTL_RATE_BLOCKED,
  P_RESUME_PASS,
  P_VISIT_FRAMES,
  POOL_STRIDE,
  POOLS,
  Q_LAST_AVAIL,
  Q_POOL,
  Q_SIZE,
  Q_STATE,
  QUEUE_RUNNING,
} from "../../shared/layout/nic.ts";
import { availIdx, failQueue, publishUsed } from "../lib/split_ring.ts";
import { publishTouched } from "./deliver.ts";
import { forwardRun, runBytes, selectRun, touchAhead } from "./forward.ts";
import { allowance, charge } from "./rate.ts";
import { frameWork, switchedBytes, switchFrame } from "./switch.ts";

/** Passes sat out for each descriptor or copy beyond BURST_WORK, as a shift: 64 cost one pass. */
const PENALTY_SHIFT: u32 = 6;

/** Polls TX queue `q` in pass number `pass`; answers how many frames it took. */
export function transmitBurst(q: usize, pass: u32): u32 {
  const pending = (availIdx(q) - load<u32>(q, Q_LAST_AVAIL)) & 0xffff;
  if (pending == 0 || load<u32>(q, Q_STATE) != QUEUE_RUNNING) return 0;
  if (pending > load<u32>(q, Q_SIZE)) {
    failQueue(q, BAD_AVAIL_IDX, pending);
    return 0;
  }
  const p: usize = POOLS + load<u32>(q, Q_POOL) * POOL_STRIDE;
  if (<i32> (load<u32>(p, P_RESUME_PASS) - pass) > 0) return 0;
  const byteLimit = allowance(p, pass);
  if (byteLimit <= 0) {
    store<u32>(CTL, load<u32>(CTL, CTL_RATE_BLOCKED) + 1, CTL_RATE_BLOCKED);
    return 0;
  }
  const n = min(pending, load<u32>(p, P_VISIT_FRAMES));
  touchAhead(q, n);
  let done: u32 = 0;
  let work: u32 = 0;
  let bytes: i32 = 0;
  while (done < n && bytes < byteLimit && work < <u32> BURST_WORK) {
    let taken = forwardRun(q, n - done, byteLimit - bytes);
    if (taken == 0 && selectRun(q)) taken = forwardRun(q, n - done, byteLimit - bytes);
    if (taken == 0) {
      if (!switchFrame(q)) break;
      taken = 1;
      work += frameWork;
      bytes += <i32> switchedBytes;
    } else {
      bytes += <i32> runBytes;
    }
    done += taken;
  }
  if (work >= <u32> BURST_WORK) store<u32>(p, pass + (work >> PENALTY_SHIFT), P_RESUME_PASS);
  if (done != 0) publishUsed(q);
  publishTouched();
  charge(p, bytes);
  return done;
}
