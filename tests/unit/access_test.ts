/** Who may ask what: tokens and their roles, other hosts' names, other sites' pages, methods that there are not. */
import "../support/quiet.ts";
import { assertEquals } from "@std/assert";
import { Access, createApp, hashToken, type Role } from "../../shared/api/mod.ts";
import { pfApi } from "../../services/pf/api.ts";
import { TestPf } from "../support/test_pf.ts";

const TOKENS: Record<string, Role> = {
  operator: { role: "operator" },
  service: { role: "service" },
  reader: { role: "read" },
  tenant: { role: "vf", vf: 1 },
};

/** A PF's API with a token for each role. */
async function withTokens(test: (status: Asks, rewrite: (tokens: Record<string, Role>) => void) => Promise<void>) {
  const file = await Deno.makeTempFile();
  const write = (tokens: Record<string, Role>) => {
    const entries = Object.entries(tokens).map(([name, role]) => ({ name, ...role, sha256: hashToken(name) }));
    Deno.writeTextFileSync(file, JSON.stringify({ tokens: entries }));
    Deno.utimeSync(file, new Date(), new Date(Date.now() + ++writes * 1000));
  };
  let writes = 0;
  write(TOKENS);
  try {
    await using pf = await TestPf.start(2);
    const app = pfApi(pf.fabric, new Access({ file }));
    await test(async (token, method, path, headers = {}) => {
      const isWrite = !["GET", "HEAD", "DELETE"].includes(method);
      return await app.request(path, {
        method,
        headers: {
          ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
          ...(isWrite ? { "content-type": "application/json" } : {}),
          ...headers,
        },
        ...(isWrite ? { body: "{}" } : {}),
      });
    }, write);
  } finally {
    await Deno.remove(file);
  }
}

type Asks = (token: string | undefined, method: string, path: string, headers?: HeadersInit) => Promise<Response>;

Deno.test("a token is good for what its role says, and a refusal says what that is", async () => {
  await withTokens(async (ask) => {
    const cases: [string | undefined, string, string, number][] = [
      [undefined, "GET", "/api/v1/vfs", 401],
      ["", "GET", "/api/v1/vfs", 401],
      ["other", "GET", "/api/v1/vfs", 401],
      [undefined, "GET", "/metrics", 401],
      [undefined, "GET", "/api/v1/events", 401],
      [undefined, "GET", "/nowhere", 401],
      [undefined, "GET", "/healthz", 200],
      [undefined, "GET", "/readyz", 200],
      [undefined, "GET", "/openapi.json", 200],
      [undefined, "GET", "/docs", 200],
      ["operator", "PATCH", "/api/v1/nic", 200],
      ["operator", "POST", "/api/v1/services/vf/upgrade", 200],
      ["operator", "POST", "/api/v1/services/pf/upgrade", 409],
      [undefined, "POST", "/api/v1/services/pf/upgrade", 401],
      ...["nic", "vhost", "vf", "pf"].flatMap((service): [string, string, string, number][] => [
        ["tenant", "POST", `/api/v1/services/${service}/upgrade`, 403],
        ["reader", "POST", `/api/v1/services/${service}/upgrade`, 403],
      ]),
      ["service", "PATCH", "/api/v1/vfs/0", 200],
      ["reader", "GET", "/api/v1/vfs", 200],
      ["reader", "HEAD", "/api/v1/vfs", 200],
      ["reader", "GET", "/metrics", 200],
      ["reader", "PATCH", "/api/v1/vfs/0", 403],
      ["reader", "DELETE", "/api/v1/vports/0", 403],
      ["reader", "GET", "/api/v1/operations", 200],
      ["reader", "GET", "/api/v1/operations/none", 404],
      ["tenant", "GET", "/api/v1/vfs/1", 200],
      ["tenant", "PATCH", "/api/v1/vfs/1", 200],
      ["tenant", "GET", "/api/v1/vfs/1/stats", 200],
      ["tenant", "PUT", "/api/v1/vfs/1/mode", 403],
      ["tenant", "GET", "/api/v1/vfs/1/uplink", 200],
      ["tenant", "PUT", "/api/v1/vfs/1/uplink", 403],
      ["tenant", "GET", "/api/v1/vfs/0/uplink", 403],
      ["tenant", "PUT", "/api/v1/nic/uplink", 403],
      ["reader", "GET", "/api/v1/nic/uplink", 200],
      ["reader", "PUT", "/api/v1/nic/uplink", 403],
      ["operator", "PUT", "/api/v1/nic/uplink", 422],
      ["tenant", "PATCH", "/api/v1/vfs/1/guest", 403],
      ["tenant", "GET", "/api/v1/vfs/0", 403],
      ["tenant", "PATCH", "/api/v1/vfs/01", 403],
      ["tenant", "GET", "/api/v1/vfs", 403],
      ["tenant", "GET", "/api/v1/events", 403],
      ["tenant", "GET", "/api/v1/operations", 403],
      ["tenant", "GET", "/api/v1/operations/none", 403],
    ];
    for (const [token, method, path, expected] of cases) {
      const response = await ask(token, method, path);
      await response.body?.cancel();
      assertEquals(response.status, expected, `${token} ${method} ${path}`);
      assertEquals(response.headers.get("www-authenticate") !== null, expected === 401);
    }
    const { detail, reason } = await (await ask("tenant", "GET", "/api/v1/nic")).json();
    assertEquals([detail, reason], [
      "this token looks at vf 1 and changes its policy: GET /api/v1/nic is for another one",
      "not-allowed",
    ]);
  });
});

Deno.test("a token is exchanged while the service runs", async () => {
  await withTokens(async (ask, rewrite) => {
    assertEquals((await ask("operator", "GET", "/api/v1/vfs")).status, 200);
    rewrite({ next: { role: "operator" } });
    assertEquals((await ask("next", "GET", "/api/v1/vfs")).status, 200);
    assertEquals((await ask("operator", "GET", "/api/v1/vfs")).status, 401);
  });
});

Deno.test("requests by another name or of another site's page are refused, whatever they bring", async () => {
  await withTokens(async (ask) => {
    const url = (host: string) => `http://${host}/api/v1/vfs`;
    const cases: [string, HeadersInit, number][] = [
      [url("localhost"), {}, 200],
      [url("127.0.0.1:8080"), {}, 200],
      [url("[::1]:8080"), {}, 200],
      [url("pf:8080"), {}, 200],
      [url("evil.example:8080"), {}, 421],
      [url("localhost.evil.example"), {}, 421],
      [url("127.0.0.1.nip.io"), {}, 421],
      [url("localhost"), { origin: "http://localhost" }, 200],
      [url("localhost"), { origin: "http://localhost:9999" }, 403],
      [url("localhost"), { origin: "https://evil.example" }, 403],
      [url("localhost"), { origin: "null" }, 403],
      [url("localhost"), { "sec-fetch-site": "same-origin" }, 200],
      [url("localhost"), { "sec-fetch-site": "cross-site" }, 403],
      [url("localhost"), { "sec-fetch-site": "same-site" }, 403],
      [url("localhost"), { "sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors" }, 403],
      [url("localhost"), { "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate" }, 200],
    ];
    for (const [where, headers, expected] of cases) {
      const response = await ask("operator", "GET", where, headers);
      assertEquals(response.status, expected, `${where} ${JSON.stringify(headers)}`);
      assertEquals(response.headers.get("x-content-type-options"), "nosniff");
      assertEquals(response.headers.get("access-control-allow-origin"), null);
    }
  });
});

Deno.test("what a path has no method for is 405, with those that it has", async () => {
  await withTokens(async (ask) => {
    const response = await ask("operator", "DELETE", "/api/v1/vfs/0");
    assertEquals([response.status, response.headers.get("allow")], [405, "GET, HEAD, PATCH"]);
    assertEquals((await response.json()).detail, "DELETE is not for /api/v1/vfs/0: GET, HEAD, PATCH are");
    assertEquals((await ask("operator", "GET", "/nowhere")).status, 404);
  });
});

Deno.test("an effect needs a JSON body: no form of another page can make one", async () => {
  await using pf = await TestPf.start(1);
  const post = async (init: RequestInit) =>
    (await pf.app.request("/api/v1/vports", { method: "POST", ...init })).status;
  assertEquals(await post({}), 415);
  assertEquals(await post({ body: "{}", headers: { "content-type": "text/plain" } }), 415);
  assertEquals(await post({ body: new URLSearchParams({ a: "b" }) }), 415);
  assertEquals(await post({ headers: { "content-type": "application/json" } }), 400);
  assertEquals(await post({ body: "{}", headers: { "content-type": "application/json" } }), 201);
});

Deno.test("a body that does not come is not waited for", async () => {
  const app = createApp(undefined, { bodyMsMax: 20 });
  app.post("/things", (c) => c.json({}));
  const never = new ReadableStream<Uint8Array>({ start: (body) => body.enqueue(new TextEncoder().encode("{")) });
  const headers = { host: "127.0.0.1", "content-type": "application/json" };
  const answer = await app.request("http://127.0.0.1/things", { method: "POST", headers, body: never });
  assertEquals([answer.status, (await answer.json()).field], [408, "body"]);
});

Deno.test("a host that is no name is refused as one that is not ours", async () => {
  const app = createApp(undefined);
  for (const [url, status] of [["http://127.0.0.1/healthz", 200], ["http://evil.example/healthz", 421]] as const) {
    assertEquals((await app.request(url)).status, status);
  }
  const request = new Request("http://127.0.0.1/healthz");
  Object.defineProperty(request, "url", { value: "http://a b/healthz" });
  assertEquals((await app.request(request)).status, 421);
});
