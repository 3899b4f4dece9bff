/** Minimum rates as shares of a pass, in proportion to the largest (the bw_share of hardware schedulers). */
import { P_QUANTUM, POOL_STRIDE, POOLS } from "../layout/nic.ts";
import type { Patch, PoolProgramme } from "./programme.ts";

/**
 * A pass's credit for the VF with the largest minimum rate, in units of cost (assembly/engine/schedule/share.ts); the
 * others get their proportion.
 */
const QUANTUM = 4608;
const QUANTUM_MIN = 19;

/** What to write so that the pools' shares are those of `next`: one number for each share that changes. */
export function sharePatches(before: PoolProgramme["vfs"], next: PoolProgramme["vfs"]): Patch[] {
  const old = sharesOf(before);
  return sharesOf(next).flatMap((share, vf) => {
    if (share === old[vf]) return [];
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setInt32(0, share, true);
    return [{ at: POOLS + vf * POOL_STRIDE + P_QUANTUM, bytes }];
  });
}

function sharesOf(vfs: PoolProgramme["vfs"]): number[] {
  const largest = Math.max(0, ...vfs.map((vf) => vf?.minTxRate ?? 0));
  return vfs.map((vf) => {
    if (largest === 0) return 0;
    return Math.max(QUANTUM_MIN, Math.round(QUANTUM * (vf?.minTxRate ?? 0) / largest));
  });
}
