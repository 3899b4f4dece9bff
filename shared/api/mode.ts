/** Data paths of VFs and the plugins that drive them: what the vf service offers, and the PF passes on. */
import { z } from "@hono/zod-openapi";
import type { InForce } from "./problem.ts";
import { EmulatedPath, PathFrames } from "./emulated_path.ts";

/** The mode to be in. Without a plugin a guest's own rings are the NIC's, or a plugin is chosen for a guest that takes one. */
export const ModeRequest = z.strictObject({
  mode: z.enum(["emulated", "passthrough"], { error: "is emulated or passthrough" }),
  plugin: z.string().regex(
    /^[a-z][a-z0-9-]{0,31}(@\d{1,4}\.\d{1,4}\.\d{1,4})?$/,
    "is a plugin such as advanced or advanced@1.0.0",
  )
    .optional().openapi({ description: "name, or name@version; the newest version if none is named" }),
  dataPath: EmulatedPath.optional().openapi({
    description: "With emulated: how frames go, from now on; what was chosen last if it is not said, copy at first",
  }),
  force: z.boolean().optional().openapi({
    description: "With emulated: take the VF back at once, without asking its guest. Frames on their way may be lost.",
  }),
}).openapi("ModeRequest");
export type ModeRequest = z.output<typeof ModeRequest>;

/** One step of a change of mode. */
export const ModeStep = z.object({
  step: z.string(),
  ms: z.number(),
  error: z.string().optional().openapi({ description: "Why it failed; a guest's part is gone on without" }),
  lost: z.int().optional().openapi({
    description: "Descriptors that the guest had offered to send, and that were not fetched",
  }),
}).openapi("ModeStep");
export type ModeStep = z.output<typeof ModeStep>;

/** Who drives a VF. */
export const VfMode = z.object({
  mode: z.enum(["emulated", "passthrough"]),
  plugin: z.string().optional().openapi({
    description: "The plugin in the guest; none: the NIC has the guest's rings",
  }),
  version: z.string().optional(),
  dataPath: EmulatedPath.optional().openapi({ description: "In emulated mode, how frames go" }),
  frames: PathFrames.optional(),
  changing: z.boolean().openapi({ description: "A change is in progress" }),
  steps: z.array(ModeStep).optional().openapi({ description: "The last change, step by step" }),
  lastFailure: z.object({ reason: z.string(), detail: z.string() }).optional()
    .openapi({ description: "Why the last change that failed did" }),
}).openapi("VfMode");
export type VfMode = z.output<typeof VfMode>;

/** What the vf service tells: a port's mode has changed, whoever asked for that, or a change of it has failed. */
export interface ModeEvent {
  type: "mode-changed" | "mode-failed";
  /** A VF's number, or a name such as vport0. */
  port: number | string;
  /** What is in force; null: nobody could say. */
  mode: VfMode["mode"] | null;
  plugin?: string;
  dataPath?: EmulatedPath;
  /** Why, if nobody has asked for it, or it has failed. */
  reason?: string;
  detail?: string;
}

/** What of a mode a failed change says is in force. */
export function inForceOf({ mode, plugin, version, dataPath }: VfMode): InForce {
  return {
    mode,
    ...(plugin === undefined ? {} : { plugin }),
    ...(version === undefined ? {} : { version }),
    ...(dataPath === undefined ? {} : { dataPath }),
  };
}

/** A plugin image in the registry. */
export const PluginView = z.object({
  name: z.string(),
  version: z.string(),
  hardware: z.enum(["advanced", "virtio"]),
  abi: z.int(),
  licence: z.string(),
  bytes: z.int(),
  sha256: z.string(),
  signer: z.string().openapi({
    description: "The public key of who signed it; nobody else can publish under its name",
  }),
}).openapi("Plugin");
export type PluginView = z.output<typeof PluginView>;
