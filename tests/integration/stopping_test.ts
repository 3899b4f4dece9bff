/** How a fabric ends, and how it says that a part of it does not answer. */
import { assert, assertEquals } from "@std/assert";
import { freePorts, TestFabric } from "../support/fabric.ts";
import { judgedTest } from "../support/judges.ts";
import { TestProcess } from "../support/process.ts";
import { authorized } from "../support/token.ts";
import { until } from "../support/wait.ts";

/** Whether a process is there, before it is waited for too. */
function isThere(pid: number): boolean {
  try {
    return Deno.statSync(`/proc/${pid}`).isDirectory;
  } catch {
    return false;
  }
}

for (const signal of ["TERM", "INT"]) {
  Deno.test(`SIG${signal} to the whole process group: the services end in order, and none is started again`, async () => {
    await using fabric = await TestFabric.start(2, ["--guests", "2"]);
    const guests = [0, 1].map((index) => fabric.guestPid(index) ?? 0);
    const [nic, others] = [fabric.pid("nic"), ["pf", "vhost", "vf"].map((name) => fabric.pid(name))];
    const order = [guests, others, [nic]];
    // The services are in the test's own group: to each of them, as systemd does.
    for (const pid of [fabric.process.pid, ...order.flat()]) Deno.kill(pid, `SIG${signal}` as Deno.Signal);
    await until(
      "all to end, guests first and the NIC last",
      () => {
        // In the order in which they may not be missing: one that ends meanwhile makes no mistake here.
        const there = order.map((pids) => pids.map(isThere)).reverse();
        for (const [i, later] of there.entries()) {
          const earlier = there.slice(i + 1).flat();
          if (later.includes(false)) assert(!earlier.includes(true), JSON.stringify(there));
        }
        return !there.flat().includes(true);
      },
      20_000,
      1,
    );
    const { code } = await fabric.process.child.status;
    assertEquals(code, 0, fabric.process.all);
    assert(!/starting it again|died/.test(fabric.process.errors), fabric.process.errors);
  });
}

Deno.test("a fabric that was started by npx ends when npx is killed", async () => {
  const runDir = await Deno.makeTempDir({ prefix: "ringfabric-" });
  const port = freePorts();
  const up = `${Deno.execPath()} run -A --quiet services/up/main.ts --json --vfs 1 --port ${port} --run-dir ${runDir}`;
  // A shell by another name, with what it starts below it.
  const npx = new TestProcess("npx", "bash", ["-c", `exec -a npx bash -c '${up} & echo PID $!; wait'`]);
  try {
    const [, pid] = await npx.expect(/PID (\d+)/);
    await npx.expect(/^\{"api".*\}$/m, 30_000);
    npx.kill("SIGKILL");
    await until("up to end", () => !isThere(Number(pid)), 20_000);
    await until("its lock to go", () => Deno.stat(`${runDir}/up.lock`).then(() => false, () => true));
  } finally {
    await npx.end("SIGKILL");
    await Deno.remove(runDir, { recursive: true });
  }
});

judgedTest(["systemd"], "systemd is told that the fabric is up, and that it stops", async () => {
  const dir = await Deno.makeTempDir({ prefix: "ringfabric-" });
  const path = `${dir}/notify`;
  const code = `const socket = Deno.listenDatagram({ transport: "unixpacket", path: "${path}" });
    console.log("listening");
    for await (const [bytes] of socket) console.log(new TextDecoder().decode(bytes));`;
  const systemd = new TestProcess("systemd", Deno.execPath(), ["eval", "--unstable-net", code]);
  try {
    await systemd.expect(/listening/);
    Deno.env.set("NOTIFY_SOCKET", path);
    const fabric = await TestFabric.start(1);
    await systemd.expect(/^READY=1$/m);
    await systemd.expect(/^STATUS=1 VFs, http:/m);
    assertEquals(/STOPPING/.test(systemd.all), false);
    await fabric.process.end("SIGTERM");
    await systemd.expect(/^STOPPING=1$/m);
    await fabric[Symbol.asyncDispose]();
  } finally {
    Deno.env.delete("NOTIFY_SOCKET");
    await systemd.end("SIGKILL");
    await Deno.remove(dir, { recursive: true });
  }
});

judgedTest(["systemd"], "systemd takes the unit, and what is added to it for an uplink", async () => {
  const dir = await Deno.makeTempDir({ prefix: "ringfabric-" });
  const from = new URL("../../systemd/", import.meta.url).pathname;
  try {
    await Deno.copyFile(`${from}ringfabric.service`, `${dir}/ringfabric.service`);
    await Deno.mkdir(`${dir}/ringfabric.service.d`);
    await Deno.copyFile(`${from}uplink.conf`, `${dir}/ringfabric.service.d/uplink.conf`);
    const { stderr } = await new Deno.Command("systemd-analyze", {
      args: ["verify", "--man=no", `${dir}/ringfabric.service`],
      env: { SYSTEMD_UNIT_PATH: `${dir}:` },
    }).output();
    const said = new TextDecoder().decode(stderr).split("\n").filter((line) => line.includes(dir));
    assertEquals(said, []);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("while the NIC does not answer the fabric is not ready, and says nothing that it cannot know", async () => {
  await using fabric = await TestFabric.start(1, ["--guests", "1"]);
  const ready = async () =>
    (await authorized(`${fabric.info.api}/readyz`).then(async (r) => (await r.body?.cancel(), r))).status;
  assertEquals(await ready(), 200);
  const nic = fabric.pid("nic");
  Deno.kill(nic, "SIGSTOP");
  try {
    await until("the fabric not to be ready", async () => await ready() === 503, 15_000);
    const vf = await fabric.get("/api/v1/vfs/0");
    assertEquals([vf.attached, vf.mode, vf.queues, vf.memory], [null, null, null, null]);
    assertEquals(vf.vlan, 0, "policy is the PF's own");
  } finally {
    Deno.kill(nic, "SIGCONT");
  }
  await until("the fabric to be ready again", async () => await ready() === 200, 20_000);
  await until("the guest's queues", async () => (await fabric.get("/api/v1/vfs/0")).queues?.length === 2, 20_000);
});
