/** Uplinks at the PF: what is behind a pool, kept and in force or not at all; and the link that follows it. */
import "../support/quiet.ts";
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import {
  ApiError,
  type NicView,
  type Problem,
  type UplinkState,
  type UplinkView,
  type Vf,
} from "../../shared/api/mod.ts";
import { Store } from "../../services/pf/store.ts";
import { TestPf } from "../support/test_pf.ts";
import { until } from "../support/wait.ts";

const TAP = { kind: "tap", name: "rf0" } as const;
const NONE = { kind: "none" } as const;

/** Asks for an uplink, by its spec or by its short form. */
function put<T = Problem>(pf: TestPf, path: string, spec: unknown) {
  return pf.ask<T>("PUT", `${path}/uplink`, typeof spec === "object" ? spec : JSON.stringify(spec));
}

/** Sets an uplink that must be taken. */
async function set(pf: TestPf, path: string, spec: unknown): Promise<UplinkView> {
  const { status, body } = await put<UplinkView>(pf, path, spec);
  assertEquals(status, 200, JSON.stringify(body));
  return body;
}

const linkOf = (pf: TestPf) => pf.nic.programmes.at(-1)?.link;

Deno.test("an uplink is in force when it is answered, by its whole spec or its short form; the same again is nothing", async () => {
  await using pf = await TestPf.start(2);
  assertEquals(await pf.get("nic/uplink"), { pool: "uplink", spec: NONE, state: "none", counters: {}, offloads: [] });
  const spec = { ...TAP, address: "10.0.0.254/16" };
  const { pool, state } = await set(pf, "nic", spec);
  assertEquals([pool, state, pf.nic.putUplinks], ["uplink", "up", [["uplink", spec]]]);
  await set(pf, "nic", spec);
  assertEquals(pf.nic.putUplinks.length, 1);
  assertEquals((await set(pf, "nic", "packet:eth1")).spec, { kind: "packet", interface: "eth1" });
  assertEquals((await pf.get<NicView>("nic")).uplink.spec, { kind: "packet", interface: "eth1" });
  assertEquals((await set(pf, "nic", "none")).state, "none");
  assertEquals(pf.nic.uplinks, {});
  const told = pf.events.filter(({ type }) => type !== "nic-up");
  assertEquals(told.map((event) => "changes" in event ? event.changes : event.type), [
    "uplink-up",
    { uplink: spec },
    { uplink: { kind: "packet", interface: "eth1" } },
    { uplink: NONE },
  ]);
});

Deno.test("what is no uplink is refused with the field at fault, and reaches nobody", async () => {
  await using pf = await TestPf.start(1);
  const cases: [unknown, string, RegExp][] = [
    ["tap:a-name-that-is-too-long", "body", /at most 15 characters/],
    ["eth0", "body", /say tap:NAME/],
    [{ ...TAP, address: "10.0.0.254" }, "address", /has no prefix length/],
    [{ kind: "packet", interface: "a/b" }, "interface", /no slash/],
    [7, "body", /./],
    [{ kind: "vlan" }, "kind", /kind is tap, packet, xdp, pcap or none/],
  ];
  for (const [spec, field, pattern] of cases) {
    const { status, body } = await put(pf, "nic", spec);
    assertEquals([status, body.field], [422, field], JSON.stringify(spec));
    assertMatch(body.detail, pattern);
  }
  assertEquals(pf.nic.putUplinks, []);
});

Deno.test("what the NIC cannot do has not happened: its reason is passed on, and the one before is in force", async () => {
  await using pf = await TestPf.start(1);
  await set(pf, "nic", TAP);
  pf.nic.uplinkRefusals.push(new ApiError(409, "the NIC: there is no interface eth9", "interface", "no-interface"));
  const { status, body } = await put(pf, "nic", "packet:eth9");
  assertEquals([status, body.detail], [409, "the NIC: there is no interface eth9"]);
  assertEquals(pf.nic.putUplinks.at(-1), ["uplink", TAP]);
  assertEquals([(await pf.get<UplinkView>("nic/uplink")).spec, linkOf(pf)], [TAP, "up"]);
});

Deno.test("a VF is bound to an interface while no guest drives it, and to no guest while it is bound", async () => {
  await using pf = await TestPf.start(3);
  await pf.addVport();
  pf.nic.pools.set(0, { attached: true, owner: "qemu (pid 7)" });
  const driven = await put(pf, "vfs/0", TAP);
  assertEquals([driven.status, driven.body.reason], [409, "vf-in-use"]);
  assertEquals(driven.body.detail, "vf 0 is driven by qemu (pid 7): stop its guest, or take another VF");

  assertEquals((await set(pf, "vfs/2", TAP)).pool, 2);
  const vf = await pf.get<Vf>("vfs/2");
  assertEquals(vf.uplink, { spec: TAP, state: "up" });
  pf.nic.pools.set(2, { attached: true, owner: "uplink tap:rf0" });
  assertEquals((await set(pf, "vfs/2", { ...TAP, address: "10.0.0.2/16" })).state, "up", "its own driver is no guest");

  const taken = await put(pf, "vfs/1", TAP);
  assertEquals([taken.status, taken.body.reason], [409, "uplink-taken"]);
  assertMatch(taken.body.detail, /interface rf0 is behind vf 2 already: .*fabric uplink none --vf 2/);
  const mode = await pf.ask("PUT", "vfs/2/mode", { mode: "emulated" });
  assertEquals([mode.status, mode.body.reason], [409, "vf-in-use"]);
  const fewer = await pf.patch("nic", { numVfs: 2 });
  assertEquals([fewer.status, fewer.body.field], [409, "numVfs"]);
  assertMatch(fewer.body.detail, /vf 2 cannot be removed: it is bound to tap:rf0; fabric uplink none --vf 2/);
  await pf.ask("POST", "vports/0/vf", {});
  assertEquals((await pf.get<Vf>("vfs/1")).vport, 0, "a bound VF is allotted to nobody");
  assertEquals((await put(pf, "vfs/1", "packet:eth0")).body.reason, "vf-allotted");
  assertEquals((await put(pf, "vfs/3", "packet:eth0")).status, 404);
  await set(pf, "vfs/2", NONE);
  assertEquals((await pf.get<Vf>("vfs/2")).uplink, null);
  assertEquals((await pf.patch("nic", { numVfs: 2 })).status, 200);
});

Deno.test("the port of the uplink is not taken away from a front-end that is attached to it", async () => {
  await using pf = await TestPf.start(1);
  pf.nic.pools.set("uplink", { attached: true, owner: "vhost (pid 7)" });
  const { status, body } = await put(pf, "nic", TAP);
  assertEquals([status, body.detail], [
    409,
    "the uplink is driven by vhost (pid 7): disconnect the front-end at its socket first",
  ]);
});

Deno.test("the PF's pool is bound when the software switch has let go of it, and while there are no vports", async () => {
  await using pf = await TestPf.start(1);
  pf.nic.pools.set("pf", { attached: true, owner: "vhost switch (pid 7)" });
  await pf.addVport();
  const { status, body } = await put(pf, "pf", TAP);
  assertEquals([status, body.reason], [409, "vports-there"]);
  await pf.ask("DELETE", "vports/0");
  const heard = pf.software.programmes.length;
  pf.software.refusals.push(new ApiError(503, "vhost does not answer", undefined, "unreachable"));
  assertEquals([(await put(pf, "pf", TAP)).status, pf.nic.putUplinks], [503, [["pf", NONE]]]);
  await set(pf, "pf", TAP);
  assertEquals(pf.software.programmes.slice(heard).map(({ drivesPf }) => drivesPf), [false, false]);
  const vport = await pf.ask("POST", "vports", {});
  assertEquals([vport.status, vport.body.reason], [409, "pf-bound"]);
  await set(pf, "pf", "none");
  assertEquals(pf.software.programmes.at(-1)?.drivesPf, true);
  await pf.addVport();
});

Deno.test("uplinks survive the PF and the NIC: they are put in force again, and no link goes down meanwhile", async () => {
  const dir = await Deno.makeTempDir();
  try {
    const path = `${dir}/pf.sqlite`;
    let uplinks = {};
    {
      await using pf = await TestPf.start(2, path);
      await set(pf, "nic", TAP);
      await set(pf, "vfs/1", "packet:eth1");
      pf.nic.goAway();
      pf.nic.uplinks = {};
      pf.nic.putUplinks.length = 0;
      await pf.nic.comeBack();
      assertEquals(pf.nic.putUplinks, [["uplink", TAP], [1, { kind: "packet", interface: "eth1" }]].reverse());
      assertEquals(linkOf(pf), "up");
      ({ uplinks } = pf.nic);
    }
    await using pf = await TestPf.start(2, path, undefined, uplinks);
    assertEquals(pf.nic.putUplinks, [], "the NIC has them");
    assertEquals(pf.nic.programmes.map(({ link }) => link), ["up"]);
    assertEquals((await pf.get<UplinkView>("vfs/1/uplink")).state, "up");
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("what the NIC has and nobody wants goes; what cannot be the NIC goes on trying", async () => {
  const dir = await Deno.makeTempDir();
  try {
    const path = `${dir}/pf.sqlite`;
    {
      await using pf = await TestPf.start(2, path);
      await set(pf, "nic", TAP);
    }
    const other = { spec: { kind: "tap", name: "old" } as const, state: "up" as const, counters: {}, offloads: [] };
    const refusal = new ApiError(409, "may not make tap rf0", "name", "not-permitted");
    await using pf = await TestPf.start(2, path, undefined, { 1: other }, [refusal]);
    assertEquals(pf.nic.putUplinks, [[1, NONE], ["uplink", TAP]]);
    const { state, reason } = await pf.get<UplinkView>("nic/uplink");
    assertEquals([state, reason, linkOf(pf)], ["failed", "may not make tap rf0", "down"]);
    assertEquals(pf.events.filter(({ type }) => type === "uplink-failed"), [
      { type: "uplink-failed", vf: "uplink", reason: "may not make tap rf0" },
    ]);
    pf.nic.turn("uplink", "up");
    await until("the carrier to come", () => linkOf(pf) === "up");
    assertEquals((await pf.get<UplinkView>("nic/uplink")).state, "up");
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("link auto is that of the uplink's interface; up does not follow it; without an uplink there is nothing to follow", async () => {
  await using pf = await TestPf.start(1);
  await pf.addVport();
  const carrier = async () => (await pf.get<NicView>("nic")).carrier;
  assertEquals([(await pf.get<NicView>("nic")).link, await carrier()], ["auto", "up"]);
  await set(pf, "nic", TAP);
  pf.nic.turn("uplink", "down", "its interface is down");
  await until("the carrier to go", () => linkOf(pf) === "down");
  await until("the switch to hear of it", () => pf.software.programmes.at(-1)?.link === "down");
  assertEquals(await carrier(), "down");
  assertEquals(pf.events.slice(-2), [
    { type: "uplink-down", vf: "uplink", reason: "its interface is down" },
    { type: "nic-changed", changes: { carrier: "down" } },
  ]);
  await pf.set("nic", { link: "up" });
  assertEquals([linkOf(pf), pf.software.programmes.at(-1)?.link], ["up", "up"]);
  await pf.set("nic", { link: "auto" });
  assertEquals(linkOf(pf), "down");
  pf.nic.turn("uplink", "up");
  await until("the carrier to come back", () => linkOf(pf) === "up");
  pf.nic.turn("uplink", "down");
  await until("the carrier to go again", () => linkOf(pf) === "down");
  await set(pf, "nic", NONE);
  assertEquals([linkOf(pf), pf.software.programmes.at(-1)?.link], ["up", "up"]);
  await set(pf, "nic", "pcap:/tmp/in.pcap");
  pf.nic.turn("uplink", "down", "the replay has ended");
  assertEquals((await pf.get<UplinkView>("nic/uplink")).state, "down");
  assertEquals([linkOf(pf), await carrier()], ["up", "up"], "a file is no cable");
  await pf.set("nic", { link: "down" });
  await set(pf, "nic", TAP);
  assertEquals(linkOf(pf), "down", "what is set holds");
});

Deno.test("an interface that comes back while the NIC still takes the link down has its link", async () => {
  await using pf = await TestPf.start(1);
  await set(pf, "nic", TAP);
  const taken = Promise.withResolvers<void>();
  pf.nic.pending = taken.promise;
  pf.nic.turn("uplink", "down");
  await until("the link to be taken down", () => linkOf(pf) === "down");
  pf.nic.turn("uplink", "up");
  taken.resolve();
  await until("the link to come back", () => linkOf(pf) === "up");
  assertEquals((await pf.get<NicView>("nic")).carrier, "up");
});

Deno.test("an uplink of a VF has no say in the fabric's link", async () => {
  await using pf = await TestPf.start(2);
  await set(pf, "vfs/1", TAP);
  pf.nic.turn(1, "down");
  assertEquals([(await pf.get<NicView>("nic")).carrier, (await pf.get<Vf>("vfs/1")).uplink?.state], ["up", "down"]);
});

Deno.test("which VLANs the uplink carries is the NIC's policy: set, kept, and refused with the field at fault", async () => {
  const dir = await Deno.makeTempDir();
  try {
    const path = `${dir}/pf.sqlite`;
    const vlansOf = (pf: TestPf) => {
      const { uplinkTrunk, uplinkNativeVlan } = pf.nic.programmes.at(-1) ?? {};
      return [uplinkTrunk, uplinkNativeVlan];
    };
    {
      await using pf = await TestPf.start(1, path);
      assertEquals(vlansOf(pf), ["all", 0]);
      const { uplinkTrunk } = await pf.set<NicView>("nic", { uplinkTrunk: [20, 10, 20], uplinkNativeVlan: 10 });
      assertEquals([uplinkTrunk, vlansOf(pf)], [[10, 20], [[10, 20], 10]]);
      for (const patch of [{ uplinkTrunk: [0] }, { uplinkTrunk: "none" }, { uplinkNativeVlan: 4095 }]) {
        const { status, body } = await pf.patch("nic", patch);
        assertEquals([status, body.field?.split(".")[0]], [422, Object.keys(patch)[0]]);
      }
    }
    await using pf = await TestPf.start(1, path);
    assertEquals(vlansOf(pf), [[10, 20], 10]);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("while the NIC is away its uplink is read all the same, and not changed", async () => {
  await using pf = await TestPf.start(1);
  await set(pf, "nic", TAP);
  pf.nic.isAway = true;
  const { spec, state } = await pf.get<UplinkView>("nic/uplink");
  assertEquals([spec, state], [TAP, null]);
  const { status, body } = await put(pf, "nic", "packet:eth0");
  assertEquals([status, body.reason], [503, "unreachable"]);
});

Deno.test("metrics tell each uplink's state and counters, and the fabric's carrier", async () => {
  await using pf = await TestPf.start(2);
  await set(pf, "nic", TAP);
  await set(pf, "vfs/1", "packet:eth1");
  pf.nic.uplinks.uplink = {
    ...pf.nic.uplinks.uplink as UplinkState,
    counters: { rx_frames: 7 },
    interface: "rf0",
    io: "io_uring",
  };
  pf.nic.turn(1, "down");
  const text = async () => await (await pf.app.request("/metrics")).text();
  for (
    const line of [
      "ringfabric_carrier 1",
      'ringfabric_uplink_up{pool="uplink"} 1',
      'ringfabric_uplink_up{pool="1"} 0',
      'ringfabric_uplink_info{pool="uplink",kind="tap",interface="rf0",io="io_uring"} 1',
      'ringfabric_uplink_rx_frames_total{pool="uplink"} 7',
    ]
  ) assertStringIncludes(await text(), line);
});

Deno.test("a database of the version before: a link that was up follows, one that was down stays down", async () => {
  const dir = await Deno.makeTempDir();
  try {
    for (const [kept, link] of [["up", "auto"], ["down", "down"]] as const) {
      const path = `${dir}/${kept}.sqlite`;
      {
        const { DatabaseSync } = await import("node:sqlite");
        new Store(path, "test", 1)[Symbol.dispose]();
        const db = new DatabaseSync(path);
        db.exec(
          `DROP TABLE uplink; INSERT OR REPLACE INTO setting VALUES ('link', '${kept}'); PRAGMA user_version = 1`,
        );
        db.close();
      }
      using store = new Store(path, "test", 1);
      assertEquals([store.load().link, store.load().uplinks], [link, {}]);
    }
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});
