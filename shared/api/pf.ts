/**
 * The PF's API, the fabric's front door: its routes, what they take and answer, and the typed client that follows from
 * them (Hono RPC). The PF service supplies the handlers.
 */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { createHash } from "node:crypto";
import { hc } from "hono/client";
import type { Role } from "./access.ts";
import { tokenOf } from "./guard.ts";
import { LinkPatch } from "./guest.ts";
import { type Operation, prefersMinimal, RETURN_MINIMAL } from "./operation.ts";
import {
  answerOperation,
  operationAnswers,
  operationRoutes,
  preferenceApplied,
  preferMinimalParameter,
  preferParameter,
  type Run,
} from "./operations.ts";
import { bearer } from "./peer.ts";
import { ModeRequest, VfMode } from "./mode.ts";
import { Filter, type PoolName } from "./nic.ts";
import { answerUpgrade, restartAnswer, type ServiceRestart, ServiceUpgrade, UpgradedService } from "./upgrade.ts";
import type { UplinkSpec } from "./uplink.ts";
import { uplinkRoutes } from "./pf_uplinks.ts";
import * as V from "./pf_views.ts";
import { body, errors, json, params, problemBody } from "./route_parts.ts";
import { VfPatch, vfShape } from "./vf.ts";

const modeErrors = {
  ...errors,
  503: problemBody("A service or the guest did not do its part in time; `inForce` says which mode there is now"),
};
/** The PF's routes. */
const pfRoutes = {
  listVfs: createRoute({ method: "get", path: "/api/v1/vfs", responses: { 200: json(z.array(V.Vf), "All VFs") } }),
  getVf: createRoute({
    method: "get",
    path: "/api/v1/vfs/{id}",
    request: { params },
    responses: { 200: json(V.Vf, "The VF"), ...errors },
  }),
  patchVf: createRoute({
    method: "patch",
    path: "/api/v1/vfs/{id}",
    description: "Changes a VF's policy: all or nothing, durable and in force when it is answered",
    parameters: [preferMinimalParameter],
    request: { params, ...body(VfPatch, "The fields to change") },
    responses: {
      200: json(V.Vf, "The VF as it is now"),
      204: { description: "It is in force (return=minimal)", headers: preferenceApplied },
      ...errors,
      403: problemBody("This token may not change the field that is named: it is the operator's"),
    },
  }),
  getStats: createRoute({
    method: "get",
    path: "/api/v1/vfs/{id}/stats",
    request: { params },
    responses: { 200: json(V.VfStats, "The VF's counters"), ...errors },
  }),
  listStats: createRoute({
    method: "get",
    path: "/api/v1/stats",
    responses: { 200: json(V.FabricStats, "Counters of all VFs and vports, the PF and the uplink"), ...errors },
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
    description: "Changes who drives the VF while its guest runs; a failure names its reason, and the mode in force",
    parameters: [preferParameter],
    request: { params, ...body(ModeRequest, "The mode to be in") },
    responses: { ...operationAnswers(VfMode, "Who drives the VF now, and the steps"), ...modeErrors },
  }),
  getNic: createRoute({ method: "get", path: "/api/v1/nic", responses: { 200: json(V.NicView, "The NIC") } }),
  patchNic: createRoute({
    method: "patch",
    path: "/api/v1/nic",
    request: body(V.NicPatch, "The fields to change"),
    responses: { 200: json(V.NicView, "The NIC as it is now"), ...errors },
  }),
  upgradeService: createRoute({
    method: "post",
    path: "/api/v1/services/{service}/upgrade",
    description:
      "Has a new process of the program as it is on disk now do a service's work. nic and vhost have it taken " +
      "over between two bursts; pf and vf are restarted, which disturbs no frame",
    request: {
      params: z.object({ service: UpgradedService.openapi({ example: "vhost" }) }),
      ...body(z.strictObject({}), "Nothing: an upgrade has no settings"),
    },
    responses: { 200: json(ServiceUpgrade, "It does the service's work"), 202: restartAnswer, ...errors },
  }),
  patchGuest: createRoute({
    method: "patch",
    path: "/api/v1/vfs/{id}/guest",
    description: "A guest's wish for its own interface, which the PF's policy grants or refuses",
    request: { params, ...body(LinkPatch, "The wish") },
    responses: { 200: json(V.Vf, "Granted and in force"), ...errors },
  }),
  listVports: createRoute({
    method: "get",
    path: "/api/v1/vports",
    responses: { 200: json(z.array(V.VportView), "Guests without a VF") },
  }),
  getVport: createRoute({
    method: "get",
    path: "/api/v1/vports/{id}",
    request: { params },
    responses: { 200: json(V.VportView, "The vport"), ...errors },
  }),
  postVport: createRoute({
    method: "post",
    path: "/api/v1/vports",
    request: body(V.VportRequest, "Its number and policy; what is left out has its first value"),
    responses: { 201: json(V.VportView, "The vport"), ...errors },
  }),
  patchVport: createRoute({
    method: "patch",
    path: "/api/v1/vports/{id}",
    request: { params, ...body(V.VportPatch, "The fields to change") },
    responses: { 200: json(V.VportView, "The vport as it is now"), ...errors },
  }),
  deleteVport: createRoute({
    method: "delete",
    path: "/api/v1/vports/{id}",
    request: { params },
    responses: { 200: json(V.VportView, "The vport as it was"), ...errors },
  }),
  allotVf: createRoute({
    method: "post",
    path: "/api/v1/vports/{id}/vf",
    description: "Allots a free VF to the vport's guest: it gets the vport's policy. For the vf service",
    request: { params },
    responses: { 200: json(V.VportView, "The vport, with its VF"), ...errors },
  }),
  returnVf: createRoute({
    method: "delete",
    path: "/api/v1/vports/{id}/vf",
    description: "Takes the VF back; the guest is on the software switch. For the vf service",
    request: { params },
    responses: { 200: json(V.VportView, "The vport, without a VF"), ...errors },
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
    description: "Passthrough allots a VF to the guest; emulated gives it back. A failure names the mode in force",
    parameters: [preferParameter],
    request: { params, ...body(ModeRequest, "The mode to be in") },
    responses: { ...operationAnswers(VfMode, "Who drives the guest's data path now, and the steps"), ...modeErrors },
  }),
  patchVportGuest: createRoute({
    method: "patch",
    path: "/api/v1/vports/{id}/guest",
    description: "A guest's wish for its own interface, which the PF's policy grants or refuses",
    request: { params, ...body(LinkPatch, "The wish") },
    responses: { 200: json(V.VportView, "Granted and in force"), ...errors },
  }),
  ...operationRoutes,
  ...uplinkRoutes,
  listFilters: createRoute({
    method: "get",
    path: "/api/v1/filters",
    responses: { 200: json(z.array(Filter), "The filter table"), ...errors },
  }),
};

/** What the PF service does for each route. */
export interface PfHandlers {
  listVfs(): Promise<V.Vf[]>;
  getVf(id: number): Promise<V.Vf>;
  /** `ifMatch`: the entity tags that the policy must have one of, else it is refused with 412; `by`: who asks. */
  changeVf(id: number, patch: VfPatch, ifMatch?: string, by?: Role): Promise<void>;
  getStats(id: number): Promise<V.VfStats>;
  listStats(): Promise<V.FabricStats>;
  getMode(id: number): Promise<VfMode>;
  putMode(id: number, request: ModeRequest): Run;
  patchGuest(id: number, wish: LinkPatch): Promise<V.Vf>;
  listVports(): Promise<V.VportView[]>;
  getVport(id: number): Promise<V.VportView>;
  postVport(request: V.VportRequest): Promise<V.VportView>;
  patchVport(id: number, patch: V.VportPatch, ifMatch?: string): Promise<V.VportView>;
  deleteVport(id: number): Promise<V.VportView>;
  patchVportGuest(id: number, wish: LinkPatch): Promise<V.VportView>;
  allotVf(id: number): Promise<V.VportView>;
  returnVf(id: number): Promise<V.VportView>;
  getVportMode(id: number): Promise<VfMode>;
  putVportMode(id: number, request: ModeRequest): Run;
  listOperations(): Operation[];
  getOperation(id: string): Operation;
  getNic(): Promise<V.NicView>;
  patchNic(patch: V.NicPatch): Promise<V.NicView>;
  upgradeService(of: { service: UpgradedService }): Promise<ServiceUpgrade | ServiceRestart>;
  getUplink(pool: PoolName): Promise<V.UplinkView>;
  /** Throws unless it is in force and on disk. */
  putUplink(pool: PoolName, spec: UplinkSpec): Promise<V.UplinkView>;
  listFilters(): Promise<Filter[]>;
}

/** The version of a policy, as an entity tag: it changes with each of its fields, and with nothing else. */
export function policyTag(policy: Record<string, unknown>): string {
  const fields = Object.keys(vfShape).map((field) => [field, policy[field]]);
  return `"${createHash("sha256").update(JSON.stringify(fields)).digest("hex").slice(0, 16)}"`;
}

/** Mounts the routes on `app`. */
export function mountPf(app: OpenAPIHono, handlers: PfHandlers) {
  return app
    .openapi(pfRoutes.listVfs, async (c) => c.json(await handlers.listVfs(), 200))
    .openapi(pfRoutes.getVf, async (c) => {
      const vf = await handlers.getVf(c.req.valid("param").id);
      c.header("etag", policyTag(vf));
      return c.json(vf, 200);
    })
    .openapi(pfRoutes.patchVf, async (c) => {
      const { id } = c.req.valid("param");
      await handlers.changeVf(id, c.req.valid("json"), c.req.header("if-match"), tokenOf(c));
      const applied = { "preference-applied": RETURN_MINIMAL };
      if (prefersMinimal(c.req.header("prefer"))) return c.body(null, 204, applied);
      const vf = await handlers.getVf(id);
      c.header("etag", policyTag(vf));
      return c.json(vf, 200);
    })
    .openapi(pfRoutes.getStats, async (c) => c.json(await handlers.getStats(c.req.valid("param").id), 200))
    .openapi(pfRoutes.listStats, async (c) => c.json(await handlers.listStats(), 200))
    .openapi(pfRoutes.getMode, async (c) => c.json(await handlers.getMode(c.req.valid("param").id), 200))
    .openapi(pfRoutes.putMode, async (c) => {
      return await answerOperation(c, handlers.putMode(c.req.valid("param").id, c.req.valid("json")));
    })
    .openapi(pfRoutes.patchGuest, async (c) => {
      return c.json(await handlers.patchGuest(c.req.valid("param").id, c.req.valid("json")), 200);
    })
    .openapi(pfRoutes.listVports, async (c) => c.json(await handlers.listVports(), 200))
    .openapi(pfRoutes.getVport, async (c) => {
      const vport = await handlers.getVport(c.req.valid("param").id);
      c.header("etag", policyTag(vport));
      return c.json(vport, 200);
    })
    .openapi(pfRoutes.postVport, async (c) => {
      const made = await handlers.postVport(c.req.valid("json"));
      c.header("location", `/api/v1/vports/${made.id}`);
      return c.json(made, 201);
    })
    .openapi(pfRoutes.patchVport, async (c) => {
      const vport = await handlers.patchVport(c.req.valid("param").id, c.req.valid("json"), c.req.header("if-match"));
      c.header("etag", policyTag(vport));
      return c.json(vport, 200);
    })
    .openapi(pfRoutes.deleteVport, async (c) => c.json(await handlers.deleteVport(c.req.valid("param").id), 200))
    .openapi(pfRoutes.allotVf, async (c) => c.json(await handlers.allotVf(c.req.valid("param").id), 200))
    .openapi(pfRoutes.returnVf, async (c) => c.json(await handlers.returnVf(c.req.valid("param").id), 200))
    .openapi(pfRoutes.getVportMode, async (c) => c.json(await handlers.getVportMode(c.req.valid("param").id), 200))
    .openapi(pfRoutes.putVportMode, async (c) => {
      return await answerOperation(c, handlers.putVportMode(c.req.valid("param").id, c.req.valid("json")));
    })
    .openapi(pfRoutes.patchVportGuest, async (c) => {
      return c.json(await handlers.patchVportGuest(c.req.valid("param").id, c.req.valid("json")), 200);
    })
    .openapi(pfRoutes.getNic, async (c) => c.json(await handlers.getNic(), 200))
    .openapi(pfRoutes.patchNic, async (c) => c.json(await handlers.patchNic(c.req.valid("json")), 200))
    .openapi(pfRoutes.upgradeService, (c) => answerUpgrade(c, handlers.upgradeService(c.req.valid("param"))))
    .openapi(pfRoutes.getNicUplink, async (c) => c.json(await handlers.getUplink("uplink"), 200))
    .openapi(pfRoutes.putNicUplink, async (c) => {
      return c.json(await handlers.putUplink("uplink", c.req.valid("json")), 200);
    })
    .openapi(pfRoutes.getPfUplink, async (c) => c.json(await handlers.getUplink("pf"), 200))
    .openapi(pfRoutes.putPfUplink, async (c) => c.json(await handlers.putUplink("pf", c.req.valid("json")), 200))
    .openapi(pfRoutes.getVfUplink, async (c) => c.json(await handlers.getUplink(c.req.valid("param").id), 200))
    .openapi(pfRoutes.putVfUplink, async (c) => {
      return c.json(await handlers.putUplink(c.req.valid("param").id, c.req.valid("json")), 200);
    })
    .openapi(pfRoutes.listOperations, (c) => c.json(handlers.listOperations(), 200))
    .openapi(pfRoutes.getOperation, (c) => c.json(handlers.getOperation(c.req.valid("param").id), 200))
    .openapi(pfRoutes.listFilters, async (c) => c.json(await handlers.listFilters(), 200));
}

/** The API's type, for clients. */
export type PfApi = ReturnType<typeof mountPf>;

/** A typed client of the PF at `url`. */
export function pfClient(url: string, token = Deno.env.get("RINGFABRIC_TOKEN")) {
  return hc<PfApi>(url, { headers: bearer(token) });
}
