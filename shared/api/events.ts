/** The PF's event stream: every change of state, from wherever it comes. */
import type { LinkPatch } from "./guest.ts";

/** A VF, or a vport. */
type Whose = { vf: number } | { vport: number };

/** What the PF tells on its event stream. */
export type PfEvent =
  | { type: "vf-changed"; vf: number; changes: Record<string, unknown> }
  | { type: "vport-changed"; vport: number; changes: Record<string, unknown> }
  | { type: "wish-refused"; vf?: number; vport?: number; wish: LinkPatch; detail: string }
  /** `reason`, `detail`: why, where nobody has asked for it. */
  | (
    & { type: "mode-changed"; mode: string; plugin?: string; dataPath?: string; reason?: string; detail?: string }
    & Whose
  )
  /** `mode`: what is in force then; null: nobody could say. */
  | (
    & { type: "mode-failed"; mode: string | null; plugin?: string; dataPath?: string; reason?: string; detail?: string }
    & Whose
  )
  /** Its hypervisor moves it to another host and has just stopped it for that; it goes on there, or here if that fails. */
  | { type: "guest-paused"; vf: number }
  | { type: "nic-changed"; changes: Record<string, unknown> }
  | { type: "attached" | "detached" | "queue-error"; vf: number | "pf" | "uplink"; reason?: string; index?: number }
  | { type: "uplink-up" | "uplink-down" | "uplink-failed"; vf: number | "pf" | "uplink"; reason?: string | undefined }
  | { type: "spoofed"; vf: number | "pf" | "uplink"; frames: number }
  /** Of those since the id that a listener named, some are not kept any more. */
  | { type: "missed" }
  | { type: "nic-up" | "nic-down" };
