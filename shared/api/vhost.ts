/** The vhost service's API: how each VF's port gets its front-ends, and what they negotiated. */
import { z } from "@hono/zod-openapi";
import { EmulatedPath, PathFrames } from "./emulated_path.ts";
import { LinkPatch } from "./guest.ts";
import { Limits, QueueState, StandbyState } from "./nic.ts";

/** What a session negotiated. */
export const SessionState = z.object({
  features: z.string(),
  protocolFeatures: z.string(),
  status: z.int(),
  queuePairs: z.int().openapi({ description: "Queue pairs that the front-end was offered when it connected" }),
  memoryRegions: z.int(),
  frames: PathFrames.optional(),
  lastRefusal: z.string().optional().openapi({ description: "What was refused last, while the connection went on" }),
  limits: Limits.optional().openapi({ description: "What the guest has, if this service's own engine serves it" }),
  dirtyLog: z.object({
    bytes: z.int(),
    on: z.boolean().openapi({ description: "Whether writes are logged: the guest is being moved" }),
  }).optional().openapi({ description: "The bitmap in which a front-end wants to find what was written" }),
  queues: z.array(QueueState).optional().openapi({ description: "Those that this service's own engine serves" }),
  vrings: z.array(z.object({
    index: z.int(),
    size: z.int(),
    enabled: z.boolean(),
    running: z.boolean(),
    error: z.string().optional(),
  })),
}).openapi("SessionState");
export type SessionState = z.output<typeof SessionState>;

/**
 * Who serves a port's rings: `passthrough`, the NIC takes them as they are; `emulated`, the vhost service stands between;
 * `guest`, the guest drives its VF by itself and its virtio rings wait.
 */
export const DataPath = z.enum(["emulated", "passthrough", "guest"]).openapi("DataPath");
export type DataPath = z.output<typeof DataPath>;

/** Which data path a port is to have; in emulated mode also how frames go, if that is to change. */
export const DataPathChange = z.strictObject({ dataPath: DataPath, emulatedPath: EmulatedPath.optional() })
  .openapi("DataPathChange");
export type DataPathChange = z.output<typeof DataPathChange>;

/** A port: a VF's, the uplink's, or one of the software switch (`vport3`). */
export const PortState = z.object({
  port: z.union([z.int(), z.literal("uplink"), z.templateLiteral(["vport", z.int()])]),
  dataPath: DataPath,
  emulatedPath: EmulatedPath.optional().openapi({
    description: "How frames go in emulated mode; copy if it is not said",
  }),
  role: z.enum(["server", "client"]),
  path: z.string(),
  connected: z.boolean(),
  lastEnd: z.string().optional().openapi({ description: "Why the last front-end's session ended" }),
  session: SessionState.optional(),
}).openapi("PortState");
export type PortState = z.output<typeof PortState>;

/** What `GET /api/v1/state` of the vhost service answers. */
export const VhostState = z.object({
  pid: z.int().openapi({ description: "The process that serves the front-ends" }),
  standby: StandbyState,
}).openapi("VhostState");
export type VhostState = z.output<typeof VhostState>;

/** How a port gets its connections. */
export const PortChange = z.discriminatedUnion("role", [
  z.strictObject({ role: z.literal("server") }),
  z.strictObject({ role: z.literal("client"), path: z.string().startsWith("/", "must be an absolute path").max(107) }),
]).openapi("PortChange");
export type PortChange = z.output<typeof PortChange>;

/** A guest's wish, which waits for its answer. */
export const WishEvent = z.object({
  type: z.literal("wish"),
  id: z.string(),
  port: PortState.shape.port,
  wish: LinkPatch,
  until: z.number().openapi({
    description: "When nobody waits for the answer any more, in milliseconds since 1970",
  }),
});
export type WishEvent = z.output<typeof WishEvent>;

/** What the vhost service tells the PF. */
export const VhostEvent = z.discriminatedUnion("type", [
  WishEvent,
  /** A guest that is being moved stands still: its front-end has stopped all of its rings. */
  z.object({ type: z.literal("guest-paused"), port: PortState.shape.port }),
]).openapi("VhostEvent");
export type VhostEvent = z.output<typeof VhostEvent>;

/** The PF's answer to a guest's wish. */
export const WishAnswer = z.strictObject({ granted: z.boolean(), reason: z.string().max(1000).optional() })
  .openapi("WishAnswer");
export type WishAnswer = z.output<typeof WishAnswer>;
