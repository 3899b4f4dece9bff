/** The PF's HTTP API: the routes of shared/api/pf.ts, events, metrics and documentation. */
import type { OpenAPIHono } from "@hono/zod-openapi";
import {
  type Access,
  createApp,
  eventStream,
  type LiveEvent,
  mountCaptures,
  mountLive,
  mountOpenApi,
  mountPausedAddresses,
  mountPf,
  mountReadiness,
  mountToken,
} from "../../shared/api/mod.ts";
import { mountDocs } from "./docs.ts";
import type { Fabric } from "./fabric.ts";
import { Metrics } from "./metrics.ts";
import { mountPage } from "./page.ts";

/** The app over `fabric`. */
export function pfApi(fabric: Fabric, access: Access | undefined): OpenAPIHono {
  const app = createApp(access);
  const metrics = new Metrics();
  mountReadiness(app, () => fabric.unreadiness);
  app.get("/metrics", async (c) => {
    const [nic, vhost] = await Promise.all([fabric.nicState(), fabric.vhostState()]);
    const text = await metrics.text(nic, {
      vhost,
      numVfs: fabric.settings.vfs.length,
      carrier: fabric.carrier,
      captures: fabric.capturesTold,
    });
    return c.text(text, 200, { "content-type": "text/plain; version=0.0.4; charset=utf-8" });
  });
  app.get("/api/v1/events", (c) => {
    const lastId = c.req.header("last-event-id");
    return eventStream<LiveEvent>(c, (listener) => {
      return fabric.subscribe((event, id, at = new Date().toISOString()) => listener({ ...event, at }, id), lastId);
    });
  });
  mountPf(app, fabric);
  mountPausedAddresses(app, fabric.pausedAddresses);
  mountCaptures(app, (port, query, by) => fabric.capture(port, query, by));
  mountLive(app, fabric);
  mountToken(app);
  mountPage(app);
  mountDocs(app);
  mountOpenApi(app, {
    title: "ringfabric PF",
    description: "Control plane of a software SR-IOV NIC. Events: GET /api/v1/events (SSE). Metrics: GET /metrics.",
  });
  return app;
}
