/** The vf service's HTTP API: plugin images, modes of VFs, and the guests' line to their hypervisor. */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import {
  type Access,
  answerOperation,
  ApiError,
  createApp,
  DEADLINE_HEADER,
  eventStream,
  GuestConfig,
  GuestPort,
  GuestReport,
  GuestView,
  LinkPatch,
  log,
  type ModeEvent,
  ModeRequest,
  mountOpenApi,
  mountReadiness,
  mountRestart,
  NO_GUEST,
  oneLine,
  OPERATION_HEADER,
  operationAnswers,
  OperationId,
  operationRoutes,
  Operations,
  PluginView,
  preferParameter,
  Problem,
  readDeadline,
  type Restarts,
  type Run,
  VfMode,
} from "../../shared/api/mod.ts";
import { IMAGE_BYTES_MAX } from "../../shared/plugin/mod.ts";
import { Change } from "./change.ts";
import type { Guests } from "./guests.ts";
import type { Port } from "./handover.ts";
import type { Modes } from "./modes.ts";
import { nameOf } from "./port_turns.ts";
import type { Registry } from "./registry.ts";

const json = <T extends z.ZodType>(schema: T, description: string) => ({
  content: { "application/json": { schema } },
  description,
});
const body = <T extends z.ZodType>(schema: T, description: string) => ({
  body: { ...json(schema, description), required: true as const },
});
const refused = { content: { "application/problem+json": { schema: Problem } }, description: "Refused" };
const errors = { 404: refused, 409: refused, 422: refused, 503: refused };
const idParams = z.object({ id: z.string().regex(/^\d{1,3}$/, "is the number of a VF or vport").transform(Number) });
const portParams = z.object({ port: GuestPort });

/** What the API needs. */
export interface VfParts {
  registry: Pick<Registry, "list" | "trust" | "add" | "find" | "remove">;
  guests: Pick<Guests, "list" | "viewSoon" | "isOwnToken" | "report" | "wish">;
  /** Why no mode can be changed now; `undefined` if it can. */
  unreadiness(): Promise<string | undefined>;
  modes: Pick<Modes, "get" | "list" | "set" | "booted" | "reconcile" | "subscribe">;
  restarts: Pick<Restarts, "begin">;
}

/** The routes. */
export function vfApi(parts: VfParts, access: Access | undefined): OpenAPIHono {
  // A guest with a token of its own speaks for its port, and for nothing else.
  const alsoGood = (token: string, path: string) =>
    parts.guests.isOwnToken(/^\/api\/v1\/guests\/([^/]+)(\/link)?$/.exec(path)?.[1] ?? "", token);
  const app = createApp(access, { binaryBytesMax: IMAGE_BYTES_MAX, alsoGood });
  mountReadiness(app, () => parts.unreadiness());
  app.get("/api/v1/events", (c) => eventStream<ModeEvent>(c, (listener) => parts.modes.subscribe(listener)));
  mountPlugins(app, parts);
  const operations = new Operations();
  mountModes(app, parts, operations);
  mountRestart(app, () => parts.restarts.begin(operations));
  mountGuests(app, parts);
  mountOpenApi(app, { title: "ringfabric VF plugin service", description: "Plugins, and who drives which VF" });
  return app;
}

function mountPlugins(app: OpenAPIHono, { registry }: VfParts): void {
  app.openapi(
    createRoute({
      method: "get",
      path: "/api/v1/plugins",
      responses: { 200: json(z.array(PluginView), "All images, newest versions first") },
    }),
    (c) => c.json(registry.list, 200),
  );
  app.openapi(
    createRoute({
      method: "post",
      path: "/api/v1/plugins",
      description: "Stores a signed image, if it passes every check",
      request: {
        body: { content: { "application/wasm": { schema: z.any() } }, description: "The image", required: true },
      },
      responses: { 201: json(PluginView, "Stored"), ...errors, 413: refused },
    }),
    async (c) => c.json(await registry.add(new Uint8Array(await c.req.arrayBuffer())), 201),
  );
  const params = z.object({ name: z.string(), version: z.string() });
  app.get("/api/v1/plugins/:name/:version", async (c) => {
    const { image } = await registry.find(`${c.req.param("name")}@${c.req.param("version")}`);
    return c.body(image, 200, { "content-type": "application/wasm" });
  });
  app.openapi(
    createRoute({
      method: "delete",
      path: "/api/v1/plugins/{name}/{version}",
      request: { params },
      responses: { 200: json(PluginView, "Removed"), ...errors },
    }),
    async (c) => {
      const { name, version } = c.req.valid("param");
      return c.json(await registry.remove(name, version), 200);
    },
  );
  app.get("/api/v1/trust", (c) => c.json(registry.trust));
}

function mountModes(app: OpenAPIHono, { modes }: VfParts, operations: Operations): void {
  app.openapi(operationRoutes.listOperations, (c) => c.json(operations.list, 200));
  app.openapi(operationRoutes.getOperation, (c) => c.json(operations.get(c.req.valid("param").id), 200));
  app.openapi(
    createRoute({
      method: "get",
      path: "/api/v1/modes",
      responses: { 200: json(z.array(VfMode.extend({ vf: z.int() })), "Who drives which VF") },
    }),
    async (c) => c.json(await modes.list(), 200),
  );
  // Guests without a VF of their own are allotted one.
  for (const kind of ["vfs", "vports"] as const) {
    const portOf = (id: number): Port => kind === "vfs" ? id : `vport${id}`;
    const path = `/api/v1/${kind}/{id}/mode`;
    app.openapi(
      createRoute({
        method: "get",
        path,
        request: { params: idParams },
        responses: { 200: json(VfMode, "Who drives the guest's data path"), ...errors },
      }),
      async (c) => c.json(await modes.get(portOf(c.req.valid("param").id)), 200),
    );
    app.openapi(
      createRoute({
        method: "put",
        path,
        parameters: [preferParameter],
        request: { params: idParams, ...body(ModeRequest, "The mode to be in") },
        responses: { ...operationAnswers(VfMode, "Who drives it now, and how it came to that"), ...errors },
      }),
      async (c) => {
        const [port, request] = [portOf(c.req.valid("param").id), c.req.valid("json")];
        const change = new Change(readDeadline(c.req.header(DEADLINE_HEADER)));
        const act = (run: Run) => {
          run.progress = change;
          return modes.set(port, request, change);
        };
        const id = OperationId.optional().safeParse(c.req.header(OPERATION_HEADER)).data;
        return await answerOperation(c, operations.start(`${nameOf(port)} to ${request.mode}`, act, id));
      },
    );
  }
}

function mountGuests(app: OpenAPIHono, { guests, modes }: VfParts): void {
  app.openapi(
    createRoute({
      method: "get",
      path: "/api/v1/guests",
      responses: { 200: json(z.array(GuestView), "Guests with a shell") },
    }),
    (c) => c.json(guests.list, 200),
  );
  app.openapi(
    createRoute({
      method: "get",
      path: "/api/v1/guests/{port}",
      description: "The guest with a shell on a port; a service that has just started waits until it may have reported",
      request: { params: portParams },
      responses: { 200: json(GuestView, "The guest"), 404: refused },
    }),
    async (c) => {
      const { port } = c.req.valid("param");
      const guest = await guests.viewSoon(port);
      if (!guest) throw new ApiError(404, `no guest with a shell is on ${port}`, "port", NO_GUEST);
      return c.json(guest, 200);
    },
  );
  app.openapi(
    createRoute({
      method: "put",
      path: "/api/v1/guests/{port}",
      description: "A guest reports; the answer is what its interface is to be",
      request: { params: portParams, ...body(GuestReport, "The guest") },
      responses: { 200: json(GuestConfig, "Its interface"), ...errors },
    }),
    async (c) => {
      const { port } = c.req.valid("param");
      const place = (/^\d+$/.test(port) ? Number(port) : port) as Port;
      const config = await guests.report(port, c.req.valid("json"), () => modes.booted(place));
      void modes.reconcile(place).catch((error) => log("warn", "vf", `${port}: ${oneLine(error)}`));
      return c.json(config, 200);
    },
  );
  app.openapi(
    createRoute({
      method: "patch",
      path: "/api/v1/guests/{port}/link",
      description: "A guest's wish for its interface: granted, or refused with the PF's reason",
      request: { params: portParams, ...body(LinkPatch, "The wish") },
      responses: { 200: json(GuestConfig, "Its interface now"), ...errors },
    }),
    async (c) => c.json(await guests.wish(c.req.valid("param").port, c.req.valid("json")), 200),
  );
}
