/**
 * How long frames wait in their ring, sampled: now and then it is noted at a visit how many descriptors wait in a queue
 * and when that was; when the last of these frames has been put into its receivers' rings, the time since then goes into
 * the histogram of the pool that sent it. So a wait for a share, or for a maximum rate, counts; that a guest's frame has
 * not been looked for does not.
 */
import {
  FLAVOUR_SPLIT,
  LATENCY_BUCKETS,
  P_LATENCY,
  P_LATENCY_SUM,
  P_SAMPLE_AFTER,
  P_SAMPLE_FROM,
  P_SAMPLE_LEFT,
  P_SAMPLE_NS,
  P_SAMPLE_QUEUE,
  Q_FLAVOUR,
  Q_LAST_AVAIL,
  Q_POOL,
  Q_SIZE,
  Q_STATE,
  QUEUE_RUNNING,
} from "../../../shared/layout/nic.ts";
import { poolAt } from "../context.ts";
import { pendingUpTo } from "../queue/format.ts";
import { nowNs } from "./clock.ts";

/** Visits to a pool's queues between two samples: a prime, so that no pattern of frames keeps step with it. */
const SAMPLE_PERIOD: u32 = 61;

/** Queue `q` of pool `p` is visited, and has work. */
@inline
export function beginLatency(p: usize, q: usize): void {
  const after = load<u32>(p, P_SAMPLE_AFTER);
  if (after != 0) store<u32>(p, after - 1, P_SAMPLE_AFTER);
  else begin(p, q);
}

function begin(p: usize, q: usize): void {
  const sampled: usize = load<u32>(p, P_SAMPLE_QUEUE);
  // One that still waits is waited for, unless its queue has stopped.
  if (sampled != 0 && load<u32>(sampled, Q_STATE) == QUEUE_RUNNING) return;
  store<u32>(p, <u32> q, P_SAMPLE_QUEUE);
  store<u32>(p, load<u32>(q, Q_LAST_AVAIL), P_SAMPLE_FROM);
  store<u32>(p, pendingUpTo(q, load<u32>(q, Q_SIZE)), P_SAMPLE_LEFT);
  store<f64>(p, nowNs(), P_SAMPLE_NS);
}

/** A visit to queue `q` of pool `p` has ended, which took `taken` frames. */
@inline
export function endLatency(p: usize, q: usize, taken: u32): void {
  if (load<u32>(p, P_SAMPLE_QUEUE) == <u32> q && taken != 0) advance(p, q, taken);
}

function advance(p: usize, q: usize, taken: u32): void {
  const from = load<u32>(p, P_SAMPLE_FROM);
  const to = load<u32>(q, Q_LAST_AVAIL);
  store<u32>(p, to, P_SAMPLE_FROM);
  // A frame takes at least one descriptor: what seems to be less has been once round the ring.
  const wrapped: u32 = to >= from ? to - from : to - from + load<u32>(q, Q_SIZE);
  const gone = load<u32>(q, Q_FLAVOUR) == FLAVOUR_SPLIT ? (to - from) & 0xffff : wrapped;
  const left = load<u32>(p, P_SAMPLE_LEFT);
  const done = max(gone, taken);
  if (done < left) {
    store<u32>(p, left - done, P_SAMPLE_LEFT);
    return;
  }
  note(p, max(0, nowNs() - load<f64>(p, P_SAMPLE_NS)));
  forget(p);
}

function forget(p: usize): void {
  store<u32>(p, 0, P_SAMPLE_QUEUE);
  store<u32>(p, SAMPLE_PERIOD, P_SAMPLE_AFTER);
}

/** Queue `q` begins anew: a sample of it means nothing any more. */
export function forgetLatency(q: usize): void {
  const p = poolAt(load<u32>(q, Q_POOL));
  if (load<u32>(p, P_SAMPLE_QUEUE) == <u32> q) forget(p);
}

/** Adds a time to the histogram: bucket `i` has those up to 2^i µs, the last one the rest. */
function note(p: usize, ns: f64): void {
  const us = <u32> min(ceil(ns / 1000), 4_000_000_000);
  const bucket: u32 = us <= 1 ? 0 : min(<u32> LATENCY_BUCKETS - 1, 32 - clz(us - 1));
  const at = p + bucket * 8;
  store<u64>(at, load<u64>(at, P_LATENCY) + 1, P_LATENCY);
  store<f64>(p, load<f64>(p, P_LATENCY_SUM) + ns, P_LATENCY_SUM);
}
