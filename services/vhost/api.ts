/** The vhost service's control API. */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import {
  type Access,
  ApiError,
  createApp,
  DataPathChange,
  eventStream,
  mountOpenApi,
  mountReadiness,
  PortChange,
  PortState,
  Problem,
  type StandbyState,
  SwitchProgramme,
  type VhostEvent,
  VhostState,
  VportState,
  WishAnswer,
} from "../../shared/api/mod.ts";
import { DeviceRefusal } from "../../shared/device/mod.ts";
import { type CaptureOpener, mountEngineCaptures } from "../../shared/engine/mod.ts";
import type { PortName } from "./port_context.ts";
import type { Ports } from "./ports.ts";
import type { SoftwareSwitch } from "./software_switch.ts";
import type { Wishes } from "./wishes.ts";

/** A programme of all vports with every trunk list full. */
const PROGRAMME_BYTES_MAX = 8 * 1024 ** 2;

const json = <T extends z.ZodType>(schema: T, description: string) => ({
  content: { "application/json": { schema } },
  description,
});
const refused = { content: { "application/problem+json": { schema: Problem } }, description: "Refused" };
const params = z.object({
  port: z.string().regex(/^(uplink|vport\d+|\d+)$/, "is a VF's number, uplink, or a vport such as vport3")
    .transform((text) => /^\d+$/.test(text) ? Number(text) : text as PortName),
});

/** The ports, as the routes use them. */
export type PortsPart = Pick<Ports, "unreadiness" | "states" | "state" | "configure" | "setDataPath">;
/** The software switch, as the routes use it. */
export type SwitchPart = Pick<SoftwareSwitch, "apply" | "states" | "ids"> & { captures: CaptureOpener };

/** What guests wish, as the routes use it. */
export type WishesPart = Pick<Wishes, "subscribe" | "answer">;

/** What the service is made of, as its API sees it. */
export interface VhostParts {
  ports: PortsPart;
  software: SwitchPart;
  wishes: WishesPart;
  /** Whether another process stands by. */
  standby(): StandbyState;
}

/** The routes over the service's parts. */
export function vhostApi({ ports, software, wishes, standby }: VhostParts, access: Access | undefined): OpenAPIHono {
  const app = createApp(access, { jsonBytesMax: PROGRAMME_BYTES_MAX });
  mountReadiness(app, () => ports.unreadiness);
  app.openapi(
    createRoute({
      method: "get",
      path: "/api/v1/state",
      description: "Which process serves the front-ends, and whether another one takes over if that dies",
      responses: { 200: json(VhostState, "The process") },
    }),
    (c) => c.json({ pid: Deno.pid, standby: standby() }, 200),
  );
  mountPorts(app, ports);
  mountVports(app, software);
  mountWishes(app, wishes);
  mountEngineCaptures(app, { captures: () => software.captures, ports: () => ({ kind: "vport", ids: software.ids }) });
  // That the stream ends is how the PF learns that the switch has to be programmed anew.
  app.get("/api/v1/events", (c) => {
    // Guests' drivers wait for the answer of whoever listens: one that can only look has none.
    if (c.get("role" as never) === "read") throw new ApiError(403, "wishes are told to the PF: listen to its events");
    return eventStream<VhostEvent>(c, (listener) => wishes.subscribe(listener));
  });
  mountOpenApi(app, {
    title: "ringfabric vhost",
    description: "The vhost-user back-end: where guests attach, and who serves their rings",
  });
  return app;
}

function mountPorts(app: OpenAPIHono, ports: PortsPart): void {
  const known = (name: PortName) => {
    const state = ports.state(name);
    if (!state) throw new ApiError(404, `there is no port ${name}`, "port");
    return state;
  };

  app.openapi(
    createRoute({ method: "get", path: "/api/v1/ports", responses: { 200: json(z.array(PortState), "All ports") } }),
    (c) => c.json(ports.states, 200),
  );
  app.openapi(
    createRoute({
      method: "get",
      path: "/api/v1/ports/{port}",
      request: { params },
      responses: { 200: json(PortState, "One port"), 404: refused },
    }),
    (c) => c.json(known(c.req.valid("param").port), 200),
  );
  app.openapi(
    createRoute({
      method: "put",
      path: "/api/v1/ports/{port}",
      request: { params, body: { ...json(PortChange, "Server, or client of a front-end's socket"), required: true } },
      responses: { 200: json(PortState, "In force"), 404: refused, 422: refused },
    }),
    async (c) => {
      const { port } = c.req.valid("param");
      known(port);
      const change = c.req.valid("json");
      return c.json(await ports.configure(port, change.role, change.role === "client" ? change.path : undefined), 200);
    },
  );
  app.openapi(
    createRoute({
      method: "put",
      path: "/api/v1/ports/{port}/dataPath",
      description: "Changes who serves the port's rings while its guest runs; or says why that cannot be",
      request: { params, body: { ...json(DataPathChange, "The data path"), required: true } },
      responses: { 200: json(PortState, "In force"), 404: refused, 409: refused, 422: refused },
    }),
    async (c) => {
      const { port } = c.req.valid("param");
      known(port);
      try {
        return c.json(await ports.setDataPath(port, c.req.valid("json")), 200);
      } catch (error) {
        if (error instanceof ApiError) throw error;
        const reason = error instanceof DeviceRefusal ? error.code : undefined;
        throw new ApiError(409, (error as Error).message, "dataPath", reason);
      }
    },
  );
}

function mountVports(app: OpenAPIHono, software: SwitchPart): void {
  app.openapi(
    createRoute({
      method: "put",
      path: "/api/v1/vports",
      description: "Everything the PF sets of the software switch",
      request: { body: { ...json(SwitchProgramme, "The programme"), required: true } },
      responses: { 200: json(z.array(VportState), "In force"), 422: refused },
    }),
    async (c) => {
      await software.apply(c.req.valid("json"));
      return c.json(software.states, 200);
    },
  );
  app.openapi(
    createRoute({
      method: "get",
      path: "/api/v1/vports",
      responses: { 200: json(z.array(VportState), "Guests without a VF") },
    }),
    (c) => c.json(software.states, 200),
  );
}

function mountWishes(app: OpenAPIHono, wishes: WishesPart): void {
  app.openapi(
    createRoute({
      method: "put",
      path: "/api/v1/wishes/{id}",
      description: "The PF's answer to a wish that a guest has made by its control queue",
      request: {
        params: z.object({ id: z.uuid() }),
        body: { ...json(WishAnswer, "Whether it is granted"), required: true },
      },
      responses: { 200: json(WishAnswer, "The guest has been told"), 404: refused, 422: refused },
    }),
    (c) => {
      const answer = c.req.valid("json");
      if (wishes.answer(c.req.valid("param").id, answer)) return c.json(answer, 200);
      throw new ApiError(404, "nobody waits for the answer to this wish", "id");
    },
  );
}
