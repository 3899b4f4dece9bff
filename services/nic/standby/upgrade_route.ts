/** The NIC's route for an upgrade: another process takes over, of the program as it is now. */
import { createRoute, type OpenAPIHono } from "@hono/zod-openapi";
import { NicUpgrade, Problem } from "../../../shared/api/mod.ts";

/** Mounts it on `app`. `upgrade` throws ApiError if it cannot be. */
export function mountUpgrade(app: OpenAPIHono, upgrade: () => Promise<NicUpgrade>): void {
  app.openapi(
    createRoute({
      method: "post",
      path: "/api/v1/upgrade",
      description:
        "Has a new process of the program as it is now take over between two bursts, or says why that cannot be",
      responses: {
        200: { content: { "application/json": { schema: NicUpgrade } }, description: "It takes over now" },
        409: { content: { "application/problem+json": { schema: Problem } }, description: "Everything is as it was" },
      },
    }),
    async (c) => c.json(await upgrade(), 200),
  );
}
