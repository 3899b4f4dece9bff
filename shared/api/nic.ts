/**
 * The NIC's own API, which the PF programs it through: the whole programme in one PUT, so that it is the same call
 * whether one VF changed or either side has just started.
 */
import { z } from "@hono/zod-openapi";
import { UplinkState } from "./uplink.ts";
import { EmulatedPath } from "./emulated_path.ts";
import { Latency } from "./latency.ts";
import { MacAddress, Mirror, VfPolicy } from "./vf.ts";

/** The address of whoever is the uplink's port: it is beside the PF's own. */
export function uplinkMac(pfMac: string): string {
  return `${pfMac.slice(0, -2)}fe`;
}

const vid = z.int({ error: "must be whole numbers" });

/** Which VLANs the uplink carries: all, or those of a list. Frames without a tag are those of its native VLAN. */
export const uplinkVlansShape = {
  uplinkTrunk: z.union([
    z.literal("all"),
    z.array(vid.min(1, "VLAN ids are 1–4094").max(4094, "VLAN ids are 1–4094")).max(4094, "there are 4094 VLANs")
      .transform((list) => [...new Set(list)].sort((a, b) => a - b)),
  ], { error: "is all, or a list of VLAN ids from 1 to 4094" }).openapi({
    description: "VLANs whose tagged frames go in and out at the uplink",
    anyOf: [{ const: "all" }, { type: "array", items: { type: "integer" } }],
  }),
  uplinkNativeVlan: z.int({ error: "must be a whole number" }).min(0, "VLAN ids are 0–4094").max(
    4094,
    "VLAN ids are 0–4094",
  )
    .openapi({ description: "VLAN of the frames that go in and out at the uplink without a tag; 0: none" }),
};

/** Everything the PF sets. */
export const Programme = z.strictObject({
  switchMode: z.enum(["veb", "vepa"]),
  /** The NIC's own link, which VFs with linkState auto follow. */
  link: z.enum(["up", "down"]),
  pfMac: MacAddress,
  /** `fallback` pf: while nobody drives the VF, its guest is on the switch behind the PF's pool. */
  vfs: z.array(VfPolicy.extend({ fallback: z.enum(["none", "pf"]).default("none") })).max(256),
  /** Addresses behind the PF's pool: guests on the software switch. */
  vports: z.array(
    z.strictObject({ mac: MacAddress, ...VfPolicy.pick({ allowedMacs: true, vlan: true, vlanProto: true }).shape }),
  ).max(256).default([]),
  /** Nothing said: all VLANs, and none for frames without a tag. */
  uplinkTrunk: uplinkVlansShape.uplinkTrunk.optional(),
  uplinkNativeVlan: uplinkVlansShape.uplinkNativeVlan.optional(),
  /** Who gets copies of the PF's pool's frames; nothing said: nobody. */
  pfMirror: Mirror.optional(),
}).openapi("Programme");
export type Programme = z.output<typeof Programme>;

/** State of one queue. */
export const QueueState = z.object({
  index: z.int(),
  kind: z.enum(["rx", "tx"]),
  flavour: z.enum(["split", "packed", "advanced"]),
  state: z.enum(["running", "error"]),
  size: z.int(),
  reason: z.string().optional(),
  detail: z.string().optional(),
  frames: z.int().openapi({ description: "Frames put in, or given back, since it started" }),
  calls: z.int().openapi({ description: "Interrupts raised" }),
  callsSaved: z.int().openapi({ description: "Interrupts that another one stood for, since they were coalesced" }),
  quarantineMs: z.int().openapi({
    description: "How long its kicks were last not listened to, because they brought no work; it halves with time",
  }),
  kickOffences: z.int().openapi({ description: "How often its kicks were not listened to" }),
}).openapi("QueueState");
export type QueueState = z.output<typeof QueueState>;

const use = { used: z.int(), limit: z.int() };

/** What a pool's guest has, and may have at most. */
export const Limits = z.object({
  memory: z.object(use).openapi({ description: "Bytes that are mapped, each region in whole windows of 2 MiB" }),
  buffered: z.object(use).openapi({ description: "Bytes of frames that wait for it while it has no room" }),
  receives: z.object({ ...use, posted: z.int() }).openapi({
    description: "Entries of its receive rings; posted: buffers in them just now",
  }),
  submissions: z.object({ ...use, posted: z.int() }).openapi({
    description: "Entries of its transmit rings; posted: descriptors in them just now",
  }),
  refused: z.record(z.string(), z.int()).openapi({
    description: "What it was refused for a limit, by the limit's name",
  }),
}).openapi("Limits");
export type Limits = z.output<typeof Limits>;

/** State of one pool. */
export const PoolState = z.object({
  attached: z.boolean(),
  owner: z.string().optional(),
  mode: z.enum(["emulated", "passthrough"]).optional(),
  plugin: z.string().optional().openapi({ description: "The plugin that drives the VF from inside its guest" }),
  dataPath: EmulatedPath.optional().openapi({ description: "In emulated mode, how frames go" }),
  held: z.boolean().openapi({ description: "Whether frames wait because the VF's driver changes hands" }),
  memory: z.object({
    bytes: z.int(),
    regions: z.int(),
    sealed: z.boolean().openapi({ description: "Whether the guest's memory files can no longer shrink" }),
  }),
  queues: z.array(QueueState),
  limits: Limits,
  lastDetach: z.string().optional().openapi({ description: "Why the last guest's connection ended" }),
  learnedMacs: z.int(),
  counters: z.record(z.string(), z.int()),
  latency: Latency.openapi({
    description: "How long what the pool's guest sent waited in its ring until it was delivered, sampled",
  }),
}).openapi("PoolState");
export type PoolState = z.output<typeof PoolState>;

/** State of the engine. */
export const EngineState = z.object({
  busyRatio: z.number().openapi({ description: "Share of time spent on frames since start" }),
  busyNsTotal: z.number(),
  sleptNsTotal: z.number(),
  uptimeNs: z.number(),
  framesTotal: z.int(),
  passesTotal: z.int(),
  busyPassesTotal: z.int(),
  sleepsTotal: z.int(),
  callsTotal: z.int(),
  spuriousKicksTotal: z.int(),
  faultsTotal: z.int(),
  filters: z.int(),
  arenaFreeBytes: z.int(),
  captures: z.int().openapi({ description: "Captures that are open" }),
  sigbusGuard: z.boolean(),
}).openapi("EngineState");
export type EngineState = z.output<typeof EngineState>;

/** Whether another process takes over if the NIC's dies. */
export const StandbyState = z.object({
  state: z.enum(["none", "syncing", "ready"]).openapi({
    description: "none: no process stands by; syncing: one is being told what there is; ready: it takes over at once",
  }),
  pid: z.int().optional().openapi({ description: "The process that stands by, as it names itself" }),
}).openapi("Standby");
export type StandbyState = z.output<typeof StandbyState>;

/** What `GET /api/v1/state` answers. */
export const NicState = z.object({
  /** Changes when the NIC restarts and has to be programmed anew. */
  instance: z.string(),
  /** The process that drives the fabric. */
  pid: z.int(),
  standby: StandbyState,
  programmed: z.boolean(),
  engine: EngineState,
  vfs: z.array(PoolState),
  pf: PoolState,
  uplink: PoolState,
  uplinks: z.record(z.string(), UplinkState).openapi({
    description: "What of the host is behind a pool (uplink, pf, or a VF's number), where something is",
  }),
}).openapi("NicState");
export type NicState = z.output<typeof NicState>;

/** For how long a VF's frames are held while its driver changes hands. */
export const HoldRequest = z.strictObject({
  deadlineMs: z.int().min(1).max(30_000).default(5000),
}).openapi("HoldRequest");

/** Who drives a VF's queues: a guest over the socket for guests, or a service of the hypervisor. */
export const LeaseView = z.object({
  driver: z.enum(["nobody", "guest", "hypervisor"]),
  allotted: z.boolean().openapi({ description: "The VF is a vport's guest's for now: nobody else can drive it" }),
  hold: z.string().optional().openapi({ description: "The hold with whose token its guest came" }),
  owner: z.string().optional(),
  plugin: z.string().optional(),
}).openapi("Lease");
export type LeaseView = z.output<typeof LeaseView>;

/** What came of taking a VF back. */
export const TakenBack = z.object({
  takenBack: z.boolean().openapi({ description: "Whether a guest drove it" }),
  unfetched: z.int().openapi({ description: "Descriptors that it had offered to send and the NIC had not fetched" }),
}).openapi("TakenBack");
export type TakenBack = z.output<typeof TakenBack>;

/** The right to drive the VF, once, while it is held. */
export const HoldGrant = z.object({ token: z.string(), id: z.string() }).openapi("HoldGrant");
export type HoldGrant = z.output<typeof HoldGrant>;

/** One entry of the filter table. */
export const Filter = z.object({
  mac: z.string(),
  vlan: z.union([z.int(), z.literal("any")]),
  proto: z.enum(["802.1Q", "802.1ad"]),
  pool: z.union([z.int(), z.literal("pf"), z.literal("uplink")]),
  source: z.enum(["static", "learned"]),
  ageSeconds: z.int(),
}).openapi("Filter");
export type Filter = z.output<typeof Filter>;

/** A pool of the NIC, as the API names it. */
export type PoolName = Filter["pool"];

/** What the NIC tells on its event stream. */
export const NicEvent = z.discriminatedUnion("type", [
  z.object({ type: z.literal("attached"), pool: Filter.shape.pool, owner: z.string() }),
  z.object({ type: z.literal("detached"), pool: Filter.shape.pool, reason: z.string() }),
  z.object({ type: z.literal("spoofed"), pool: Filter.shape.pool, frames: z.int() }),
  z.object({ type: z.literal("queue-error"), pool: Filter.shape.pool, index: z.int(), reason: z.string() }),
  /** What is behind a pool has come up, gone down or failed, or is gone. */
  z.object({
    type: z.literal("uplink"),
    pool: Filter.shape.pool,
    state: UplinkState.shape.state,
    reason: z.string().optional(),
  }),
]);
export type NicEvent = z.output<typeof NicEvent>;
