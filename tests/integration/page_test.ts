/**
 * The fabric's page in a real Chromium: who may log in, figures that are the API's, forms good and refused, a change of
 * mode, services that go and come back, many VFs, dark and light, a phone's width, and a checker for accessibility.
 */
import { assert, assertEquals } from "@std/assert";
import { changeTokens, hashToken } from "../../shared/api/mod.ts";
import { pcapngHeader } from "../../shared/pcap/mod.ts";
import { startBrowser } from "../support/browser.ts";
import { TestFabric } from "../support/fabric.ts";
import { must, TestGuest } from "../support/guests.ts";
import { judgedTest } from "../support/judges.ts";
import { FabricPage } from "../support/page.ts";
import { TEST_TOKEN } from "../support/token.ts";
import { until } from "../support/wait.ts";

/** Logs in by hand: refused first, then let in; the token is nowhere but in the tab. */
async function logsIn(page: FabricPage): Promise<void> {
  await page.see("h1", "ringfabric");
  assertEquals(await page.barriers(), []);
  await page.fill("#token", "somebody-else's");
  await page.click("button[type=submit]");
  await page.see("#token-refused", /token/);
  await page.fill("#token", TEST_TOKEN);
  await page.click("button[type=submit]");
  await page.see("h1", "Fabric");
  const kept = "[JSON.stringify(localStorage), document.cookie, location.href]";
  for (const text of await page.find<string[]>(kept)) assert(!text.includes(TEST_TOKEN), text);
}

/** What the page shows of the counters of the VF that it is at. */
async function countersShown(page: FabricPage): Promise<Record<string, number>> {
  const names = await page.texts("tr:has([data-counter]) th");
  const figures = await page.texts("[data-counter]");
  return Object.fromEntries(names.map((name, i) => [name, Number(figures[i]?.replaceAll("\u202f", ""))]));
}

/** Under traffic the page's counters lie between what the API said before and what it says after. */
async function followsTraffic(page: FabricPage, fabric: TestFabric): Promise<void> {
  const before = await fabric.counters(0);
  const moving = ["tx_frames", "tx_bytes"];
  let shown: Record<string, number> = {};
  await until("the page to have come as far", async () => {
    shown = await countersShown(page);
    return moving.every((name) => (shown[name] ?? 0) >= (before[name] ?? 0));
  });
  const after = await fabric.counters(0);
  for (const name of moving) {
    assert((shown[name] ?? 0) <= (after[name] ?? 0), `${name}: ${shown[name]} is shown of ${after[name]}`);
    assert((after[name] ?? 0) > (before[name] ?? 0), `${name} moves`);
  }
}

/** The picture and the table show what the guests do; totals are those of the API once nothing moves. */
async function showsTraffic(page: FabricPage, fabric: TestFabric): Promise<void> {
  const [a, b] = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)];
  await a.reaches(b.ip);
  const { id } = await a.send(b.ip, { rate: 5000, size: 500 });
  await page.see('a[href="#/vf/0"] title', /sends (4\.[5-9]\d|5\.[0-5]\d)\u202fk/);
  assert(await page.page.$("g.flow.passthrough:not(.idle), g.flow.emulated:not(.idle)"), "no line moves");
  assertEquals(await page.barriers(), []);
  for (const scheme of ["light", "dark"] as const) {
    await page.turn(scheme);
    await page.shoot(`fabric-${scheme}`);
    assertEquals(await page.barriers(), [], scheme);
  }
  await page.go("#/vf/0", "VF 0");
  await followsTraffic(page, fabric);
  await a.stop(id);
  await until("the page to show what the API says", async () => {
    const said = Object.entries(await fabric.counters(0)).filter(([, n]) => n !== 0);
    return JSON.stringify(Object.entries(await countersShown(page)).sort()) === JSON.stringify(said.sort());
  });
  assertEquals(await page.barriers(), []);
  await page.shoot("vf-dark");
  await page.turn("light");
  await page.shoot("vf-light");
}

/** The form: what is refused is said at its field and changes nothing; what is good is in force. */
async function changesPolicy(page: FabricPage, fabric: TestFabric): Promise<void> {
  const fields = await page.texts(".policy .field label");
  const { components } = await fabric.get("/openapi.json");
  assertEquals(fields.sort(), Object.keys(components.schemas.VfPatch.properties).sort());
  await page.fill("#policy-vlan", "4095");
  await page.fill("#policy-mac", "01:00:00:00:00:01");
  await page.press(".policy button[type=submit]");
  await page.see("#policy-vlan-error", "VLAN ids are 0–4094");
  await page.see("#policy-mac-error", "is a multicast address");
  assertEquals(await page.find("document.activeElement.id"), "policy-mac", "the first one has the focus");
  assertEquals(await page.barriers(), []);
  assertEquals((await fabric.get("/api/v1/vfs/0")).vlan, 0);
  await page.press(".policy button[type=button]");
  await page.fill("#policy-vlan", "100");
  await page.fill("#policy-allowedIps", "10.0.0.0/8 192.0.2.1");
  await page.page.select("#policy-linkState", "enable");
  await page.press("#policy-spoofCheck");
  await page.press(".policy button[type=submit]");
  await page.see(".policy .done", "In force.");
  const { vlan, allowedIps, linkState, spoofCheck } = await fabric.get("/api/v1/vfs/0");
  assertEquals({ vlan, allowedIps, linkState, spoofCheck }, {
    ...{ vlan: 100, allowedIps: ["10.0.0.0/8", "192.0.2.1"], linkState: "enable", spoofCheck: false },
  });
  await page.see(".chips", "VLAN 100");
  // Somebody else changes it meanwhile: what is shown follows.
  await fabric.patch(0, { vlan: 0 });
  await page.awaits(`document.querySelector("#policy-vlan").value === "0"`);
}

/** What a form for the mode is filled with, and what stands at which field if it is refused. */
type ModeCase = { fields: Record<string, string | true>; refused?: [string, RegExp]; chip?: string };

const MODE_CASES: ModeCase[] = [
  { fields: { mode: "passthrough", plugin: "nobody's" }, refused: ["plugin", /is a plugin such as/] },
  { fields: { mode: "passthrough", plugin: "", dataPath: "zerocopy" }, refused: ["dataPath", /emulated/] },
  { fields: { mode: "passthrough", dataPath: "", force: true }, refused: ["force", /goes with mode emulated only/] },
  { fields: { mode: "passthrough", plugin: "advanced" }, chip: "passthrough, plugin advanced" },
  { fields: { mode: "emulated", dataPath: "zerocopy" }, chip: "emulated, vhost zerocopy" },
  { fields: { mode: "passthrough", plugin: "virtio@1.0.0" }, chip: "passthrough, plugin virtio 1.0.0" },
  { fields: { mode: "emulated", dataPath: "copy", force: true }, chip: "emulated, vhost copy" },
  { fields: { mode: "passthrough", plugin: "advanced" }, chip: "passthrough, plugin advanced" },
];

/** A change of mode is watched step by step, in every field of its form; one that cannot be says why at its field. */
async function changesMode(page: FabricPage, fabric: TestFabric): Promise<void> {
  const form = "form:has(#mode-mode)";
  const { components } = await fabric.get("/openapi.json");
  const names = Object.keys(components.schemas.ModeRequest.properties).sort();
  await page.see(`${form} .field label`, /./);
  assertEquals((await page.texts(`${form} .field label`)).sort(), names);
  for (const { fields, refused, chip } of MODE_CASES) {
    const before = (await fabric.get("/api/v1/vfs/0")).mode;
    for (const [name, value] of Object.entries(fields)) {
      if (value === true) await page.press(`#mode-${name}`);
      else if (name === "plugin") await page.fill("#mode-plugin", value);
      else await page.page.select(`#mode-${name}`, value);
    }
    await page.press(`${form} button[type=submit]`);
    if (refused) {
      await page.see(`#mode-${refused[0]}-error`, refused[1]);
      assertEquals((await fabric.get("/api/v1/vfs/0")).mode, before);
      await page.press(`${form} .actions button[type=button]`);
      continue;
    }
    await page.see(`${form} .done`, "The mode is in force.");
    await page.see(".chips", chip as string);
    const { steps } = await fabric.get("/api/v1/vfs/0/mode") as { steps: { step: string }[] };
    assertEquals(await page.texts(".timeline li > span:first-child"), steps.map(({ step }) => step));
    await page.see(".timeline li", /\d ms/);
  }
  await page.shoot("mode");
  await page.go("#/", "Fabric");
  await page.awaits(`document.querySelector('a[href="#/vf/0"].passthrough') !== null`);
  await page.see(".via.passthrough text", "advanced");
}

/** What of the host is behind the uplink, and behind a VF: refused at the field, and in force. */
async function changesUplinks(page: FabricPage, fabric: TestFabric): Promise<void> {
  const file = `${fabric.runDir}/nothing.pcap`;
  await Deno.writeFile(file, pcapngHeader(["nothing"]));
  for (
    const [hash, heading, id, path] of [
      ["#/nic", "NIC", "uplink-spec", "/api/v1/nic/uplink"],
      ["#/vf/2", "VF 2", "bind-spec", "/api/v1/vfs/2/uplink"],
    ] as const
  ) {
    await page.go(hash, heading);
    const apply = async (text: string) => {
      await page.fill(`#${id}`, text);
      await page.press(`form:has(#${id}) button[type=submit]`);
    };
    await apply("carrier pigeon");
    await page.see(`#${id}-refused`, /is no uplink: say tap:NAME/);
    assertEquals((await fabric.get(path)).spec, { kind: "none" });
    assertEquals(await page.barriers(), []);
    await apply(`pcap:${file}`);
    await page.see(`form:has(#${id}) .done`, "In force.");
    assertEquals((await fabric.get(path)).spec, { kind: "pcap", replay: file });
    await page.see(".fact b", `pcap:${file}`);
    await apply("none");
    await page.see(`form:has(#${id}) .done`, "In force.");
  }
}

/** While `act` runs, nobody starts again what has died. */
async function unsupervised(fabric: TestFabric, act: () => Promise<void>): Promise<void> {
  const { pid } = fabric.process;
  Deno.kill(pid, "SIGSTOP");
  try {
    await act();
  } finally {
    Deno.kill(pid, "SIGCONT");
  }
}

/** A PF that has not heard of the NIC since it began shows what it knows itself: every VF, with its policy. */
async function showsPolicyAlone(page: FabricPage, fabric: TestFabric): Promise<void> {
  await page.go("#/", "Fabric");
  const nic = fabric.pid("nic");
  Deno.kill(nic, "SIGSTOP");
  try {
    Deno.kill(fabric.pid("pf"), "SIGKILL");
    await page.see(".away [role=alert]", "The NIC does not answer");
    for (const vf of [0, 1, 2]) assert(await page.page.$(`a[href="#/vf/${vf}"]`), `VF ${vf} is in the picture`);
    assertEquals(await page.barriers(), []);
    await page.shoot("nic-away");
    await page.go("#/vf/1", "VF 1");
    await page.awaits(`/^02:/.test(document.querySelector("#policy-mac")?.value)`);
    for (const [hash, heading] of [["#/vport/0", "vport 0"], ["#/events", "Events"], ["#/nic", "NIC"]] as const) {
      await page.go(hash, heading);
    }
    await page.see(".card", "The NIC has not answered yet.");
  } finally {
    Deno.kill(nic, "SIGCONT");
  }
  await page.awaits(`document.querySelector(".away p") === null`);
}

/** A service that stands still or is killed is said to be away while all else stays, and that it is back is seen. */
async function outlivesServices(page: FabricPage, fabric: TestFabric): Promise<void> {
  await page.go("#/nic", "NIC");
  assertEquals(await page.barriers(), []);
  const goesOn = async (name: string) => {
    await page.see("h1", "NIC");
    await page.awaits(`document.querySelector(".away p") === null`);
    await page.see("table tr", new RegExp(`^${name}.*up`));
  };
  const nic = fabric.pid("nic");
  Deno.kill(nic, "SIGSTOP");
  try {
    await page.see(".away [role=alert]", /The NIC (is slow to|does not) answer/);
    await page.awaits(`document.querySelector("main").className === "stale"`);
    await page.shoot("away");
  } finally {
    Deno.kill(nic, "SIGCONT");
  }
  await goesOn("nic");
  Deno.kill(fabric.pid("pf"), "SIGKILL");
  await page.see(".away [role=alert]", "The PF does not answer");
  await goesOn("pf");
  const row = async (name: string) => (await page.texts("tr")).find((text) => text.startsWith(name));
  const before = await row("nic");
  Deno.kill(nic, "SIGKILL");
  await until("another NIC to be told of", async () => {
    const now = await row("nic");
    return now !== before && now?.includes("up");
  }, 20_000);
  await goesOn("nic");
  for (const [name, says] of [["vhost", "The vhost service"], ["vf", "The vf service"]] as const) {
    await unsupervised(fabric, async () => {
      Deno.kill(fabric.pid(name), "SIGKILL");
      await page.see(".away [role=alert]", `${says} does not answer since`);
      await page.see("table tr", new RegExp(`^${name}.*away`));
    });
    await goesOn(name);
  }
  await page.go("#/events", "Events");
  await page.see(".events li", "nic-up");
  await page.page.select("#event-type", "vf-changed");
  await page.see(".events li", "VF 0");
  assertEquals(await page.barriers(), []);
}

/** Whoever only looks has no buttons to change something with; whoever has one VF sees that one. */
async function respectsRoles(page: FabricPage, fabric: TestFabric): Promise<void> {
  changeTokens(fabric.runDir, (tokens) => [
    ...tokens,
    { name: "looks", role: "read", sha256: hashToken("looks") },
    { name: "bob", role: "vf", vf: 1, sha256: hashToken("bob") },
  ]);
  const enter = async (token: string) => {
    await page.click(".tools button:last-child");
    await page.fill("#token", token);
    await page.click("button[type=submit]");
    await page.see(".tools button:last-child", "Log out");
  };
  await enter("looks");
  await page.go("#/vf/1", "VF 1");
  await page.see("output", "02:");
  assertEquals(await page.page.$$("form button[type=submit]"), []);
  assertEquals(await page.barriers(), []);
  await page.go("#/nic", "NIC");
  await page.see("output", "veb");
  assertEquals(await page.page.$$("form button[type=submit]"), []);
  await enter("bob");
  await page.see("h1", "VF 1");
  await page.page.waitForSelector("#policy-mirror");
  assertEquals(await page.page.$$(".head nav"), []);
  assertEquals(await page.find("document.querySelector('#policy-mirror').tagName"), "OUTPUT", "an operator's to set");
  await page.fill("#policy-mtu", "1400");
  await page.press(".policy button[type=submit]");
  await page.see(".policy .done", "In force.");
  assertEquals((await fabric.get("/api/v1/vfs/1")).mtu, 1400);
  assertEquals(await page.page.$$("#mode-mode, #bind-spec"), [], "these are not for a VF's token");
  // What a token was good for when the page asked may be refused later: that is said where the change was asked for.
  changeTokens(
    fabric.runDir,
    (tokens) =>
      tokens.map((token) =>
        token.name === "bob" ? { name: "bob", role: "read" as const, sha256: token.sha256 } : token
      ),
  );
  await page.fill("#policy-mtu", "1300");
  await page.press(".policy button[type=submit]");
  await page.see(".policy .actions .refused", /^this token looks, and changes nothing/);
  assertEquals((await fabric.get("/api/v1/vfs/1")).mtu, 1400);
}

judgedTest(["chromium"], "the page: log-in, figures, forms, modes, services that come back, roles", async (t) => {
  await using fabric = await TestFabric.start(3, ["--guests", "2"]);
  const browser = await startBrowser();
  try {
    const page = await FabricPage.open(browser, fabric, "");
    await t.step("log-in", () => logsIn(page));
    await t.step("figures", () => showsTraffic(page, fabric));
    await t.step("forms", () => changesPolicy(page, fabric));
    await t.step("modes", () => changesMode(page, fabric));
    await t.step("uplinks", () => changesUplinks(page, fabric));
    await t.step("services", () => outlivesServices(page, fabric));
    await t.step("a PF without the NIC", () => showsPolicyAlone(page, fabric));
    await t.step("roles", () => respectsRoles(page, fabric));
    assertEquals(page.complaints, []);
  } finally {
    await browser.close();
  }
});

judgedTest(["chromium"], "the page with 250 VFs: all of them at a glance, by keyboard, on a phone", async () => {
  await using fabric = await TestFabric.start(250, ["--guests", "2"]);
  const browser = await startBrowser();
  try {
    const page = await FabricPage.open(browser, fabric);
    await page.see("h1", "Fabric");
    await page.page.waitForSelector('a[href="#/vf/249"]');
    assertEquals(await page.barriers(), []);
    await page.shoot("many");
    await page.find(`document.querySelector('a[href="#/vf/249"]').focus()`);
    await page.page.keyboard.press("Enter");
    await page.see("h1", "VF 249");
    assertEquals(await page.find("document.activeElement.tagName"), "H1", "a reader goes on from there");
    await page.page.setViewport({ width: 390, height: 844 });
    for (const [hash, heading] of [["#/", "Fabric"], ["#/vf/0", "VF 0"], ["#/nic", "NIC"], ["#/events", "Events"]]) {
      await page.go(hash as string, heading as string);
      await page.shoot(`phone-${(heading as string).toLowerCase().replace(" ", "")}`);
      const wide = await page.find<number>("document.documentElement.scrollWidth");
      assert(wide <= 390, `${heading} is ${wide} pixels wide on a phone of 390`);
      assertEquals(await page.barriers(), [], heading);
    }
    await page.go("#/", "Fabric");
    await page.click(".title .segments button:last-child");
    await page.fill("#port-text", "VF 24");
    await page.see(".count", "11 of 250");
    assertEquals(page.complaints, []);
    await must(`${page.api}/api/v1/nic`, "PATCH", { numVfs: 2 });
    await page.see(".count", "of 2");
  } finally {
    await browser.close();
  }
});
