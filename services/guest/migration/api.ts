/** The routes by which a guest leaves its seat, and comes to another one (fabric migrate). */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import {
  ApiError,
  Arrival as ArrivalView,
  Departure as DepartureView,
  DepartureCommit,
  DepartureRequest,
  Problem,
} from "../../../shared/api/mod.ts";
import type { Host } from "../host.ts";
import type { Machine } from "../machine.ts";
import type { Seat } from "../seat.ts";
import { Arrival } from "./arrival.ts";
import { Departure } from "./departure.ts";

const STREAM_TYPE = "application/octet-stream";
/** Where the stream comes in: it is read while it comes. */
export const ARRIVAL_PATH = "/api/v1/arrival";

const json = <T extends z.ZodType>(schema: T, description: string) => ({
  content: { "application/json": { schema } },
  description,
});
const body = <T extends z.ZodType>(schema: T, description: string) => ({
  body: { ...json(schema, description), required: true as const },
});
const refused = { content: { "application/problem+json": { schema: Problem } }, description: "Refused" };
const errors = { 404: refused, 409: refused, 422: refused };
const streamContent = { [STREAM_TYPE]: { schema: z.any() } };

/** What the routes need. */
export interface MigrationParts {
  seat: Seat;
  machine: Machine;
  host: Host;
  queuePairs: number;
}

/** Adds both ends' routes. */
export function mountMigration(app: OpenAPIHono, parts: MigrationParts): void {
  mountDeparture(app, parts);
  mountArrival(app, parts);
}

function mountDeparture(app: OpenAPIHono, parts: MigrationParts): void {
  const path = "/api/v1/departure";
  let last: Departure | undefined;
  const found = () => {
    if (last) return last;
    throw new ApiError(404, "no guest has left this seat, or tried to");
  };
  const start = createRoute({
    method: "post",
    path,
    description: "The guest leaves: the answer is all of it, first while it runs, then the rest when it is stopped. " +
      "Reading that not to its end leaves the guest here, running",
    request: body(DepartureRequest, "How"),
    responses: { 200: { content: streamContent, description: "The guest" }, ...errors },
  });
  app.openapi(start, (c) => {
    last = new Departure(parts, c.req.valid("json"));
    return c.body(ReadableStream.from(last.stream()), 200, { "content-type": STREAM_TYPE });
  });
  app.openapi(
    createRoute({
      method: "get",
      path,
      description: "How far the guest is on its way, or how the last move ended",
      responses: { 200: json(DepartureView, "The operation"), ...errors },
    }),
    (c) => c.json(found().view, 200),
  );
  app.openapi(
    createRoute({
      method: "delete",
      path,
      description: "Cancels the move: the guest goes on here. Once it has been handed over only with the key",
      request: { query: z.object({ key: z.string().max(64).optional() }) },
      responses: { 200: json(DepartureView, "The operation"), ...errors },
    }),
    async (c) => {
      await found().cancel("the move was cancelled", c.req.valid("query").key);
      return c.json(found().view, 200);
    },
  );
  app.openapi(
    createRoute({
      method: "post",
      path: `${path}/commit`,
      description: "Everything has arrived. From now on the guest is where its address is; it comes back if nobody " +
        "gives that to another VF within some seconds",
      request: body(z.strictObject({}), "Nothing"),
      responses: { 200: json(DepartureCommit, "The right to end this either way"), ...errors },
    }),
    (c) => c.json({ key: found().commit() }, 200),
  );
  app.openapi(
    createRoute({
      method: "post",
      path: `${path}/finish`,
      description: "The guest runs at the target: this seat is cleared, and waits for another guest",
      request: body(DepartureCommit, "The key"),
      responses: { 200: json(DepartureView, "The operation"), ...errors },
    }),
    async (c) => {
      await found().finish(c.req.valid("json").key);
      return c.json(found().view, 200);
    },
  );
}

function mountArrival(app: OpenAPIHono, parts: MigrationParts): void {
  let last: Arrival | undefined;
  const found = () => {
    if (last) return last;
    throw new ApiError(404, "no guest has come to this seat");
  };
  app.openapi(
    createRoute({
      method: "post",
      path: ARRIVAL_PATH,
      description: "A guest comes: what POST /api/v1/departure of another guest's API answers",
      request: { body: { content: streamContent, description: "The guest", required: true } },
      responses: { 200: json(ArrivalView, "All of it is here"), ...errors },
    }),
    async (c) => {
      last = new Arrival(parts);
      return c.json(await last.read(c.req.raw.body), 200);
    },
  );
  app.openapi(
    createRoute({
      method: "get",
      path: ARRIVAL_PATH,
      responses: { 200: json(ArrivalView, "The guest that has come last"), ...errors },
    }),
    (c) => c.json(found().view, 200),
  );
  app.openapi(
    createRoute({
      method: "post",
      path: `${ARRIVAL_PATH}/run`,
      description: "The guest's address is this VF's: it runs, and tells its neighbours where it is",
      request: body(z.strictObject({}), "Nothing"),
      responses: { 200: json(ArrivalView, "It runs"), ...errors },
    }),
    async (c) => {
      await found().run();
      return c.json(found().view, 200);
    },
  );
  app.openapi(
    createRoute({
      method: "delete",
      path: ARRIVAL_PATH,
      description: "Forgets what has come, unless it runs",
      responses: { 200: json(ArrivalView, "What is so now"), ...errors },
    }),
    async (c) => {
      await found().forget();
      return c.json(found().view, 200);
    },
  );
}
