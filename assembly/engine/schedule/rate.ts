/**
 * Maximum rates: token buckets. That of bytes holds a pool back and drops nothing: its frames wait in its ring, as they
 * do in hardware that stops fetching descriptors. That of broadcasts says which of them are dropped.
 */
import { CTL_NOW_NS, P_BROADCAST_RATE, P_BURST, P_RATE, P_TOKENS, P_TOKENS_AT_NS } from "../../../shared/layout/nic.ts";
import { control } from "../context.ts";

/** No limit: more than any batch has. */
const NO_LIMIT: u32 = 0x7fffffff;

/** Bytes that pool `p` may send now; 0: none. A frame that begins within them may be sent. */
@inline
export function allowance(p: usize): u32 {
  return load<f64>(p, P_RATE) == 0 ? NO_LIMIT : tokens(p);
}

function tokens(p: usize): u32 {
  const now = load<f64>(control(), CTL_NOW_NS);
  const elapsed = max(0, now - load<f64>(p, P_TOKENS_AT_NS));
  const there = min(load<f64>(p, P_BURST), load<f64>(p, P_TOKENS) + elapsed * load<f64>(p, P_RATE));
  store<f64>(p, there, P_TOKENS);
  store<f64>(p, now, P_TOKENS_AT_NS);
  return there <= 0 ? 0 : <u32> min(ceil(there), <f64> NO_LIMIT);
}

/** Takes `bytes` that were sent from the bucket, which may go below zero: they are then owed. */
@inline
export function takeTokens(p: usize, bytes: u32): void {
  if (load<f64>(p, P_RATE) != 0) store<f64>(p, load<f64>(p, P_TOKENS) - <f64> bytes, P_TOKENS);
}

/** What is sent now is no guest's, and is not limited. */
export let isOwn: bool = false;

/** Says whether what is sent from now on is the engine's own. */
export function sendsOwn(own: bool): void {
  isOwn = own;
}

/** Takes one from pool `p`'s bucket of broadcasts; false if it has none left. */
export function takeBroadcast(p: usize): bool {
  if (isOwn) return true;
  const bucket = p + (P_BROADCAST_RATE - P_RATE);
  if (allowance(bucket) == 0) return false;
  takeTokens(bucket, 1);
  return true;
}
