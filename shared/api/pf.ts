/**
 * The PF's API, the fabric's front door: its routes, what they take and answer, and the typed client that follows from
 * them (Hono RPC). The PF service supplies the handlers.
 */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { hc } from "hono/client";
import { LinkPatch } from "./guest.ts";
import { Problem } from "./problem.ts";
import { ModeRequest, VfMode } from "./mode.ts";
import { EngineState, Filter, QueueState } from "./nic.ts";
import { VfPatch, vfPolicyShape, vfShape } from "./vf.ts";
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
  ...vfPolicyShape,
}).partial().openapi("VportRequest");
export type VportRequest = z.output<typeof VportRequest>;

/** What a PATCH of a vport may hold. */
export const VportPatch = z.strictObject(vfPolicyShape).partial().openapi("VportPatch");
export type VportPatch = z.output<typeof VportPatch>;

/** What a PATCH of the NIC may hold. */
export const NicPatch = z.strictObject({
  numVfs: z.int({ error: "must be a whole number" }).min(0, "0–256 VFs").max(256, "0–256 VFs"),
  switchMode: z.enum(["veb", "vepa"], { error: "is veb or vepa" }),
  link: z.enum(["up", "down"], { error: "is up or down" }),
}).partial().openapi("NicPatch");
export type NicPatch = z.output<typeof NicPatch>;

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
  404: problemBody("There is no such VF or vport"),
  409: problemBody("It conflicts with something else"),
  422: problemBody("A field is not acceptable; it is named"),
  503: problemBody("The NIC is not reachable; nothing was changed"),
};
const params = z.object({
  id: z.string().regex(/^\d{1,9}$/, "is the number of a VF or vport").transform(Number).openapi({ type: "integer" }),
});

/** The PF's routes. */
const pfRoutes = {
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
    description: "Changes who drives the VF while its guest runs; a refusal names its reason and changes nothing",
    request: { params, ...body(ModeRequest, "The mode to be in") },
    responses: { 200: json(VfMode, "Who drives the VF now, and the steps"), ...errors },
  }),
  getNic: createRoute({ method: "get", path: "/api/v1/nic", responses: { 200: json(NicView, "The NIC") } }),
  patchNic: createRoute({
    method: "patch",
    path: "/api/v1/nic",
    request: body(NicPatch, "The fields to change"),
    responses: { 200: json(NicView, "The NIC as it is now"), ...errors },
  }),
  patchGuest: createRoute({
    method: "patch",
    path: "/api/v1/vfs/{id}/guest",
    description: "A guest's wish for its own interface, which the PF's policy grants or refuses",
    request: { params, ...body(LinkPatch, "The wish") },
    responses: { 200: json(Vf, "Granted and in force"), ...errors },
  }),
  listVports: createRoute({
    method: "get",
    path: "/api/v1/vports",
    responses: { 200: json(z.array(VportView), "Guests without a VF") },
  }),
  getVport: createRoute({
    method: "get",
    path: "/api/v1/vports/{id}",
    request: { params },
    responses: { 200: json(VportView, "The vport"), ...errors },
  }),
  postVport: createRoute({
    method: "post",
    path: "/api/v1/vports",
    request: body(VportRequest, "Its number and policy; what is left out has its first value"),
    responses: { 201: json(VportView, "The vport"), ...errors },
  }),
  patchVport: createRoute({
    method: "patch",
    path: "/api/v1/vports/{id}",
    request: { params, ...body(VportPatch, "The fields to change") },
    responses: { 200: json(VportView, "The vport as it is now"), ...errors },
  }),
  deleteVport: createRoute({
    method: "delete",
    path: "/api/v1/vports/{id}",
    request: { params },
    responses: { 200: json(VportView, "The vport as it was"), ...errors },
  }),
  allotVf: createRoute({
    method: "post",
    path: "/api/v1/vports/{id}/vf",
    description: "Allots a free VF to the vport's guest: it gets the vport's policy. For the vf service",
    request: { params },
    responses: { 200: json(VportView, "The vport, with its VF"), ...errors },
  }),
  returnVf: createRoute({
    method: "delete",
    path: "/api/v1/vports/{id}/vf",
    description: "Takes the VF back; the guest is on the software switch. For the vf service",
    request: { params },
    responses: { 200: json(VportView, "The vport, without a VF"), ...errors },
  }),
  getVportMode: createRoute({
    method: "get",
    path: "/api/v1/vports/{id}/mode",
    request: { params },
    responses: { 200: json(VfMode, "Who drives the guest's data path"), ...errors },
  }),
  putVportMode: createRoute({
    method: "put",
    path: "/api/v1/vports/{id}/mode",
    description: "Passthrough allots a VF to the guest; emulated gives it back. A refusal changes nothing",
    request: { params, ...body(ModeRequest, "The mode to be in") },
    responses: { 200: json(VfMode, "Who drives the guest's data path now, and the steps"), ...errors },
  }),
  patchVportGuest: createRoute({
    method: "patch",
    path: "/api/v1/vports/{id}/guest",
    description: "A guest's wish for its own interface, which the PF's policy grants or refuses",
    request: { params, ...body(LinkPatch, "The wish") },
    responses: { 200: json(VportView, "Granted and in force"), ...errors },
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
  getMode(id: number): Promise<VfMode>;
  putMode(id: number, request: ModeRequest): Promise<VfMode>;
  patchGuest(id: number, wish: LinkPatch): Promise<Vf>;
  listVports(): Promise<VportView[]>;
  getVport(id: number): Promise<VportView>;
  postVport(request: VportRequest): Promise<VportView>;
  patchVport(id: number, patch: VportPatch): Promise<VportView>;
  deleteVport(id: number): Promise<VportView>;
  patchVportGuest(id: number, wish: LinkPatch): Promise<VportView>;
  allotVf(id: number): Promise<VportView>;
  returnVf(id: number): Promise<VportView>;
  getVportMode(id: number): Promise<VfMode>;
  putVportMode(id: number, request: ModeRequest): Promise<VfMode>;
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
    .openapi(pfRoutes.getMode, async (c) => c.json(await handlers.getMode(c.req.valid("param").id), 200))
    .openapi(pfRoutes.putMode, async (c) => {
      return c.json(await handlers.putMode(c.req.valid("param").id, c.req.valid("json")), 200);
    })
    .openapi(pfRoutes.patchGuest, async (c) => {
      return c.json(await handlers.patchGuest(c.req.valid("param").id, c.req.valid("json")), 200);
    })
    .openapi(pfRoutes.listVports, async (c) => c.json(await handlers.listVports(), 200))
    .openapi(pfRoutes.getVport, async (c) => c.json(await handlers.getVport(c.req.valid("param").id), 200))
    .openapi(pfRoutes.postVport, async (c) => c.json(await handlers.postVport(c.req.valid("json")), 201))
    .openapi(pfRoutes.patchVport, async (c) => {
      return c.json(await handlers.patchVport(c.req.valid("param").id, c.req.valid("json")), 200);
    })
    .openapi(pfRoutes.deleteVport, async (c) => c.json(await handlers.deleteVport(c.req.valid("param").id), 200))
    .openapi(pfRoutes.allotVf, async (c) => c.json(await handlers.allotVf(c.req.valid("param").id), 200))
    .openapi(pfRoutes.returnVf, async (c) => c.json(await handlers.returnVf(c.req.valid("param").id), 200))
    .openapi(pfRoutes.getVportMode, async (c) => c.json(await handlers.getVportMode(c.req.valid("param").id), 200))
    .openapi(pfRoutes.putVportMode, async (c) => {
      return c.json(await handlers.putVportMode(c.req.valid("param").id, c.req.valid("json")), 200);
    })
    .openapi(pfRoutes.patchVportGuest, async (c) => {
      return c.json(await handlers.patchVportGuest(c.req.valid("param").id, c.req.valid("json")), 200);
    })
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
