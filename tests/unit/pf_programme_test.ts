/**
 * What the PF tells the NIC and the software switch: its whole programme at every change, one change after the other,
 * in force and on disk or not at all.
 */
import "../support/quiet.ts";
import { assert, assertEquals } from "@std/assert";
import { ApiError, type NicView, type Programme, type Vf } from "../../shared/api/mod.ts";
import { TestPf } from "../support/test_pf.ts";

/** The NIC's programme that is in force. */
function programme(pf: TestPf): Programme {
  return pf.nic.programmes.at(-1) as Programme;
}

Deno.test("a new fabric: the NIC and the switch are programmed at once, with addresses of the fabric's own", async () => {
  await using pf = await TestPf.start(2);
  assertEquals([pf.nic.programmes.length, pf.software.programmes], [1, [{
    switchMode: "veb",
    link: "up",
    vports: [],
    drivesPf: true,
  }]]);
  const { switchMode, link, pfMac, vfs, vports } = programme(pf);
  assertEquals([switchMode, link, vfs.length, vports], ["veb", "up", 2, []]);
  const macs = [pfMac, ...vfs.map(({ mac }) => mac)];
  assertEquals(new Set(macs).size, 3);
  assert(macs.every((mac) => mac.startsWith("02:")), "locally administered");
  await using again = await TestPf.start(2);
  assertEquals(programme(again), programme(pf), "the same fabric has the same addresses every time");
});

Deno.test("each change is one whole programme, with everything that was set before", async () => {
  await using pf = await TestPf.start(2);
  await pf.set("vfs/0", { vlan: 100, qos: 5 });
  await pf.set("vfs/1", { trust: true, maxTxRate: 1000, minTxRate: 100, linkState: "disable" });
  await pf.set("nic", { switchMode: "vepa", link: "down" });
  assertEquals(pf.nic.programmes.length, 4);
  const { switchMode, link, vfs: [first, second] } = programme(pf);
  assertEquals([switchMode, link], ["vepa", "down"]);
  assertEquals([first?.vlan, first?.qos, first?.trust, first?.fallback], [100, 5, false, "none"]);
  assertEquals([second?.trust, second?.maxTxRate, second?.minTxRate, second?.linkState], [true, 1000, 100, "disable"]);
});

Deno.test("multicast in force is what the PF allows and the guest wants; a trusted guest has what it wants", async () => {
  await using pf = await TestPf.start(1);
  const groups = (...last: number[]) => last.map((n) => `01:00:5e:00:00:0${n}`);
  const cases: [unknown, unknown, boolean, unknown][] = [
    ["all", null, false, "all"],
    ["none", null, true, "none"],
    ["all", groups(1), false, groups(1)],
    [groups(1, 2), groups(2, 3), false, groups(2)],
    [groups(1, 2), groups(2, 3), true, groups(2, 3)],
    [groups(1), "all", false, groups(1)],
    [groups(1), "all", true, "all"],
    [groups(1), "none", false, "none"],
    ["none", groups(1), false, "none"],
  ];
  for (const [multicast, guestMulticast, trust, inForce] of cases) {
    const vf = await pf.set("vfs/0", { multicast, guestMulticast, trust });
    assertEquals(programme(pf).vfs[0]?.multicast, inForce, JSON.stringify([multicast, guestMulticast, trust]));
    assertEquals(vf.multicast, multicast, "the API shows what the PF has set");
  }
});

Deno.test("VFs come with first values and go with what was set of them", async () => {
  await using pf = await TestPf.start(2);
  const third = (await pf.set("nic", { numVfs: 3 }), await pf.get<Vf>("vfs/2"));
  assertEquals([third.vlan, third.spoofCheck, third.trust, third.multicast], [0, true, false, "all"]);
  await pf.set("vfs/2", { vlan: 7, mac: "02:77:00:00:00:01" });
  assertEquals(programme(pf).vfs.map(({ vlan }) => vlan), [0, 0, 7]);
  await pf.set("nic", { numVfs: 1 });
  assertEquals(programme(pf).vfs.length, 1);
  await pf.set("nic", { numVfs: 3 });
  assertEquals(programme(pf).vfs[2]?.mac, third.mac, "its old settings are forgotten, its address is derived anew");
  for (const numVfs of [-1, 257, 1.5]) {
    const { status, body } = await pf.patch("nic", { numVfs });
    assertEquals([status, body.field], [422, "numVfs"], String(numVfs));
  }
});

Deno.test("a new VF does not come into being with an address that another one was given", async () => {
  await using pf = await TestPf.start(2);
  const mac = (await pf.set("nic", { numVfs: 3 }), (await pf.get<Vf>("vfs/2")).mac);
  await pf.set("nic", { numVfs: 2 });
  await pf.set("vfs/0", { mac });
  const { status, body } = await pf.patch("nic", { numVfs: 3 });
  assertEquals([status, body.detail], [409, `cannot give vf 2 the address ${mac}: vf 0 has it without a VLAN`]);
  assertEquals((await pf.get<NicView>("nic")).numVfs, 2);
});

Deno.test("what the NIC refuses has not happened: its reason is passed on, and the programme before is sent again", async () => {
  await using pf = await TestPf.start(2);
  const before = programme(pf);
  pf.nic.refusals.push(new ApiError(409, "the NIC: vf 1 cannot be removed: its guest drives it", "vfs"));
  const { status, body } = await pf.patch("nic", { numVfs: 1 });
  assertEquals([status, body.detail], [409, "the NIC: vf 1 cannot be removed: its guest drives it"]);
  assertEquals(programme(pf), before);
  assertEquals((await pf.get<NicView>("nic")).numVfs, 2);
  assertEquals(pf.events, [{ type: "nic-up" }]);
  assertEquals(pf.nic.reconnects, 0);
  // The next change starts from there.
  await pf.set("vfs/1", { vlan: 9 });
  assertEquals(programme(pf).vfs.map(({ vlan }) => vlan), [0, 9]);
});

Deno.test("a NIC that does not answer may have taken a change: it is programmed anew when it is back", async () => {
  await using pf = await TestPf.start(1);
  const away = () => new ApiError(503, "the NIC does not answer", undefined, "unreachable");
  pf.nic.refusals.push(away(), away());
  const { status, body } = await pf.patch("vfs/0", { vlan: 9 });
  assertEquals([status, body.reason, pf.nic.reconnects], [503, "unreachable", 1]);
  assertEquals((await pf.get<Vf>("vfs/0")).vlan, 0);
  await pf.nic.comeBack();
  assertEquals(programme(pf).vfs[0]?.vlan, 0);
});

Deno.test("a NIC that starts again gets the whole programme", async () => {
  await using pf = await TestPf.start(1);
  await pf.set("vfs/0", { vlan: 9 });
  pf.nic.goAway();
  const answer = await pf.app.request("/readyz");
  const { ready, reason } = await answer.json();
  assertEquals([answer.status, ready, reason], [503, false, "lost the service: it has gone"]);
  await pf.nic.comeBack();
  assertEquals([(await pf.app.request("/readyz")).status, programme(pf).vfs[0]?.vlan], [200, 9]);
  assertEquals(pf.events.map(({ type }) => type).filter((type) => type !== "vf-changed"), [
    "nic-up",
    "nic-down",
    "nic-up",
  ]);
});

Deno.test("changes that come at one time happen one after the other, each upon the one before", async () => {
  await using pf = await TestPf.start(1);
  const answers = await Promise.all([
    pf.patch<Vf>("vfs/0", { vlan: 9 }),
    pf.patch<Vf>("vfs/0", { qos: 5 }),
    pf.patch<Vf>("vfs/0", { vlan: 0 }),
    pf.patch<Vf>("vfs/0", { qos: 6 }),
  ]);
  assertEquals(answers.map(({ status }) => status), [200, 200, 200, 422]);
  const tags = pf.nic.programmes.map(({ vfs: [vf] }) => [vf?.vlan, vf?.qos]);
  assertEquals(tags, [[0, 0], [9, 0], [9, 5], [0, 0]]);
});

Deno.test("what was set is there after the PF has ended, and nothing that was refused", async () => {
  const dir = await Deno.makeTempDir({ prefix: "ringfabric-pf-" });
  try {
    const path = `${dir}/pf.sqlite`;
    {
      await using pf = await TestPf.start(2, path);
      await pf.set("nic", { numVfs: 3, switchMode: "vepa", link: "down" });
      await pf.set("vfs/2", { vlan: 9, trunk: [5], trust: true });
      await pf.addVport({ id: 4, vlan: 5 });
      pf.nic.refusals.push(new ApiError(409, "no"));
      await pf.patch("vfs/0", { vlan: 77 });
    }
    await using pf = await TestPf.start(2, path);
    const { switchMode, link, vfs } = programme(pf);
    assertEquals([switchMode, link, vfs.map(({ vlan }) => vlan)], ["vepa", "down", [0, 0, 9]]);
    assertEquals([vfs[2]?.trunk, vfs[2]?.trust], [[5], true]);
    assertEquals(pf.software.programmes[0]?.vports.map(({ id, vlan }) => [id, vlan]), [[4, 5]]);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

// Vports -----------------------------------------------------------------------------------------------------

Deno.test("the switch hears of what concerns it, and of nothing else", async () => {
  await using pf = await TestPf.start(1);
  const heard = () => pf.software.programmes.length;
  await pf.set("nic", { link: "down" });
  assertEquals(heard(), 1, "without vports it need not even be there");
  await pf.addVport({ vlan: 5 });
  assertEquals(pf.software.programmes.at(-1)?.vports.map(({ id, vlan }) => [id, vlan]), [[0, 5]]);
  assertEquals([heard(), pf.software.programmes.at(-1)?.link], [2, "down"]);
  await pf.set("vfs/0", { vlan: 5 });
  assertEquals(heard(), 2, "a VF is the NIC's");
  await pf.set("nic", { link: "up" });
  await pf.set("nic", { switchMode: "vepa" });
  assertEquals([heard(), pf.software.programmes.at(-1)?.switchMode], [4, "vepa"]);
});

Deno.test("the NIC knows vports on the switch by their addresses, behind the PF's pool", async () => {
  await using pf = await TestPf.start(1);
  const allowedMacs = ["02:00:5e:00:01:05"];
  const { mac } = await pf.addVport({ vlan: 5, vlanProto: "802.1ad", allowedMacs });
  assertEquals(programme(pf).vports, [{ mac, allowedMacs, vlan: 5, vlanProto: "802.1ad" }]);
});

Deno.test("a VF that is allotted to a vport's guest has the vport's policy, and falls back to the switch", async () => {
  await using pf = await TestPf.start(2);
  const { mac } = await pf.addVport({ vlan: 5, maxTxRate: 100 });
  await pf.set("vfs/1", { vlan: 9, hardware: "advanced" });
  await pf.ask("POST", "vports/0/vf", {});
  const { vfs: [, vf], vports } = programme(pf);
  assertEquals([vf?.mac, vf?.vlan, vf?.maxTxRate, vf?.fallback], [mac, 5, 100, "pf"]);
  assertEquals([vf?.hardware, vports], ["advanced", []], "the hardware is the VF's own");
  await pf.ask("DELETE", "vports/0/vf");
  assertEquals([programme(pf).vfs[1]?.vlan, programme(pf).vfs[1]?.fallback, programme(pf).vports.length], [
    9,
    "none",
    1,
  ]);
});

Deno.test("if the switch refuses, the NIC goes back to what was, and the switch is programmed anew", async () => {
  await using pf = await TestPf.start(1);
  const before = programme(pf);
  pf.software.refusals.push(new ApiError(503, "vhost does not answer", undefined, "unreachable"));
  const { status, body } = await pf.ask("POST", "vports", {});
  assertEquals([status, body.reason], [503, "unreachable"]);
  assertEquals([programme(pf), pf.software.reconnects, await pf.get("vports")], [before, 1, []]);
});
