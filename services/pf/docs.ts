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
<script src="/docs/start.js"></script>
</body>
</html>
`;

/** Takes the token out of the address, where it would be seen and remembered, and gives it to the page. */
const START = `const token = new URLSearchParams(location.hash.slice(1)).get("token");
if (token) history.replaceState(null, "", location.pathname);
const ui = SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#ui",
  onComplete: () => token && ui.preauthorizeApiKey("token", token),
});
`;

/** Mounts `/docs`. */
export function mountDocs(app: OpenAPIHono): void {
  app.get("/docs", (c) => c.html(PAGE));
  app.get("/docs/start.js", (c) => c.body(START, 200, { "content-type": "text/javascript; charset=utf-8" }));
  app.get("/docs/swagger-ui-bundle.js", async (c) => {
    const { default: text } = await import("swagger-ui-dist/swagger-ui-bundle.js", { with: { type: "text" } });
    return c.body(text, 200, { "content-type": "text/javascript; charset=utf-8" });
  });
  app.get("/docs/swagger-ui.css", async (c) => {
    const { default: text } = await import("swagger-ui-dist/swagger-ui.css", { with: { type: "text" } });
    return c.body(text, 200, { "content-type": "text/css; charset=utf-8" });
  });
}
