/**
 * Transmit scheduling of a pool: a token bucket for its maximum rate and a deficit for its share under contention.
 * A limited pool is held back, not dropped: its frames wait in its ring, as they do in hardware that stops fetching
 * descriptors. Minimum rates become shares of a pass, in proportion, as Mellanox and Intel PF drivers do it
 * (bw_share); with capacity to spare they change nothing.
 */
import {
  BURST_BYTES,
  CTL,
  CTL_NOW_NS,
  P_BURST,
  P_CREDITED_PASS,
  P_DEFICIT,
  P_QUANTUM,
  P_RATE,
  P_TOKENS,
  P_TOKENS_AT_NS,
} from "../../shared/layout/nic.ts";

/** Bytes that pool `p` may send in this burst; 0 or less: not now. A frame that begins within them may be sent. */
@inline
export function allowance(p: usize, pass: u32): i32 {
  if (load<f64>(p, P_RATE) == 0 && load<i32>(p, P_QUANTUM) == 0) return BURST_BYTES;
  return limitedAllowance(p, pass);
}

function limitedAllowance(p: usize, pass: u32): i32 {
  let bytes: i32 = BURST_BYTES;
  const rate = load<f64>(p, P_RATE);
  if (rate != 0) {
    const now = load<f64>(CTL, CTL_NOW_NS);
    const elapsed = max(0, now - load<f64>(p, P_TOKENS_AT_NS));
    const tokens = min(load<f64>(p, P_BURST), load<f64>(p, P_TOKENS) + elapsed * rate);
    store<f64>(p, tokens, P_TOKENS);
    store<f64>(p, now, P_TOKENS_AT_NS);
    if (tokens <= 0) return 0;
    bytes = <i32> min(ceil(tokens), <f64> BURST_BYTES);
  }
  const quantum = load<i32>(p, P_QUANTUM);
  if (quantum != 0) {
    // Once a pass, however many queues the pool has; what it does not use it may keep for one more visit.
    if (load<u32>(p, P_CREDITED_PASS) != pass) {
      store<u32>(p, pass, P_CREDITED_PASS);
      store<i32>(p, min(load<i32>(p, P_DEFICIT) + quantum, 2 * quantum), P_DEFICIT);
    }
    bytes = min(bytes, load<i32>(p, P_DEFICIT));
  }
  return bytes;
}

/** Takes `bytes` that were sent from the bucket and the share. Either may go below zero and is then owed. */
@inline
export function charge(p: usize, bytes: u64): void {
  if (load<f64>(p, P_RATE) != 0) store<f64>(p, load<f64>(p, P_TOKENS) - <f64> bytes, P_TOKENS);
  if (load<i32>(p, P_QUANTUM) != 0) store<i32>(p, load<i32>(p, P_DEFICIT) - <i32> bytes, P_DEFICIT);
}
