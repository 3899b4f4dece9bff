/** What the token of a request is good for, so that a client can show what it may do and leave out what it may not. */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { fixedFields } from "./access.ts";
import { tokenOf } from "./guard.ts";
import { json } from "./route_parts.ts";

const TokenView = z.object({
  name: z.string().optional().openapi({ description: "What the token is called; none: no token is asked for" }),
  role: z.enum(["operator", "service", "read", "vf"]),
  vf: z.int().optional().openapi({ description: "Of role vf: which VF it is good for" }),
  fixedFields: z.array(z.string()).optional().openapi({
    example: ["mirror"],
    description: "Of role vf: fields of the policy that it cannot change",
  }),
}).openapi("Token");

const route = createRoute({
  method: "get",
  path: "/api/v1/token",
  responses: { 200: json(TokenView, "What this request's token is good for") },
});

/** Mounts the route. Without tokens everybody is an operator. */
export function mountToken(app: OpenAPIHono): void {
  app.openapi(route, (c) => {
    const token = tokenOf(c);
    if (!token) return c.json({ role: "operator" as const }, 200);
    const { name, role } = token;
    const own = token.role === "vf" ? { vf: token.vf, fixedFields: fixedFields(token) } : {};
    return c.json({ name, role, ...own }, 200);
  });
}
