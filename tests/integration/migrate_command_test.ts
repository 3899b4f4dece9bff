/** `fabric migrate`: the target is made ready, the address changes hands when the guest runs there, or nothing changes. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { Peer } from "../../shared/api/mod.ts";
import { fabricCli } from "../support/cli.ts";
import { TestFabric } from "../support/fabric.ts";
import { FrontEnd } from "../support/front_end.ts";
import { startLog } from "../support/guest_log.ts";
import { authorized, TEST_TOKEN } from "../support/token.ts";
import { until } from "../support/wait.ts";

const POLICY = { vlan: 100, qos: 3, maxTxRate: 500, trust: true, mtu: 1400 };
const DEFAULTS = { vlan: 0, qos: 0, maxTxRate: 0, trust: false, mtu: 1500 };

/** `fabric migrate`, to be killed. */
function startMigrate(from: TestFabric, ...args: string[]): Deno.ChildProcess {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", "services/cli/main.ts", "--run-dir", from.runDir, "migrate", ...args],
    env: { RINGFABRIC_TO_TOKEN: TEST_TOKEN },
    stdout: "null",
    stderr: "null",
  }).spawn();
}

/** Says which address a VF gets when its guest stands still, until `signal`; answers the status: 409 while others do. */
async function hold(fabric: TestFabric, vf: number, mac: string, signal: AbortSignal): Promise<number> {
  const { status, body } = await authorized(`${fabric.info.api}/api/v1/vfs/${vf}/pausedAddress`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ mac, macFixed: false }),
    signal,
  });
  if (status !== 200) await body?.cancel();
  return status;
}

function migrate(from: TestFabric, ...args: string[]) {
  return fabricCli(["--run-dir", from.runDir, "migrate", ...args], { RINGFABRIC_TO_TOKEN: TEST_TOKEN });
}

async function policyOf(fabric: TestFabric, vf: number): Promise<[string, Record<string, unknown>]> {
  const view = await fabric.get(`/api/v1/vfs/${vf}`);
  return [view.mac, Object.fromEntries(Object.keys(POLICY).map((field) => [field, view[field]]))];
}

Deno.test("fabric migrate: policy first, the address when the guest runs there; back again; what cannot be is refused", async (t) => {
  await using near = await TestFabric.start(2);
  await using far = await TestFabric.start(2);
  const [own, other] = [near.vf(1).mac, far.vf(0).mac];
  await near.patch(1, POLICY);
  const toFar = ["--to", far.info.api, "--to-vf", "0"];

  await t.step("no guest comes: the target is as it was, and the source has not changed", async () => {
    const { code, err } = await migrate(near, "1", ...toFar, "--timeout", "1");
    assertEquals([code, err.trim()], [
      1,
      "fabric: no guest ran at the target within 1 s (--timeout): it goes on where it is",
    ]);
    assertEquals([await policyOf(near, 1), await policyOf(far, 0)], [[own, POLICY], [other, DEFAULTS]]);
  });
  await t.step("a guest comes", async () => {
    const moving = migrate(near, "1", ...toFar);
    await until("the target's policy", async () => (await policyOf(far, 0))[1].vlan === 100);
    assertEquals([(await policyOf(near, 1))[0], (await policyOf(far, 0))[0]], [own, other], "nobody runs there yet");
    await using guest = await FrontEnd.connect(far.vf(0).socket).start();
    const { code, out, err } = await moving;
    assertEquals([code, out.trim()], [0, `vf 1 has moved: ${own} is vf 0 of ${far.info.api} now`], err);
    assertEquals([await policyOf(near, 1), await policyOf(far, 0)], [[other, DEFAULTS], [own, POLICY]]);
    const refused = await migrate(near, "1", ...toFar);
    assertStringIncludes(refused.err, "a guest runs on the target's vf 0: say a free one by --to-vf");
    void guest;
  });
  await t.step("PFs that restart meanwhile, of either fabric, do not end a move", async () => {
    await far.patch(0, { ...DEFAULTS, mac: other });
    await near.patch(1, { ...POLICY, mac: own });
    const moving = migrate(near, "1", ...toFar);
    await until("the target's policy", async () => (await policyOf(far, 0))[1].vlan === 100);
    for (const fabric of [near, far]) {
      const pid = fabric.pid("pf");
      Deno.kill(pid, "SIGKILL");
      await until("another PF", async () => {
        const said = await new Peer("the PF", fabric.info.api, undefined).readiness(1000);
        return said?.ready && said.pid !== pid;
      }, 20_000);
    }
    await using guest = await FrontEnd.connect(far.vf(0).socket).start();
    const { code, out, err } = await moving;
    assertEquals([code, out.trim()], [0, `vf 1 has moved: ${own} is vf 0 of ${far.info.api} now`], err);
    void guest;
  });
  await t.step("and back, where the VF has no address of its own left but the one that it had", async () => {
    const moving = migrate(far, "0", "--to", near.info.api, "--to-vf", "1");
    await until("the target's policy", async () => (await policyOf(near, 1))[1].vlan === 100);
    await using guest = await FrontEnd.connect(near.vf(1).socket).start();
    const { code, err } = await moving;
    assertEquals(code, 0, err);
    assertEquals([await policyOf(near, 1), await policyOf(far, 0)], [[own, POLICY], [other, DEFAULTS]]);
    void guest;
  });
  await t.step(
    "a guest stands still for its move: its address goes ahead, comes back if it goes on here, and goes again",
    async () => {
      const owner = async () => {
        const views = [await policyOf(near, 1), await policyOf(far, 0)];
        return views.map(([mac]) => mac === own ? 1 : 0).join();
      };
      const isOwner = (wanted: string) => until(`the address to be ${wanted}`, async () => await owner() === wanted);
      await using here = await FrontEnd.connect(near.vf(1).socket).start();
      using log = await startLog(here);
      const pause = async () => {
        for (const index of here.guest.queues.keys()) await here.stopVring(index);
      };
      await pause();
      assertEquals(await owner(), "1,0", "nobody moves it");
      for (const index of here.guest.queues.keys()) await here.startVring(index);
      const words = ["--json", "--run-dir", near.runDir, "migrate", "1", ...toFar];
      const moving = fabricCli(words, { RINGFABRIC_TO_TOKEN: TEST_TOKEN });
      await until("the target's policy", async () => (await policyOf(far, 0))[1].vlan === 100);
      assertEquals(await owner(), "1,0", "it runs");
      await pause();
      await isOwner("0,1");
      for (const index of here.guest.queues.keys()) await here.startVring(index);
      await isOwner("1,0");
      await pause();
      await isOwner("0,1");
      await using there = await FrontEnd.connect(far.vf(0).socket).start();
      const { code, out, err } = await moving;
      assertEquals(code, 0, err);
      assert(JSON.parse(out).swapMs > 0);
      assertEquals([await policyOf(near, 1), await policyOf(far, 0)], [[other, DEFAULTS], [own, POLICY]]);
      void [there, log];
    },
  );
  await t.step(
    "the source's PF is killed when its VF has given the address up: the next one does not take it",
    async () => {
      await far.patch(0, { ...DEFAULTS, mac: other });
      await near.patch(1, { ...POLICY, mac: own });
      await using here = await FrontEnd.connect(near.vf(1).socket).start();
      using log = await startLog(here);
      const moving = migrate(near, "1", ...toFar);
      await until("the target's policy", async () => (await policyOf(far, 0))[1].vlan === 100);
      for (const index of here.guest.queues.keys()) await here.stopVring(index);
      await until("the address to go", async () => (await policyOf(near, 1))[0] === other);
      const pid = near.pid("pf");
      Deno.kill(pid, "SIGKILL");
      await until("another PF", async () => {
        const said = await new Peer("the PF", near.info.api, undefined).readiness(1000);
        return said?.ready && said.pid !== pid;
      }, 20_000);
      assertEquals([(await policyOf(near, 1))[0], (await policyOf(far, 0))[0]], [other, own]);
      await using there = await FrontEnd.connect(far.vf(0).socket).start();
      const { code, err } = await moving;
      assertEquals(code, 0, err);
      assertEquals([await policyOf(near, 1), await policyOf(far, 0)], [[other, DEFAULTS], [own, POLICY]]);
      void [there, log];
    },
  );
  await t.step("the command is killed before the guest stands still: the source keeps the address", async () => {
    await far.patch(0, { ...DEFAULTS, mac: other });
    await near.patch(1, { ...POLICY, mac: own });
    await using here = await FrontEnd.connect(near.vf(1).socket).start();
    using log = await startLog(here);
    const moving = startMigrate(near, "1", ...toFar);
    await until("the target's policy", async () => (await policyOf(far, 0))[1].vlan === 100);
    moving.kill("SIGKILL");
    await moving.status;
    const mine = new AbortController();
    await until("the PF to see that it is gone", async () => await hold(near, 1, own, mine.signal) === 200);
    for (const index of here.guest.queues.keys()) await here.stopVring(index);
    await until("the guest to stand still", async () => {
      const { queues } = await near.get("/api/v1/vfs/1");
      return queues.every(({ state }: { state: string }) => state !== "running");
    });
    // Changes take turns: whatever the guest's standstill has asked for is done.
    await near.patch(0, { vlan: 7 });
    await near.patch(0, { vlan: 0 });
    assertEquals([(await policyOf(near, 1))[0], (await policyOf(far, 0))[0]], [own, other]);
    mine.abort();
    await far.patch(0, DEFAULTS);
    await near.patch(1, { ...DEFAULTS, mac: "02:00:00:00:77:01" });
    await far.patch(0, { ...POLICY, mac: own });
    await near.patch(1, { mac: other });
    void log;
  });
  await t.step("it stands still and comes nowhere: its address is given back", async () => {
    await using here = await FrontEnd.connect(far.vf(0).socket).start();
    using log = await startLog(here);
    const moving = migrate(far, "0", "--to", near.info.api, "--to-vf", "1", "--timeout", "3");
    await until("the target's policy", async () => (await policyOf(near, 1))[1].vlan === 100);
    for (const index of here.guest.queues.keys()) await here.stopVring(index);
    await until("the address to go", async () => (await policyOf(near, 1))[0] === own);
    assertEquals((await moving).code, 1);
    assertEquals([await policyOf(near, 1), await policyOf(far, 0)], [[other, DEFAULTS], [own, POLICY]]);
    await far.patch(0, { ...DEFAULTS, mac: other });
    await near.patch(1, { ...POLICY, mac: own });
    void log;
  });
  await t.step("what cannot be", async () => {
    await far.patch(1, { mac: own });
    const cases: [string[], string, number?][] = [
      [["1", ...toFar], `both fabrics have the address ${own}: give vf 1 another one`],
      [["1", "--to", far.info.api, "--to-vf", "7"], "the target has no vf 7: it has 2; say another by --to-vf"],
      [["5", ...toFar], "there is no vf 5: the fabric has 2"],
      [["1", "--to", near.info.api, "--to-vf", "0"], `the target at ${near.info.api} is this fabric itself`],
      [["1"], "say where it is to go: --to http://HOST:8080, or --to-run-dir DIR"],
      [["1", "--to", "far"], "--to far: it is a URL such as http://127.0.0.1:8080", 2],
      [["1", "--to-run-dir", "/nowhere"], "no fabric runs in /nowhere"],
    ];
    for (const [args, said, status = 1] of cases) {
      const { code, err } = await migrate(near, ...args);
      assertEquals([code, err.trim()], [status, `fabric: ${said}`]);
    }
  });
});
