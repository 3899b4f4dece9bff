/** The functions of this service's engine, which is the NIC's over an arena of its own. */
import type { EngineExports, FilterExports } from "../../shared/engine/mod.ts";

/** What this service calls of them. */
export interface SwitchExports extends EngineExports, FilterExports {
  fillDriverRx(rx: number): void;
  isDriverTxEmpty(tx: number): number;
  /** The direct path: its receive ring as it begins, and taking back what is outstanding. */
  fillDirect(rx: number): void;
  settleSent(tx: number, head: number): void;
  withdrawOffered(rx: number): void;
  settleReceived(rx: number): void;
}
