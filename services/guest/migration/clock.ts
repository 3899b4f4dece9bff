/**
 * A guest that has come from another host finds another clock: its times are moved by as much as the two differ. Time
 * has gone on while it was stopped, and the hosts' wall clocks say how long: so what was due meanwhile is caught up with.
 */
import * as L from "../../../shared/layout/guest.ts";
import { monotonicNs } from "../../../shared/os/mod.ts";
import type { Clocks } from "./stream.ts";

/** No guest is stopped for longer than this, whatever the wall clocks say. */
const STOPPED_MS_MAX = 60_000;

/** What this host's clocks say now. */
export function clocksNow(): Clocks {
  return { monotonicNs: monotonicNs(), wallMs: performance.timeOrigin + performance.now() };
}

/** By how many nanoseconds this host's clock is ahead of that of the host where a guest was stopped at `there`. */
export function clockDifference(there: Clocks, here: Clocks): number {
  const stoppedMs = Math.min(STOPPED_MS_MAX, Math.max(0, here.wallMs - there.wallMs));
  return here.monotonicNs - there.monotonicNs - stoppedMs * 1e6;
}

/** Moves every time in a guest's RAM. Its worker does not run. */
export function shiftTimes(ram: DataView, byNs: number): void {
  const shift = (at: number) => {
    const ns = ram.getFloat64(at, true);
    // 0 says that there is none.
    if (ns !== 0) ram.setFloat64(at, ns + byNs, true);
  };
  const each = (base: number, count: number, stride: number, fields: readonly number[]) => {
    for (let i = 0; i < count; i++) for (const field of fields) shift(base + i * stride + field);
  };
  each(L.ARP_TABLE, L.ARP_COUNT, L.ARP_STRIDE, [L.ARP_AT_NS]);
  each(L.PINGS, L.PING_COUNT, L.PING_STRIDE, [L.PING_NEXT_NS, L.PING_LAST_NS]);
  for (let ping = 0; ping < L.PING_COUNT; ping++) {
    each(L.PINGS + ping * L.PING_STRIDE + L.PING_SENT_AT, L.PING_RESULTS_MAX, 8, [0]);
  }
  const generator = [L.GEN_BEGAN_NS, L.GEN_ENDS_NS, L.GEN_LAST_NS, L.GEN_NEXT_NS];
  each(L.GENERATORS, L.GENERATOR_COUNT, L.GENERATOR_STRIDE, generator);
  each(L.FLOWS, L.FLOW_COUNT, L.FLOW_STRIDE, [L.FLOW_FIRST_NS, L.FLOW_LAST_NS]);
}
