/**
 * Files that guests share with the NIC, at the process that stands by: they may have been truncated since the other one
 * mapped them. Their guest has no memory here then, and its rings stop if this process takes over; nobody else's standby
 * depends on it.
 */
import { log } from "../../../shared/api/mod.ts";
import { closeAll, DeviceRefusal } from "../../../shared/device/mod.ts";
import { poolName, type Tenants } from "../../../shared/engine/mod.ts";
import type { Fd } from "../../../shared/os/mod.ts";
import type { Lease } from "../lease.ts";

/** Takes what the guest of `lease` shares, which `step` maps; closes the files. Throws what is not the guest's own doing. */
export function takeShared(tenants: Tenants, lease: Lease, files: Fd[], step: (files: readonly Fd[]) => void): void {
  try {
    step(files);
  } catch (error) {
    if (!(error instanceof DeviceRefusal) || error.code === "arena-full") throw error;
    log("warn", "nic", `vf ${poolName(lease.pool)} would lose its memory with the NIC's process: ${error.message}`);
    tenants.setMemory(lease, { op: "dmaSet", regions: [] }, []);
  } finally {
    closeAll(files);
  }
}
