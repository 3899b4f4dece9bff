/**
 * What the PF's API has for a guest that its hypervisor moves away: the address that its VF gets as soon as the guest
 * stands still, so that the guest's own is free for the VF to which it moves. Said beforehand, it costs no request then.
 */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { body, errors, params, problemBody } from "./route_parts.ts";
import { eventStream, type Listener } from "./sse.ts";
import { MacAddress } from "./vf.ts";

/** The address that a VF gets when its guest stands still. */
export const PausedAddress = z.strictObject({ mac: MacAddress, macFixed: z.boolean() }).openapi("PausedAddress");
export type PausedAddress = z.output<typeof PausedAddress>;

const PausedEvent = z.strictObject({
  type: z.enum(["paused", "given"]).openapi({
    description: "paused: the guest stands still; given: the VF has the address",
  }),
}).openapi("PausedEvent");
/** What whoever moves the guest is told. */
export type PausedEvent = z.output<typeof PausedEvent>;

const hold = createRoute({
  method: "post",
  path: "/api/v1/vfs/{id}/pausedAddress",
  description:
    "While this stream is open, the VF gets this address in place of its own as soon as its guest is stopped to be " +
    "moved. It holds once the stream has begun, and ends with the connection, such as when whoever moves the guest dies",
  request: { params, ...body(PausedAddress, "The address") },
  responses: {
    ...errors,
    200: { content: { "text/event-stream": { schema: PausedEvent } }, description: "What happens to the guest" },
    503: problemBody("The NIC is not reachable, or there are as many listeners as there may be"),
  },
});

/** Somebody moves a guest. */
export interface Hold {
  /** Tells what happens, until the function that it answers is called: that ends the hold. */
  listen(listener: Listener<PausedEvent>): () => void;
  end(): void;
}

/** Who keeps the addresses. */
export interface PausedAddressHandlers {
  hold(vf: number, address: PausedAddress): Promise<Hold>;
}

/** Mounts the route on `app`. */
export function mountPausedAddresses(app: OpenAPIHono, handlers: PausedAddressHandlers): void {
  app.openapi(hold, async (c) => {
    const held = await handlers.hold(c.req.valid("param").id, c.req.valid("json"));
    try {
      return eventStream<PausedEvent>(c, (listener) => held.listen(listener)) as never;
    } catch (error) {
      held.end();
      throw error;
    }
  });
}
