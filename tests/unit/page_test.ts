/** The page without a browser: what is served, under which rules, and what its views make of what the API says. */
import "../support/quiet.ts";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { Access } from "../../shared/api/mod.ts";
import { pfApi } from "../../services/pf/api.ts";
import { keepAnswer, newest } from "../../services/pf/page/answered.js";
import { sentence } from "../../services/pf/page/events.js";
import { bits, bytes, count, fitting, guestOf, pathOf, specOf, vlanOf } from "../../services/pf/page/format.js";
import { widthOf } from "../../services/pf/page/lines.js";
import { isDrop } from "../../services/pf/page/live.js";
import { Panel } from "../../services/pf/page/picture_panel.js";
import { Rows } from "../../services/pf/page/picture_rows.js";
import { portRows } from "../../services/pf/page/ports.js";
import { kindOf, read, schemaIn, written } from "../../services/pf/page/schema.js";
import { COUNTERS } from "../../shared/layout/counter_names.ts";
import { TestPf } from "../support/test_pf.ts";

const PAGE = new URL("../../services/pf/page/", import.meta.url);

Deno.test("the page and all that it consists of is served to everybody, and asks for nothing from elsewhere", async () => {
  await using pf = await TestPf.start(1);
  const app = pfApi(pf.fabric, new Access({ file: "/nowhere" }));
  const index = await (await app.request("/")).text();
  assertMatch(index, /^<!doctype html>/);
  const parts = [...index.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, path]) => path as string);
  const modules = [...Deno.readDirSync(PAGE)].filter(({ name }) => name !== "index.html");
  const wanted = new Set([...parts, ...modules.filter(({ isFile }) => isFile).map(({ name }) => `/page/${name}`)]);
  for (const path of wanted) {
    const response = await app.request(path);
    assertEquals(response.status, 200, path);
    const text = await response.text();
    const imported = [...text.matchAll(/(?:from|import)\s*"(\.[^"]+)"/g)].map(([, name]) => name as string);
    for (const name of imported) {
      const target = new URL(name, `http://x${path}`).pathname;
      const { status } = await app.request(target);
      assertEquals(status, 200, `${path} imports ${target}`);
    }
    if (path.includes("vendor")) continue;
    assert(!/https?:\/\/(?!www\.w3\.org\/2000\/svg)/.test(text), `${path} names another site`);
    assert(!/innerHTML|insertAdjacent|document\.write|eval\(/.test(text), `${path} makes markup of text`);
  }
  assertEquals((await app.request("/api/v1/token")).status, 401);
});

Deno.test("the page may run its own scripts and styles and ask its own server, and nothing else", async () => {
  await using pf = await TestPf.start(1);
  const policy = async (path: string) => (await pf.app.request(path)).headers.get("content-security-policy") ?? "";
  const rules = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
  for (const path of ["/", "/page/app.js", "/api/v1/vfs"]) assertEquals(await policy(path), rules, path);
  assertStringIncludes(await policy("/docs"), "style-src 'self' 'unsafe-inline'");
});

Deno.test("a part that has not changed is not sent again", async () => {
  await using pf = await TestPf.start(1);
  const tag = (await pf.app.request("/page/app.js")).headers.get("etag") ?? "";
  const again = await pf.app.request("/page/app.js", { headers: { "if-none-match": tag } });
  assertEquals([again.status, await again.text()], [304, ""]);
});

Deno.test("the form has every field of the API, and what stands in a field is what is sent for it", async () => {
  await using pf = await TestPf.start(1);
  await pf.addVport();
  const document = await (await pf.app.request("/openapi.json")).json();
  // deno-lint-ignore no-explicit-any
  const values: Record<string, any> = {
    VfPatch: { ...await pf.get("vfs/0"), trunk: [1, 2, 3, 9], allowedMacs: ["02:00:00:00:00:05"], multicast: "none" },
    VportPatch: { ...await pf.get("vports/0"), guestMulticast: ["01:00:5e:00:00:01"] },
    NicPatch: { ...await pf.get("nic"), uplinkTrunk: [10, 11, 40] },
  };
  for (const [name, value] of Object.entries(values)) {
    const { properties } = schemaIn(document, name);
    assertEquals(Object.keys(properties).length > 4, true, name);
    for (const [field, schema] of Object.entries(properties)) {
      assert(field in value, `${name}: a ${field} that cannot be shown`);
      assertEquals(read(schema, written(schema, value[field])), value[field], `${name}.${field}`);
    }
  }
  const vf = schemaIn(document, "VfPatch").properties;
  assertEquals(kindOf(vf.linkState), { kind: "choice", choices: ["auto", "enable", "disable"] });
  assertEquals([kindOf(vf.trust).kind, kindOf(vf.vlan).kind, kindOf(vf.mac).kind], ["switch", "number", "text"]);
  assertEquals(read(vf.trunk, " 5 10-12,x "), [5, 10, 11, 12, "x"], "the API says why x is none");
  assertEquals([read(vf.vlan, "ten"), read(vf.vlan, ""), read(vf.mac, "")], ["ten", null, null]);
  assertEquals([read(vf.multicast, "all"), read(vf.multicast, "a, b")], ["all", ["a", "b"]]);
});

/** A port with some of its fields. */
// deno-lint-ignore no-explicit-any
const some = (fields: Record<string, unknown>): any => fields;

Deno.test("figures are short, and names are in the words of the API", () => {
  assertEquals([0, 999, 12_345, 1_250_000].map(count), ["0", "999", "12.3\u202fk", "1.25\u202fM"]);
  assertEquals([bits(2.5e9), bytes(3 * 1024 ** 2)], ["2.50\u202fGbit/s", "3.00\u202fMiB"]);
  assertEquals(vlanOf(some({ vlan: 100, qos: 3, vlanProto: "802.1ad" })), "VLAN 100 p3 ad");
  assertEquals(vlanOf(some({ vlan: 0, trunk: [1, 2, 3], nativeVlan: 9 })), "native 9, trunk 1-3");
  assertEquals([vlanOf(some({ vlan: 0, trunk: [] })), vlanOf(some({ vlan: 0, trust: true }))], [
    "untagged",
    "all tags",
  ]);
  assertEquals([fitting("short", 100), fitting("a longer name", 40)], ["short", "a lon…"]);
  assertEquals(specOf({ kind: "pcap", record: "/a" }), "pcap, into /a");
  assertEquals(guestOf(some({ attached: true, queuesRunning: 1, queuesInError: 2 })), {
    text: "2 queues in error",
    bad: true,
  });
  assertEquals(pathOf(some({ attached: true, mode: "emulated", dataPath: "zerocopy" })).via, "vhost zerocopy");
});

Deno.test("the counters that the page shows as drops are those that count drops", () => {
  for (const [name, meaning] of COUNTERS) {
    assertEquals(isDrop(name), /\bdropped\b|were not fetched/.test(meaning), name);
  }
  assertEquals([isDrop("engine_ns"), isDrop("engine_receive_ns")], [false, false]);
});

Deno.test("each event is a sentence, with what others have said as text", () => {
  const told = [
    {
      ...{ type: "vf-changed", vf: 3 },
      changes: { vlan: 5, trunk: [1, 2, 3], allowedIps: ["10.0.0.0/8"], mirror: null, trust: true, linkState: "auto" },
    },
    { type: "mode-changed", vf: 0, mode: "passthrough", plugin: "advanced 1.0.0" },
    { type: "mode-failed", vport: 2, mode: null, detail: "<b>no</b>" },
    { type: "spoofed", vf: 1, frames: 7 },
    { type: "nic-changed", changes: { uplink: { kind: "tap", name: "rf0" } } },
    { type: "nic-down" },
  ];
  assertEquals(told.map(sentence), [
    "VF 3 policy changed: vlan 5, trunk 1-3, allowedIps 10.0.0.0/8, mirror none, trust on, linkState auto",
    "VF 0 passthrough, plugin advanced 1.0.0",
    "vport 2 change of mode failed, an unknown mode is in force: <b>no</b>",
    "VF 1 7 frames with another source address dropped",
    "NIC policy changed: uplink tap:rf0",
    "NIC does not answer",
  ]);
});

Deno.test("lines grow with the order of magnitude of their frames", () => {
  const widths = [0, 10, 1000, 100_000, 10_000_000].map(widthOf);
  assertEquals(widths, [...new Set(widths)].sort((a, b) => a - b));
});

/** Elements of a component's output, its components carried out. */
// deno-lint-ignore no-explicit-any
function elements(node: any): any[] {
  if (Array.isArray(node)) return node.flatMap(elements);
  if (typeof node !== "object" || node === null) return [];
  if (typeof node.type === "function") return elements(node.type(node.props));
  return [node, ...elements(node.props.children)];
}

/** What the live stream says of some ports. */
function fabric(vfs: number, vports: number) {
  const port = (id: number) => ({
    ...{
      id,
      mac: `02:00:00:00:00:0${id % 10}`,
      vlan: id === 1 ? 100 : 0,
      link: id === 2 ? "down" : "up",
      counters: {},
    },
    ...{ attached: id < 2, mode: "passthrough", queuesRunning: 2, plugin: id === 0 ? "<img src=x>" : undefined },
  });
  const list = (n: number) => Object.fromEntries(Array.from({ length: n }, (_, id) => [id, port(id)]));
  const nic = { switchMode: "veb", uplink: { spec: { kind: "tap", name: "rf0" }, state: "up" } };
  return {
    ...{ state: { vfs: list(vfs), vports: list(vports), nic }, engine: [{ busy: 0.25 }] },
    rate: (name: string, ...counters: string[]) => name === "vf0" && counters[0] === "tx_frames" ? 20_000 : 0,
    drops: (name: string) => name === "vf1" ? [["rx_no_buffer", 12]] : [],
  };
}

for (const [Shape, vfs, vports] of [[Rows, 4, 2], [Panel, 250, 3]] as const) {
  Deno.test(`the picture of ${vfs} VFs leads to every port, and says in words what it shows`, () => {
    const live = fabric(vfs, vports);
    const all = elements(Shape({ live, rows: portRows(live), width: 1200 }));
    const links = all.filter(({ type }) => type === "a").map(({ props }) => [
      props.href,
      elements(props.children).find(({ type }) => type === "title").props.children.toString(),
    ]);
    const hrefs = links.map(([href]) => href);
    for (let i = 0; i < vfs; i++) assert(hrefs.includes(`#/vf/${i}`));
    for (let i = 0; i < vports; i++) assert(hrefs.includes(`#/vport/${i}`));
    const said = new Map(links as [string, string][]);
    assertEquals(
      said.get("#/vf/0"),
      "VF 0: 2 queues, passthrough, plugin <img src=x>, untagged, link up, sends 20.0\u202fk and receives 0 frames a second",
    );
    assertMatch(said.get("#/vf/1") ?? "", /VLAN 100, .*drops 12 a second/);
    assertMatch(said.get("#/vf/2") ?? "", /no guest.*link down/);
    assert(all.every(({ props }) => props.dangerouslySetInnerHTML === undefined));
    const wide = all.filter(({ props }) => props.class?.startsWith("flow") && !props.class.includes("idle"));
    assert(wide.length >= 1, "frames are seen to go");
  });
}

Deno.test("a form's changes that follow each other quickly: the page knows the last answer while its stream is behind", () => {
  const policy = (tag: string) => ({ value: { tag }, tag });
  const first = keepAnswer(undefined, policy("b"), "a", 1000);
  assertEquals(newest(first, policy("a"), 1000).tag, "b", "the stream does not know of it yet");
  const second = keepAnswer(first, policy("c"), "b", 1000);
  assertEquals(newest(second, policy("a"), 1500).tag, "c");
  assertEquals(newest(second, policy("b"), 1500).tag, "c", "the stream tells of the first change after the second");
  assertEquals(newest(second, policy("d"), 1500).tag, "d", "somebody else has changed it since");
  assertEquals(newest(second, policy("b"), 3000).tag, "b", "somebody else has changed it back");
  const back = keepAnswer(second, policy("a"), "c", 1500);
  assertEquals(newest(back, policy("c"), 1600).tag, "a", "changed back by the form itself");
  assertEquals(newest(undefined, policy("a"), 1000).tag, "a");
});
