/** `fabric stats` as a table: totals, or rates between two moments. */
import type { FabricStats } from "../../shared/api/mod.ts";
import { COUNTERS } from "../../shared/layout/counter_names.ts";
import { table } from "./views.ts";

/** Everybody's counters at a moment. */
export interface Sample {
  atMs: number;
  stats: FabricStats;
}

type Counters = Record<string, number>;

function rowsOf({ vfs, vports, pf, uplink }: FabricStats): [string, Counters][] {
  return [
    ...vfs.map(({ id, counters }): [string, Counters] => [String(id), counters]),
    ...vports.map(({ id, counters }): [string, Counters] => [`vport ${id}`, counters]),
    ["pf", pf],
    ["uplink", uplink],
  ];
}

/** Drops in one direction: how many, and the reason of most of them. */
function drops(direction: "rx" | "tx", delta: (name: string) => number): [number, string] {
  const names = COUNTERS.map(([name]) => name).filter((name) =>
    name.startsWith(`${direction}_`) &&
    !/_(frames|bytes|multicast|broadcast|interrupts|interrupts_saved|held)$/.test(name)
  );
  const counted = names.map((name): [number, string] => [delta(name), name.slice(3)]).sort(([a], [b]) => b - a);
  const sum = counted.reduce((sum, [n]) => sum + n, 0);
  return [sum, sum > 0 ? counted[0]?.[1] ?? "" : ""];
}

/** Rates between two samples; totals if there is only one. */
export function statsTable(now: Sample, before?: Sample): string {
  const seconds = before ? (now.atMs - before.atMs) / 1000 : 1;
  const earlier = new Map(before ? rowsOf(before.stats) : []);
  const rows = rowsOf(now.stats).map(([name, counters]) => {
    const delta = (counter: string) => (counters[counter] ?? 0) - (earlier.get(name)?.[counter] ?? 0);
    const [rxDrops, rxReason] = drops("rx", delta);
    const [txDrops, txReason] = drops("tx", delta);
    const reasons = [rxReason && `rx ${rxReason}`, txReason && `tx ${txReason}`].filter((text) => text !== "").join(
      ", ",
    );
    const engineMs = delta("engine_ns") / 1e6;
    if (!before) {
      const totals = ["rx_frames", "rx_bytes", "tx_frames", "tx_bytes"].map(delta);
      return [name, ...totals, rxDrops, txDrops, reasons, engineMs.toFixed(0)];
    }
    const per = (n: number) => (n / seconds).toFixed(0);
    const mbps = (n: number) => (n * 8 / 1e6 / seconds).toFixed(1);
    return [
      name,
      per(delta("rx_frames")),
      mbps(delta("rx_bytes")),
      per(delta("tx_frames")),
      mbps(delta("tx_bytes")),
      per(rxDrops),
      per(txDrops),
      reasons,
      (engineMs / seconds / 10).toFixed(1),
    ];
  });
  const heads = before
    ? ["RX FRAMES/S", "RX MBIT/S", "TX FRAMES/S", "TX MBIT/S", "RX DROPS/S", "TX DROPS/S", "MOST FOR", "ENGINE %"]
    : ["RX FRAMES", "RX BYTES", "TX FRAMES", "TX BYTES", "RX DROPS", "TX DROPS", "MOST FOR", "ENGINE MS"];
  return table(["VF", ...heads], rows);
}
