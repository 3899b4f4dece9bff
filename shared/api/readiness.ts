/** `/readyz`: whether a service can do its work now, and if not, why. It needs no token, so a reason names no guest. */
import { type OpenAPIHono, z } from "@hono/zod-openapi";

/** The answer of `/readyz`: 200 if it is ready, else 503. */
export const Readiness = z.object({
  ready: z.boolean(),
  /** What keeps it from its work, and what to do if it does not pass by itself. */
  reason: z.string().optional(),
});
export type Readiness = z.infer<typeof Readiness>;

/** Mounts `/readyz`; `look` answers why the service is not ready, or `undefined` if it is. */
export function mountReadiness(app: OpenAPIHono, look: () => Promise<string | undefined> | string | undefined): void {
  app.get("/readyz", async (c) => {
    const reason = await look();
    const readiness: Readiness = reason === undefined ? { ready: true } : { ready: false, reason };
    return c.json(readiness, reason === undefined ? 200 : 503);
  });
}
