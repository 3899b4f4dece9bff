/** What the PF's API shows and takes: VFs, vports, the NIC. */
import { z } from "@hono/zod-openapi";
import { LatencyView } from "./latency.ts";
import { EngineState, Filter, Limits, QueueState, StandbyState, uplinkVlansShape } from "./nic.ts";
import { parseUplinkSpec, UplinkSpec, UplinkState } from "./uplink.ts";
import { EmulatedPath } from "./emulated_path.ts";
import { Mirror, portPatchShape, vfPolicyShape, vfShape, VportMirror } from "./vf.ts";
import { VPORTS_MAX } from "./vport.ts";

/** What is to be behind a pool, and whether it is. */
const UplinkLine = UplinkState.pick({ spec: true, reason: true, interface: true }).extend({
  state: UplinkState.shape.state.nullable().openapi({ description: "null: the NIC does not answer" }),
});

/** An uplink: what of the host is behind a pool. */
export const UplinkView = UplinkLine.extend({
  ...UplinkState.pick({ io: true, mtu: true, mac: true, counters: true, offloads: true }).shape,
  pool: Filter.shape.pool.openapi({ description: "uplink, pf, or the number of a VF" }),
}).openapi("Uplink");
export type UplinkView = z.output<typeof UplinkView>;

/** What a PUT of an uplink may hold: a spec, or its short form as a JSON string. */
export const UplinkRequest = z.preprocess((value, context) => {
  if (typeof value !== "string") return value;
  try {
    return parseUplinkSpec(value);
  } catch (error) {
    context.addIssue((error as Error).message);
    return z.NEVER;
  }
}, UplinkSpec).openapi("UplinkRequest", {
  oneOf: [
    { $ref: "#/components/schemas/UplinkSpec" },
    { type: "string", example: "tap:rf0", description: "tap:NAME, packet:IFACE, xdp:IFACE, pcap:FILE or none" },
  ],
});

/** A VF as the API shows it. */
export const Vf = z.object({
  id: z.int(),
  ...vfShape,
  vport: z.int().nullable().openapi({ description: "The vport whose guest the VF is allotted to" }),
  mode: z.enum(["emulated", "passthrough"]).nullable().openapi({
    description: "Who drives the VF's queue pair; null, as with all that follows: the NIC does not answer",
  }),
  plugin: z.string().optional().openapi({ description: "The plugin that drives it from inside the guest" }),
  uplink: UplinkLine.nullable().openapi({ description: "What of the host the VF is bound to; null: nothing" }),
  dataPath: EmulatedPath.optional().openapi({ description: "In emulated mode, how frames go" }),
  socket: z.string().openapi({ description: "vhost-user socket to which a guest attaches" }),
  attached: z.boolean().nullable(),
  owner: z.string().optional(),
  memory: z.object({ bytes: z.int(), regions: z.int(), sealed: z.boolean() }).nullable(),
  queues: z.array(QueueState).nullable(),
  limits: Limits.nullable(),
  lastDetach: z.string().optional().openapi({ description: "Why the last guest's connection ended" }),
  learnedMacs: z.int().nullable(),
}).openapi("Vf");
export type Vf = z.output<typeof Vf>;

/** What is said of a latency wherever it is shown. */
const LATENCY =
  "How long what its guest sent waited in its ring until it was delivered; one in some sixty visits to a " +
  "ring is a sample. It counts on while guests come and go";

/** A VF's counters by name, and how long its frames wait. */
export const VfStats = z.object({
  id: z.int(),
  counters: z.record(z.string(), z.int()),
  latency: LatencyView.openapi({ description: LATENCY }),
}).openapi("VfStats");
export type VfStats = z.output<typeof VfStats>;

/** Counters of everything that has some, in one answer. */
export const FabricStats = z.object({
  vfs: z.array(VfStats),
  vports: z.array(VfStats),
  pf: z.record(z.string(), z.int()),
  uplink: z.record(z.string(), z.int()),
}).openapi("FabricStats");
export type FabricStats = z.output<typeof FabricStats>;

const pfMirror = Mirror.openapi({
  example: "both:3",
  description: "Who gets copies of the frames between the NIC and what is behind the PF's pool, such as the software " +
    "switch: a VF or uplink; null: nobody",
});

/** The NIC. */
export const NicView = z.object({
  numVfs: z.int(),
  switchMode: z.enum(["veb", "vepa"]),
  ...uplinkVlansShape,
  pfMirror,
  link: z.enum(["auto", "up", "down"]).openapi({ description: "auto: as the uplink's interface is" }),
  carrier: z.enum(["up", "down"]).openapi({ description: "What VFs with linkState auto have now" }),
  pfMac: z.string(),
  reachable: z.boolean(),
  uplink: UplinkLine.extend({
    socket: z.string(),
    attached: z.boolean().nullable(),
    counters: z.record(z.string(), z.int()).nullable(),
  }),
  engine: EngineState.optional(),
  standby: StandbyState.optional().openapi({ description: "Whether another process takes over if the NIC's dies" }),
  vhostStandby: StandbyState.optional().openapi({
    description: "Whether another process takes over if the vhost service's dies; not there while that does not answer",
  }),
}).openapi("Nic");
export type NicView = z.output<typeof NicView>;

/** A guest without a VF: its port on the software switch, as the API shows it. */
export const VportView = z.object({
  id: z.int(),
  ...vfPolicyShape,
  mirror: VportMirror,
  vf: z.int().nullable().openapi({ description: "The VF that has been allotted to the guest" }),
  socket: z.string().openapi({ description: "vhost-user socket to which the guest attaches" }),
  attached: z.boolean().nullable().openapi({ description: "null: the vhost service does not answer" }),
  counters: z.record(z.string(), z.int()).nullable(),
  latency: LatencyView.nullable().openapi({ description: LATENCY }),
}).openapi("Vport");
export type VportView = z.output<typeof VportView>;

/** What a new vport may be given; the rest has its first value. */
export const VportRequest = z.strictObject({
  id: z.int().min(0, `vports are 0–${VPORTS_MAX - 1}`).max(VPORTS_MAX - 1, `vports are 0–${VPORTS_MAX - 1}`),
  ...portPatchShape,
  mirror: VportMirror,
}).partial().openapi("VportRequest");
export type VportRequest = z.output<typeof VportRequest>;

/** What a PATCH of a vport may hold. */
export const VportPatch = z.strictObject({ ...portPatchShape, mirror: VportMirror }).partial()
  .openapi("VportPatch");
export type VportPatch = z.output<typeof VportPatch>;

/** What a PATCH of the NIC may hold. */
export const NicPatch = z.strictObject({
  numVfs: z.int({ error: "must be a whole number" }).min(0, "0–256 VFs").max(256, "0–256 VFs"),
  switchMode: z.enum(["veb", "vepa"], { error: "is veb or vepa" }),
  ...uplinkVlansShape,
  pfMirror,
  link: z.enum(["auto", "up", "down"], { error: "is auto, up or down" }).openapi({
    description: "auto: down while there is an uplink whose interface is down; up: whatever it is",
  }),
}).partial().openapi("NicPatch");
export type NicPatch = z.output<typeof NicPatch>;
