/**
 * The live stream: what a page or a terminal shows of a fabric, once a second. Its first event, `state`, is the whole
 * document below; each `patch` after it is a JSON merge patch of it (RFC 7396) with what has changed. What the PF tells
 * on its event stream comes as `happened`, if it is asked for.
 */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { libvirtInterface, qemuArguments, testpmdArguments } from "./attach.ts";
import type { PfEvent } from "./events.ts";
import { LatencySummary, LatencyView } from "./latency.ts";
import { NicView, Vf, VportView } from "./pf_views.ts";
import { errors, json, params, problemBody } from "./route_parts.ts";
import { frameStream } from "./sse.ts";

/** Past events that a listener may be told first. */
const EVENTS_MAX = 1000;

const counters = z.record(z.string(), z.int()).openapi({ description: "Counters that are not 0" });
const link = z.enum(["up", "down"]).openapi({ description: "The carrier that the guest has" });

const recent = LatencySummary.partial().openapi({ description: "The same of the last ten seconds" });
const latency = LatencyView.partial().extend({ recent: recent.optional() }).optional().openapi({
  description:
    "How long what it sends waits in its ring, sampled; absent: it has sent nothing yet. counts and sumNs: " +
    "of the VF that is looked at, and of vports",
});

const tag = z.string().optional().openapi({
  description: "Entity tag of the policy, for If-Match; of the VF that is looked at, and of vports",
});

/** A VF or vport is shown as it is elsewhere, without what is null there. */
const LiveVf = z.object({
  ...Vf.partial().shape,
  ...{ id: z.int(), link, counters, latency, tag },
  queuesRunning: z.int().optional(),
  queuesInError: z.int().optional(),
  held: z.boolean().optional().openapi({ description: "Its frames wait, because its driver changes hands" }),
}).openapi("LiveVf");

const LiveVport = z.object({ ...VportView.partial().shape, id: z.int(), link, counters, latency, tag }).openapi(
  "LiveVport",
);

/** A service that the PF speaks to. */
const LiveService = z.object({
  state: z.enum(["up", "away"]),
  since: z.int().openapi({ description: "Milliseconds since 1970" }),
}).openapi("LiveService");

/** The document. */
const LiveState = z.object({
  at: z.int().openapi({ description: "When it was made, in milliseconds since 1970" }),
  readAt: z.int().optional().openapi({
    description: "When the NIC was read last; what it alone knows is as old as this",
  }),
  services: z.record(z.string(), LiveService),
  nic: z.object({
    ...NicView.partial().shape,
    uplink: NicView.shape.uplink.extend({ latency }),
    counters: counters.openapi({ description: "Those of the PF's pool" }),
  }).partial().optional(),
  vfs: z.record(z.string(), LiveVf).openapi({ description: "By their number" }),
  vports: z.record(z.string(), LiveVport).optional(),
}).openapi("LiveState");
export type LiveState = z.output<typeof LiveState>;

/** What a listener wants to be told. */
export interface LiveWish {
  /** The VF whose queues and limits are told too. */
  vf?: number | undefined;
  /** Nothing of the fabric but that VF. */
  isAlone: boolean;
  /** How many past events are told first; none: no events are told. */
  events?: number | undefined;
}

/** What the PF does for these routes. */
export interface LiveHandlers {
  /** How to have frames sent until the function that is then returned is called. Throws if there is no such VF. */
  live(wish: LiveWish): (send: (frame: string) => void) => () => void;
  getVf(id: number): Promise<Vf>;
  getVport(id: number): Promise<VportView>;
}

const eventsShape = z.object({
  events: z.string().regex(/^\d{1,4}$/, "is a number of events").transform(Number).pipe(z.int().max(EVENTS_MAX))
    .optional().openapi({ type: "integer", description: "Tells events too, and first so many of the latest" }),
});
const stream = { content: { "text/event-stream": { schema: LiveState } }, description: "state, patch, happened" };
const full = problemBody("There are as many listeners as there may be");
const about = "Server-sent events, once a second: `state` is the whole document, each `patch` a JSON merge patch " +
  "(RFC 7396) of it, `happened` an event";

const AttachView = z.object({
  qemu: z.array(z.string()),
  qemuKvm: z.array(z.string()),
  testpmd: z.array(z.string()),
  libvirt: z.string(),
}).openapi("Attach");

const routes = {
  live: createRoute({
    method: "get",
    path: "/api/v1/live",
    description: `The fabric as it is. ${about}`,
    request: {
      query: eventsShape.extend({
        vf: z.string().regex(/^\d{1,3}$/, "is the number of a VF").transform(Number).optional()
          .openapi({ type: "integer", description: "A VF whose queues and limits are shown too" }),
      }),
    },
    responses: { 200: stream, 404: errors[404], 422: errors[422], 503: full },
  }),
  liveVf: createRoute({
    method: "get",
    path: "/api/v1/vfs/{id}/live",
    description: `One VF as it is, with its queues and limits. ${about}`,
    request: { params, query: eventsShape },
    responses: { 200: stream, 404: errors[404], 422: errors[422], 503: full },
  }),
  attachVf: createRoute({
    method: "get",
    path: "/api/v1/vfs/{id}/attach",
    request: { params },
    responses: { 200: json(AttachView, "Arguments that attach a guest to the VF"), 404: errors[404] },
  }),
  attachVport: createRoute({
    method: "get",
    path: "/api/v1/vports/{id}/attach",
    request: { params },
    responses: { 200: json(AttachView, "Arguments that attach a guest to the vport"), 404: errors[404] },
  }),
};

function attachView(id: number | `vport${number}`, { mac, socket }: { mac: string; socket: string }) {
  const target = { id, mac, socket };
  return {
    qemu: qemuArguments(target),
    qemuKvm: qemuArguments(target, { kvm: true }),
    testpmd: testpmdArguments(target),
    libvirt: libvirtInterface(target),
  };
}

/** Mounts the routes on `app`. */
export function mountLive(app: OpenAPIHono, handlers: LiveHandlers): void {
  const serve = (c: Context, wish: LiveWish) => frameStream(c, handlers.live(wish));
  // Their answers are no documents that the typed client could have.
  const answer = (response: Response) => response as never;
  app.openapi(routes.live, (c) => answer(serve(c, { ...c.req.valid("query"), isAlone: false })));
  app.openapi(routes.liveVf, (c) => {
    return answer(serve(c, { ...c.req.valid("query"), vf: c.req.valid("param").id, isAlone: true }));
  });
  app.openapi(routes.attachVf, async (c) => {
    const { id } = c.req.valid("param");
    return c.json(attachView(id, await handlers.getVf(id)), 200);
  });
  app.openapi(routes.attachVport, async (c) => {
    const { id } = c.req.valid("param");
    return c.json(attachView(`vport${id}`, await handlers.getVport(id)), 200);
  });
}

/** What `happened` tells: an event, and when it happened. */
export type LiveEvent = PfEvent & { at: string };
