/** A figure beside another one, and whether it is as it shall be: what every table of the benchmarks is made of. */
import { table } from "../../services/cli/views.ts";

/** What a ratio shall be. */
export interface Goal {
  atLeast?: number;
  atMost?: number;
}

/** One comparison. */
export interface Judged {
  what: string;
  /** Whom it is held against. */
  against: string;
  ours: number;
  theirs: number;
  unit: string;
  goal?: Goal;
  /** More about it, such as how many samples counted. */
  note?: string;
}

/** The ratio that a goal is about. */
export function ratioOf({ ours, theirs }: Pick<Judged, "ours" | "theirs">): number {
  return ours / theirs;
}

/** Whether there is a figure and it misses its goal. */
export function isMissed(figure: number | undefined, goal: Goal | undefined): boolean {
  if (figure === undefined || Number.isNaN(figure)) return false;
  return figure > (goal?.atMost ?? Infinity) || figure < (goal?.atLeast ?? -Infinity);
}

/** A goal in words. */
export function goalText(goal: Goal | undefined): string {
  const { atMost, atLeast } = goal ?? {};
  const parts = [
    ...(atMost === undefined ? [] : [`<= ${atMost}`]),
    ...(atLeast === undefined ? [] : [`>= ${atLeast}`]),
  ];
  return parts.join(", ") || "-";
}

/** A figure for a table. */
export function figureText(value: number | undefined, digits = 2): string {
  return value === undefined || Number.isNaN(value) ? "-" : value.toFixed(digits);
}

/** Those that miss their goals first, otherwise in their order. */
export function missedFirst<T>(rows: readonly T[], missed: (row: T) => boolean): T[] {
  return [...rows.filter(missed), ...rows.filter((row) => !missed(row))];
}

/** Comparisons in a table. */
export function judgedTable(title: string, rows: readonly Judged[]): string {
  const missed = (row: Judged) => isMissed(ratioOf(row), row.goal);
  return table(
    ["", title, "AGAINST", "OURS", "THEIRS", "UNIT", "RATIO", "TARGET", ""],
    missedFirst(rows, missed).map((row) => [
      missed(row) ? "MISSED" : "",
      row.what,
      row.against,
      figureText(row.ours),
      figureText(row.theirs),
      row.unit,
      figureText(ratioOf(row)),
      goalText(row.goal),
      row.note ?? "",
    ]),
  );
}
