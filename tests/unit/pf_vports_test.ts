/** Guests without a VF: the vports' numbers and policy, and the VFs that are allotted to their guests for a while. */
import "../support/quiet.ts";
import { assertEquals } from "@std/assert";
import { ApiError, VPORTS_MAX, type VportView } from "../../shared/api/mod.ts";
import { refusalOf } from "../support/app.ts";
import { histogram } from "../support/latency.ts";
import { TestPf } from "../support/test_pf.ts";

Deno.test("a vport has the first number that is free, or the one it is given, and an address of its own", async () => {
  await using pf = await TestPf.start(1);
  assertEquals((await pf.addVport()).id, 0);
  assertEquals((await pf.addVport({ id: 2, vlan: 7, trust: true })).vlan, 7);
  assertEquals((await pf.addVport()).id, 1);
  const vports = await pf.get<VportView[]>("vports");
  assertEquals(vports.map(({ id, socket, vf }) => [id, socket, vf]), [
    [0, "/run/test/vport0/vhost.sock", null],
    [1, "/run/test/vport1/vhost.sock", null],
    [2, "/run/test/vport2/vhost.sock", null],
  ]);
  assertEquals(new Set(vports.map(({ mac }) => mac)).size, 3);
  assertEquals(refusalOf(await pf.ask("POST", "vports", { id: 2 })), "409 id: there is a vport 2 already");
  for (const id of [-1, VPORTS_MAX]) {
    assertEquals(refusalOf(await pf.ask("POST", "vports", { id })), "422 id: id: vports are 0–127");
  }
});

Deno.test("there are 128 vports at most", async () => {
  await using pf = await TestPf.start(0);
  for (let i = 0; i < VPORTS_MAX; i++) await pf.addVport();
  assertEquals(refusalOf(await pf.ask("POST", "vports", {})), "409 id: there are 128 vports already: remove one first");
  assertEquals((await pf.ask("DELETE", "vports/77")).status, 200);
  assertEquals((await pf.addVport()).id, 77);
});

Deno.test("a vport's policy has a VF's rules, and speaks of the vport", async () => {
  await using pf = await TestPf.start(1);
  const { mac } = await pf.addVport();
  assertEquals(
    refusalOf(await pf.ask("PATCH", "vports/0", { qos: 3 })),
    "422 qos: cannot set qos 3 on vport 0: it has no VLAN to carry it; set vlan too",
  );
  assertEquals(
    refusalOf(await pf.ask("PATCH", "vports/0", { promisc: true })),
    "422 promisc: cannot make vport 0 promiscuous: it is not trusted; set trust too",
  );
  assertEquals(
    refusalOf(await pf.ask("PATCH", "vfs/0", { mac })),
    `409 mac: cannot give vf 0 the address ${mac}: vport 0 has it without a VLAN`,
  );
  assertEquals(
    (await pf.ask("PATCH", "vports/0", { hardware: "virtio" })).body.field,
    "hardware",
    "it has no hardware",
  );
  assertEquals((await pf.ask("PATCH", "vports/0", { vf: 0 })).body.field, "vf", "a VF is allotted, not set");
  assertEquals((await pf.set<VportView>("vports/0", { vlan: 7, qos: 3, maxTxRate: 100 })).qos, 3);
  assertEquals(refusalOf(await pf.ask("PATCH", "vports/5", { vlan: 7 })), "404 id: there is no vport 5; there are: 0");
});

Deno.test("whether its guest is there, and what was counted, is the switch's to say", async () => {
  await using pf = await TestPf.start(0);
  await pf.addVport();
  pf.software.states = [{ id: 0, attached: true, counters: { rx_frames: 3 }, latency: histogram({ 4: 2 }) }];
  const { attached, counters, latency } = await pf.get<VportView>("vports/0");
  assertEquals([attached, counters, latency?.samples], [true, { rx_frames: 3 }, 2]);
  pf.software.vports = () => Promise.reject(new ApiError(503, "vhost does not answer"));
  const alone = await pf.get<VportView>("vports/0");
  assertEquals([alone.attached, alone.latency], [null, null], "the policy is shown all the same");
});

// VFs of vports' guests --------------------------------------------------------------------------------------

Deno.test("a guest is allotted the last VF that nobody drives, is about to drive, or is connected to", async () => {
  await using pf = await TestPf.start(6);
  for (let i = 0; i < 3; i++) await pf.addVport();
  pf.nic.pools.set(5, { attached: true });
  pf.nic.pools.set(3, { held: true });
  pf.software.frontEnds.add(2);
  const allotted = [];
  for (const id of [0, 1, 2]) allotted.push((await pf.ask<VportView>("POST", `vports/${id}/vf`, {})).body.vf);
  assertEquals(allotted, [4, 1, 0]);
  assertEquals((await pf.get("vfs/4")).vport, 0);
  assertEquals(pf.nic.takenBack, [4, 1, 0], "whoever had it before cannot come back to it");
  await pf.addVport();
  assertEquals(
    refusalOf(await pf.ask("POST", "vports/3/vf", {})),
    "409 mode (no-vf-left): no VF is left for the guest of vport 3: all 6 are in use",
  );
});

Deno.test("a guest that has a VF keeps it, and is not taken it from when it asks again", async () => {
  await using pf = await TestPf.start(2);
  await pf.addVport();
  await pf.ask("POST", "vports/0/vf", {});
  pf.nic.pools.set(1, { attached: true });
  assertEquals((await pf.ask<VportView>("POST", "vports/0/vf", {})).body.vf, 1);
  assertEquals(pf.nic.takenBack, [1]);
});

Deno.test("a VF that is given back was taken back first; without one there is nothing to be done", async () => {
  await using pf = await TestPf.start(2);
  await pf.addVport();
  await pf.ask("POST", "vports/0/vf", {});
  assertEquals((await pf.ask<VportView>("DELETE", "vports/0/vf")).body.vf, null);
  assertEquals(pf.nic.takenBack, [1, 1]);
  assertEquals((await pf.ask<VportView>("DELETE", "vports/0/vf")).status, 200);
  assertEquals(pf.nic.takenBack, [1, 1]);
});

Deno.test("if the NIC does not take a VF back it stays whose it is", async () => {
  await using pf = await TestPf.start(2);
  await pf.addVport();
  const refuse = () => Promise.reject(new ApiError(503, "the NIC does not answer", undefined, "unreachable"));
  const takeBack = pf.nic.takeBack.bind(pf.nic);
  pf.nic.takeBack = refuse;
  assertEquals((await pf.ask("POST", "vports/0/vf", {})).body.reason, "unreachable");
  assertEquals((await pf.get<VportView>("vports/0")).vf, null);
  pf.nic.takeBack = takeBack;
  await pf.ask("POST", "vports/0/vf", {});
  pf.nic.takeBack = refuse;
  assertEquals((await pf.ask("DELETE", "vports/0/vf")).body.reason, "unreachable");
  assertEquals((await pf.get<VportView>("vports/0")).vf, 1);
});

Deno.test("while a VF is allotted, its own policy rests, its vport stays, and it is not removed", async () => {
  await using pf = await TestPf.start(2);
  await pf.addVport();
  await pf.ask("POST", "vports/0/vf", {});
  assertEquals(
    refusalOf(await pf.ask("PATCH", "vfs/1", { vlan: 7 })),
    "409 id (vf-allotted): vf 1 is allotted to the guest of vport 0: set the vport's policy instead",
  );
  assertEquals(
    refusalOf(await pf.ask("DELETE", "vports/0")),
    "409 id (vf-allotted): vport 0 has vf 1: put its guest into emulated mode first (fabric vport mode 0 emulated)",
  );
  assertEquals(
    refusalOf(await pf.ask("PATCH", "nic", { numVfs: 1 })),
    "409 numVfs: vf 1 cannot be removed: put the guest of vport 0 into emulated mode first",
  );
  await pf.ask("DELETE", "vports/0/vf");
  assertEquals((await pf.set("nic", { numVfs: 1 }), (await pf.ask("DELETE", "vports/0")).status), 200);
});

Deno.test("changes of vports are told", async () => {
  await using pf = await TestPf.start(1);
  await pf.addVport({ id: 3, vlan: 7 });
  await pf.set("vports/3", { qos: 2 });
  await pf.ask("POST", "vports/3/vf", {});
  await pf.ask("DELETE", "vports/3/vf");
  await pf.ask("DELETE", "vports/3");
  const told = pf.events.filter(({ type }) => type !== "nic-up");
  const changes = [{ id: 3, vlan: 7 }, { qos: 2 }, { vf: 0 }, { vf: null }, {}];
  assertEquals(told, changes.map((changes) => ({ type: "vport-changed", vport: 3, changes })));
});
