/** Flows as they stand in the guest's RAM: what has come in of generators. */
import * as L from "../../shared/layout/guest.ts";
import type { FlowState } from "../../shared/api/mod.ts";
import { ipFromNumber } from "./ip.ts";

/** Nanoseconds of a histogram's bucket: its lower edge. */
function bucketNs(bucket: number): number {
  if (bucket < 32) return bucket;
  const power = (bucket >> 5) + 4;
  return (32 + (bucket & 31)) * 2 ** (power - 5);
}

/** All flows that are known. */
export function flowStates(view: DataView): FlowState[] {
  return Array.from({ length: L.FLOW_COUNT }, (_, i) => L.FLOWS + i * L.FLOW_STRIDE)
    .filter((at) => view.getUint32(at + L.FLOW_STATE, true) !== L.STATE_FREE).map((at) => flowState(view, at));
}

function flowState(view: DataView, at: number): FlowState {
  const u64 = (offset: number) => Number(view.getBigUint64(at + offset, true));
  const f64 = (offset: number) => view.getFloat64(at + offset, true);
  const received = u64(L.FLOW_RECEIVED);
  const seconds = (f64(L.FLOW_LAST_NS) - f64(L.FLOW_FIRST_NS)) / 1e9;
  const histogram = new Uint32Array(view.buffer, at + L.FLOW_HISTOGRAM, L.HISTOGRAM_BUCKETS);
  const quantile = (q: number) => {
    let left = Math.max(1, Math.ceil(received * q));
    for (const [bucket, n] of histogram.entries()) {
      left -= n;
      if (left <= 0) return Math.round(bucketNs(bucket) / 100) / 10;
    }
    return 0;
  };
  const us = (ns: number) => Math.round(ns / 100) / 10;
  return {
    flow: view.getUint32(at + L.FLOW_ID, true),
    from: ipFromNumber(view.getUint32(at + L.FLOW_FROM, true)),
    received,
    lost: u64(L.FLOW_NEXT) - received,
    duplicates: u64(L.FLOW_DUPLICATES),
    reordered: u64(L.FLOW_REORDERED),
    bytes: u64(L.FLOW_BYTES),
    rate: seconds > 0 ? Math.round((received - 1) / seconds) : 0,
    longestGapUs: us(f64(L.FLOW_LONGEST_GAP)),
    latencyUs: received === 0 ? { min: 0, avg: 0, p50: 0, p99: 0, p999: 0, max: 0 } : {
      min: us(f64(L.FLOW_LATENCY_MIN)),
      avg: us(f64(L.FLOW_LATENCY_SUM) / received),
      p50: quantile(0.5),
      p99: quantile(0.99),
      p999: quantile(0.999),
      max: us(f64(L.FLOW_LATENCY_MAX)),
    },
  };
}
