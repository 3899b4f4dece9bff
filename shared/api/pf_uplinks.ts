/** The PF's routes for uplinks: what of the host is behind the uplink's pool, the PF's, or a VF's. */
import { createRoute } from "@hono/zod-openapi";
import { UplinkRequest, UplinkView } from "./pf_views.ts";
import { body, errors, json, params } from "./route_parts.ts";

const answers = { 200: json(UplinkView, "What is to be there, and whether it is"), ...errors };
const what = body(UplinkRequest, 'A TAP, an interface, a file, or none; or its short form, such as "tap:rf0"');
const PUT = "in force and on disk when it is answered. The same again changes nothing";

/** The routes. */
export const uplinkRoutes = {
  getNicUplink: createRoute({ method: "get", path: "/api/v1/nic/uplink", responses: answers }),
  putNicUplink: createRoute({
    method: "put",
    path: "/api/v1/nic/uplink",
    description: `Connects the fabric to something of the host: ${PUT}`,
    request: what,
    responses: answers,
  }),
  getPfUplink: createRoute({ method: "get", path: "/api/v1/pf/uplink", responses: answers }),
  putPfUplink: createRoute({
    method: "put",
    path: "/api/v1/pf/uplink",
    description: `Binds the PF's pool to something of the host, while there are no vports behind it: ${PUT}`,
    request: what,
    responses: answers,
  }),
  getVfUplink: createRoute({
    method: "get",
    path: "/api/v1/vfs/{id}/uplink",
    request: { params },
    responses: answers,
  }),
  putVfUplink: createRoute({
    method: "put",
    path: "/api/v1/vfs/{id}/uplink",
    description: `Binds a VF that no guest drives to something of the host: ${PUT}`,
    request: { params, ...what },
    responses: answers,
  }),
};
