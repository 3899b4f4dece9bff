/** `/readyz`: whether a service can do its work now, and if not, why. It needs no token, so a reason names no guest. */
import { type OpenAPIHono, z } from "@hono/zod-openapi";

/** When this process was started: with its pid it tells it from those before it. */
export const STARTED_AT = new Date(performance.timeOrigin).toISOString();

/** The answer of `/readyz`: 200 if it is ready, else 503. */
export const Readiness = z.object({
  ready: z.boolean(),
  /** What keeps it from its work, and what to do if it does not pass by itself. */
  reason: z.string().optional(),
  /** Which process answers. An older program does not say. */
  pid: z.int().optional(),
  startedAt: z.iso.datetime().optional(),
});
export type Readiness = z.infer<typeof Readiness>;

/** Mounts `/readyz`; `look` answers why the service is not ready, or `undefined` if it is. */
export function mountReadiness(app: OpenAPIHono, look: () => Promise<string | undefined> | string | undefined): void {
  app.get("/readyz", async (c) => {
    const reason = await look();
    const by = { pid: Deno.pid, startedAt: STARTED_AT };
    const readiness: Readiness = reason === undefined ? { ready: true, ...by } : { ready: false, reason, ...by };
    return c.json(readiness, reason === undefined ? 200 : 503);
  });
}
