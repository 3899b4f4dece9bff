/** The PF's routes for captures, which go on while they are read. */
import { createRoute, type OpenAPIHono } from "@hono/zod-openapi";
import type { Role } from "./access.ts";
import { captureAnswer, CaptureQuery, PCAPNG_TYPE } from "./capture.ts";
import { tokenOf } from "./guard.ts";
import { errors, params, problemBody } from "./route_parts.ts";

/** What is captured: a VF, a vport, the PF's pool, the uplink, or all of the NIC. */
export type CapturedPort = { vf: number } | { vport: number } | "pf" | "uplink" | "all";

/** Opens a capture for `by`; the answer is the capture. */
export type OpenCapture = (port: CapturedPort, query: CaptureQuery, by?: Role) => Promise<Response>;

const responses = {
  200: captureAnswer,
  ...errors,
  429: problemBody("The VF's tokens have as many captures open as they may: end one first"),
  503: problemBody("There are as many captures as there may be, or the service with the frames is not reachable"),
};
const request = { query: CaptureQuery };
const route = (path: string, what: string) =>
  createRoute({
    method: "get",
    path,
    description: `Frames of ${what}, dropped ones with the reason`,
    request,
    responses,
  });
const numbered = (path: string, what: string) =>
  createRoute({
    method: "get",
    path,
    description: `Frames of ${what}, dropped ones with the reason`,
    request: { ...request, params },
    responses,
  });

/** Mounts them on `app`. */
export function mountCaptures(app: OpenAPIHono, open: OpenCapture): void {
  // Whoever asks what there is opens nothing.
  app.use("/api/v1/*", async (c, next) => {
    if (c.req.raw.method !== "HEAD" || !c.req.path.endsWith("/capture")) return await next();
    return c.body(null, 200, { "content-type": PCAPNG_TYPE });
  });
  app.openapi(
    numbered("/api/v1/vfs/{id}/capture", "a VF"),
    (c) => open({ vf: c.req.valid("param").id }, c.req.valid("query"), tokenOf(c)),
  );
  app.openapi(
    numbered("/api/v1/vports/{id}/capture", "a guest without a VF, or of the VF that is allotted to it"),
    (c) => open({ vport: c.req.valid("param").id }, c.req.valid("query"), tokenOf(c)),
  );
  app.openapi(route("/api/v1/uplink/capture", "the uplink"), (c) => open("uplink", c.req.valid("query"), tokenOf(c)));
  app.openapi(route("/api/v1/pf/capture", "the PF's pool"), (c) => open("pf", c.req.valid("query"), tokenOf(c)));
  app.openapi(
    route("/api/v1/capture", "all VFs, the PF's pool and the uplink, an interface each"),
    (c) => open("all", c.req.valid("query"), tokenOf(c)),
  );
}
