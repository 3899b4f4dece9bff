/** The functions of the NIC's engine beside those that every engine has. */
import type { EngineExports } from "../../shared/engine/mod.ts";

/** Exports of assembly/nic. */
export interface NicExports extends EngineExports {
  insertFilter(mac: bigint, vlan: number, pool: number, flags: number): number;
  removeFilter(mac: bigint, vlan: number): void;
  removeFiltersOf(pool: number, onlyLearned: number): void;
  findPoolExact(mac: bigint, vlan: number): number;
  ageFilters(): void;
  clearFilters(): void;
  releaseHeld(hold: number, pool: number, most: number, last: number): number;
  hasRoom(pool: number): number;
}
