/** What rows of the benchmark are given. */
export interface RowOptions {
  rounds: number;
  /** Whether a row is to be measured, by its name. */
  wanted(name: string): boolean;
  /** Says what was measured, while it goes on. */
  report(line: string): void;
}

/** Rows that another checkout, built, can be measured beside. */
export interface PairedRowOptions extends RowOptions {
  against?: string;
}
