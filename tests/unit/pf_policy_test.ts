/**
 * The PF's policy, as `ip link set vf` has it: what may be set, alone and together, and what is said to whoever tries
 * something else. Through the API, with a NIC that the test plays: what is refused never reaches it.
 */
import "../support/quiet.ts";
import { assertEquals } from "@std/assert";
import type { Vf } from "../../shared/api/mod.ts";
import { allotVf } from "../../services/pf/policy.ts";
import { TestPf } from "../support/test_pf.ts";

type Body = Record<string, unknown>;

/** Requests that no VF may make, with the field at fault and what is said; `before` is set first. */
interface Refusal {
  before?: Body;
  set: Body;
  field: string;
  says: string;
  status?: number;
}

/** Each refusal is answered, names its field, and changes nothing: not the VF, nor the NIC. */
function refuses(name: string, refusals: Refusal[]): void {
  Deno.test(name, async () => {
    for (const { before = {}, set, field, says, status = 422 } of refusals) {
      await using pf = await TestPf.start();
      const was = await pf.set("vfs/1", before);
      const programmes = pf.nic.programmes.length;
      const events = pf.events.length;
      const answer = await pf.patch("vfs/1", set);
      assertEquals([answer.status, answer.body.field, answer.body.detail], [status, field, says], JSON.stringify(set));
      assertEquals(await pf.get("vfs/1"), was);
      assertEquals([pf.nic.programmes.length, pf.events.length], [programmes, events], "the NIC hears nothing of it");
    }
  });
}

const VLANS = "VLAN ids are 0–4094";

refuses("VLAN ids are 0–4094, priorities 0–7, protocols 802.1Q and 802.1ad", [
  { set: { vlan: -1 }, field: "vlan", says: `vlan: ${VLANS}` },
  { set: { vlan: 4095 }, field: "vlan", says: `vlan: ${VLANS}` },
  { set: { vlan: 1.5 }, field: "vlan", says: "vlan: must be a whole number" },
  { set: { vlan: "10" }, field: "vlan", says: "vlan: must be a whole number" },
  { set: { vlan: 10, qos: 8 }, field: "qos", says: "qos: priorities are 0–7" },
  { set: { vlan: 10, vlanProto: "802.1x" }, field: "vlanProto", says: "vlanProto: is 802.1Q or 802.1ad" },
  { set: { trunk: [0] }, field: "trunk.0", says: "trunk.0: trunk VLAN ids are 1–4094" },
  { set: { trunk: [7, 4095] }, field: "trunk.1", says: "trunk.1: trunk VLAN ids are 1–4094" },
]);

refuses("a priority and a protocol need a VLAN to carry them", [
  { set: { qos: 3 }, field: "qos", says: "cannot set qos 3 on vf 1: it has no VLAN to carry it; set vlan too" },
  {
    set: { vlanProto: "802.1ad" },
    field: "vlanProto",
    says: "cannot set vlanProto 802.1ad on vf 1: it has no VLAN; set vlan too",
  },
  {
    before: { vlan: 10, qos: 3 },
    set: { vlan: 0, qos: 3 },
    field: "qos",
    says: "cannot set qos 3 on vf 1: it has no VLAN to carry it; set vlan too",
  },
]);

const USECS = "from 0 (interrupts are not deferred) to 10000 µs";

refuses("interrupts wait for 10 ms at the most, and for 1–1024 frames", [
  { set: { rxUsecs: -1 }, field: "rxUsecs", says: `rxUsecs: ${USECS}` },
  { set: { txUsecs: 10_001 }, field: "txUsecs", says: `txUsecs: ${USECS}` },
  { set: { rxUsecs: 1.5 }, field: "rxUsecs", says: "rxUsecs: must be a whole number of µs" },
  { set: { rxFrames: 0 }, field: "rxFrames", says: "rxFrames: from 1 to 1024 frames" },
  { set: { txFrames: 1025 }, field: "txFrames", says: "txFrames: from 1 to 1024 frames" },
  { set: { adaptiveRx: "on" }, field: "adaptiveRx", says: "adaptiveRx: is true or false" },
]);

refuses("a VF that is not trusted is not promiscuous", [
  {
    set: { promisc: true },
    field: "promisc",
    says: "cannot make vf 1 promiscuous: it is not trusted; set trust too",
  },
  {
    before: { trust: true },
    set: { trust: false, promisc: true },
    field: "promisc",
    says: "cannot make vf 1 promiscuous: it is not trusted; set trust too",
  },
]);

refuses("rates: whole Mbit/s, and a minimum is no more than the maximum; the field that was set is at fault", [
  { set: { maxTxRate: -1 }, field: "maxTxRate", says: "maxTxRate: rates are 0 (none) or more Mbit/s" },
  { set: { minTxRate: 0.5 }, field: "minTxRate", says: "minTxRate: must be a whole number of Mbit/s" },
  { set: { maxTxRate: 1_000_001 }, field: "maxTxRate", says: "maxTxRate: rates are at most 1000000 Mbit/s" },
  {
    set: { minTxRate: 200, maxTxRate: 100 },
    field: "minTxRate",
    says: "cannot set minTxRate 200 on vf 1: minTxRate 200 would be over maxTxRate 100",
  },
  {
    before: { minTxRate: 200 },
    set: { maxTxRate: 100 },
    field: "maxTxRate",
    says: "cannot set maxTxRate 100 on vf 1: minTxRate 200 would be over maxTxRate 100",
  },
  {
    before: { maxTxRate: 100 },
    set: { minTxRate: 101 },
    field: "minTxRate",
    says: "cannot set minTxRate 101 on vf 1: minTxRate 101 would be over maxTxRate 100",
  },
]);

refuses("an address is a unicast one of its own", [
  { set: { mac: "02:00:00:00:00" }, field: "mac", says: "mac: is not a MAC address such as 02:00:00:00:00:01" },
  {
    set: { mac: "01:00:5e:00:00:01" },
    field: "mac",
    says: "mac: is a multicast address: a VF needs a unicast one (the first byte must be even)",
  },
  { set: { mac: "00:00:00:00:00:00" }, field: "mac", says: "mac: is all zero: a VF needs an address of its own" },
]);

const PREFIX = "is not an IP address or prefix such as 10.0.0.5, 10.0.0.0/24 or fe80::/10";

refuses("further addresses are unicast ones, IP addresses are whole, and there are 16 of each at most", [
  { set: { nativeVlan: 4095 }, field: "nativeVlan", says: `nativeVlan: ${VLANS}` },
  { set: { allowedMacs: "none" }, field: "allowedMacs", says: "allowedMacs: is a list of addresses" },
  {
    set: { allowedMacs: ["01:00:5e:00:00:01"] },
    field: "allowedMacs.0",
    says: "allowedMacs.0: is a multicast address: a VF needs a unicast one (the first byte must be even)",
  },
  ...[
    "10.1",
    "10/8",
    "010.0.0.0/8",
    "10.1/16",
    "::10.0.0.5",
    "167772161",
    "10.0.0.256",
    "10.0.0.0/33",
    "fe80::/129",
    "::1::",
    "",
    "host",
    "10.0.0.5/",
  ].map((text) => ({
    set: { allowedIps: ["10.0.0.5", text] },
    field: "allowedIps.1",
    says: `allowedIps.1: ${PREFIX}`,
  })),
  {
    set: { allowedIps: Array.from({ length: 17 }, (_, i) => `10.0.0.${i}`) },
    field: "allowedIps",
    says: "allowedIps: at most 16 addresses and prefixes",
  },
  {
    set: { maxBroadcastRate: -1 },
    field: "maxBroadcastRate",
    says: "maxBroadcastRate: rates are 0 (no limit) to 10000000 frames a second",
  },
]);

Deno.test("further addresses: those of one port are no other's in its VLANs, and its own is none of them", async () => {
  await using pf = await TestPf.start();
  const [zero, one] = await Promise.all([pf.get<Vf>("vfs/0"), pf.get<Vf>("vfs/1")]);
  const vrrp = "00:00:5e:00:01:07";
  const own = [vrrp, one.mac].sort();
  assertEquals((await pf.set("vfs/1", { allowedMacs: [one.mac, vrrp.toUpperCase(), vrrp] })).allowedMacs, own);
  const refused = async (body: Body) => {
    const { status, body: { field, detail } } = await pf.patch("vfs/0", body);
    return [status, field, detail];
  };
  const taken = (mac: string) => `cannot give vf 0 the address ${mac}: vf 1 has it without a VLAN`;
  assertEquals(await refused({ mac: vrrp }), [409, "mac", taken(vrrp)]);
  assertEquals(await refused({ allowedMacs: [vrrp] }), [409, "allowedMacs", taken(vrrp)]);
  assertEquals(await refused({ allowedMacs: [one.mac] }), [409, "allowedMacs", taken(one.mac)]);
  assertEquals((await pf.set("vfs/0", { vlan: 7, allowedMacs: [vrrp] })).allowedMacs, [vrrp], "another VLAN");
  assertEquals((await pf.patch("vfs/1", { nativeVlan: 7 })).status, 409, "a native VLAN is one of its own");
  const { pfMac } = await pf.get<{ pfMac: string }>("nic");
  assertEquals((await refused({ allowedMacs: [pfMac] }))[1], "allowedMacs");
  const both = await pf.set("vfs/1", { mac: vrrp, nativeVlan: 9 });
  assertEquals([both.mac, both.allowedMacs], [vrrp, own], "its own may be one of them, and they stay what was set");
  assertEquals((await pf.set("vfs/1", { mac: one.mac })).allowedMacs, own);
  assertEquals(zero.allowedMacs, []);
});

Deno.test("a trunk list and a native VLAN that are not in force take no address from others", async () => {
  await using pf = await TestPf.start();
  const mac = "02:ab:cd:00:00:01";
  await pf.set("vfs/0", { vlan: 10, nativeVlan: 20, trunk: [30], mac });
  for (const [i, vlan] of [20, 30].entries()) assertEquals((await pf.patch(`vfs/${i + 1}`, { vlan, mac })).status, 200);
  assertEquals((await pf.patch("vfs/3", { nativeVlan: 40, mac: "02:ab:cd:00:00:02" })).status, 200);
  const tagged = { vlan: 40, vlanProto: "802.1ad", mac: "02:ab:cd:00:00:02" };
  assertEquals((await pf.patch("vfs/1", tagged)).status, 200, "the native VLAN is a C-VLAN");
  assertEquals((await pf.patch("vfs/1", { vlanProto: "802.1Q" })).status, 409);
});

Deno.test("IP addresses are kept as their prefixes, sorted, each once", async () => {
  await using pf = await TestPf.start();
  const allowedIps = ["fe80::1/10", "10.0.0.5/32", "2001:DB8:0::5", "10.0.0.5", "192.168.9.9/22"];
  assertEquals((await pf.set("vfs/1", { allowedIps })).allowedIps, [
    "10.0.0.5",
    "192.168.8.0/22",
    "2001:db8::5",
    "fe80::/10",
  ]);
});

refuses("fields that are none, and values of another kind", [
  { set: { colour: "red" }, field: "colour", says: "colour: is not a field that can be set" },
  { set: { id: 7 }, field: "id", says: "id: is not a field that can be set" },
  { set: { trust: 1 }, field: "trust", says: "trust: is true or false" },
  { set: { spoofCheck: "on" }, field: "spoofCheck", says: "spoofCheck: is true or false" },
  { set: { linkState: "up" }, field: "linkState", says: "linkState: is auto, enable or disable" },
  { set: { hardware: "e1000" }, field: "hardware", says: "hardware: is any, advanced or virtio" },
  {
    set: { multicast: "some" },
    field: "multicast",
    says: "multicast: is all, none, or a list of multicast MAC addresses",
  },
]);

Deno.test("what belongs together changes together", async () => {
  await using pf = await TestPf.start();
  const set = (body: Body) => pf.set("vfs/1", body);
  const tagged = await set({ vlan: 100, qos: 5, vlanProto: "802.1ad" });
  assertEquals([tagged.vlan, tagged.qos, tagged.vlanProto], [100, 5, "802.1ad"]);
  const untagged = await set({ vlan: 0 });
  assertEquals([untagged.qos, untagged.vlanProto], [0, "802.1Q"], "the priority and the protocol go with the VLAN");
  assertEquals((await set({ trust: true, promisc: true })).promisc, true);
  assertEquals((await set({ trust: false })).promisc, false, "promiscuity goes with trust");
  assertEquals((await set({ trunk: [7, 5, 7] })).trunk, [5, 7], "a trunk list is a sorted set");
  assertEquals((await set({ minTxRate: 200, maxTxRate: 0 })).minTxRate, 200, "without a maximum any minimum goes");
  assertEquals((await set({ vlan: 4094, qos: 7, minTxRate: 1_000_000 })).vlan, 4094);
  assertEquals((await set({})).trunk, [5, 7], "what is not named stays");
});

Deno.test("an address is normalised, and the PF's once it has set one", async () => {
  await using pf = await TestPf.start();
  assertEquals((await pf.get<Vf>("vfs/1")).macFixed, false);
  const { mac, macFixed } = await pf.set("vfs/1", { mac: "02-AB-CD-00-00-01" });
  assertEquals([mac, macFixed], ["02:ab:cd:00:00:01", true]);
  assertEquals((await pf.set("vfs/1", { macFixed: false })).macFixed, false);
  assertEquals((await pf.set("vfs/1", { mac: "02:ab:cd:00:00:02", macFixed: false })).macFixed, false);
});

/** Whether VF 1 may have VF 0's address, with these policies. */
const SHARED_ADDRESS: [string, Body, Body, string | undefined][] = [
  ["neither in a VLAN", {}, {}, "without a VLAN"],
  ["the same VLAN", { vlan: 7 }, { vlan: 7 }, "in VLAN 7"],
  ["two VLANs", { vlan: 7 }, { vlan: 8 }, undefined],
  ["one in a VLAN", { vlan: 7 }, {}, undefined],
  ["the same VLAN of two protocols", { vlan: 7 }, { vlan: 7, vlanProto: "802.1ad" }, undefined],
  ["a trunk list with the other's VLAN", { trunk: [7] }, { vlan: 7 }, "in VLAN 7"],
  ["a VLAN that the other's trunk list has", { vlan: 7 }, { trunk: [5, 7] }, "in VLAN 7"],
  ["a trunk list without the other's VLAN", { trunk: [5] }, { vlan: 7 }, undefined],
  ["a trusted VF, which may use any VLAN", { trust: true }, { vlan: 7 }, "in VLAN 7"],
  ["beside a trusted VF", { vlan: 7 }, { trust: true }, "in VLAN 7"],
  ["a trusted VF that the PF has put into a VLAN", { trust: true, vlan: 8 }, { vlan: 7 }, undefined],
];

Deno.test("two VFs never receive the same address in the same VLAN", async (t) => {
  for (const [name, first, second, where] of SHARED_ADDRESS) {
    await t.step(name, async () => {
      await using pf = await TestPf.start();
      const { mac } = await pf.set("vfs/0", first);
      await pf.set("vfs/1", second);
      const { status, body } = await pf.patch("vfs/1", { mac });
      const refused = [409, "mac", `cannot give vf 1 the address ${mac}: vf 0 has it ${where}`];
      assertEquals([status, body.field, body.detail], where === undefined ? [200, undefined, undefined] : refused);
    });
  }
});

Deno.test("a VLAN is refused as an address is, if another VF has the address there", async () => {
  await using pf = await TestPf.start();
  const { mac } = await pf.set("vfs/0", { vlan: 7 });
  await pf.set("vfs/1", { vlan: 8, mac });
  const { status, body } = await pf.patch("vfs/1", { vlan: 7 });
  assertEquals([status, body.detail], [409, `cannot give vf 1 the address ${mac}: vf 0 has it in VLAN 7`]);
});

Deno.test("nobody has the PF's address", async () => {
  await using pf = await TestPf.start();
  const { pfMac } = await pf.get<{ pfMac: string }>("nic");
  const says = (who: string) => [409, "mac", `cannot give ${who} the PF's address ${pfMac}`];
  const vf = await pf.patch("vfs/1", { mac: pfMac, vlan: 9 });
  assertEquals([vf.status, vf.body.field, vf.body.detail], says("vf 1"));
  const vport = await pf.ask("POST", "vports", { mac: pfMac });
  assertEquals([vport.status, vport.body.field, vport.body.detail], says("vport 0"));
});

Deno.test("VFs that are not there: what there is, is said", async () => {
  await using pf = await TestPf.start(2);
  const missing = async (method: string, path: string, body?: unknown) => {
    const answer = await pf.ask(method, path, body);
    return [answer.status, answer.body.field, answer.body.detail];
  };
  const says = [404, "id", "there is no vf 2: VFs are 0–1"];
  assertEquals(await missing("GET", "vfs/2"), says);
  assertEquals(await missing("PATCH", "vfs/2", { vlan: 1 }), says);
  assertEquals(await missing("PATCH", "vfs/2/guest", { vlan: 1 }), says);
  assertEquals(await missing("GET", "vfs/2/stats"), says);
  assertEquals(await missing("GET", "vfs/2/mode"), says);
  assertEquals(await missing("PUT", "vfs/2/mode", { mode: "emulated" }), says);
  await pf.set("nic", { numVfs: 0 });
  assertEquals(await missing("GET", "vfs/0"), [404, "id", "there is no vf 0: there are none"]);
});

refuses("copies go to another VF that is there, or to the uplink", [
  { set: { mirror: "both:1" }, field: "mirror", says: "cannot mirror vf 1 to itself" },
  { set: { mirror: "in:9" }, field: "mirror", says: "cannot mirror vf 1 to vf 9: there is none" },
  { set: { mirror: "both:pf" }, field: "mirror", says: "mirror: is such as both:3, in:3 or out:uplink, or null" },
  { set: { mirror: { to: 0 } }, field: "mirror", says: "mirror: is such as both:3, in:3 or out:uplink, or null" },
]);

Deno.test("a VF that copies go to is kept, and neither it nor the one that is mirrored is allotted to a guest", async () => {
  await using pf = await TestPf.start(3);
  await pf.set("vfs/0", { mirror: "both:2" });
  assertEquals(pf.nic.programmes.at(-1)?.vfs[0]?.mirror, "both:2");
  const answer = await pf.ask("PATCH", "nic", { numVfs: 2 });
  assertEquals([answer.status, answer.body.detail], [
    409,
    "vf 2 cannot be removed: vf 0 is mirrored to it; set mirror first",
  ]);
  await pf.addVport({ id: 0 });
  assertEquals(allotVf(pf.fabric.settings, 0, () => true).vports[0]?.vf, 1);
  await pf.set("vfs/0", { mirror: null });
  await pf.set("nic", { pfMirror: "in:2" });
  assertEquals(pf.nic.programmes.at(-1)?.pfMirror, "in:2");
  assertEquals(
    (await pf.ask("PATCH", "nic", { numVfs: 2 })).body.detail,
    "vf 2 cannot be removed: the PF's pool is mirrored to it; set pfMirror first",
  );
  assertEquals(allotVf(pf.fabric.settings, 0, () => true).vports[0]?.vf, 1);
  const refused = async (pfMirror: unknown) => {
    const { body: { field, detail } } = await pf.ask("PATCH", "nic", { pfMirror });
    return [field, detail];
  };
  assertEquals(await refused("in:9"), ["pfMirror", "cannot mirror the PF's pool to vf 9: there is none"]);
  assertEquals(await refused("in:pf"), ["pfMirror", "pfMirror: is such as both:3, in:3 or out:uplink, or null"]);
  await pf.set("nic", { pfMirror: null });
  await pf.set("nic", { numVfs: 2 });
});
