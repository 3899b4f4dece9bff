/** The CLI's words, and what it prints. */
import { assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { Command } from "commander";
import { defaultPolicy, type FabricStats, latencyView, type Vf } from "../../shared/api/mod.ts";
import { completions } from "../../services/cli/completion.ts";
import { examine, type Patient } from "../../services/cli/doctor.ts";
import { statsTable } from "../../services/cli/stats_view.ts";
import { fileFault } from "../../services/cli/files.ts";
import { notUnderstood } from "../../services/cli/misunderstood.ts";
import { changeSeveral } from "../../services/cli/several.ts";
import {
  formatVlans,
  inWords,
  NotUnderstood,
  oneId,
  parseIds,
  parsePairs,
  UsageError,
} from "../../services/cli/values.ts";
import { table, vfDetail } from "../../services/cli/views.ts";
import { histogram } from "../support/latency.ts";

Deno.test("the words of ip link become fields of the API", () => {
  assertEquals(
    parsePairs([
      "mac",
      "02:00:00:00:00:01",
      "vlan",
      "100",
      "qos",
      "3",
      "proto",
      "802.1ad",
      "spoofchk",
      "off",
      "trust",
      "on",
    ]),
    { mac: "02:00:00:00:00:01", vlan: 100, qos: 3, vlanProto: "802.1ad", spoofCheck: false, trust: true },
  );
  assertEquals(parsePairs(["state", "disable", "max_tx_rate", "500", "minTxRate", "10", "trunk", "10,20-22"]), {
    linkState: "disable",
    maxTxRate: 500,
    minTxRate: 10,
    trunk: [10, 20, 21, 22],
  });
  assertEquals(
    parsePairs(["adaptive-rx", "off", "rx-usecs", "50", "rx-frames", "32", "adaptive-tx", "on", "txUsecs", "0"]),
    { adaptiveRx: false, rxUsecs: 50, rxFrames: 32, adaptiveTx: true, txUsecs: 0 },
  );
  assertEquals(parsePairs(["trunk", "none"]), { trunk: [] });
  assertEquals(parsePairs(["mirror", "both:3"]), { mirror: "both:3" });
  assertEquals(parsePairs(["mirror", "none"]), { mirror: null });
  assertEquals(parsePairs(["mirror", "in:vport3"]), { mirror: "in:vport3" });
  assertEquals(parsePairs(["native_vlan", "10", "allowed_macs", "a,b", "allowed_ips", "all"]), {
    nativeVlan: 10,
    allowedMacs: ["a", "b"],
    allowedIps: [],
  });
});

Deno.test("words that mean nothing are refused with what would do", () => {
  for (
    const words of [
      [],
      ["vlan"],
      ["vlan", "ten"],
      ["colour", "red"],
      ["trust", "maybe"],
      ["trunk", "20-10"],
      ["trunk", "a"],
      ["trunk", ""],
      [
        "constructor",
        "1",
      ],
      ["toString", "1"],
    ]
  ) {
    assertThrows(() => parsePairs(words), UsageError);
  }
  assertEquals(parsePairs(["proto", "constructor"]), { vlanProto: "constructor" }, "the API refuses it");
  for (const text of ["", "0x1", "1.5", "-1", "one"]) assertThrows(() => oneId(text), UsageError);
});

Deno.test("VLAN lists are written as they are read", () => {
  for (const list of ["none", "5", "5,7", "5-9", "1,3-4,4094"]) {
    assertEquals(formatVlans((parsePairs(["trunk", list]) as { trunk: number[] }).trunk), list);
  }
});

Deno.test("tables line up, numbers to the right", () => {
  assertEquals(table(["A", "COUNT"], [["x", 5], ["longer", 1000]]).split("\n"), [
    "A       COUNT",
    "x           5",
    "longer   1000",
  ]);
});

const stats = (vf: Record<string, number>): FabricStats => ({
  vfs: [{ id: 0, counters: vf, latency: latencyView() }],
  vports: [],
  pf: {},
  uplink: {},
});

Deno.test("rates between two moments, drops by direction with the reason of most of them", () => {
  const rows = statsTable(
    {
      atMs: 2000,
      stats: stats({
        ...{ rx_frames: 30, rx_bytes: 3000, tx_frames: 10, tx_bytes: 250_000, tx_spoofed: 4, tx_runt: 1 },
        ...{ rx_no_buffer: 7, rx_broadcast: 5, engine_ns: 5e8 },
      }),
    },
    { atMs: 1000, stats: stats({ rx_frames: 10, rx_bytes: 1000, tx_frames: 10, tx_bytes: 0, tx_spoofed: 2 }) },
  ).split("\n");
  assertEquals(rows[1]?.trim().split(/\s{2,}/), [
    ...["0", "20", "0.0", "0", "2.0", "7", "3"],
    "rx no_buffer, tx spoofed",
    "50.0",
  ]);
  assertEquals(rows.length, 4, "the PF and the uplink too");
});

Deno.test("a word that is said twice is refused, and a VLAN brings its priority and protocol along, as with ip link", () => {
  assertThrows(() => parsePairs(["vlan", "1", "vlan", "2"]), UsageError, "vlan is said twice");
  assertThrows(() => parsePairs(["rate", "1", "max_tx_rate", "2"]), UsageError, "said twice");
  assertEquals(parsePairs(["vlan", "200"]), { vlan: 200, qos: 0, vlanProto: "802.1Q" });
  assertEquals(parsePairs(["vlan", "200", "proto", "802.1AD"]), { vlan: 200, qos: 0, vlanProto: "802.1ad" });
  assertEquals(parsePairs(["mac", "00:00:00:00:00:00"]), { mac: null });
});

Deno.test("what the API refuses is said in the words that were typed", () => {
  assertEquals(inWords("vlanProto: is 802.1Q or 802.1ad"), "proto: is 802.1Q or 802.1ad");
  assertEquals(
    inWords("cannot set maxTxRate 5 on vf 0: minTxRate 9 would be over maxTxRate 5"),
    "cannot set max_tx_rate 5 on vf 0: min_tx_rate 9 would be over max_tx_rate 5",
  );
});

Deno.test("several VFs at once", () => {
  assertEquals(parseIds("3"), [3]);
  assertEquals(parseIds("0,2-4"), [0, 2, 3, 4]);
  assertEquals(parseIds("all"), undefined);
  for (const text of ["", "a", "4-2", "1,1", "0-2,1", "-1"]) assertThrows(() => parseIds(text), NotUnderstood);
});

Deno.test("of several VFs none changes if one is not there; if one is refused, those before it are named", async () => {
  const changed: number[] = [];
  const parts = {
    kind: "vf",
    list: () => Promise.resolve([0, 1, 2]),
    change(id: number) {
      if (id === 2) return Promise.reject(new Error("no"));
      changed.push(id);
      return Promise.resolve(id);
    },
  };
  await assertRejects(
    () => changeSeveral("0-3", parts),
    UsageError,
    "there is no vf 3; there are: 0, 1, 2. Nothing has",
  );
  assertEquals(changed, []);
  await assertRejects(() => changeSeveral("all", parts), UsageError, "vf 2: no; changed already: vf 0, 1");
  await assertRejects(() => changeSeveral("2", parts), Error, "no");
  assertEquals(await changeSeveral("1,0", parts), [1, 0]);
});

Deno.test("a word that is a key where a number should be is asked about", () => {
  assertThrows(
    () => parsePairs(["100"], "vlan"),
    NotUnderstood,
    "vlan of whom? Say a number first, such as: 0 vlan 100",
  );
});

Deno.test("what commander does not understand is said with the command's name and where its help is", () => {
  const program = new Command("fabric").option("--json");
  const nic = program.command("nic");
  nic.command("show", { isDefault: true });
  nic.command("set");
  for (
    const [words, text, said] of [
      [["frob"], "error: unknown command 'frob'\n", "fabric: unknown command 'frob' (fabric --help)\n"],
      [["nic", "set"], "error: missing 'x'\n", "fabric: missing 'x' (fabric nic set --help)\n"],
      [
        ["--json", "nic", "foo"],
        "error: too many arguments for 'show'.",
        "fabric: unknown command 'foo' (fabric nic --help)\n",
      ],
      [
        ["nic", "ste"],
        "error: unknown\n(Did you mean set?)\n",
        "fabric: unknown; Did you mean set? (fabric nic --help)\n",
      ],
    ] as const
  ) assertEquals(notUnderstood(program, words, text), said);
});

Deno.test("what keeps a file away is said in words for whoever named it", async () => {
  const faultOf = (act: () => Promise<unknown>) => act().then(() => "", (error) => (fileFault(error) as Error).message);
  assertEquals(
    await faultOf(() => Deno.readFile("/nowhere/x")),
    "cannot use /nowhere/x: there is no such file or folder",
  );
  assertEquals(await faultOf(() => Deno.readFile("/tmp")), "cannot use /tmp: it is a folder");
  const closed = new Deno.errors.NotCapable('Requires all access to "/dev/full", run again with the --allow-all flag');
  assertEquals(
    (fileFault(closed) as Error).message,
    "cannot use /dev/full: programs are kept out of there: name a file elsewhere",
  );
  const other = new Error("something else");
  assertEquals(fileFault(other), other);
});

Deno.test("completion knows commands, what is below them, and options", () => {
  const program = new Command("fabric").option("--json").option("-o, --output <how>");
  const vf = program.command("vf");
  vf.command("list");
  vf.command("mode <n>").option("--force");
  program.command("complete", { hidden: true });
  assertEquals(completions(program, [""]), ["vf"]);
  assertEquals(completions(program, ["vf", ""]), ["list", "mode"]);
  assertEquals(completions(program, ["vf", "l"]), ["list"]);
  assertEquals(completions(program, ["vf", "mode", "--"]), ["--force", "--json", "--output", "--help"]);
});

const PATIENT: Patient = {
  vf: {
    ...{
      id: 3,
      ...defaultPolicy("02:00:00:00:00:03"),
      vport: null,
      uplink: null,
      mode: "passthrough",
      socket: "/run/vf3/vhost.sock",
    },
    ...{ attached: true, memory: null, limits: null, queues: [], learnedMacs: 0 },
  },
  nic: {
    ...{
      numVfs: 4,
      switchMode: "veb",
      link: "auto",
      carrier: "up",
      uplinkTrunk: "all",
      uplinkNativeVlan: 0,
      pfMirror: null,
      pfMac: "",
      reachable: true,
    },
    uplink: { spec: { kind: "none" }, state: "none", socket: "", attached: false, counters: {} },
  },
  port: undefined,
  counters: undefined,
};

/** Counters that grew within two seconds. */
const grown = (after: Record<string, number>, before: Record<string, number> = {}): Partial<Patient> => ({
  counters: { seconds: 2, before, after },
});

Deno.test("the doctor says what keeps a guest's frames away, and what to do", () => {
  const said = (change: Partial<Patient>) =>
    examine({ ...PATIENT, ...change }).filter(({ bad }) => bad).map(({ text }) => text);
  assertEquals(said({}), []);
  assertEquals(said({ vf: { ...PATIENT.vf, attached: false, lastDetach: "its owner died" } }), [
    "no guest is attached: it attaches at /run/vf3/vhost.sock; the last one left because its owner died",
  ]);
  assertEquals(said({ vf: { ...PATIENT.vf, linkState: "disable" } }), ["its link is off: fabric vf set 3 state auto"]);
  assertEquals(said({ nic: { ...PATIENT.nic, link: "down", carrier: "down" } }), [
    "the NIC's link is down: fabric nic set link auto",
  ]);
  assertEquals(said(grown({ tx_spoofed: 8, tx_frames: 5 }, { tx_spoofed: 3 })).length, 1);
  assertMatch(
    said(grown({ tx_spoofed: 8 }))[0] ?? "",
    /^tx_spoofed grows by 4\/s: .*fabric vf set 3 mac .*spoofchk off/,
  );
  assertEquals(said(grown({ rx_frames: 100, rx_broadcast: 5 })), []);
  const hint = (change: Partial<Patient>) => examine({ ...PATIENT, ...change }).at(-1)?.text ?? "";
  assertMatch(hint(grown({ tx_frames: 9 })), /nothing comes back: is its peer attached, and in no VLAN too/);
  assertMatch(hint(grown({ tx_spoofed: 8 }, { tx_spoofed: 8 })), /nothing moved .*dropped before: tx_spoofed 8/);
});

Deno.test("a VF is shown with how long its frames wait, or that it has sent none", () => {
  const vf: Vf = {
    ...{ ...defaultPolicy("02:00:00:00:00:01"), id: 0, vport: null, mode: null, uplink: null, socket: "/s" },
    ...{ attached: false, memory: null, queues: [], limits: null, learnedMacs: 0 },
  };
  const shown = (counts: Record<number, number>) =>
    vfDetail(vf, { id: 0, counters: {}, latency: latencyView(histogram(counts)) }).split("\n")
      .find((line) => line.trimStart().startsWith("latency"))?.trim().replace(/ {2,}/, ": ");
  assertEquals(shown({}), "latency: no frames yet");
  assertEquals(shown({ 4: 100 }), "latency: p50 12 µs, p99 15.9 µs, of 100 samples");
  assertEquals(shown({ 4: 1, 16: 1 }), "latency: p50 16 µs, p99 over 32768 µs, of 2 samples");
});

Deno.test("every variable that the command line is told to read it may read, by the task and by the documented install", async () => {
  const root = new URL("../../", import.meta.url);
  const variables = new Set<string>();
  for await (const { name } of Deno.readDir(new URL("services/cli/", root))) {
    if (!name.endsWith(".ts") || name === "install.ts") continue;
    const text = await Deno.readTextFile(new URL(`services/cli/${name}`, root));
    for (const [, variable] of text.matchAll(/"(RINGFABRIC_[A-Z_]+)"/g)) variables.add(variable ?? "");
  }
  assertEquals(variables.has("RINGFABRIC_TO_VF"), true);
  for (const file of ["deno.json", "docs/operations.md"]) {
    const text = await Deno.readTextFile(new URL(file, root));
    const allowed = /--allow-env=(RINGFABRIC_API,[A-Z_,]+)/.exec(text)?.[1]?.split(",");
    assertEquals([...variables].filter((variable) => !allowed?.includes(variable)), [], file);
  }
});
