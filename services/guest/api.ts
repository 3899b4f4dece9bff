/** The guest's HTTP API: what a person does with it, and what its hypervisor does. */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { stream } from "hono/streaming";
import { GC_IP, GC_LINK, GC_MTU, GC_VLAN } from "../../shared/layout/guest.ts";
import {
  type Access,
  ApiError,
  CaptureRequest,
  createApp,
  GeneratorState,
  GuestMode,
  LinkPatch,
  LinkState,
  mountOpenApi,
  mountReadiness,
  PassthroughOrder,
  PingRequest,
  PingResult,
  PluginSlot,
  Problem,
  STEP_DEADLINE_MS,
  StepDeadline,
  TrafficRequest,
  TrafficState,
} from "../../shared/api/mod.ts";
import { IMAGE_BYTES_MAX } from "../../shared/plugin/mod.ts";
import { offloadNames } from "./features.ts";
import type { Host } from "./host.ts";
import { ipFromNumber } from "./ip.ts";
import type { Interface } from "./interface.ts";
import type { Machine } from "./machine.ts";
import { captureFrames } from "./capture.ts";
import { ARRIVAL_PATH, mountMigration } from "./migration/api.ts";
import type { Seat } from "./seat.ts";
import { rejection, type Shell } from "./shell.ts";

const json = <T extends z.ZodType>(schema: T, description: string) => ({
  content: { "application/json": { schema } },
  description,
});
const body = <T extends z.ZodType>(schema: T, description: string) => ({
  body: { ...json(schema, description), required: true as const },
});
const refused = { content: { "application/problem+json": { schema: Problem } }, description: "Refused" };
const errors = { 404: refused, 409: refused, 422: refused };

/** What the API needs. */
export interface GuestParts {
  machine: Machine;
  host: Host;
  shell: Shell;
  link: Interface;
  seat: Seat;
  queuePairs: number;
}

/** The routes. */
export function guestApi(parts: GuestParts, access: Access | undefined): OpenAPIHono {
  const app = createApp(access, { binaryBytesMax: IMAGE_BYTES_MAX, streamed: [ARRIVAL_PATH] });
  const { shell, seat } = parts;
  for (const path of ["ping", "traffic", "traffic/*", "capture", "link"]) {
    app.use(`/api/v1/${path}`, async (_, next) => {
      seat.mustRun();
      await next();
    });
  }
  app.get("/", (c) => c.redirect("/openapi.json"));
  mountReadiness(app, () => {
    const { mode, connected } = shell.mode;
    if (seat.state === "waiting" || mode === "passthrough" || connected) return undefined;
    return "its back-end is away: it attaches again by itself when the vhost service is ready";
  });
  mountTraffic(app, parts);
  mountCapture(app, parts);
  mountLink(app, parts);
  mountShell(app, shell);
  mountMigration(app, parts);
  mountOpenApi(app, {
    title: "ringfabric guest",
    description: "A built-in guest: tools to look at a network and to load it; what its hypervisor orders",
  });
  return app;
}

function mountTraffic(app: OpenAPIHono, { host }: GuestParts): void {
  const checkSize = (bytes: number, header: number) => {
    const most = host.get(GC_MTU) + header;
    if (bytes > most) throw new ApiError(422, `frames of ${bytes} bytes: the MTU is ${host.get(GC_MTU)}`, "size");
  };
  app.openapi(
    createRoute({
      method: "post",
      path: "/api/v1/ping",
      request: body(PingRequest, "What to ping"),
      responses: { 200: json(PingResult, "How it went"), ...errors },
    }),
    async (c) => {
      const request = c.req.valid("json");
      checkSize(request.size + 28, 0);
      return c.json(await host.ping(request), 200);
    },
  );
  app.openapi(
    createRoute({
      method: "post",
      path: "/api/v1/traffic",
      request: body(TrafficRequest, "What to send; it goes on in the background"),
      responses: { 201: json(GeneratorState, "The generator"), ...errors },
    }),
    (c) => {
      const request = c.req.valid("json");
      checkSize(request.size, 14);
      return c.json(host.startTraffic(request), 201);
    },
  );
  app.openapi(
    createRoute({
      method: "get",
      path: "/api/v1/traffic",
      responses: { 200: json(TrafficState, "Generators, and flows that came in") },
    }),
    (c) => c.json({ generators: host.generators(), flows: host.flows() }, 200),
  );
  app.openapi(
    createRoute({
      method: "delete",
      path: "/api/v1/traffic/{id}",
      request: { params: z.object({ id: z.string().regex(/^\d{1,2}$/, "is a generator's number").transform(Number) }) },
      responses: { 200: json(GeneratorState, "It has stopped"), ...errors },
    }),
    async (c) => c.json(await host.stopTraffic(c.req.valid("param").id), 200),
  );
  app.delete("/api/v1/traffic", (c) => {
    host.clearFlows();
    return c.json({ flows: [] });
  });
  app.get("/api/v1/stats", (c) => c.json({ counters: host.counters() }));
}

function mountCapture(app: OpenAPIHono, { machine }: GuestParts): void {
  let capturing = false;
  const route = createRoute({
    method: "post",
    path: "/api/v1/capture",
    description:
      "Every frame of the interface for some seconds, as pcapng, while it is captured; one capture at a time",
    request: body(CaptureRequest, "For how long"),
    responses: { 200: { description: "pcapng", content: { "application/x-pcapng": { schema: z.any() } } }, ...errors },
  });
  app.openapi(route, (c) => {
    const { seconds } = c.req.valid("json");
    if (capturing) throw new ApiError(409, "somebody captures already; wait until that ends");
    capturing = true;
    c.header("content-type", "application/x-pcapng");
    c.header("content-disposition", 'attachment; filename="guest.pcapng"');
    return stream(c, async (out) => {
      const stop = new AbortController();
      out.onAbort(() => stop.abort());
      try {
        for await (const part of captureFrames(machine, seconds, stop.signal)) await out.write(part);
      } finally {
        capturing = false;
      }
    });
  });
}

function mountLink(app: OpenAPIHono, { host, link }: GuestParts): void {
  const state = () => ({
    mac: host.mac,
    ip: ipFromNumber(host.get(GC_IP)),
    mtu: host.get(GC_MTU),
    vlan: host.get(GC_VLAN),
    up: host.get(GC_LINK) === 1,
    offloads: offloadNames(host.offloads),
    ...link.granted,
  });
  app.openapi(
    createRoute({ method: "get", path: "/api/v1/link", responses: { 200: json(LinkState, "The interface") } }),
    (c) => c.json(state(), 200),
  );
  app.openapi(
    createRoute({
      method: "patch",
      path: "/api/v1/link",
      description: "Asks the hypervisor for another MAC, a VLAN, promiscuous or multicast reception",
      request: body(LinkPatch, "The wishes"),
      responses: { 200: json(LinkState, "Granted and in force"), ...errors },
    }),
    async (c) => {
      await link.wish(c.req.valid("json"));
      return c.json(state(), 200);
    },
  );
}

function mountShell(app: OpenAPIHono, shell: Shell): void {
  app.openapi(
    createRoute({ method: "get", path: "/api/v1/mode", responses: { 200: json(GuestMode, "The data path in use") } }),
    (c) => c.json(shell.mode, 200),
  );
  app.openapi(
    createRoute({
      method: "post",
      path: "/api/v1/plugin",
      description: "Hypervisor: an image is to come; the shell says where it goes",
      request: body(PluginSlot.pick({ bytes: true }), "Its size"),
      responses: { 201: json(PluginSlot, "Where it goes"), ...errors, 413: refused },
    }),
    (c) => c.json(shell.openSlot(c.req.valid("json").bytes), 201),
  );
  app.put("/api/v1/plugin", async (c) => {
    try {
      return c.json(await shell.putImage(new Uint8Array(await c.req.arrayBuffer())));
    } catch (error) {
      throw rejection(error);
    }
  });
  const deadline = { body: { ...json(StepDeadline, "How long it may take"), required: false } };
  app.openapi(
    createRoute({
      method: "post",
      path: "/api/v1/path/quiesce",
      description: "Hypervisor: send nothing more, and answer when what was on its way has been sent",
      request: deadline,
      responses: { 200: json(z.object({}), "At rest"), ...errors },
    }),
    async (c) => {
      await shell.quiesce(c.req.valid("json").deadlineMs ?? STEP_DEADLINE_MS);
      return c.json({}, 200);
    },
  );
  app.openapi(
    createRoute({
      method: "post",
      path: "/api/v1/path/passthrough",
      description: "Hypervisor: drive this VF with the injected plugin",
      request: body(PassthroughOrder, "The VF, and the right to it"),
      responses: { 200: json(GuestMode, "The data path in use"), ...errors },
    }),
    async (c) => {
      const { vf, token } = c.req.valid("json");
      return c.json(await shell.passthrough(vf, token), 200);
    },
  );
  app.openapi(
    createRoute({
      method: "post",
      path: "/api/v1/path/emulated",
      description: "Hypervisor: give the VF back",
      request: deadline,
      responses: { 200: json(GuestMode, "The data path in use"), ...errors },
    }),
    async (c) => c.json(await shell.emulated(c.req.valid("json").deadlineMs ?? STEP_DEADLINE_MS), 200),
  );
  app.post("/api/v1/path/resume", (c) => {
    shell.resume();
    return c.json({});
  });
}
