/** OpenTelemetry, as Deno exports it: a collector on loopback gets what each service does, under the service's name. */
import { assert, assertEquals } from "@std/assert";
import { freePorts, TestFabric } from "../support/fabric.ts";
import { TestProcess } from "../support/process.ts";
import { authorized } from "../support/token.ts";
import { until } from "../support/wait.ts";

const ROOT = new URL("../../", import.meta.url);
const SERVICES = ["nic", "pf", "vhost", "vf", "guest-0"].map((name) => `ringfabric-${name}`);

/** Something exported, and by whom. */
interface Exported {
  service: string;
  /** Everything about it, as JSON. */
  text: string;
}

interface Attribute {
  key: string;
  value: { stringValue?: string };
}

/** A collector that takes OTLP over HTTP, in JSON. */
class Collector implements AsyncDisposable {
  readonly #server: Deno.HttpServer<Deno.NetAddr>;
  /** What came, by path. */
  readonly #got = new Map<string, Exported[]>();

  constructor() {
    this.#server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, async (request) => {
      const body = await request.json();
      const path = `${request.method} ${new URL(request.url).pathname}`;
      const resources = (body.resourceSpans ?? body.resourceLogs ?? body.resourceMetrics) as {
        resource: { attributes: Attribute[] };
      }[];
      const before = this.#got.get(path) ?? [];
      const now = resources.map((one) => ({
        service: one.resource.attributes.find(({ key }) => key === "service.name")?.value.stringValue ?? "",
        text: JSON.stringify(one),
      }));
      this.#got.set(path, [...before, ...now]);
      return Response.json({});
    });
  }

  /** The environment of who is to export to here. */
  get env(): Record<string, string> {
    return {
      OTEL_DENO: "true",
      OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${this.#server.addr.port}`,
      OTEL_EXPORTER_OTLP_PROTOCOL: "http/json",
      OTEL_BSP_SCHEDULE_DELAY: "100",
      OTEL_BLRP_SCHEDULE_DELAY: "100",
      OTEL_METRIC_EXPORT_INTERVAL: "500",
    };
  }

  of(path: string, service?: string): Exported[] {
    return (this.#got.get(path) ?? []).filter((one) => service === undefined || one.service === service);
  }

  services(path: string): string[] {
    return [...new Set(this.of(path).map(({ service }) => service))];
  }

  /** Spans of a service with a method and the end of a URL: the ids of their traces. */
  traces(service: string, method: string, path: string): string[] {
    return this.of("POST /v1/traces", service).flatMap(({ text }) => {
      const { scopeSpans } = JSON.parse(text) as {
        scopeSpans: { spans: { traceId: string; name: string; attributes: Attribute[] }[] }[];
      };
      return scopeSpans.flatMap(({ spans }) => spans).filter(({ name, attributes }) =>
        name === method && attributes.some(({ key, value }) => key === "url.full" && value.stringValue?.endsWith(path))
      ).map(({ traceId }) => traceId);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.shutdown();
  }
}

function start(env: Record<string, string>): Promise<TestFabric> {
  return TestFabric.start(1, ["--guests", "1"], Deno.makeTempDirSync({ prefix: "ringfabric-" }), ROOT, env);
}

Deno.test("every service exports traces, logs and metrics under its own name", async () => {
  await using collector = new Collector();
  await using fabric = await start(collector.env);
  const patched = await authorized(`${fabric.info.api}/api/v1/vfs/0`, {
    method: "PATCH",
    headers: { "content-type": "application/json" },
    body: '{"vlan":5}',
  });
  assertEquals(patched.status, 200);
  await patched.body?.cancel();
  for (const service of SERVICES) {
    await until(`traces of ${service}`, () => collector.services("POST /v1/traces").includes(service));
  }
  // The others have threads that move frames and do not stop for it.
  for (const service of ["ringfabric-pf", "ringfabric-vf"]) {
    await until(`metrics of ${service}`, () => collector.services("POST /v1/metrics").includes(service));
  }
  const followed = await until(
    "the request to be followed from the PF to the NIC",
    () => {
      const [trace] = collector.traces("ringfabric-pf", "PATCH", "/api/v1/vfs/0");
      return trace && collector.traces("ringfabric-nic", "PUT", "/api/v1/programme").includes(trace);
    },
  );
  assert(followed);
  const logged = await until("the PF's log", () => {
    return collector.of("POST /v1/logs", "ringfabric-pf").find(({ text }) => text.includes("vlan"))?.text;
  });
  assert(logged.includes('"severityText":"INFO"'), logged);
  await until("the log on standard error too", () => /info {2}pf {4}vf 0: \{"vlan":5\}/.test(fabric.process.errors));
  await fabric.process.end("SIGINT");
  assert(!fabric.process.errors.includes("killing it"), "its services end by themselves");
  for (const { service, text } of collector.of("POST /v1/logs")) {
    assert(!text.includes("READY {"), `${service} exports what it tells its supervisor`);
  }
});

Deno.test("a token that is printed is not exported", async () => {
  await using collector = new Collector();
  const runDir = Deno.makeTempDirSync({ prefix: "ringfabric-" });
  const env = { ...collector.env, RINGFABRIC_TOKEN: "" };
  const [port, program] = [freePorts(), ["run", "-A", "--quiet"]];
  const args = [...program, "services/up/main.ts", ...["--vfs", "1", "--port", `${port}`, "--run-dir", runDir]];
  const up = new TestProcess("up", Deno.execPath(), args, { cwd: ROOT, env });
  try {
    const [, operators = ""] = await up.expect(/#token=(\w+)/, 30_000);
    const add = [...program, "services/cli/main.ts", "--run-dir", runDir, "token", "add", "bob", "read"];
    const { stdout } = await new Deno.Command(Deno.execPath(), { args: add, cwd: ROOT, env }).output();
    const bobs = new TextDecoder().decode(stdout).trim();
    assertEquals([operators.length, bobs.length], [64, 64]);
    await up.end("SIGINT");
    await until("up's log", () => collector.of("POST /v1/logs").some(({ text }) => text.includes("up    stopping")));
    for (const path of ["POST /v1/traces", "POST /v1/logs", "POST /v1/metrics"]) {
      for (const { service, text } of collector.of(path)) {
        assert(!text.includes(operators) && !text.includes(bobs), `${service} exports a token: ${path}`);
      }
    }
  } finally {
    await up.end("SIGINT");
    await Deno.remove(runDir, { recursive: true });
  }
});

Deno.test("a service name that the user has set stays", async () => {
  await using collector = new Collector();
  await using _fabric = await start({ ...collector.env, OTEL_SERVICE_NAME: "my-nic" });
  await until("traces of the PF", () => collector.traces("my-nic", "GET", "/readyz").length > 0);
  assertEquals(collector.services("POST /v1/traces"), ["my-nic"]);
});
