/** The API as a page: Swagger UI from npm, served from here so that it works without the internet. */
import type { OpenAPIHono } from "@hono/zod-openapi";

const PAGE = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>ringfabric API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({ url: "/openapi.json", dom_id: "#ui" });</script>
</body>
</html>
`;

/** Mounts `/docs`. */
export function mountDocs(app: OpenAPIHono): void {
  app.get("/docs", (c) => c.html(PAGE));
  app.get("/docs/swagger-ui-bundle.js", async (c) => {
    const { default: text } = await import("swagger-ui-dist/swagger-ui-bundle.js", { with: { type: "text" } });
    return c.body(text, 200, { "content-type": "text/javascript; charset=utf-8" });
  });
  app.get("/docs/swagger-ui.css", async (c) => {
    const { default: text } = await import("swagger-ui-dist/swagger-ui.css", { with: { type: "text" } });
    return c.body(text, 200, { "content-type": "text/css; charset=utf-8" });
  });
}
