/**
 * Every field of every form of the page in a real Chromium: a value that is good is in force, one that the API refuses
 * is said at its field and changes nothing. The lists of fields are those of the OpenAPI document, so none is forgotten.
 */
import { assertEquals, assertNotEquals } from "@std/assert";
import { defaultPolicy } from "../../shared/api/mod.ts";
import { schemaIn, written } from "../../services/pf/page/schema.js";
import { startBrowser } from "../support/browser.ts";
import { TestFabric } from "../support/fabric.ts";
import { must } from "../support/guests.ts";
import { judgedTest } from "../support/judges.ts";
import { FabricPage } from "../support/page.ts";
import { until } from "../support/wait.ts";

/** What is typed or chosen into a field, and what comes of it. */
interface Case {
  /** A text, or true to press a switch. */
  good: string | true;
  /** What the API has then. */
  makes: unknown;
  /** What is refused, and in which words; none: a switch that the API takes either way. */
  bad?: [string | true, RegExp];
  /** What is in force before: what the good value needs, and the bad one lacks. */
  before?: Record<string, unknown>;
  beforeBad?: Record<string, unknown>;
}

/** A stream that comes each second may be late on a busy machine. */
const DEADLINE_MS = 20_000;
/** What no choice of the page is: a newer page's, or an older API's. */
const NO_CHOICE = "sideways";

const PORT: Record<string, Case> = {
  mac: { good: "02:aa:00:00:00:01", makes: "02:aa:00:00:00:01", bad: ["01:00:00:00:00:01", /is a multicast address/] },
  macFixed: { before: { mac: null }, good: true, makes: true },
  spoofCheck: { good: true, makes: false },
  allowedMacs: {
    good: "02:aa:00:00:00:03, 02:aa:00:00:00:02",
    makes: ["02:aa:00:00:00:02", "02:aa:00:00:00:03"],
    bad: ["02:aa:00:00:00:02 nobody", /is not a MAC address/],
  },
  allowedIps: {
    good: "192.0.2.1 10.0.0.0/8",
    makes: ["10.0.0.0/8", "192.0.2.1"],
    bad: ["10.0.0.0/33", /10|prefix|IP/],
  },
  vlan: { good: "100", makes: 100, bad: ["4095", /VLAN ids are 0–4094/] },
  qos: { before: { vlan: 100 }, good: "3", makes: 3, bad: ["8", /priorities are 0–7/] },
  vlanProto: {
    ...{ before: { vlan: 100 }, good: "802.1ad", makes: "802.1ad" },
    ...{ beforeBad: { vlan: 0 }, bad: ["802.1ad", /it has no VLAN; set vlan too/] },
  },
  trunk: { good: "5 10-12", makes: [5, 10, 11, 12], bad: ["0", /trunk VLAN ids are 1–4094/] },
  nativeVlan: { good: "7", makes: 7, bad: ["seven", /must be a whole number/] },
  trust: { good: true, makes: true },
  promisc: {
    ...{ before: { trust: true }, good: true, makes: true },
    ...{ beforeBad: { trust: false }, bad: [true, /it is not trusted; set trust too/] },
  },
  linkState: { good: "disable", makes: "disable", bad: [NO_CHOICE, /is auto, enable or disable/] },
  mtu: { good: "1400", makes: 1400, bad: ["67", /MTUs are 68/] },
  queuePairs: { good: "2", makes: 2, bad: ["17", /from 1 to 16 queue pairs/] },
  minTxRate: { good: "10", makes: 10, before: { maxTxRate: 20 }, bad: ["30", /would be over maxTxRate 20/] },
  maxTxRate: { good: "100", makes: 100, bad: ["-1", /rates are 0 \(none\) or more/] },
  maxBroadcastRate: { good: "1000", makes: 1000, bad: ["10000001", /rates are 0 \(no limit\) to/] },
  multicast: { good: "none", makes: "none", bad: ["everything", /multicast/] },
  guestMulticast: { good: "01:00:5e:00:00:01", makes: ["01:00:5e:00:00:01"], bad: ["02:00:00:00:00:01", /multicast/] },
  adaptiveRx: { good: true, makes: false },
  rxUsecs: { good: "20", makes: 20, bad: ["10001", /from 0 .* to 10000 µs/] },
  rxFrames: { good: "1", makes: 1, bad: ["0", /from 1 to 1024 frames/] },
  adaptiveTx: { good: true, makes: false },
  txUsecs: { good: "0", makes: 0, bad: ["soon", /must be a whole number of µs/] },
  txFrames: { good: "1024", makes: 1024, bad: ["", /must be a whole number of frames/] },
};

const VF: Record<string, Case> = {
  ...PORT,
  hardware: { good: "virtio", makes: "virtio", bad: [NO_CHOICE, /is any, advanced or virtio/] },
  mirror: { good: "both:1", makes: "both:1", bad: ["both:0", /cannot mirror vf 0 to itself/] },
};

const NIC: Record<string, Case> = {
  numVfs: { good: "4", makes: 4, bad: ["257", /0–256 VFs/] },
  switchMode: { good: "vepa", makes: "vepa", bad: [NO_CHOICE, /is veb or vepa/] },
  uplinkTrunk: { good: "10-12", makes: [10, 11, 12], bad: ["4095", /VLAN|409/] },
  uplinkNativeVlan: { good: "7", makes: 7, bad: ["4095", /VLAN ids are 0–4094|0–4094/] },
  pfMirror: { good: "both:1", makes: "both:1", bad: ["sideways", /is such as both:3/] },
  link: { good: "down", makes: "down", bad: [NO_CHOICE, /is auto, up or down/] },
};

/** A form of the page: where it is, and what the API has for it. */
class FormOfPage {
  readonly #page: FabricPage;
  readonly #form: string;
  readonly #id: string;
  readonly #path: string;
  readonly schema: { properties: Record<string, object> };

  /** `form`: a selector of what it is in; `id`: its fields' prefix; `path`: where the API has it. */
  constructor(
    page: FabricPage,
    schema: FormOfPage["schema"],
    { form, id, path }: { form: string; id: string; path: string },
  ) {
    this.schema = schema;
    this.#page = page;
    this.#form = form;
    this.#id = id;
    this.#path = path;
  }

  async fields(): Promise<string[]> {
    await this.#page.see(`${this.#form} .field label`, /./);
    return await this.#page.texts(`${this.#form} .field label`);
  }

  inForce(): Promise<Record<string, unknown>> {
    return must(`${this.#page.api}${this.#path}`);
  }

  /** Puts a policy in force from elsewhere, and waits until the form shows all of it. */
  async reset(policy: Record<string, unknown>): Promise<void> {
    const made = await must(`${this.#page.api}${this.#path}`, "PATCH", policy);
    const { properties } = this.schema;
    const wanted = JSON.stringify(
      Object.fromEntries(Object.entries(properties).map(([name, field]) => [name, written(field, made[name])])),
    );
    await until("the form to show what is in force", async () => {
      const shown = await this.#page.find<Record<string, unknown>>(`Object.fromEntries(
        [...document.querySelectorAll("${this.#form} [name]")].map((field) =>
          [field.name, field.type === "checkbox" ? field.checked : field.value]))`);
      return JSON.stringify(Object.fromEntries(Object.keys(properties).map((name) => [name, shown[name]]))) === wanted;
    }, DEADLINE_MS);
  }

  async enter(name: string, value: string | true): Promise<void> {
    const selector = `#${this.#id}-${name}`;
    const kind = await this.#page.find<string>(`document.querySelector("${selector}").type`);
    if (kind === "checkbox") return await this.#page.press(selector);
    if (kind === "text") return await this.#page.fill(selector, String(value));
    if (value === NO_CHOICE) {
      await this.#page.find(`document.querySelector("${selector}").append(new Option("${value}", "${value}"))`);
    }
    await this.#page.page.select(selector, String(value));
  }

  async apply(): Promise<void> {
    await this.#page.press(`${this.#form} button[type=submit]`);
  }

  /** A value is refused: at its field, which has the focus, for screen readers too, and nothing has changed. */
  async refuses(name: string, value: string | true, why: RegExp): Promise<void> {
    const before = (await this.inForce())[name];
    await this.enter(name, value);
    await this.apply();
    const field = `#${this.#id}-${name}`;
    await this.#page.see(`${field}-error`, why);
    const told = `(() => {
      const field = document.querySelector("${field}");
      return field.ariaInvalid === "true" && document.activeElement === field &&
        field.getAttribute("aria-describedby").split(" ").includes("${this.#id}-${name}-error");
    })()`;
    await this.#page.awaits(told);
    assertEquals((await this.inForce())[name], before, `${name} is as it was`);
    await this.#page.press(`${this.#form} .actions button[type=button]`);
  }

  async takes(name: string, value: string | true, made: unknown): Promise<void> {
    assertNotEquals((await this.inForce())[name], made, `${name} is not so yet`);
    await this.enter(name, value);
    await this.apply();
    await this.#page.see(`${this.#form} .done`, "In force.");
    assertEquals((await this.inForce())[name], made, name);
  }
}

/** Each field of a form, refused and good, one after the other. `policy` is in force at first. */
async function everyField(
  t: Deno.TestContext,
  form: FormOfPage,
  cases: Record<string, Case>,
  policy: Record<string, unknown>,
): Promise<void> {
  const names = Object.keys(form.schema.properties).sort();
  assertEquals((await form.fields()).sort(), names, "the form has what the API takes");
  assertEquals(Object.keys(cases).sort(), names, "and this test all of it");
  await form.reset(policy);
  for (const [name, { good, makes, bad, before, beforeBad = before }] of Object.entries(cases)) {
    const isRight = await t.step(name, async () => {
      if (beforeBad) await form.reset({ ...policy, ...beforeBad });
      if (bad) await form.refuses(name, ...bad);
      if (beforeBad !== before) await form.reset({ ...policy, ...before });
      await form.takes(name, good, makes);
    });
    if (!isRight) return;
  }
}

judgedTest(["chromium"], "forms of the page: every field of the API, good and refused", async (t) => {
  await using fabric = await TestFabric.start(3, ["--guests", "0"]);
  const { mac: _, ...policy } = { ...defaultPolicy(""), mac: null };
  const { hardware: _any, ...portPolicy } = policy;
  for (let vport = 0; vport < 2; vport++) await must(`${fabric.info.api}/api/v1/vports`, "POST", {});
  const document = await fabric.get("/openapi.json");
  const browser = await startBrowser();
  try {
    const page = await FabricPage.open(browser, fabric);
    await page.see("h1", "Fabric");
    await t.step("a VF's policy", async (t) => {
      await page.go("#/vf/0", "VF 0");
      const form = new FormOfPage(page, schemaIn(document, "VfPatch"), {
        form: ".policy",
        id: "policy",
        path: "/api/v1/vfs/0",
      });
      await everyField(t, form, VF, { ...policy, mac: null });
    });
    await t.step("a vport's policy", async (t) => {
      await page.go("#/vport/0", "vport 0");
      const form = new FormOfPage(page, schemaIn(document, "VportPatch"), {
        form: ".policy",
        id: "policy",
        path: "/api/v1/vports/0",
      });
      const mirror: Case = { good: "in:vport1", makes: "in:vport1", bad: ["both:vport0", /itself/] };
      const cases = {
        ...PORT,
        mirror,
        mac: { ...PORT.mac as Case, good: "02:aa:00:00:00:07", makes: "02:aa:00:00:00:07" },
      };
      await everyField(t, form, cases, { ...portPolicy, mac: null });
    });
    await t.step("the NIC's settings", async (t) => {
      await page.go("#/nic", "NIC");
      const form = new FormOfPage(page, schemaIn(document, "NicPatch"), {
        form: "[aria-labelledby=settings-title]",
        id: "nic",
        path: "/api/v1/nic",
      });
      const settings = {
        numVfs: 3,
        switchMode: "veb",
        uplinkTrunk: "all",
        uplinkNativeVlan: 0,
        link: "auto",
        pfMirror: null,
      };
      await everyField(t, form, NIC, settings);
    });
    assertEquals(page.complaints, []);
  } finally {
    await browser.close();
  }
});
