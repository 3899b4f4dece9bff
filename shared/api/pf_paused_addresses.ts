/**
 * What the PF's API has for a guest that its hypervisor moves away: the address that its VF gets as soon as the guest
 * stands still, so that the guest's own is free for the VF to which it moves. Set beforehand, it costs no request then.
 */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { MacAddress } from "./vf.ts";
import { body, errors, params } from "./route_parts.ts";

/** How long a PF keeps to it if nobody says it again. */
const FOR_MS_MAX = 30_000;

/** The address that a VF gets when its guest stands still. */
export const PausedAddress = z.strictObject({
  mac: MacAddress,
  macFixed: z.boolean(),
  forMs: z.int().min(1).max(FOR_MS_MAX).openapi({
    description: "For how long this holds: whoever moves the guest says it again before that, as long as it lives",
  }),
}).openapi("PausedAddress");
export type PausedAddress = z.output<typeof PausedAddress>;

const path = "/api/v1/vfs/{id}/pausedAddress";
const none = { 204: { description: "Done" }, ...errors };
const routes = {
  put: createRoute({
    method: "put",
    path,
    description:
      "Sets the address that the VF gets, in place of the one that it has, when its guest is stopped to be moved. The " +
      "VF has it then before `vf-changed` is told, and after a restart too",
    request: { params, ...body(PausedAddress, "The address") },
    responses: none,
  }),
  remove: createRoute({
    method: "delete",
    path,
    description: "The VF keeps the address that it has now, whether its guest stands still or not",
    request: { params },
    responses: none,
  }),
};

/** Who keeps them. */
export interface PausedAddressHandlers {
  set(vf: number, address: PausedAddress): Promise<void>;
  remove(vf: number): Promise<void>;
}

/** Mounts the routes on `app`. */
export function mountPausedAddresses(app: OpenAPIHono, handlers: PausedAddressHandlers): void {
  app.openapi(routes.put, async (c) => {
    await handlers.set(c.req.valid("param").id, c.req.valid("json"));
    return c.body(null, 204);
  });
  app.openapi(routes.remove, async (c) => {
    await handlers.remove(c.req.valid("param").id);
    return c.body(null, 204);
  });
}
