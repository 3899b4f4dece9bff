/** The API's address, which belongs to the process that has died until the kernel has taken it down. */
import type { OpenAPIHono } from "@hono/zod-openapi";
import { serve } from "../api/mod.ts";

const DEADLINE_MS = 5000;
const LOOK_MS = 2;

/** Listens at the API's address as soon as the kernel has taken it from the process that has died. */
export async function serveWhenFree(
  api: OpenAPIHono,
  listen: { hostname: string; port: number },
): Promise<ReturnType<typeof serve>> {
  const deadline = performance.now() + DEADLINE_MS;
  for (;;) {
    try {
      return serve(api, listen);
    } catch (error) {
      if (!((error as Error).cause instanceof Deno.errors.AddrInUse) || performance.now() > deadline) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
}
