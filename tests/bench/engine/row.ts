/** What a row of the engine's benchmark is. */
import type { Goal } from "../judged.ts";
import type { Time } from "./measure.ts";
import type { Format, Kit } from "./world.ts";

/** One row. */
export interface Row {
  name: string;
  unit: "ns/frame" | "Mpps" | "Gbit/s" | "times" | "ms";
  /** The row that this one is held against; none: it stands for itself. */
  base?: string;
  /** What the ratio to the base row, or the value itself, shall be. */
  goal?: Goal;
  /** What our figure shall be in relation to the other checkout's. */
  goalAgainst?: Goal;
  /** Takes long to set up: fewer rounds. */
  heavy?: boolean;
  /** Ring formats that the checkout's rig must know. */
  needs?: readonly Format[];
  run(kit: Kit, time: Time): number;
}
