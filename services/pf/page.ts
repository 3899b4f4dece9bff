/**
 * The page: what the fabric does, as people look at it. Its modules are served as they are in `page/`, beside the two
 * libraries from npm, so that there is nothing to build and no request goes anywhere else.
 */
import type { OpenAPIHono } from "@hono/zod-openapi";
import { etag } from "hono/etag";

type Text = () => Promise<{ default: string }>;

const PAGE: Text = () => import("./page/index.html", { with: { type: "text" } });

/** Everything that the page consists of, by its name under /page/. */
const PARTS: Record<string, Text> = {
  "base.css": () => import("./page/base.css", { with: { type: "text" } }),
  "parts.css": () => import("./page/parts.css", { with: { type: "text" } }),
  "icon.svg": () => import("./page/icon.svg", { with: { type: "text" } }),
  "vendor/preact.js": () => import("./page/vendor/preact.js", { with: { type: "text" } }),
  "vendor/uplot.js": () => import("./page/vendor/uplot.js", { with: { type: "text" } }),
  "vendor/uplot.css": () => import("uplot/dist/uPlot.min.css", { with: { type: "text" } }),
  "answered.js": () => import("./page/answered.js", { with: { type: "text" } }),
  "api.js": () => import("./page/api.js", { with: { type: "text" } }),
  "app.js": () => import("./page/app.js", { with: { type: "text" } }),
  "attach.js": () => import("./page/attach.js", { with: { type: "text" } }),
  "engine.js": () => import("./page/engine.js", { with: { type: "text" } }),
  "events.js": () => import("./page/events.js", { with: { type: "text" } }),
  "fabric.js": () => import("./page/fabric.js", { with: { type: "text" } }),
  "form.js": () => import("./page/form.js", { with: { type: "text" } }),
  "format.js": () => import("./page/format.js", { with: { type: "text" } }),
  "latency.js": () => import("./page/latency.js", { with: { type: "text" } }),
  "lines.js": () => import("./page/lines.js", { with: { type: "text" } }),
  "live.js": () => import("./page/live.js", { with: { type: "text" } }),
  "login.js": () => import("./page/login.js", { with: { type: "text" } }),
  "main.js": () => import("./page/main.js", { with: { type: "text" } }),
  "mode.js": () => import("./page/mode.js", { with: { type: "text" } }),
  "picture.js": () => import("./page/picture.js", { with: { type: "text" } }),
  "picture_panel.js": () => import("./page/picture_panel.js", { with: { type: "text" } }),
  "picture_rows.js": () => import("./page/picture_rows.js", { with: { type: "text" } }),
  "plots.js": () => import("./page/plots.js", { with: { type: "text" } }),
  "port.js": () => import("./page/port.js", { with: { type: "text" } }),
  "ports.js": () => import("./page/ports.js", { with: { type: "text" } }),
  "schema.js": () => import("./page/schema.js", { with: { type: "text" } }),
  "table.js": () => import("./page/table.js", { with: { type: "text" } }),
  "theme.js": () => import("./page/theme.js", { with: { type: "text" } }),
  "uplink_form.js": () => import("./page/uplink_form.js", { with: { type: "text" } }),
};

const TYPES: Record<string, string> = { css: "text/css", js: "text/javascript", svg: "image/svg+xml" };

/** Mounts `/` and what it consists of: open to everybody, since it says nothing about this fabric. */
export function mountPage(app: OpenAPIHono): void {
  app.use("/page/*", etag());
  app.get("/", async (c) => c.html((await PAGE()).default, 200, { "cache-control": "no-cache" }));
  for (const [name, text] of Object.entries(PARTS)) {
    const type = `${TYPES[name.split(".").at(-1) ?? ""]}; charset=utf-8`;
    app.get(`/page/${name}`, async (c) => {
      return c.body((await text()).default, 200, { "content-type": type, "cache-control": "no-cache" });
    });
  }
}
