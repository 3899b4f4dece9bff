/**
 * What captures may spend, all of them together: a share of the engine's time, larger while the engine also finds
 * passes without work. What is beyond it is not looked at and counts as lost, so a capture that is open takes no more
 * than this from those whose frames it copies, however many there are.
 */
import {
  CAPTURE_STATE,
  CTL_BUSY_PASSES,
  CTL_NOW_NS,
  CTL_PASSES,
  CTL_UNIT_NS,
  XS_FILLED_NS,
  XS_IDLE,
  XS_TOKENS,
} from "../../../shared/layout/nic.ts";
import { context, control } from "../context.ts";

/** Shares of the time, where the engine always has work and where it has not. */
const BUSY_SHARE: f64 = 1.0 / 32;
const IDLE_SHARE: f64 = 1.0 / 8;
/** What may be spent at once after a while without frames, in ns: some hundred thousand short frames. */
const BURST_NS: f64 = 4_000_000;
/** A unit takes no longer: an engine that has only begun measures code that is not compiled yet. */
const UNIT_NS_MAX: f64 = 8;

/** Whether anything may be spent now. The clock is not read for that: most of the time there is nothing to be spent. */
export function mayCapture(): bool {
  const s = context + CAPTURE_STATE;
  const c = control();
  const now = load<f64>(c, CTL_NOW_NS);
  const idle = <f64> (load<u64>(c, CTL_PASSES) - load<u64>(c, CTL_BUSY_PASSES));
  const share = idle == load<f64>(s, XS_IDLE) ? BUSY_SHARE : IDLE_SHARE;
  const tokens = min(BURST_NS, load<f64>(s, XS_TOKENS) + max(0, now - load<f64>(s, XS_FILLED_NS)) * share);
  store<f64>(s, tokens, XS_TOKENS);
  store<f64>(s, now, XS_FILLED_NS);
  store<f64>(s, idle, XS_IDLE);
  return tokens > 0;
}

/** Takes what was spent, in units of cost, off what may be spent. */
export function payCapture(units: u32): void {
  const s = context + CAPTURE_STATE;
  const unitNs = min(UNIT_NS_MAX, load<f64>(control(), CTL_UNIT_NS));
  store<f64>(s, load<f64>(s, XS_TOKENS) - <f64> units * unitNs, XS_TOKENS);
}
