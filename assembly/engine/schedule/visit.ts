/**
 * One visit to one queue that sends: as many batches as its pool's share and rate allow. What a batch gave back and put
 * in is published behind it, with at most one interrupt for each queue.
 */
import {
  B_BYTES,
  B_RECEIVE_SPENT,
  B_UNITS,
  BATCH_FRAMES,
  CTL_NOW_NS,
  Q_BATCH_MOST,
  Q_HELD_PASS,
  Q_POOL,
  Q_STATE,
  Q_CARRY_TO,
  Q_WORKED_NS,
  QUEUE_RUNNING,
  R_LENGTH,
  RECORD_STRIDE,
} from "../../../shared/layout/nic.ts";
import { beginGather, recordAt } from "../batch/record.ts";
import { batch, control, poolAt } from "../context.ts";
import { carry, isHeldUp } from "../emulate.ts";
import { checkPending, complete, gather, pending, publishDirty } from "../queue/format.ts";
import { markDirty } from "../queue/interrupts.ts";
import { forward } from "../switch/forward.ts";
import { beginTurn, endTurn, staysHeld } from "../switch/line.ts";
import { lookAgain, lookForRoom } from "./again.ts";
import { UNITS_VISIT } from "./cost.ts";
import { beginLatency, endLatency } from "./latency.ts";
import { allowance, takeTokens } from "./rate.ts";
import { charge, shareOf } from "./share.ts";

/**
 * A batch ends behind so many bytes: while this CPU copies the next one, the receiver's works on this one. With batches
 * of 256 long frames the two took turns (plain 1518 B: 9.7 instead of 11.4 Mpps; 4.3 instead of 5.2 where the CPUs are
 * far from each other).
 */
const BATCH_BYTES: u32 = 48 * 1024;

/** Units that the last visit cost. */
export let visitUnits: u32 = 0;

/** Visits queue `q` in pass number `pass`; answers how many frames it took. */
export function visit(q: usize, pass: u32): u32 {
  visitUnits = 0;
  const waiting = pending(q);
  if (waiting == 0 || load<u32>(q, Q_STATE) != QUEUE_RUNNING || !checkPending(q, waiting)) return 0;
  store<f64>(q, load<f64>(control(), CTL_NOW_NS), Q_WORKED_NS);
  const p = poolAt(load<u32>(q, Q_POOL));
  beginLatency(p, q);
  const byteLimit = allowance(p);
  if (byteLimit == 0) {
    lookAgain();
    return 0;
  }
  const waited = load<u32>(q, Q_HELD_PASS) != 0;
  if (waited && staysHeld(q, pass)) {
    lookAgain();
    return 0;
  }
  const isCarried = load<u32>(q, Q_CARRY_TO) != 0;
  // To see that is no work. Else a guest that takes nothing, or a NIC that is away, would keep this CPU busy.
  if (isCarried && isHeldUp(q)) {
    lookForRoom();
    return 0;
  }
  const share = shareOf(p, q, pass);
  if (share == 0) return 0;
  if (waited) beginTurn(q);
  store<u32>(batch(), UNITS_VISIT, B_UNITS);
  store<u32>(batch(), 0, B_RECEIVE_SPENT);
  const taken = isCarried ? carry(q, share) : send(q, p, byteLimit, share);
  endTurn();
  publishDirty();
  endLatency(p, q, taken);
  visitUnits = load<u32>(batch(), B_UNITS);
  charge(p, visitUnits);
  return taken;
}

/** Takes batches of queue `q` through the switch until the share, the rate or the ring is used up. */
function send(q: usize, p: usize, byteLimit: u32, share: u32): u32 {
  let taken: u32 = 0;
  let bytes: u32 = 0;
  while (bytes < byteLimit && load<u32>(batch(), B_UNITS) < share) {
    const waiting = pending(q);
    if (waiting == 0 || !checkPending(q, waiting)) break;
    beginGather();
    const bytesMost = min(byteLimit - bytes, BATCH_BYTES);
    const most = batchMost(q);
    const n = gather(q, waiting, most, bytesMost, share);
    if (n == 0) break;
    const gathered = load<u32>(batch(), B_BYTES);
    const done = forward(q, n, share);
    if (done != 0) {
      complete(q, done);
      markDirty(q, done);
    }
    publishDirty();
    noteBatch(q, max(1, done), done < n);
    taken += done;
    bytes += done == n ? gathered : bytesOf(done);
    // It waits for the uplink.
    if (done == 0 || load<u32>(q, Q_HELD_PASS) != 0) break;
    // The ring has been emptied, as far as anybody knew.
    if (n < most && gathered < bytesMost) break;
  }
  takeTokens(p, bytes);
  return taken;
}

/** Frames that the next batch of `q` may have: gathering more than can be paid for would be paid for again and again. */
@inline
function batchMost(q: usize): u32 {
  const most = load<u32>(q, Q_BATCH_MOST);
  return most == 0 ? BATCH_FRAMES : most;
}

/** Remembers how far a batch got that was `cut` short; twice as far is tried the next time. */
@inline
function noteBatch(q: usize, done: u32, cut: bool): void {
  const most = load<u32>(q, Q_BATCH_MOST);
  if (cut) store<u32>(q, done, Q_BATCH_MOST);
  else if (most != 0) store<u32>(q, most < <u32> (BATCH_FRAMES / 2) ? most * 2 : 0, Q_BATCH_MOST);
}

/** Bytes of the batch's first `n` frames. */
function bytesOf(n: u32): u32 {
  let bytes: u32 = 0;
  let record = recordAt(0);
  for (let i: u32 = 0; i < n; i++, record += RECORD_STRIDE) bytes += load<u32>(record, R_LENGTH);
  return bytes;
}
