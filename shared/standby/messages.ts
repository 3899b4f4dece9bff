/**
 * What a process and the one that stands by for it tell each other. The engine's own state is in a memory file that both
 * have; here go the descriptors, and what the control thread knows. A message is an entry: what one request, or one step of
 * the process's own, has changed, together with how it was answered. So the other one knows all of it or nothing.
 */
import type { Reply } from "../device/mod.ts";

/** What the one that stands by says first, and whenever it knows everything. */
export type FromStandby = { standsBy: number; pid: number } | { ready: true };

/** Changes that belong together. The descriptors of an entry are those of its changes, in their order. */
export interface Entry<Change> {
  changes: Change[];
  /** The request of the device socket that made them, and what it was answered. */
  answered?: { connection: string; reply: Reply };
}

/** The last entry of what there is: the standby knows everything now, and says so. */
export interface Complete {
  complete: true;
}
