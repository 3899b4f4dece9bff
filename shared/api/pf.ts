/**
 * The PF's API, the fabric's front door: its routes, what they take and answer, and the typed client that follows from
 * them (Hono RPC). The PF service supplies the handlers.
 */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { hc } from "hono/client";
import { Problem } from "./http.ts";
import { EngineState, Filter, QueueState } from "./nic.ts";
import { VfPatch, vfPolicyShape } from "./vf.ts";

/** A VF as the API shows it. */
export const Vf = z.object({
  id: z.int(),
  ...vfPolicyShape,
  mode: z.enum(["passthrough"]).openapi({ description: "Who drives the VF's queue pair" }),
  socket: z.string().openapi({ description: "vhost-user socket to which a guest attaches" }),
  attached: z.boolean(),
  owner: z.string().optional(),
  memory: z.object({ bytes: z.int(), regions: z.int(), sealed: z.boolean() }),
  queues: z.array(QueueState),
  lastDetach: z.string().optional().openapi({ description: "Why the last guest's connection ended" }),
  learnedMacs: z.int(),
}).openapi("Vf");
export type Vf = z.output<typeof Vf>;

/** Who drives a VF's queue pair, and how. */
export const VfMode = z.strictObject({ mode: z.enum(["emulated", "passthrough"]) }).openapi("VfMode");

/** A VF's counters by name. */
export const VfStats = z.object({ id: z.int(), counters: z.record(z.string(), z.int()) }).openapi("VfStats");
export type VfStats = z.output<typeof VfStats>;

/** The NIC. */
export const NicView = z.object({
  numVfs: z.int(),
  switchMode: z.enum(["veb", "vepa"]),
  link: z.enum(["up", "down"]),
  pfMac: z.string(),
  reachable: z.boolean(),
  uplink: z.object({ socket: z.string(), attached: z.boolean(), counters: z.record(z.string(), z.int()) }),
  engine: EngineState.optional(),
}).openapi("Nic");
export type NicView = z.output<typeof NicView>;

/** What a PATCH of the NIC may hold. */
export const NicPatch = z.strictObject({
  numVfs: z.int({ error: "must be a whole number" }).min(0, "0–256 VFs").max(256, "0–256 VFs"),
  switchMode: z.enum(["veb", "vepa"], { error: "is veb or vepa" }),
  link: z.enum(["up", "down"], { error: "is up or down" }),
}).partial().openapi("NicPatch");
export type NicPatch = z.output<typeof NicPatch>;

/** What the PF tells on its event stream. */
export type PfEvent =
  | { type: "vf-changed"; vf: number; changes: Record<string, unknown> }
  | { type: "nic-changed"; changes: Record<string, unknown> }
  | { type: "attached" | "detached" | "queue-error"; vf: number | "pf" | "uplink"; reason?: string; index?: number }
  | { type: "nic-up" | "nic-down" };

const json = <T extends z.ZodType>(schema: T, description: string) => ({
  content: { "application/json": { schema } },
  description,
});
const problemBody = (description: string) => ({
  content: { "application/problem+json": { schema: Problem } },
  description,
});
const body = <T extends z.ZodType>(schema: T, description: string) => ({
  body: { ...json(schema, description), required: true as const },
});
const errors = {
  400: problemBody("The body is not JSON"),
  404: problemBody("There is no such VF"),
  409: problemBody("It conflicts with something else"),
  422: problemBody("A field is not acceptable; it is named"),
  503: problemBody("The NIC is not reachable; nothing was changed"),
};
const params = z.object({
  id: z.string().regex(/^\d{1,9}$/, "is the number of a VF").transform(Number).openapi({ type: "integer" }),
});

/** The PF's routes. */
export const pfRoutes = {
  listVfs: createRoute({ method: "get", path: "/api/v1/vfs", responses: { 200: json(z.array(Vf), "All VFs") } }),
  getVf: createRoute({
    method: "get",
    path: "/api/v1/vfs/{id}",
    request: { params },
    responses: { 200: json(Vf, "The VF"), ...errors },
  }),
  patchVf: createRoute({
    method: "patch",
    path: "/api/v1/vfs/{id}",
    description: "Changes a VF's policy: all or nothing, durable and in force when it is answered",
    request: { params, ...body(VfPatch, "The fields to change") },
    responses: { 200: json(Vf, "The VF as it is now"), ...errors },
  }),
  getStats: createRoute({
    method: "get",
    path: "/api/v1/vfs/{id}/stats",
    request: { params },
    responses: { 200: json(VfStats, "The VF's counters"), ...errors },
  }),
  getMode: createRoute({
    method: "get",
    path: "/api/v1/vfs/{id}/mode",
    request: { params },
    responses: { 200: json(VfMode, "Who drives the VF"), ...errors },
  }),
  putMode: createRoute({
    method: "put",
    path: "/api/v1/vfs/{id}/mode",
    request: { params, ...body(VfMode, "The mode to be in") },
    responses: { 200: json(VfMode, "Who drives the VF now"), ...errors },
  }),
  getNic: createRoute({ method: "get", path: "/api/v1/nic", responses: { 200: json(NicView, "The NIC") } }),
  patchNic: createRoute({
    method: "patch",
    path: "/api/v1/nic",
    request: body(NicPatch, "The fields to change"),
    responses: { 200: json(NicView, "The NIC as it is now"), ...errors },
  }),
  listFilters: createRoute({
    method: "get",
    path: "/api/v1/filters",
    responses: { 200: json(z.array(Filter), "The filter table"), ...errors },
  }),
};

/** What the PF service does for each route. */
export interface PfHandlers {
  listVfs(): Promise<Vf[]>;
  getVf(id: number): Promise<Vf>;
  patchVf(id: number, patch: VfPatch): Promise<Vf>;
  getStats(id: number): Promise<VfStats>;
  getMode(id: number): z.output<typeof VfMode>;
  putMode(id: number, mode: z.output<typeof VfMode>["mode"]): z.output<typeof VfMode>;
  getNic(): Promise<NicView>;
  patchNic(patch: NicPatch): Promise<NicView>;
  listFilters(): Promise<Filter[]>;
}

/** Mounts the routes on `app`. */
export function mountPf(app: OpenAPIHono, handlers: PfHandlers) {
  return app
    .openapi(pfRoutes.listVfs, async (c) => c.json(await handlers.listVfs(), 200))
    .openapi(pfRoutes.getVf, async (c) => c.json(await handlers.getVf(c.req.valid("param").id), 200))
    .openapi(pfRoutes.patchVf, async (c) => {
      return c.json(await handlers.patchVf(c.req.valid("param").id, c.req.valid("json")), 200);
    })
    .openapi(pfRoutes.getStats, async (c) => c.json(await handlers.getStats(c.req.valid("param").id), 200))
    .openapi(pfRoutes.getMode, (c) => c.json(handlers.getMode(c.req.valid("param").id), 200))
    .openapi(pfRoutes.putMode, (c) => c.json(handlers.putMode(c.req.valid("param").id, c.req.valid("json").mode), 200))
    .openapi(pfRoutes.getNic, async (c) => c.json(await handlers.getNic(), 200))
    .openapi(pfRoutes.patchNic, async (c) => c.json(await handlers.patchNic(c.req.valid("json")), 200))
    .openapi(pfRoutes.listFilters, async (c) => c.json(await handlers.listFilters(), 200));
}

/** The API's type, for clients. */
export type PfApi = ReturnType<typeof mountPf>;

/** A typed client of the PF at `url`. */
export function pfClient(url: string, token = Deno.env.get("RINGFABRIC_TOKEN")) {
  return hc<PfApi>(url, token ? { headers: { authorization: `Bearer ${token}` } } : {});
}
