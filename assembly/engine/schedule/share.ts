/**
 * Shares of the engine: deficit round robin among the pools that have work, in units of cost. Each pass credits a pool
 * once, by its weight, however many queues it has; what its frames cost is taken off, and a pool that owes is passed
 * over until its credits make up for it. Minimum rates are the weights, so they matter only where there is not enough
 * for all. Nobody sleeps on debt: if all that have work owe, the next pass credits as many times as the first of them
 * needs for a whole visit.
 */
import {
  CTL_CREDITS,
  CTL_SHARE_BLOCKED,
  CTL_UNIT_NS,
  P_CREDITED_PASS,
  P_DEFICIT,
  P_ENGINE_NS,
  P_PART,
  P_STRIDE,
  P_QUANTUM,
  P_WORKING,
  Q_INDEX,
} from "../../../shared/layout/nic.ts";
import { control } from "../context.ts";

/** Units that a pass credits a pool of full weight with: some 256 short frames. */
export const QUANTUM: i32 = 4608;
/** A pool of little weight saves up for a visit that is worth it. */
const WORTHWHILE: i32 = 512;
/** So many queues of a pool are visited in a pass. */
const QUEUES_A_PASS: i32 = 4;

/** Credits that the pool which needs fewest needs, among those that were passed over in this pass. */
let fewestCredits: u32 = 0;

/** Begins a pass. */
export function beginShares(): void {
  const c = control();
  store<u32>(c, fewestCredits == 0 ? 1 : fewestCredits, CTL_CREDITS);
  store<u32>(c, 0, CTL_SHARE_BLOCKED);
  fewestCredits = 0;
}

/** Ends a pass: somebody was served, so nobody has to be helped. */
@inline
export function endShares(served: bool): void {
  if (served) fewestCredits = 0;
}

/** What pool `p` may spend at its queue `q`, which has work; 0: not now. */
export function shareOf(p: usize, q: usize, pass: u32): u32 {
  const quantum = quantumOf(p);
  if (load<u32>(p, P_CREDITED_PASS) != pass) credit(p, pass, quantum);
  store<u32>(p, load<u32>(p, P_WORKING) + 1, P_WORKING);
  const deficit = load<i32>(p, P_DEFICIT);
  const stride = load<u32>(p, P_STRIDE);
  const itsTurn = stride == 1 || (pass + (load<u32>(q, Q_INDEX) >> 1)) % stride == 0;
  if (itsTurn && deficit >= (quantum < WORTHWHILE ? WORTHWHILE : 1)) return <u32> min(deficit, load<i32>(p, P_PART));
  const credits = <u32> max(1, (QUANTUM - deficit + quantum - 1) / quantum);
  if (fewestCredits == 0 || credits < fewestCredits) fewestCredits = credits;
  store<u32>(control(), load<u32>(control(), CTL_SHARE_BLOCKED) + 1, CTL_SHARE_BLOCKED);
  return 0;
}

/** What pool `p` may spend on what its packet buffer holds; 0: not now. */
export function releaseShareOf(p: usize, pass: u32): u32 {
  if (load<u32>(p, P_CREDITED_PASS) != pass) credit(p, pass, quantumOf(p));
  return <u32> max(0, load<i32>(p, P_DEFICIT));
}

/** Units that a pass credits pool `p` with. */
@inline
function quantumOf(p: usize): i32 {
  const weight = load<i32>(p, P_QUANTUM);
  return weight == 0 ? QUANTUM : weight;
}

/**
 * Credits pool `p`, once a pass, and cuts what it may spend into parts for its queues that had work in the last one. If
 * these are many they take turns, so that each visit is worth it.
 */
function credit(p: usize, pass: u32, quantum: i32): void {
  const earned = <i64> quantum * <i64> load<u32>(control(), CTL_CREDITS);
  const most = <i64> max(2 * quantum, QUANTUM);
  const deficit = <i32> min(<i64> load<i32>(p, P_DEFICIT) + earned, most);
  const sharers = max(1, load<i32>(p, P_WORKING));
  const stride = (sharers + QUEUES_A_PASS - 1) / QUEUES_A_PASS;
  const visited = (sharers + stride - 1) / stride;
  store<u32>(p, pass, P_CREDITED_PASS);
  store<u32>(p, 0, P_WORKING);
  store<i32>(p, deficit, P_DEFICIT);
  store<u32>(p, stride, P_STRIDE);
  store<i32>(p, max(1, (deficit + visited - 1) / visited), P_PART);
}

/** Takes off what a visit to a queue of pool `p` has cost. */
@inline
export function charge(p: usize, units: u32): void {
  store<i32>(p, load<i32>(p, P_DEFICIT) - <i32> units, P_DEFICIT);
  store<f64>(p, load<f64>(p, P_ENGINE_NS) + <f64> units * load<f64>(control(), CTL_UNIT_NS), P_ENGINE_NS);
}
