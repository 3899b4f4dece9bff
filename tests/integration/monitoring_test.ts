/** `monitoring/`: judged by Prometheus and its promtool, with what a real fabric tells. */
import { assert, assertEquals } from "@std/assert";
import { freePorts, TestFabric } from "../support/fabric.ts";
import { must } from "../support/guests.ts";
import { judgedTest, run } from "../support/judges.ts";
import { TestProcess } from "../support/process.ts";
import { authorized } from "../support/token.ts";
import { until } from "../support/wait.ts";

const MONITORING = new URL("../../monitoring/", import.meta.url).pathname;
const PROMTOOL = "/usr/bin/promtool";

interface Panel {
  title: string;
  targets: { expr: string }[];
}

/** What the dashboard asks Prometheus, by panel. */
async function dashboard(): Promise<[string, string][]> {
  const { panels } = JSON.parse(await Deno.readTextFile(`${MONITORING}grafana.json`)) as { panels: Panel[] };
  return panels.flatMap(({ title, targets }) => targets.map(({ expr }): [string, string] => [title, expr]));
}

/** The scrape configuration as its user has it, with this fabric's port and a token made for it; answers its file. */
async function configure(dir: string, fabric: TestFabric): Promise<string> {
  const add = ["run", "-A", "--quiet", "services/cli/main.ts", "--run-dir", fabric.runDir, "token", "add"];
  await Deno.writeTextFile(`${dir}/token`, await run(Deno.execPath(), [...add, "prometheus", "read"]));
  await Deno.copyFile(`${MONITORING}alerts.yaml`, `${dir}/alerts.yaml`);
  const text = await Deno.readTextFile(`${MONITORING}prometheus.yaml`);
  const own = text.replaceAll("/etc/prometheus/ringfabric-token", `${dir}/token`)
    .replace("127.0.0.1:8080", new URL(fabric.info.api).host);
  assert(own.includes(dir) && own.includes(new URL(fabric.info.api).host));
  await Deno.writeTextFile(
    `${dir}/prometheus.yaml`,
    `global: { scrape_interval: 1s, evaluation_interval: 1s }\n${own}`,
  );
  return `${dir}/prometheus.yaml`;
}

judgedTest(["prometheus"], "promtool passes the metrics, the rules and the scrape configuration", async () => {
  await using fabric = await TestFabric.start(2, ["--guests", "1"]);
  const dir = Deno.makeTempDirSync({ prefix: "ringfabric-prometheus-" });
  try {
    await must(`${fabric.info.api}/api/v1/nic/uplink`, "PUT", { kind: "pcap", record: `${dir}/out.pcapng` });
    const response = await authorized(`${fabric.info.api}/metrics`);
    const text = await response.text();
    assert(text.includes('ringfabric_uplink_up{pool="uplink"} 1'), "the uplink's are among them");
    await using promtool = new TestProcess("promtool", PROMTOOL, ["check", "metrics"]);
    await promtool.write(text);
    await promtool.closeInput();
    const { code } = await promtool.child.status;
    assertEquals([code, promtool.all.trim()], [0, ""]);
    await run(PROMTOOL, ["check", "rules", `${MONITORING}alerts.yaml`]);
    // This also reads the rules that it names, and looks for the token's file.
    await run(PROMTOOL, ["check", "config", await configure(dir, fabric)]);
    const known = new Set([...text.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name));
    const asked = [await Deno.readTextFile(`${MONITORING}alerts.yaml`), ...(await dashboard()).map(([, expr]) => expr)];
    const names = [...asked.join("\n").matchAll(/\bringfabric_\w+/g)].map(([name]) => name);
    assert(names.length > 20);
    assertEquals(names.filter((name) => !known.has(name)), [], "nothing that the fabric does not tell");
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

judgedTest(
  ["prometheus"],
  "Prometheus scrapes a fabric; the rules hold and every panel has something to show",
  async () => {
    await using fabric = await TestFabric.start(2, ["--guests", "1"]);
    const dir = Deno.makeTempDirSync({ prefix: "ringfabric-prometheus-" });
    const address = `127.0.0.1:${freePorts()}`;
    const args = [`--config.file=${await configure(dir, fabric)}`, `--storage.tsdb.path=${dir}/data`];
    await using prometheus = new TestProcess("prometheus", "/usr/bin/prometheus", [
      ...args,
      `--web.listen-address=${address}`,
    ]);
    const ask = async (path: string) => {
      const response = await fetch(`http://${address}/api/v1/${path}`);
      return (await response.json()).data;
    };
    const query = async (expr: string) => (await ask(`query?query=${encodeURIComponent(expr)}`)).result as unknown[];
    try {
      const isUp = () => query('up{job="ringfabric"} == 1').then((found) => found.length === 1, () => false);
      await until("a scrape that was let in", isUp, 30_000);
      for (const [title, expr] of await dashboard()) {
        await until(`${title}: ${expr}`, async () => (await query(expr)).length > 0, 30_000);
      }
      const healths = async () => {
        const { groups } = await ask("rules") as { groups: { rules: { health: string; state: string }[] }[] };
        return groups.flatMap(({ rules }) => rules);
      };
      const rules = await until("every rule to have been looked at", async () => {
        const rules = await healths();
        return rules.length > 0 && rules.every(({ health }) => health !== "unknown") && rules;
      }, 30_000);
      const bad = rules.filter(({ health, state }) => health !== "ok" || state !== "inactive");
      assertEquals(bad, [], "a fabric in good health raises no alert");
    } finally {
      await prometheus.end();
      await Deno.remove(dir, { recursive: true });
    }
  },
);
