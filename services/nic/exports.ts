/** The functions of the NIC's engine beside those that every engine has. */
import type { EngineExports, FilterExports } from "../../shared/engine/mod.ts";

/** Exports of assembly/nic. */
export interface NicExports extends EngineExports, FilterExports {
  claimAddress(mac: bigint, vlan: number, pool: number, trusted: number): number;
  findPool(mac: bigint, vlan: number): number;
  hasRoom(pool: number): number;
}
