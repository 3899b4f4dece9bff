/** The engine's figures as a table. */
import { table } from "../../../services/cli/views.ts";
import type { EngineResult } from "./compare.ts";

const text = (value: number | undefined, digits = 2) =>
  value === undefined || Number.isNaN(value) ? "-" : value.toFixed(digits);

/** The rows in a table. */
export function engineTable(results: readonly EngineResult[]): string {
  const isCompared = results.some(({ theirs }) => theirs !== undefined);
  return table(
    ["ENGINE ALONE", "OURS", "UNIT", "RATIO", "GOAL", "", ...(isCompared ? ["THEIRS", "RATIO", "OURS/THEIRS"] : [])],
    results.map((row) => [
      row.name,
      text(row.ours, row.unit === "Gbit/s" ? 3 : 2),
      row.unit,
      text(row.ratio),
      row.goal ?? "-",
      row.missed ? "MISSED" : "",
      ...(isCompared
        ? [text(row.theirs, row.unit === "Gbit/s" ? 3 : 2), text(row.theirRatio), text(row.oursToTheirs)]
        : []),
    ]),
  );
}
