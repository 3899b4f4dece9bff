/** What the token of a request is good for, so that a client can show what it may do and leave out what it may not. */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import type { TokenEntry } from "./access.ts";
import { json } from "./route_parts.ts";

const TokenView = z.object({
  name: z.string().optional().openapi({ description: "What the token is called; none: no token is asked for" }),
  role: z.enum(["operator", "service", "read", "vf"]),
  vf: z.int().optional().openapi({ description: "Of role vf: which VF it is good for" }),
}).openapi("Token");

const route = createRoute({
  method: "get",
  path: "/api/v1/token",
  responses: { 200: json(TokenView, "What this request's token is good for") },
});

/** Mounts the route. Without tokens everybody is an operator. */
export function mountToken(app: OpenAPIHono): void {
  app.openapi(route, (c) => {
    const token = (c.get as (name: string) => TokenEntry | undefined)("token");
    if (!token) return c.json({ role: "operator" as const }, 200);
    const { name, role } = token;
    return c.json({ name, role, ...(token.role === "vf" ? { vf: token.vf } : {}) }, 200);
  });
}
