/** What an engine is programmed with. The NIC's comes from the PF whole; a switch that is no NIC has less. */
import type { Programme } from "../api/nic.ts";
import type { PortPolicy, VfPolicy } from "../api/vf.ts";

/** A pool's policy, where its frames go while nobody drives its queues, and who gets copies of them. */
export type PoolPolicy = PortPolicy & { fallback?: "none" | "pf" | "uplink" } & Partial<Pick<VfPolicy, "mirror">>;

/** A programme as an engine takes it: pools without a policy are off; a switch that is no NIC has no PF. */
export interface PoolProgramme
  extends Pick<Programme, "switchMode" | "link" | "vports" | "uplinkTrunk" | "uplinkNativeVlan" | "pfMirror"> {
  pfMac?: string;
  vfs: (PoolPolicy | undefined)[];
}

/** Bytes that go to one place of the arena. */
export interface Patch {
  at: number;
  bytes: Uint8Array;
}
