/** The functions of this service's engine, which is the NIC's over an arena of its own. */
import type { EngineExports } from "../../shared/engine/mod.ts";

/** What this service calls of them. */
export interface SwitchExports extends EngineExports {
  fillSource(source: number): void;
  isSinkEmpty(sink: number): number;
  insertFilter(mac: bigint, vlan: number, pool: number, flags: number): number;
  removeFiltersOf(pool: number, onlyLearned: number): void;
  clearFilters(): void;
  ageFilters(): void;
}
