/** Uplinks as their users have them: `up --uplink`, `fabric uplink`, what is kept, what follows, and what is refused. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { cli } from "../support/cli.ts";
import { freePorts, TestFabric } from "../support/fabric.ts";
import { must, TestGuest } from "../support/guests.ts";
import { judgedTest, run } from "../support/judges.ts";
import { Bridge, NetNamespace, uniqueName } from "../support/net_namespace.ts";
import { TestProcess } from "../support/process.ts";
import { UmlGuest } from "../support/uml.ts";
import { authorized } from "../support/token.ts";
import { until } from "../support/wait.ts";

const HOST = "10.0.99.1";

/** Runs `fabric` with words that must be taken; answers what it says. */
async function fabricSays(fabric: TestFabric, words: string): Promise<string> {
  const { code, out, err } = await cli(fabric, ...words.split(" "));
  assertEquals([code, err], [0, ""], words);
  return out;
}

/** Runs `fabric` with words that must be refused; answers why. */
async function fabricRefuses(fabric: TestFabric, words: string): Promise<string> {
  const { code, err } = await cli(fabric, ...words.split(" "));
  assertEquals(code, 1, words);
  return err;
}

const carrier = async (fabric: TestFabric) => (await fabric.get("/api/v1/nic")).carrier;

judgedTest(["uml"], "up --uplink: the host is in the guests' network, and stays there whoever dies", async (t) => {
  const tap = uniqueName("rfu");
  const runDir = Deno.makeTempDirSync({ prefix: "ringfabric-" });
  await t.step("with one command", async () => {
    const args = ["--guests", "1", "--uplink", `tap:${tap}`, "--uplink-address", `${HOST}/16`];
    const fabric = await TestFabric.start(2, args, runDir);
    const guest = TestGuest.of(fabric, 0);
    await guest.reaches(HOST);
    await run("ping", ["-c", "1", "-W", "2", guest.ip]);
    assertMatch(await fabricSays(fabric, "nic"), new RegExp(`^link +auto: up$[^]*^uplink +tap:${tap}, up$`, "m"));
    assertStringIncludes(await fabricSays(fabric, "uplink"), `address    ${HOST}/16`);
    assertMatch(await fabricSays(fabric, "uplink list"), new RegExp(`^uplink +tap:${tap} +up +(io_uring|readv)$`, "m"));
    const metrics = await (await authorized(`${fabric.info.api}/metrics`)).text();
    assertStringIncludes(metrics, 'ringfabric_uplink_up{pool="uplink"} 1');
    assertMatch(metrics, /^ringfabric_uplink_in_frames_total\{pool="uplink"\} [1-9]/m);
    // The run directory stays.
    await fabric.process.end("SIGINT");
  });
  await t.step(
    "and in the next run, without a word; what it does in the fabric outlives the NIC and the PF",
    async () => {
      const fabric = await TestFabric.start(2, ["--guests", "1"], runDir);
      const guest = TestGuest.of(fabric, 0);
      await guest.reaches(HOST);
      for (const service of ["nic", "pf"]) {
        const pid = fabric.pid(service);
        Deno.kill(pid, "SIGKILL");
        await until(`${service} to be there again`, () => ![undefined, pid].includes(fabric.pids()[service]), 20_000);
        await until("the fabric to be ready", async () => {
          return await authorized(`${fabric.info.api}/readyz`).then(async (answer) => {
            await answer.body?.cancel();
            return answer.ok;
          }, () => false);
        }, 20_000);
        await until("the uplink to be up", async () => (await fabric.get("/api/v1/nic/uplink")).state === "up", 20_000);
        await until("the guest to reach the host", async () => (await guest.ping(HOST, 1)).received === 1, 20_000);
      }
      await fabric.process.end("SIGINT");
    },
  );
  await t.step("until another run says none", async () => {
    await using fabric = await TestFabric.start(2, ["--uplink", "none"], runDir);
    assertEquals((await fabric.get("/api/v1/nic/uplink")).spec, { kind: "none" });
  });
});

judgedTest(["uml"], "links follow the uplink's interface, unless the NIC or the VF says otherwise", async () => {
  const tap = uniqueName("rfu");
  await using fabric = await TestFabric.start(2, ["--guests", "2", "--uplink", `tap:${tap}`]);
  await using events = await fabric.events();
  const [one, two] = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)];
  await one.reaches(two.ip);

  await run("ip", ["link", "set", tap, "down"]);
  const { reason } = await events.until(({ type }) => type === "uplink-down");
  assertStringIncludes(String(reason), `ip link set ${tap} up`);
  await events.until(({ type, changes }) =>
    type === "nic-changed" && (changes as { carrier?: string }).carrier === "down"
  );
  assertEquals(await carrier(fabric), "down");
  assertEquals((await one.ping(two.ip, 2, { timeoutMs: 100 })).received, 0);
  const { code, out } = await cli(fabric, "doctor");
  assertEquals(code, 1);
  assertStringIncludes(out, `the uplink: tap:${tap} is down: `);
  assertStringIncludes(out, "vf 0: its link follows the uplink, which is down");

  await fabricSays(fabric, "vf set all state enable");
  await one.reaches(two.ip);
  await fabricSays(fabric, "vf set all state auto");
  await until("the frames to stop", async () => (await one.ping(two.ip, 1, { timeoutMs: 100 })).received === 0);
  await fabricSays(fabric, "nic set link up");
  await one.reaches(two.ip);
  await fabricSays(fabric, "nic set link auto");
  await run("ip", ["link", "set", tap, "up"]);
  await events.until(({ type }) => type === "uplink-up");
  await one.reaches(two.ip);

  await run("ip", ["link", "set", tap, "down"]);
  await until("the carrier to go", async () => await carrier(fabric) === "down");
  await fabricSays(fabric, "uplink none");
  assertEquals(await carrier(fabric), "up");
  await one.reaches(two.ip);
});

judgedTest(["uml"], "a VF or the PF's pool is bound to something of the host, with its own policy", async (t) => {
  const tap = uniqueName("rfu");
  await using fabric = await TestFabric.start(3, ["--guests", "1"]);
  await using namespace = await NetNamespace.make();
  const guest = TestGuest.of(fabric, 0);

  await t.step("a namespace has a VF", async () => {
    await fabricSays(fabric, `uplink set tap:${tap} --vf 2`);
    await run("ip", ["link", "set", tap, "netns", namespace.name]);
    await namespace.ip(`address add 10.0.50.1/16 dev ${tap}`);
    await namespace.ip(`link set ${tap} up`);
    await guest.reaches("10.0.50.1");
    await fabricSays(fabric, "vf set 2 vlan 9");
    await until("the VLAN to part them", async () => !await namespace.reaches(guest.ip));
    await fabricSays(fabric, "vf set 0 vlan 9");
    await until("it to bring them together", () => namespace.reaches(guest.ip));
    await fabricSays(fabric, "vf set all vlan 0");
  });
  await t.step("and nobody else has it meanwhile", async () => {
    assertStringIncludes(await fabricSays(fabric, "vf list"), `tap:${tap} up`);
    const message = await fabricRefuses(fabric, "vf mode 2 emulated");
    assertStringIncludes(
      message,
      `vf 2 is bound to tap:${tap}: no guest drives it; fabric uplink none --vf 2 frees it`,
    );
    assertMatch(await fabricRefuses(fabric, "uplink set tap:rfother --vf 0"), /vf 0 is driven by .*: stop its guest/);
    assertMatch(await fabricRefuses(fabric, `uplink set tap:${tap}`), /behind vf 2 already.*fabric uplink none --vf 2/);
    assertMatch(await fabricRefuses(fabric, "nic set numvfs 2"), /vf 2 cannot be removed: it is bound to tap:/);
  });
  await t.step("until it is given back", async () => {
    await fabricSays(fabric, "uplink none --vf 2");
    await until("the interface to be gone", async () => !(await namespace.ip("link")).includes(tap));
    await fabricSays(fabric, "nic set numvfs 2");
  });
  await t.step("the PF's pool, in place of vports", async () => {
    await fabricSays(fabric, "vport add");
    assertMatch(await fabricRefuses(fabric, `uplink set tap:${tap} --pf`), /where vports are \(0\): remove them first/);
    await fabricSays(fabric, "vport remove 0");
    await fabricSays(fabric, `uplink set tap:${tap} --pf --address 10.0.51.1/16`);
    await guest.reaches("10.0.51.1");
    assertMatch(await fabricRefuses(fabric, "vport add"), /bound to tap:.*fabric uplink none --pf first/);
    await fabricSays(fabric, "uplink none --pf");
    await fabricSays(fabric, "vport add");
    await until("the switch to drive the PF's pool again", async () => {
      const { pf } = await must(`${fabric.url("nic")}/api/v1/state`);
      return /vhost switch/.test(pf.owner ?? "");
    });
  });
});

judgedTest(
  ["uml"],
  "two fabrics are joined by a trunk: each VLAN crosses by itself, if the uplink carries it",
  async () => {
    const taps = [uniqueName("rfu"), uniqueName("rfu")] as const;
    await using bridge = await Bridge.make();
    const start = (tap: string) => TestFabric.start(2, ["--guests", "2", "--uplink", `tap:${tap}`]);
    await using here = await start(taps[0]);
    await using there = await start(taps[1]);
    for (const tap of taps) await run("ip", ["link", "set", tap, "master", bridge.name]);
    // The guests of both have the same addresses: 10.0.0.1 here and 10.0.0.2 there are in VLAN 10, the others in 20.
    for (const [fabric, vids] of [[here, [10, 20]], [there, [20, 10]]] as const) {
      for (const [vf, vlan] of vids.entries()) await fabric.patch(vf, { vlan });
    }
    const [ten, twenty] = [TestGuest.of(here, 0), TestGuest.of(here, 1)];
    await ten.reaches("10.0.0.2");
    await twenty.reaches("10.0.0.1");
    await there.patch(1, { vlan: 30 });
    await until(
      "the VLAN to part them",
      async () => (await ten.ping("10.0.0.2", 1, { timeoutMs: 100 })).received === 0,
    );
    await there.patch(1, { vlan: 10 });
    await ten.reaches("10.0.0.2");

    await fabricSays(there, "nic set uplink_trunk 20");
    await twenty.reaches("10.0.0.1");
    assertEquals((await ten.ping("10.0.0.2", 2, { timeoutMs: 100 })).received, 0);
    const { counters } = (await there.get("/api/v1/nic")).uplink;
    assert(counters.tx_vlan_denied > 0, JSON.stringify(counters));
    await fabricSays(there, "nic set uplink_trunk all");
    await ten.reaches("10.0.0.2");
  },
);

judgedTest(["uml"], "two commands let a guest out by way of the host", async () => {
  const tap = uniqueName("rfu");
  await using fabric = await TestFabric.start(1, ["--uplink", `tap:${tap}`]);
  // The host is a namespace here, whose forwarding and rules are its own.
  await using host = await NetNamespace.make();
  await using outside = await NetNamespace.make();
  await run("ip", ["link", "set", tap, "netns", host.name]);
  await host.ip(`address add 10.0.0.254/16 dev ${tap}`);
  await host.ip(`link set ${tap} up`);
  await host.ip(`link add wan type veth peer name eth0 netns ${outside.name}`);
  await host.ip("address add 192.0.2.1/24 dev wan");
  await host.ip("link set wan up");
  await outside.ip("address add 192.0.2.2/24 dev eth0");
  await outside.ip("link set eth0 up");
  await using guest = await UmlGuest.boot(fabric.vf(0).socket);
  await guest.address("10.0.0.1/16");
  await guest.untilReaches("10.0.0.254");
  await guest.check("ip route add default via 10.0.0.254");
  assert((await guest.run("ping -c 1 -W 1 192.0.2.2")).code !== 0, "nobody lets it out yet");
  await host.run("sysctl", "-qw", "net.ipv4.ip_forward=1");
  const rule = `-t nat -A POSTROUTING -s 10.0.0.0/16 ! -o ${tap} -j MASQUERADE`;
  await host.run("iptables", ...rule.split(" "));
  await guest.untilReaches("192.0.2.2");
});

/** Runs `up` to its end as a user who may not change the network; answers its last words. */
async function upSays(args: string[]): Promise<{ code: number; said: string[] }> {
  const runDir = await Deno.makeTempDir({ prefix: "ringfabric-" });
  const script = ["run", "--quiet", "-A", "services/up/main.ts", "--run-dir", runDir, "--port", String(freePorts())];
  await using up = new TestProcess("up", "setpriv", [
    ...["--inh-caps=-all", "--bounding-set=-net_admin", Deno.execPath(), ...script, "--vfs", "1", ...args],
  ], { env: { RINGFABRIC_LOG: "error" } });
  const isUp = () => up.output.includes("ringfabric is up");
  await until("up to be up, or to end", () => up.exited || isUp(), 30_000);
  if (isUp()) await up.end("SIGINT");
  await Deno.remove(runDir, { recursive: true });
  const lines = (isUp() ? up.output : up.errors).split("\n").map((line) => line.trim());
  return { code: up.exited?.code ?? 0, said: lines.filter((line) => line !== "") };
}

judgedTest(
  ["uml"],
  "without the right to make a TAP: one line with the command, and with that TAP all is well",
  async () => {
    const tap = uniqueName("rfu");
    const { code, said } = await upSays(["--uplink", `tap:${tap}`]);
    assertEquals([code, said.length], [1, 1], said.join("\n"));
    const command = `ip tuntap add dev ${tap} mode tap user $USER vnet_hdr multi_queue`;
    assertStringIncludes(said[0] ?? "", `this needs CAP_NET_ADMIN, or a TAP made beforehand: ${command}`);

    await run("sh", ["-c", command.replace("$USER", "root")]);
    try {
      await run("ip", ["link", "set", tap, "up"]);
      const after = await upSays(["--uplink", `tap:${tap}`]);
      assert(after.said.some((line) => line === `uplink     tap:${tap}, up`), after.said.join("\n"));
    } finally {
      await run("ip", ["link", "del", tap]);
    }
  },
);

judgedTest(["uml"], "what is no uplink is one clear line", async () => {
  const cases: [string[], RegExp][] = [
    [["--uplink", "eth0"], /"eth0" is no uplink: say tap:NAME, packet:IFACE/],
    [["--uplink", "tap:a-name-that-is-too-long"], /at most 15 characters/],
    [["--uplink", "tap:a/b"], /no slash/],
    [["--uplink", "tap:rf0", "--uplink-address", "10.0.0.254"], /--uplink-address 10.0.0.254 has no prefix length/],
    [["--uplink", "packet:eth0", "--uplink-address", "10.0.0.254/16"], /--uplink-address is for a TAP/],
    [["--uplink-address", "10.0.0.254/16"], /--uplink-address is for --uplink tap:NAME/],
    [["--uplink", "none", "--uplink", "tap:rf0"], /'tap:rf0' is invalid. It is said twice: say it once/],
    [["--uplink", "tap:lo"], /there is an interface lo that is no TAP: choose another name/],
  ];
  for (const [args, pattern] of cases) {
    const { code, said } = await upSays(args);
    assertEquals([code, said.length], [1, 1], said.join("\n"));
    assertMatch(said[0] ?? "", pattern);
  }
});
