/** `fabric uplink`: what is typed becomes a spec, and what the fabric says of one is shown. */
import { assertEquals, assertMatch, assertThrows } from "@std/assert";
import type { NicView, UplinkView, Vf } from "../../shared/api/mod.ts";
import { defaultPolicy } from "../../shared/api/mod.ts";
import { examine, uplinkFault } from "../../services/cli/doctor.ts";
import { nicDetail, uplinkDetail, uplinkTable } from "../../services/cli/nic_views.ts";
import { readSpec } from "../../services/cli/uplinks.ts";
import { UsageError } from "../../services/cli/values.ts";
import { vfTable } from "../../services/cli/views.ts";

Deno.test("words become a spec; files are those of the directory that the command is typed in", () => {
  const read = (text: string, options: Parameters<typeof readSpec>[1] = {}) => readSpec(text, options, "/home/a");
  assertEquals(read("tap:rf0", { address: "10.0.0.254/16" }), { kind: "tap", name: "rf0", address: "10.0.0.254/16" });
  assertEquals(read("xdp:eth1", { queue: 3 }), { kind: "xdp", interface: "eth1", queue: 3 });
  assertEquals(read("packet:eth1", { vf: 2 }), { kind: "packet", interface: "eth1" });
  assertEquals(read("pcap:in.pcap", { speed: "full", loop: true }), {
    ...{ kind: "pcap", replay: "/home/a/in.pcap", speed: "full", loop: true },
  });
  assertEquals(read("pcap:/in.pcap", { record: "out.pcap" }), {
    ...{ kind: "pcap", replay: "/in.pcap", record: "/home/a/out.pcap" },
  });
  assertEquals(read("pcap", { record: "out.pcap" }), { kind: "pcap", record: "/home/a/out.pcap" });
  const wrong: [string, Parameters<typeof readSpec>[1], string][] = [
    ["packet:eth1", { address: "10.0.0.1/8" }, "--address is for a TAP"],
    ["tap:rf0", { queue: 1 }, "--queue is for xdp"],
    ["tap:rf0", { loop: true }, "--loop is for pcap"],
    ["pcap", {}, "say tap:NAME"],
    ["eth1", {}, "say tap:NAME"],
  ];
  for (const [text, options, message] of wrong) assertThrows(() => read(text, options), UsageError, message);
});

const TAP: UplinkView = {
  ...{ pool: "uplink", spec: { kind: "tap", name: "rf0", address: "10.0.0.254/16" }, state: "up", interface: "rf0" },
  ...{ io: "io_uring", mtu: 1500, mac: "02:00:00:00:00:fe", counters: { rx_frames: 3, rx_drops: 0 } },
  offloads: ["csum", "tso4"],
};

const NIC: NicView = {
  ...{
    numVfs: 4,
    switchMode: "veb",
    link: "auto",
    carrier: "up",
    uplinkTrunk: "all",
    uplinkNativeVlan: 0,
    pfMirror: null,
    pfMac: "02:00:00:00:00:ff",
    reachable: true,
  },
  uplink: { spec: { kind: "none" }, state: "none", socket: "/run/uplink/vhost.sock", attached: false, counters: {} },
};

Deno.test("an uplink is shown with everything known of it, and with what has failed", () => {
  assertEquals(uplinkDetail(TAP).split("\n"), [
    "Uplink of the fabric",
    "  is         tap:rf0, up",
    "  name       rf0",
    "  address    10.0.0.254/16",
    "  mac        02:00:00:00:00:fe",
    "  mtu        1500",
    "  frames by  io_uring",
    "  offloads   csum tso4",
    "",
    "COUNTER    VALUE",
    "rx_frames      3",
  ]);
  const failed = { ...TAP, pool: 3, state: "failed" as const, reason: "it is gone" };
  assertMatch(uplinkTable([TAP, failed]), /vf 3 +tap:rf0 +failed: it is gone/);
  assertMatch(
    nicDetail(NIC),
    /link +auto: up\nuplink_trunk +all\n[^]*\nuplink +none; a front-end may attach at \/run\/uplink/,
  );
  assertMatch(nicDetail({ ...NIC, link: "up", uplink: { ...NIC.uplink, ...TAP, state: null } }), /tap:rf0, not known/);
});

const VF: Vf = {
  ...{ id: 3, ...defaultPolicy("02:00:00:00:00:03"), vport: null, mode: "passthrough", socket: "/run/vf3/vhost.sock" },
  ...{
    attached: true,
    memory: null,
    limits: null,
    queues: [],
    learnedMacs: 0,
    uplink: { spec: TAP.spec, state: "up" },
  },
};

Deno.test("the doctor says what is wrong with an uplink, and which links follow it", () => {
  assertEquals(uplinkFault(TAP), undefined);
  assertEquals(uplinkFault({ ...TAP, state: "down", reason: "no carrier" }), "tap:rf0 is down: no carrier");
  assertEquals(uplinkFault({ spec: { kind: "pcap", replay: "/a" }, state: "down", reason: "it has ended" }), undefined);
  assertEquals(uplinkFault({ ...TAP, state: "failed", reason: "it is gone" }), "tap:rf0 has failed: it is gone");
  const said = (vf: Partial<Vf>, nic: Partial<NicView> = {}) =>
    examine({ vf: { ...VF, ...vf }, nic: { ...NIC, ...nic }, port: undefined, counters: undefined })
      .filter(({ bad }) => bad).map(({ text }) => text);
  assertEquals(said({}), []);
  assertEquals(said({ attached: false, uplink: { spec: TAP.spec, state: "failed", reason: "no" } }), [
    "tap:rf0 has failed: no",
  ]);
  const [followed] = said({}, { carrier: "down", uplink: { ...NIC.uplink, ...TAP, state: "down" } });
  assertMatch(followed ?? "", /its link follows the uplink, which is down: fabric nic set link up does not follow it/);
  assertMatch(vfTable([VF], "up"), /tap:rf0 up$/m);
});
