/** The engine's figures as a table. */
import { table } from "../../../services/cli/views.ts";
import { figureText, goalText, missedFirst } from "../judged.ts";
import type { EngineResult } from "./compare.ts";

const COMPARED = ["THEIRS", "RATIO", "OURS/THEIRS", "GOAL"];

/** The rows in a table, those that miss their goals first. */
export function engineTable(results: readonly EngineResult[]): string {
  const isCompared = results.some(({ theirs }) => theirs !== undefined);
  return table(
    ["", "ENGINE ALONE", "OURS", "UNIT", "RATIO", "GOAL", ...(isCompared ? COMPARED : [])],
    missedFirst(results, ({ missed }) => missed).map((row) => [
      row.missed ? "MISSED" : "",
      row.name,
      figureText(row.ours, row.unit === "Gbit/s" ? 3 : 2),
      row.unit,
      figureText(row.ratio),
      goalText(row.goal),
      ...(isCompared
        ? [
          figureText(row.theirs, row.unit === "Gbit/s" ? 3 : 2),
          figureText(row.theirRatio),
          figureText(row.oursToTheirs),
          goalText(row.goalAgainst),
        ]
        : []),
    ]),
  );
}
