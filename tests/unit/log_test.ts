/** The log: text or JSON, with the request that something is done for, from service to service. */
import { assertEquals, assertMatch } from "@std/assert";

const ROOT = new URL("../../", import.meta.url).pathname;

/** What a program that uses the log writes to standard error. */
async function logOf(code: string, env: Record<string, string>): Promise<string[]> {
  const { stderr, success } = await new Deno.Command(Deno.execPath(), {
    args: ["eval", "-q", `import { createApp, log, Peer } from "${ROOT}shared/api/mod.ts";\n${code}`],
    cwd: ROOT,
    env: { NO_COLOR: "1", RINGFABRIC_LOG: "info", ...env },
  }).output();
  const text = new TextDecoder().decode(stderr);
  assertEquals(success, true, text);
  return text.trimEnd().split("\n");
}

/** A service whose route asks another one, whose route logs. */
const TWO_SERVICES = `
  const inner = createApp(undefined);
  inner.get("/thing", (c) => (log("warn", "nic", 'it is {"a":1}'), c.json({ id: c.req.header("x-request-id") })));
  const innerServer = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, inner.fetch);
  const outer = createApp(undefined);
  const peer = new Peer("nic", "http://127.0.0.1:" + innerServer.addr.port, undefined);
  outer.get("/thing", async (c) => c.json(await peer.ask("GET", "/thing")));
  const answer = await outer.request("http://127.0.0.1/thing", { headers: { "x-request-id": "from-me-1" } });
  if (answer.headers.get("x-request-id") !== "from-me-1" || (await answer.json()).id !== "from-me-1") Deno.exit(1);
  const mine = await outer.request("http://127.0.0.1/healthz", { headers: { "x-request-id": "no good\\tone" } });
  if (!/^[0-9a-f]{8}$/.test(mine.headers.get("x-request-id"))) Deno.exit(1);
  await innerServer.shutdown();`;

Deno.test("a line has its time, its level, its service and the request that has led to it", async () => {
  const lines = await logOf(TWO_SERVICES, {});
  assertEquals(lines.length, 1);
  assertMatch(lines[0] ?? "", /^\d{4}-\d\d-\d\dT[\d:.]+Z warn {2}nic {3}it is \{"a":1\} \(request from-me-1\)$/);
});

Deno.test("RINGFABRIC_LOG_FORMAT=json: a line is an object", async () => {
  const [line = ""] = await logOf(TWO_SERVICES, { RINGFABRIC_LOG_FORMAT: "json" });
  const { level, logger, message, request } = JSON.parse(line);
  assertEquals([level, logger, message, request], ["WARN", "ringfabric.nic", 'it is {"a":1}', "from-me-1"]);
});

Deno.test("RINGFABRIC_LOG says from which level on", async () => {
  const code = 'log("info", "pf", "a"); log("warn", "pf", "b"); log("error", "pf", "c");';
  assertEquals((await logOf(code, { RINGFABRIC_LOG: "warn" })).map((line) => line.at(-1)), ["b", "c"]);
  assertEquals((await logOf(code, { RINGFABRIC_LOG: "nonsense" })).map((line) => line.at(-1)), ["a", "b", "c"]);
});
