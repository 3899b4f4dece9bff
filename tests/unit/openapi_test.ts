/** The OpenAPI documents of all services, as a linter reads them. */
import "../support/quiet.ts";
import { assertEquals } from "@std/assert";
import type { OpenAPIHono } from "@hono/zod-openapi";
import { createConfig, lintFromString } from "@redocly/openapi-core";
import { guestApi } from "../../services/guest/api.ts";
import { nicApi } from "../../services/nic/api.ts";
import { pfApi } from "../../services/pf/api.ts";
import { vfApi } from "../../services/vf/api.ts";
import { vhostApi } from "../../services/vhost/api.ts";
import { TestPf } from "../support/test_pf.ts";

/** Routes are made over these and never called: the document does not depend on what is behind them. */
const nothing = <T>() => ({}) as T;

async function complaints(app: OpenAPIHono): Promise<string[]> {
  const source = await (await app.request("/openapi.json")).text();
  const config = await createConfig({ extends: ["recommended"], rules: { "no-server-trailing-slash": "off" } });
  const problems = await lintFromString({ source, config });
  return problems.map(({ ruleId, message, location }) => `${ruleId}: ${message} (${location[0]?.pointer})`);
}

Deno.test("a linter has nothing to say against any service's document", async () => {
  await using pf = await TestPf.start(1);
  const apps: Record<string, OpenAPIHono> = {
    pf: pfApi(pf.fabric, undefined),
    nic: nicApi(nothing(), nothing(), undefined),
    vhost: vhostApi(nothing(), undefined),
    vf: vfApi(nothing(), undefined),
    guest: guestApi(nothing(), undefined),
  };
  for (const [name, app] of Object.entries(apps)) assertEquals(await complaints(app), [], name);
});

Deno.test("every operation has a name of its own, a summary, a tag, and says that it asks for a token", async () => {
  await using pf = await TestPf.start(1);
  const { paths, security, components } = await (await pf.app.request("/openapi.json")).json();
  // deno-lint-ignore no-explicit-any
  const operations = Object.values(paths).flatMap((path) => Object.values(path as Record<string, any>));
  assertEquals(new Set(operations.map(({ operationId }) => operationId)).size, operations.length);
  for (const { summary, tags, responses } of operations) {
    assertEquals([typeof summary, tags.length, "401" in responses, "403" in responses], ["string", 1, true, true]);
  }
  assertEquals([security, components.securitySchemes.token.scheme], [[{ token: [] }], "bearer"]);
});

Deno.test("a change of mode says what Prefer does, and where an operation is", async () => {
  await using pf = await TestPf.start(1);
  for (const app of [pf.app, vfApi(nothing(), undefined)]) {
    const { paths } = await (await app.request("/openapi.json")).json();
    for (const kind of ["vfs", "vports"]) {
      const { parameters, responses } = paths[`/api/v1/${kind}/{id}/mode`].put;
      const names = parameters.map(({ name, in: where }: Record<string, string>) => `${name} ${where}`).sort();
      assertEquals(names, ["Prefer header", "id path"]);
      assertEquals(Object.keys(responses[202].headers), ["Location", "Retry-After", "Preference-Applied"]);
      assertEquals(responses[202].content["application/json"].schema, { $ref: "#/components/schemas/Operation" });
    }
    assertEquals(paths["/api/v1/operations/{id}"].get.operationId, "getOperationsId");
  }
});
