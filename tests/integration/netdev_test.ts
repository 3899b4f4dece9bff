/** VFs as interfaces of network namespaces: what the PF sets of a VF is in force for programs that are no machines too. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { TestFabric } from "../support/fabric.ts";
import { judgedTest, run } from "../support/judges.ts";
import { NetNamespace } from "../support/net_namespace.ts";
import { attachNetdev, startNetdev } from "../support/netdev.ts";
import { TestProcess } from "../support/process.ts";
import { until } from "../support/wait.ts";

/** VF `vf` as eth0 of a namespace. */
const attach = (fabric: TestFabric, vf: number, namespace: NetNamespace) =>
  attachNetdev(fabric, vf, namespace, `10.0.0.${vf + 1}/24`);

const untilReached = (from: NetNamespace, address: string) =>
  until(`${address} to answer`, () => from.reaches(address), 20_000);

judgedTest(["uml"], "two namespaces on a VF each: TCP both ways, and what the PF sets is in force", async (t) => {
  await using fabric = await TestFabric.start(2);
  await using a = await NetNamespace.make();
  await using b = await NetNamespace.make();
  await using first = await attach(fabric, 0, a);
  await using _second = await attach(fabric, 1, b);

  await t.step("they reach each other, and the API says who drives the VFs", async () => {
    await untilReached(a, "10.0.0.2");
    const { attached, owner, mode } = await fabric.get("/api/v1/vfs/0");
    assertEquals([attached, mode], [true, "emulated"]);
    assertStringIncludes(owner, "netdev eth0");
  });

  await t.step("TCP", async () => {
    await using server = new TestProcess("iperf3 -s", "ip", ["netns", "exec", b.name, "iperf3", "-s", "--forceflush"]);
    await server.expect(/listening/);
    for (const way of [[], ["-R"]]) {
      const { end } = JSON.parse(await a.run("iperf3", "-c", "10.0.0.2", "-t", "2", "-J", ...way));
      assert(end.sum_received.bytes > 1e6, JSON.stringify(end.sum_received));
    }
  });

  await t.step("the interface has the VF's address, MTU and link, and follows them", async () => {
    const link = () => a.ip("link show eth0");
    assertStringIncludes(await link(), fabric.vf(0).mac);
    await fabric.patch(0, { mtu: 1400, mac: "02:66:00:00:00:07" });
    await until("the new MTU", async () => (await link()).includes("mtu 1400"));
    assertStringIncludes(await link(), "02:66:00:00:00:07");
    await fabric.patch(0, { linkState: "disable" });
    await until("the carrier to go", async () => (await link()).includes("NO-CARRIER"));
    await fabric.patch(0, { linkState: "auto" });
    await untilReached(a, "10.0.0.2");
  });

  await t.step("a VLAN that the PF sets parts them", async () => {
    await fabric.patch(0, { vlan: 7 });
    assertEquals(await a.reaches("10.0.0.2"), false);
    await fabric.patch(1, { vlan: 7 });
    await untilReached(a, "10.0.0.2");
  });

  await t.step("an address that is not the VF's is spoofed", async () => {
    const before = (await fabric.counters(1)).tx_spoofed ?? 0;
    await b.ip("link set eth0 address 02:66:00:00:00:09");
    assertEquals(await b.reaches("10.0.0.1"), false);
    assert(((await fabric.counters(1)).tx_spoofed ?? 0) > before);
    await b.ip(`link set eth0 address ${fabric.vf(1).mac}`);
    await untilReached(b, "10.0.0.1");
  });

  await t.step("a NIC that dies is attached to again; the interface stays", async () => {
    const index = await a.ip("-o link show eth0");
    Deno.kill(fabric.pid("nic"), "SIGKILL");
    await until("they to reach each other again", () => a.reaches("10.0.0.2"), 30_000);
    assertEquals((await a.ip("-o link show eth0")).split(":")[0], index.split(":")[0]);
  });

  await t.step("with the command the interface goes, and the VF is free", async () => {
    assertEquals((await first.end("SIGINT")).code, 0);
    assertEquals((await a.ip("-br link")).includes("eth0"), false);
    await until("the VF to be free", async () => (await fabric.get("/api/v1/vfs/0")).attached === false);
  });
});

judgedTest(["uml"], "what cannot be is said in one line, and nothing is left of it", async () => {
  await using fabric = await TestFabric.start(1);
  await using a = await NetNamespace.make();
  // With 2, if the words are not understood.
  const fails = async (code: number, said: RegExp, ...args: string[]) => {
    await using process = startNetdev(fabric, ...args);
    await until("it to end", () => process.exited);
    assertEquals(process.exited?.code, code, process.all);
    assert(said.test(process.errors), process.errors);
  };
  await fails(1, /vf 9 does not exist/, "9", "eth0", "--netns", a.name);
  await fails(1, /nobodys-namespace: there is none: `ip netns list`/, "0", "eth0", "--netns", "nobodys-namespace");
  await fails(1, /there is no process 4194305/, "0", "eth0", "--netns", "4194305");
  await fails(2, /"eth0" is no number of a VF/, "eth0", "0", "--netns", a.name);
  await fails(1, /is no TAP/, "0", "lo", "--netns", a.name);
  await fails(2, /at most 15 characters/, "0", "an-interface-of-a-long-name");
  await fails(2, /no prefix length/, "0", "eth0", "--address", "10.0.0.1");
  assertEquals((await a.ip("-br link")).trim().split("\n").length, 1);

  await using six = startNetdev(fabric, "0", "eth0", "--netns", a.name, "--address", "fd00::5/64");
  await six.expect(/is interface eth0/);
  assertStringIncludes(await a.ip("-6 address show dev eth0"), "fd00::5/64");
  await six.end("SIGTERM");

  await using holder = await attach(fabric, 0, a);
  await fails(1, /vf 0 is driven by netdev eth0/, "0", "eth1", "--netns", a.name);
  assertEquals((await a.ip("-br link")).includes("eth1"), false);

  // Who takes the interface away has no use for it any more.
  await run("ip", ["-n", a.name, "link", "del", "eth0"]);
  await until("the command to end", () => holder.exited);
  assertStringIncludes(holder.errors, "its interface is gone");
});

judgedTest(["uml"], "an interface in a process's namespace is there for as long as the process is", async () => {
  await using fabric = await TestFabric.start(1);
  await using container = new TestProcess("container", "unshare", ["--net", "sleep", "infinity"]);
  const isApart = () => Deno.readLinkSync(`/proc/${container.pid}/ns/net`) !== Deno.readLinkSync("/proc/self/ns/net");
  await until("the process to have a namespace", isApart);
  await using process = startNetdev(fabric, "0", "eth0", "--netns", String(container.pid));
  await process.expect(/is interface eth0/);
  await container.end("SIGTERM");
  await until("the command to end", () => process.exited);
  assertStringIncludes(process.errors, "its network namespace is gone");
  await until("the VF to be free", async () => (await fabric.get("/api/v1/vfs/0")).attached === false);
});
