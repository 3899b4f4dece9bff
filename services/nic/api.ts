/** The NIC's control API: programmed by the PF, read by the PF and by whoever looks. */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import {
  type Access,
  ApiError,
  createApp,
  eventStream,
  Filter,
  HoldGrant,
  HoldRequest,
  LeaseView,
  mountOpenApi,
  mountReadiness,
  type NicEvent,
  NicState,
  Problem,
  Programme,
  TakenBack,
  UplinkSpec,
  UplinkState,
} from "../../shared/api/mod.ts";
import { DeviceRefusal } from "../../shared/device/mod.ts";
import { type CaptureOpener, mountEngineCaptures } from "../../shared/engine/mod.ts";
import type { Nic } from "./nic.ts";
import type { Uplinks } from "./uplinks.ts";

const json = <T extends z.ZodType>(schema: T, description: string) => ({
  content: { "application/json": { schema } },
  description,
});
const refused = { content: { "application/problem+json": { schema: Problem } }, description: "Refused" };

/** A programme of 256 VFs with every trunk list full. */
const PROGRAMME_BYTES_MAX = 8 * 1024 ** 2;

const params = z.object({ id: z.string().regex(/^\d{1,9}$/, "is the number of a VF").transform(Number) });
const done = { 200: json(z.object({}), "Done"), 404: refused, 409: refused };

/** The NIC, as its API uses it. */
export type NicPart =
  & Pick<Nic, "instance" | "program" | "state" | "hold" | "release" | "takeBack" | "leaseOf" | "subscribe">
  & { pools: Pick<Nic["pools"], "programme" | "filters" | "vfCount">; captures: CaptureOpener };

/** Its uplinks, as its API uses them. */
export type UplinksPart = Pick<Uplinks, "states" | "set">;

/** The routes of the NIC's API over `nic`. */
export function nicApi(nic: NicPart, uplinks: UplinksPart, access: Access | undefined): OpenAPIHono {
  const app = createApp(access, { jsonBytesMax: PROGRAMME_BYTES_MAX });
  mountReadiness(app, () => nic.pools.programme ? undefined : "the PF has not programmed it yet: does the PF run?");

  app.openapi(
    createRoute({
      method: "put",
      path: "/api/v1/programme",
      request: { body: { ...json(Programme, "Everything the PF sets"), required: true } },
      responses: { 200: json(z.object({ instance: z.string() }), "In force"), 409: refused, 422: refused },
    }),
    (c) => {
      try {
        nic.program(c.req.valid("json"));
      } catch (error) {
        if (error instanceof DeviceRefusal) throw new ApiError(409, error.message, "vfs");
        throw error;
      }
      return c.json({ instance: nic.instance }, 200);
    },
  );

  app.openapi(
    createRoute({
      method: "get",
      path: "/api/v1/state",
      responses: { 200: json(NicState, "Engine, VFs, PF and uplink with queues and counters") },
    }),
    (c) => c.json({ ...nic.state(), uplinks: uplinks.states() }, 200),
  );

  app.openapi(
    createRoute({
      method: "get",
      path: "/api/v1/filters",
      responses: { 200: json(z.array(Filter), "The filter table") },
    }),
    (c) => c.json(nic.pools.filters(), 200),
  );

  mountHolds(app, nic);
  mountLeases(app, nic);
  mountUplinks(app, uplinks);
  mountEngineCaptures(app, {
    captures: () => nic.captures,
    ports: () => ({ kind: "vf", ids: Array.from({ length: nic.pools.vfCount }, (_, id) => id) }),
  });
  app.get("/api/v1/events", (c) => eventStream<NicEvent>(c, (listener) => nic.subscribe(listener)));
  mountOpenApi(app, { title: "ringfabric NIC", description: "The NIC: what the PF programmes, and what it looks at" });
  return app;
}

/** Passes a refusal on as the API tells it. */
async function refusing<T>(act: () => T | Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (error) {
    if (error instanceof DeviceRefusal) {
      throw new ApiError(error.code === "no-vf" ? 404 : 409, error.message, "id", error.code);
    }
    throw error;
  }
}

function mountHolds(app: OpenAPIHono, nic: NicPart): void {
  app.openapi(
    createRoute({
      method: "post",
      path: "/api/v1/vfs/{id}/hold",
      description: "Holds the VF's frames while its driver changes hands; the token lets a guest attach, once",
      request: { params, body: { ...json(HoldRequest, "How long at most"), required: true } },
      responses: { 201: json(HoldGrant, "Held"), 404: refused, 409: refused },
    }),
    async (c) => {
      const { deadlineMs } = c.req.valid("json");
      return c.json(await refusing(() => nic.hold(c.req.valid("param").id, deadlineMs)), 201);
    },
  );
  app.openapi(
    createRoute({
      method: "delete",
      path: "/api/v1/vfs/{id}/hold",
      description: "Ends the hold: answers when what came meanwhile has been delivered",
      request: { params },
      responses: done,
    }),
    async (c) => {
      await refusing(() => nic.release(c.req.valid("param").id));
      return c.json({}, 200);
    },
  );
}

function mountLeases(app: OpenAPIHono, nic: NicPart): void {
  app.openapi(
    createRoute({
      method: "delete",
      path: "/api/v1/vfs/{id}/lease",
      description:
        "Takes the VF back from a guest that drives it itself, at once and for good. final: the VF is to be " +
        "somebody else's, and what is held of its frames is dropped",
      request: { params, query: z.object({ final: z.enum(["true", "false"]).default("false") }) },
      responses: { ...done, 200: json(TakenBack, "No guest drives the VF") },
    }),
    async (c) => {
      const final = c.req.valid("query").final === "true";
      const { id } = c.req.valid("param");
      return c.json(await refusing(() => nic.takeBack(id, "the hypervisor took it back", final)), 200);
    },
  );
  app.openapi(
    createRoute({
      method: "get",
      path: "/api/v1/vfs/{id}/lease",
      request: { params },
      responses: { 200: json(LeaseView, "Who drives the VF's queues"), 404: refused },
    }),
    async (c) => c.json(await refusing(() => nic.leaseOf(c.req.valid("param").id)), 200),
  );
}

function mountUplinks(app: OpenAPIHono, uplinks: UplinksPart): void {
  const pool = z.string().regex(/^(uplink|pf|\d{1,9})$/, "is uplink, pf, or the number of a VF")
    .transform((name) => name === "uplink" || name === "pf" ? name : Number(name));
  app.openapi(
    createRoute({
      method: "put",
      path: "/api/v1/uplinks/{pool}",
      description:
        "Puts a TAP, an interface or a file of the host behind a pool, in place of what was there. What cannot be is " +
        "refused, and what was there stays; keep: it is tried again until it can be",
      request: {
        params: z.object({ pool }),
        query: z.object({ keep: z.enum(["true", "false"]).default("false") }),
        body: { ...json(UplinkSpec, "What is to be there"), required: true },
      },
      responses: { 200: json(UplinkState, "What is there"), 404: refused, 409: refused },
    }),
    async (c) => {
      const keep = c.req.valid("query").keep === "true";
      return c.json(await uplinks.set(c.req.valid("param").pool, c.req.valid("json"), keep), 200);
    },
  );
}
