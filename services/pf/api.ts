/** The PF's HTTP API: the routes of shared/api/pf.ts, events, metrics and documentation. */
import type { OpenAPIHono } from "@hono/zod-openapi";
import {
  type Access,
  createApp,
  eventStream,
  mountCaptures,
  mountOpenApi,
  mountPf,
  mountReadiness,
  type PfEvent,
} from "../../shared/api/mod.ts";
import { mountDocs } from "./docs.ts";
import type { Fabric } from "./fabric.ts";
import { Metrics } from "./metrics.ts";

/** The app over `fabric`. */
export function pfApi(fabric: Fabric, access: Access | undefined): OpenAPIHono {
  const app = createApp(access);
  const metrics = new Metrics();
  app.get("/", (c) => c.redirect("/docs"));
  mountReadiness(app, () => fabric.unreadiness);
  app.get("/metrics", async (c) => {
    const text = await metrics.text(await fabric.nicState(), {
      numVfs: fabric.settings.vfs.length,
      carrier: fabric.carrier,
    });
    return c.text(text, 200, { "content-type": "text/plain; version=0.0.4; charset=utf-8" });
  });
  app.get("/api/v1/events", (c) => {
    const lastId = c.req.header("last-event-id");
    return eventStream<PfEvent>(c, (listener) => fabric.subscribe(listener, lastId));
  });
  mountPf(app, fabric);
  mountCaptures(app, (port, query) => fabric.capture(port, query));
  mountDocs(app);
  mountOpenApi(app, {
    title: "ringfabric PF",
    description: "Control plane of a software SR-IOV NIC. Events: GET /api/v1/events (SSE). Metrics: GET /metrics.",
  });
  return app;
}
