/** What a row of the engine's benchmark is. */
import type { Outcome } from "./measure.ts";
import type { Format, Kit, World } from "./world.ts";

/** One row. */
export interface Row {
  name: string;
  unit: "ns/frame" | "Mpps" | "Gbit/s" | "times";
  /** The row that this one is held against; none: it stands for itself. */
  base?: string;
  /** What the ratio to the base row, or the value itself, shall be. */
  atMost?: number;
  atLeast?: number;
  /** Whether the load is run until the rings are empty, or one pass at a time with rings that are always full. */
  drain: boolean;
  /** Takes long to set up: fewer rounds. */
  heavy?: boolean;
  /** Ring formats that the checkout's rig must know. */
  needs?: readonly Format[];
  build(kit: Kit): World;
  value(outcome: Outcome): number;
}
