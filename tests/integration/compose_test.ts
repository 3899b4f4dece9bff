/** The compose cluster: built, healthy, controlled through its published ports, and standing up again after each death. */
import { assert, assertEquals } from "@std/assert";
import { DockerCluster } from "../support/docker.ts";
import { judgedTest } from "../support/judges.ts";
import { until } from "../support/wait.ts";

const SERVICES = ["nic", "pf", "vhost", "vf", "guest-a", "guest-b"];
const [PF, A, B] = [8080, 8090, 8091];
const DEADLINE_MS = 60_000;

judgedTest(
  ["docker"],
  "docker-compose: ping across, MAC, VLAN and modes by HTTP, every container killed once",
  async (t) => {
    await using cluster = await DockerCluster.start();
    const ping = async (from: number, to: string, count = 3) =>
      (await cluster.ask(from, "POST", "/api/v1/ping", { to, count, intervalMs: 10, timeoutMs: 500 })).body.received;
    const reaches = (from: number, to: string) =>
      until(`port ${from} to reach ${to}`, async () => (await ping(from, to, 1).catch(() => 0)) === 1, DEADLINE_MS);
    const healthy = (service: string) =>
      until(`${service} to be healthy`, async () => (await cluster.state(service)).health === "healthy", DEADLINE_MS);

    await t.step("it builds, starts, and becomes healthy", async () => {
      await cluster.compose("config", "--quiet");
      await cluster.compose("build", "--quiet");
      await cluster.compose("up", "-d");
      for (const service of SERVICES) await healthy(service);
    });
    await t.step("a guest's token is good for itself and for nothing else", async () => {
      assertEquals((await cluster.ask(PF, "GET", "/api/v1/vfs", undefined, cluster.tokenOf(A))).status, 401);
      assertEquals((await cluster.ask(B, "GET", "/api/v1/link", undefined, cluster.tokenOf(A))).status, 401);
      const exec = async (code: string) => {
        const id = (await cluster.compose("ps", "-q", "guest-a")).trim();
        return (await cluster.docker("exec", id, "deno", "eval", "--no-config", code)).trim();
      };
      const look = (path: string) =>
        exec(`console.log([...Deno.readDirSync("${path}")].map((one) => one.name).join())`);
      assertEquals([await look("/run/vf"), await look("/run/passthrough")], ["vhost.sock", "nic.sock"]);
      const reach = (url: string) =>
        exec(
          `console.log(await fetch("${url}", { signal: AbortSignal.timeout(2000) }).then((r) => r.status, () => "no way"))`,
        );
      assertEquals(await reach("http://vf:8082/healthz"), "200");
      for (const url of ["http://pf:8080", "http://nic:8083", "http://vhost:8081"]) {
        assertEquals(await reach(`${url}/healthz`), "no way", url);
      }
    });
    await t.step("without the token nothing is told", async () => {
      assertEquals((await cluster.ask(PF, "GET", "/api/v1/vfs")).status, 200);
      const open = await cluster.docker(
        "run",
        "--rm",
        "--network",
        "ringfabric_control",
        "--entrypoint",
        "deno",
        "ringfabric:local",
        "eval",
        "--no-config",
        "console.log((await fetch('http://pf:8080/api/v1/vfs')).status)",
      );
      assertEquals(open.trim(), "401");
    });
    await t.step("ping across", async () => {
      await reaches(A, "10.0.0.2");
      assertEquals([await ping(A, "10.0.0.2"), await ping(B, "10.0.0.1")], [3, 3]);
    });
    await t.step("MAC and VLAN through the published port", async () => {
      const patch = async (vf: number, body: unknown) =>
        assertEquals((await cluster.ask(PF, "PATCH", `/api/v1/vfs/${vf}`, body)).status, 200);
      await patch(0, { mac: "02:00:00:00:aa:01" });
      await until(
        "guest-a to have its new address",
        async () => (await cluster.ask(A, "GET", "/api/v1/link")).body.mac === "02:00:00:00:aa:01",
      );
      await reaches(A, "10.0.0.2");
      await patch(0, { vlan: 100 });
      assertEquals(await ping(A, "10.0.0.2"), 0);
      await patch(1, { vlan: 100 });
      await reaches(A, "10.0.0.2");
    });
    await t.step("modes", async () => {
      for (
        const mode of [{ mode: "passthrough", plugin: "advanced" }, { mode: "passthrough", plugin: "virtio" }, {
          mode: "emulated",
        }]
      ) {
        const { status, body } = await cluster.ask(PF, "PUT", "/api/v1/vfs/0/mode", mode);
        assertEquals([status, body.mode, body.plugin], [200, mode.mode, mode.plugin], JSON.stringify(body));
        assertEquals(await ping(A, "10.0.0.2"), 3);
      }
    });
    for (const service of SERVICES) {
      await t.step(`${service} killed: it comes back, and so does the traffic`, async () => {
        if (service !== "guest-a") {
          await until(
            "passthrough",
            async () => (await cluster.ask(PF, "PUT", "/api/v1/vfs/0/mode", { mode: "passthrough" })).status === 200,
            DEADLINE_MS,
          );
        }
        const { restarts } = await cluster.state(service);
        await cluster.kill(service);
        await until(`${service} to have been started again`, async () => {
          const now = await cluster.state(service);
          return now.restarts > restarts && now.health === "healthy";
        }, DEADLINE_MS);
        await reaches(A, "10.0.0.2");
      });
    }
    await t.step("it stops cleanly", async () => {
      await cluster.compose("stop");
      const ids = (await cluster.compose("ps", "-q")).trim().split("\n");
      assertEquals(ids.length, SERVICES.length);
      const codes = await cluster.docker("inspect", "-f", "{{.Name}} {{.State.ExitCode}}", ...ids);
      const unclean = codes.trim().split("\n").filter((line) => !line.endsWith(" 0"));
      assertEquals(unclean, [], await cluster.compose("logs", "--tail", "20"));
      await cluster.compose("down", "-v");
      assert(!(await cluster.docker("volume", "ls", "-q")).includes("ringfabric"));
    });
  },
);
