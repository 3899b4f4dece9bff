/** The functions of this service's engine, which is the NIC's over an arena of its own. */
import type { EngineExports, FilterExports } from "../../shared/engine/mod.ts";

/** What this service calls of them. */
export interface SwitchExports extends EngineExports, FilterExports {
  fillSource(source: number): void;
  isSinkEmpty(sink: number): number;
}
