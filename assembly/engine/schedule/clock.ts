/**
 * How long a unit of cost takes on this machine and today. One pass in SAMPLE_PERIOD is timed: by what it cost, not by
 * passes, since reading the clock slows the polls before a timed pass, so that it finds more frames than others do.
 */
import { CTL_BUSY_NS, CTL_UNIT_NS } from "../../../shared/layout/nic.ts";
import { control } from "../context.ts";

/** Nanoseconds of a monotonic clock; called for a sample of passes, never per packet. */
@external("env", "now")
declare function now(): f64;

/** Every how many busy passes one is timed. A prime, so that no pattern of queues keeps step with it. */
const SAMPLE_PERIOD: u32 = 61;
const SAMPLE_FADING: f64 = 0.9375;
let untilSample: u32 = 0;
/** What two calls of the clock cost, taken off each sample. */
let clockCostNs: f64 = 0;
/** Time and units of recent samples, older ones fading. */
let sampledNs: f64 = 0;
let sampledUnits: f64 = 0;
let unitsSinceSample: f64 = 0;
let startedNs: f64 = 0;

/** The clock. */
@inline
export function nowNs(): f64 {
  return now();
}

/** Measures the clock, once, before the first pass: the quickest of a few batches. Its code has been compiled before. */
export function calibrate(): void {
  clockCostNs = Infinity;
  for (let batch = 0; batch < 10; batch++) {
    const t0 = now();
    for (let i = 0; i < 255; i++) now();
    clockCostNs = min(clockCostNs, (now() - t0) / 256);
  }
  if (load<f64>(control(), CTL_UNIT_NS) == 0) store<f64>(control(), 1, CTL_UNIT_NS);
}

/** Begins a pass, which is timed if it is its turn. */
@inline
export function beginTimed(): void {
  if (untilSample == 0) startedNs = now();
}

/** Ends a pass that found work and cost `units`. */
@inline
export function endTimed(units: u32): void {
  unitsSinceSample += <f64> units;
  if (untilSample == 0) {
    sample(units);
    untilSample = SAMPLE_PERIOD;
  }
  untilSample--;
}

function sample(units: u32): void {
  sampledNs = sampledNs * SAMPLE_FADING + max(0, now() - startedNs - clockCostNs);
  sampledUnits = sampledUnits * SAMPLE_FADING + <f64> units;
  const unitNs = sampledNs / sampledUnits;
  const c = control();
  store<f64>(c, unitNs, CTL_UNIT_NS);
  store<f64>(c, load<f64>(c, CTL_BUSY_NS) + unitNs * unitsSinceSample, CTL_BUSY_NS);
  unitsSinceSample = 0;
}
