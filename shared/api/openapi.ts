/**
 * A service's OpenAPI document. What every operation has (the token, the refusals that any request may get, a name, a
 * tag) is put in here, once, instead of at each route.
 */
import type { OpenAPIHono, RouteConfig } from "@hono/zod-openapi";
import { Problem } from "./problem.ts";

/** What the document says of the whole API. */
export interface ApiInfo {
  title: string;
  description: string;
}

const refusal = (description: string) => ({
  content: { "application/problem+json": { schema: Problem } },
  description,
});
const REFUSALS = {
  401: refusal("No token came, or one that is not good"),
  403: refusal("The token is not good for this, or another site's page asks"),
};
const BODY_REFUSALS = {
  400: refusal("The body is not JSON"),
  413: refusal("The body is too large"),
  415: refusal("The body is of another kind"),
};

/** `get /api/v1/vfs/{id}/stats` as a name for programs: getVfsIdStats. */
function operationId({ method, path }: RouteConfig): string {
  const parts = path.split("/").filter((part) => part !== "" && part !== "api" && part !== "v1");
  const words = parts.flatMap((part) => part.replaceAll(/[{}]/g, "").split(/[^a-zA-Z0-9]+/));
  return method + words.map((word) => word.charAt(0).toUpperCase() + word.slice(1)).join("");
}

function complete(route: RouteConfig): void {
  const answer = route.responses[200] ?? route.responses[201] ?? route.responses[202];
  route.operationId ??= operationId(route);
  const said = answer && "description" in answer ? answer.description : undefined;
  route.summary ??= route.description ?? said ?? route.path;
  route.tags ??= [route.path.split("/")[3] ?? "service"];
  route.responses = { ...REFUSALS, ...(route.request?.body ? BODY_REFUSALS : {}), ...route.responses };
}

/** Serves the document of `app`'s routes, which are all there by now. */
export function mountOpenApi(app: OpenAPIHono, { title, description }: ApiInfo): void {
  for (const definition of app.openAPIRegistry.definitions) if (definition.type === "route") complete(definition.route);
  app.openAPIRegistry.registerComponent("securitySchemes", "token", {
    type: "http",
    scheme: "bearer",
    description: "The operator's token is in the file `token` of the fabric's run directory",
  });
  app.doc31("/openapi.json", {
    openapi: "3.1.0",
    info: {
      title,
      version: "1",
      description,
      license: { name: "Apache-2.0", url: "https://www.apache.org/licenses/LICENSE-2.0" },
    },
    servers: [{ url: "/", description: "This service" }],
    security: [{ token: [] }],
  });
}
