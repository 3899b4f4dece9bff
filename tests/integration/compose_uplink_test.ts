/** The compose cluster to the world: a network of Docker's as the uplink, and plain containers that have VFs. */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { DockerCluster } from "../support/docker.ts";
import { judgedTest } from "../support/judges.ts";
import { until } from "../support/wait.ts";

const SERVICES = ["nic", "pf", "vhost", "vf", "guest-a", "guest-b"];
const [PF, A] = [8080, 8090];
const DEADLINE_MS = 60_000;

judgedTest(["docker"], "docker-compose: guests on a network of Docker's, containers on VFs", async (t) => {
  await using cluster = await DockerCluster.start({
    COMPOSE_FILE: "compose.yaml:compose.uplink.yaml",
    COMPOSE_PROFILES: "netdev",
  });
  const received = async (to: string) =>
    (await cluster.ask(A, "POST", "/api/v1/ping", { to, count: 1, timeoutMs: 500 })).body.received;
  const reaches = (to: string) =>
    until(`guest-a to reach ${to}`, async () => (await received(to).catch(() => 0)) === 1, DEADLINE_MS);
  const uplink = async (spec: unknown) => await cluster.ask(PF, "PUT", "/api/v1/nic/uplink", spec);
  /** What a container's own deno says. */
  const exec = async (service: string, code: string) => {
    const id = (await cluster.compose("ps", "-q", service)).trim();
    return (await cluster.docker("exec", id, "deno", "eval", "--no-config", code)).trim();
  };
  const fetched = (url: string) =>
    `console.log(await fetch("${url}", { signal: AbortSignal.timeout(1000) }).then((r) => r.text(), () => "no way"))`;
  const policy = async (vf: number, patch: unknown) =>
    assertEquals((await cluster.ask(PF, "PATCH", `/api/v1/vfs/${vf}`, patch)).status, 200);

  await t.step("it builds, starts, and becomes healthy", async () => {
    await cluster.compose("config", "--quiet");
    await cluster.compose("build", "--quiet");
    await cluster.compose("up", "-d");
    for (const service of SERVICES) {
      const isHealthy = async () => (await cluster.state(service)).health === "healthy";
      await until(`${service} to be healthy`, isHealthy, DEADLINE_MS);
    }
  });
  await t.step("a network of Docker's is the guests' too", async () => {
    const { status, body } = await uplink("packet:eth1");
    assertEquals([status, body.state], [200, "up"], JSON.stringify(body));
    await reaches("10.0.255.1");
  });
  await t.step("and is so again when the NIC has died", async () => {
    const { restarts } = await cluster.state("nic");
    await cluster.kill("nic");
    await until("the NIC to have been started again", async () => {
      const now = await cluster.state("nic");
      return now.restarts > restarts && now.health === "healthy";
    }, DEADLINE_MS);
    await reaches("10.0.255.1");
  });
  await t.step("a TAP is made in the NIC's own container", async () => {
    const { status, body } = await uplink({ kind: "tap", name: "rf0", address: "10.9.0.1/16" });
    assertEquals([status, body.state], [200, "up"], JSON.stringify(body));
    assertStringIncludes(await exec("nic", "console.log(JSON.stringify(Deno.networkInterfaces()))"), "10.9.0.1");
  });
  await t.step("what the container may not is refused with what to do", async () => {
    const { status, body } = await uplink("packet:eth7");
    assertEquals(status, 409);
    assertMatch(body.detail, /eth7/);
    assertEquals((await cluster.ask(PF, "GET", "/api/v1/nic/uplink")).body.spec.name, "rf0");
  });
  await t.step("two plain containers talk over VFs", async () => {
    const says = async (from: string, url: string, what: string) =>
      await until(`${from} to hear ${what}`, async () => (await exec(from, fetched(url))) === what, DEADLINE_MS);
    await says("app-a", "http://10.0.1.2:8000", "hello from app-b");
    await says("app-b", "http://10.0.1.1:8000", "hello from app-a");
    await reaches("10.0.1.1");
    const names = await exec("app-a", "console.log(Deno.networkInterfaces().map(({ name }) => name).join())");
    assertEquals([...new Set(names.split(","))].sort(), ["eth0", "lo"], "it has no other network");
  });
  await t.step("with their VFs' policy", async () => {
    await policy(3, { vlan: 100 });
    assertEquals(await exec("app-a", fetched("http://10.0.1.2:8000")), "no way");
    await policy(2, { vlan: 100 });
    const url = "http://10.0.1.2:8000";
    await until(
      "the VLAN to bring them together",
      async () => /hello/.test(await exec("app-a", fetched(url))),
      DEADLINE_MS,
    );
    const vf = (await cluster.ask(PF, "GET", "/api/v1/vfs/2")).body;
    assertStringIncludes(vf.owner, "netdev");
  });
  await t.step("it stops cleanly", async () => {
    await cluster.compose("stop");
    const ids = (await cluster.compose("ps", "-q")).trim().split("\n");
    const codes = await cluster.docker("inspect", "-f", "{{.Name}} {{.State.ExitCode}}", ...ids);
    const unclean = codes.trim().split("\n").filter((line) => !/ 0$/.test(line) && !/app-/.test(line));
    assertEquals(unclean, [], await cluster.compose("logs", "--tail", "20"));
    await cluster.compose("down", "-v");
  });
});
