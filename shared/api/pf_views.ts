/** What the PF's API shows and takes: VFs, vports, the NIC. */
import { z } from "@hono/zod-openapi";
import { EngineState, QueueState } from "./nic.ts";
import { portPatchShape, vfPolicyShape, vfShape } from "./vf.ts";
import { VPORTS_MAX } from "./vport.ts";

/** A VF as the API shows it. */
export const Vf = z.object({
  id: z.int(),
  ...vfShape,
  vport: z.int().nullable().openapi({ description: "The vport whose guest the VF is allotted to" }),
  mode: z.enum(["emulated", "passthrough"]).nullable().openapi({
    description: "Who drives the VF's queue pair; null, as with all that follows: the NIC does not answer",
  }),
  plugin: z.string().optional().openapi({ description: "The plugin that drives it from inside the guest" }),
  socket: z.string().openapi({ description: "vhost-user socket to which a guest attaches" }),
  attached: z.boolean().nullable(),
  owner: z.string().optional(),
  memory: z.object({ bytes: z.int(), regions: z.int(), sealed: z.boolean() }).nullable(),
  queues: z.array(QueueState).nullable(),
  lastDetach: z.string().optional().openapi({ description: "Why the last guest's connection ended" }),
  learnedMacs: z.int().nullable(),
}).openapi("Vf");
export type Vf = z.output<typeof Vf>;

/** A VF's counters by name. */
export const VfStats = z.object({ id: z.int(), counters: z.record(z.string(), z.int()) }).openapi("VfStats");
export type VfStats = z.output<typeof VfStats>;

/** Counters of everything that has some, in one answer. */
export const FabricStats = z.object({
  vfs: z.array(VfStats),
  vports: z.array(VfStats),
  pf: z.record(z.string(), z.int()),
  uplink: z.record(z.string(), z.int()),
}).openapi("FabricStats");
export type FabricStats = z.output<typeof FabricStats>;

/** The NIC. */
export const NicView = z.object({
  numVfs: z.int(),
  switchMode: z.enum(["veb", "vepa"]),
  link: z.enum(["up", "down"]),
  pfMac: z.string(),
  reachable: z.boolean(),
  uplink: z.object({
    socket: z.string(),
    attached: z.boolean().nullable(),
    counters: z.record(z.string(), z.int()).nullable(),
  }),
  engine: EngineState.optional(),
}).openapi("Nic");
export type NicView = z.output<typeof NicView>;

/** A guest without a VF: its port on the software switch, as the API shows it. */
export const VportView = z.object({
  id: z.int(),
  ...vfPolicyShape,
  vf: z.int().nullable().openapi({ description: "The VF that has been allotted to the guest" }),
  socket: z.string().openapi({ description: "vhost-user socket to which the guest attaches" }),
  attached: z.boolean().nullable().openapi({ description: "null: the vhost service does not answer" }),
  counters: z.record(z.string(), z.int()).nullable(),
}).openapi("Vport");
export type VportView = z.output<typeof VportView>;

/** What a new vport may be given; the rest has its first value. */
export const VportRequest = z.strictObject({
  id: z.int().min(0, `vports are 0–${VPORTS_MAX - 1}`).max(VPORTS_MAX - 1, `vports are 0–${VPORTS_MAX - 1}`),
  ...portPatchShape,
}).partial().openapi("VportRequest");
export type VportRequest = z.output<typeof VportRequest>;

/** What a PATCH of a vport may hold. */
export const VportPatch = z.strictObject(portPatchShape).partial().openapi("VportPatch");
export type VportPatch = z.output<typeof VportPatch>;

/** What a PATCH of the NIC may hold. */
export const NicPatch = z.strictObject({
  numVfs: z.int({ error: "must be a whole number" }).min(0, "0–256 VFs").max(256, "0–256 VFs"),
  switchMode: z.enum(["veb", "vepa"], { error: "is veb or vepa" }),
  link: z.enum(["up", "down"], { error: "is up or down" }),
}).partial().openapi("NicPatch");
export type NicPatch = z.output<typeof NicPatch>;
