/** The vhost service's control API. */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { ApiError, createApp, PortChange, PortState, Problem } from "../../shared/api/mod.ts";
import type { PortName, Ports } from "./ports.ts";

const json = <T extends z.ZodType>(schema: T, description: string) => ({
  content: { "application/json": { schema } },
  description,
});
const refused = { content: { "application/problem+json": { schema: Problem } }, description: "Refused" };
const params = z.object({
  vf: z.union([z.literal("uplink"), z.string().regex(/^\d+$/, "is a VF number or uplink").transform(Number)]),
});

/** The routes over `ports`. */
export function vhostApi(ports: Ports, token: string | undefined): OpenAPIHono {
  const app = createApp(token);
  app.get("/readyz", (c) => c.json({ ready: ports.ready }, ports.ready ? 200 : 503));
  const known = (vf: PortName) => {
    const state = ports.state(vf);
    if (!state) throw new ApiError(404, `there is no port of vf ${vf}`, "vf");
    return state;
  };

  app.openapi(
    createRoute({ method: "get", path: "/api/v1/ports", responses: { 200: json(z.array(PortState), "All ports") } }),
    (c) => c.json(ports.states, 200),
  );
  app.openapi(
    createRoute({
      method: "get",
      path: "/api/v1/ports/{vf}",
      request: { params },
      responses: { 200: json(PortState, "One port"), 404: refused },
    }),
    (c) => c.json(known(c.req.valid("param").vf), 200),
  );
  app.openapi(
    createRoute({
      method: "put",
      path: "/api/v1/ports/{vf}",
      request: { params, body: { ...json(PortChange, "Server, or client of a front-end's socket"), required: true } },
      responses: { 200: json(PortState, "In force"), 404: refused, 422: refused },
    }),
    async (c) => {
      const { vf } = c.req.valid("param");
      known(vf);
      const change = c.req.valid("json");
      return c.json(await ports.configure(vf, change.role, change.role === "client" ? change.path : undefined), 200);
    },
  );
  app.doc("/openapi.json", { openapi: "3.0.0", info: { title: "ringfabric vhost", version: "1" } });
  return app;
}
