/** What the PF's API shows and tells: of the NIC, while it is there and while it is not, and of modes. */
import "../support/quiet.ts";
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { ApiError, latencyView, type NicView, type Vf, type VfMode, type VfStats } from "../../shared/api/mod.ts";
import { TestPf } from "../support/test_pf.ts";

Deno.test("a VF is shown with its policy, and with what the NIC says of it", async () => {
  await using pf = await TestPf.start(2);
  pf.nic.pools.set(1, {
    ...{ attached: true, owner: "vhost", mode: "emulated", plugin: "advanced@1.0.0", learnedMacs: 2 },
    ...{ lastDetach: "its owner died", counters: { tx_frames: 7 } },
  });
  const vf = await pf.set("vfs/1", { vlan: 9 });
  assertEquals(
    [vf.id, vf.vlan, vf.socket, vf.attached, vf.owner, vf.mode, vf.plugin, vf.learnedMacs, vf.lastDetach, vf.vport],
    [1, 9, "/run/test/vf1/vhost.sock", true, "vhost", "emulated", "advanced@1.0.0", 2, "its owner died", null],
  );
  assertEquals(await pf.get<VfStats>("vfs/1/stats"), { id: 1, counters: { tx_frames: 7 }, latency: latencyView() });
  assertEquals((await pf.get<Vf[]>("vfs")).map(({ id, attached }) => [id, attached]), [[0, false], [1, true]]);
});

Deno.test("while the NIC is away, policy is read all the same; counters are not", async () => {
  await using pf = await TestPf.start(1);
  await pf.set("vfs/0", { vlan: 9 });
  pf.nic.isAway = true;
  const vf = await pf.get("vfs/0");
  assertEquals(
    [vf.vlan, vf.attached, vf.queues, vf.mode, vf.memory],
    [9, null, null, null, null],
    "nothing is made up",
  );
  assertEquals((await pf.get<NicView>("nic")).reachable, false);
  const { status, body } = await pf.ask("GET", "vfs/0/stats");
  assertEquals([status, body.reason], [503, "unreachable"]);
});

Deno.test("metrics say whether the NIC is there, and count for each VF and the uplink", async () => {
  await using pf = await TestPf.start(2);
  pf.nic.pools.set(1, { attached: true, counters: { tx_frames: 7 } });
  const text = async () => await (await pf.app.request("/metrics")).text();
  const present = await text();
  for (
    const line of [
      "ringfabric_nic_up 1",
      "ringfabric_vfs 2",
      'ringfabric_vf_attached{vf="1"} 1',
      'ringfabric_vf_tx_frames_total{vf="1"} 7',
      'ringfabric_vf_tx_frames_total{vf="uplink"} 0',
    ]
  ) assertStringIncludes(present, line);
  pf.nic.isAway = true;
  assertStringIncludes(await text(), "ringfabric_nic_up 0");
});

Deno.test("modes are the vf service's: its answers and its refusals are passed on", async () => {
  await using pf = await TestPf.start(1);
  await pf.addVport();
  pf.modes.answer = { mode: "passthrough", plugin: "advanced", version: "1.0.0", changing: false };
  const request = { mode: "passthrough", plugin: "advanced" };
  assertEquals((await pf.ask<VfMode>("PUT", "vfs/0/mode", request)).body.plugin, "advanced");
  assertEquals((await pf.ask<VfMode>("GET", "vports/0/mode")).body.mode, "passthrough");
  await pf.ask("PUT", "vports/0/mode", { mode: "emulated", force: true });
  assertEquals(pf.modes.asked, [["vfs/0", request], ["vports/0"], ["vports/0", { mode: "emulated", force: true }]]);
  pf.modes.answer = new ApiError(409, "the guest did not let go", "mode", "plugin-failed");
  const { status, body } = await pf.ask("PUT", "vfs/0/mode", request);
  assertEquals([status, body.field, body.reason], [409, "mode", "plugin-failed"]);
  assertEquals((await pf.ask("PUT", "vfs/0/mode", { mode: "direct" })).body.field, "mode");
  assertEquals((await pf.ask("PUT", "vfs/0/mode", { mode: "passthrough", plugin: "../x" })).body.field, "plugin");
  assertEquals(pf.modes.asked.length, 4, "what is no mode does not reach the vf service");
});

Deno.test("what the vf service tells of modes is told on, with whose mode it is", async () => {
  await using pf = await TestPf.start(1);
  const why = { reason: "plugin-failed", detail: "it trapped" };
  pf.modeEvents.tell({ type: "mode-changed", port: 0, mode: "passthrough", plugin: "advanced" });
  pf.modeEvents.tell({ type: "mode-changed", port: "vport3", mode: "emulated", ...why });
  pf.modeEvents.tell({ type: "mode-failed", port: 0, mode: null, ...why });
  assertEquals(pf.events.slice(-3), [
    { type: "mode-changed", vf: 0, mode: "passthrough", plugin: "advanced" },
    { type: "mode-changed", vport: 3, mode: "emulated", ...why },
    { type: "mode-failed", vf: 0, mode: null, ...why },
  ]);
});

Deno.test("what the NIC tells is told on", async () => {
  await using pf = await TestPf.start(1);
  pf.nic.tell({ type: "attached", pool: 0, owner: "vhost" });
  pf.nic.tell({ type: "queue-error", pool: 0, index: 1, reason: "bad-chain" });
  pf.nic.tell({ type: "detached", pool: "uplink", reason: "detached" });
  assertEquals(pf.events.slice(1), [
    { type: "attached", vf: 0 },
    { type: "queue-error", vf: 0, index: 1, reason: "bad-chain" },
    { type: "detached", vf: "uplink", reason: "detached" },
  ]);
});

Deno.test("events are streamed from the moment that a listener is there", async () => {
  await using pf = await TestPf.start(1);
  const response = await pf.app.request("/api/v1/events");
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  assertEquals((await reader?.read())?.value, ": subscribed\n\n");
  await pf.set("vfs/0", { vlan: 9 });
  const event = (await reader?.read())?.value ?? "";
  const { at, ...told } = JSON.parse(/^data: (.*)$/m.exec(event)?.[1] ?? "");
  assertEquals(told, { type: "vf-changed", vf: 0, changes: { vlan: 9 } });
  assertMatch(at, /^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
  await reader?.cancel();
});
