/** The route of captures at a service that has an engine: the NIC, and vhost with the software switch. */
import { createRoute, type OpenAPIHono } from "@hono/zod-openapi";
import { POOL_PF, POOL_UPLINK } from "../layout/nic.ts";
import { ApiError } from "../api/problem.ts";
import { captureAnswer, PCAPNG_TYPE, PortsCaptureQuery } from "../api/capture.ts";
import { problemBody } from "../api/route_parts.ts";
import { DeviceRefusal } from "../device/refusal.ts";
import { compileFilter, FilterError } from "../pcap/mod.ts";
import type { Capture, CaptureRequest } from "./captures.ts";

/** Which ports there are. */
export interface CapturePorts {
  kind: "vf" | "vport";
  ids: readonly number[];
}

/** The engine's captures, as the route uses them. */
export interface CaptureOpener {
  open(request: CaptureRequest): Pick<Capture, "stream">;
}

/** The route's way to the engine. `ports`: which there are now. */
export interface CaptureParts {
  captures(): CaptureOpener;
  ports(): CapturePorts;
}

/** A port's pool and the name of its interface. Throws ApiError if there is none. */
function interfaceOf(name: string, { kind, ids }: CapturePorts): CaptureRequest["interfaces"][number] {
  if (name === "uplink") return { pool: POOL_UPLINK, name };
  if (name === "pf" && kind === "vf") return { pool: POOL_PF, name };
  const id = Number(name);
  if (!ids.includes(id)) throw new ApiError(404, `there is no ${name === "pf" ? name : `${kind} ${name}`}`, "ports");
  return { pool: id, name: `${kind}${id}` };
}

/** What is asked for, as the engine's captures take it. Throws ApiError. */
export function captureRequest(query: PortsCaptureQuery, there: CapturePorts): CaptureRequest {
  const all = [...there.ids.map(String), ...(there.kind === "vf" ? ["pf"] : []), "uplink"];
  const interfaces = (query.ports ?? all).map((name) => interfaceOf(name, there));
  try {
    const filter = compileFilter(query.filter, there.kind, Math.max(-1, ...there.ids) + 1);
    return { interfaces, filter, snapBytes: query.snap, isDroppedOnly: query.dropped === "true" };
  } catch (error) {
    if (error instanceof FilterError) throw new ApiError(422, `filter: ${error.message}`, "filter");
    throw error;
  }
}

/** Mounts `GET /api/v1/captures`. */
export function mountEngineCaptures(app: OpenAPIHono, { captures, ports }: CaptureParts): void {
  const route = createRoute({
    method: "get",
    path: "/api/v1/captures",
    description: "Frames of ports, an interface each, dropped ones with the reason, while they are read",
    request: { query: PortsCaptureQuery },
    responses: {
      200: captureAnswer,
      404: problemBody("There is no such port"),
      409: problemBody("There is no room for a capture"),
      422: problemBody("A value is not acceptable; it is named"),
      503: problemBody("There are as many captures as there may be: end one first"),
    },
  });
  app.openapi(route, (c) => {
    if (c.req.raw.method === "HEAD") return c.body(null, 200, { "content-type": PCAPNG_TYPE });
    const request = captureRequest(c.req.valid("query"), ports());
    try {
      return c.body(captures().open(request).stream(), 200, { "content-type": PCAPNG_TYPE });
    } catch (error) {
      if (!(error instanceof DeviceRefusal)) throw error;
      throw new ApiError(error.code === "capture-limit" ? 503 : 409, error.message, undefined, error.code);
    }
  });
}
