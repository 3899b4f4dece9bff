/**
 * A web page in the operator's browser, which reaches every port of this machine: across sites, and by a name that leads
 * to 127.0.0.1. Whatever it tries on a running fabric, it changes nothing and reads nothing, with tokens and without.
 */
import { assert, assertEquals } from "@std/assert";
import type { Page } from "puppeteer-core";
import { EVIL_HOST, startBrowser } from "../support/browser.ts";
import { TestFabric } from "../support/fabric.ts";
import { must } from "../support/guests.ts";
import { judgedTest } from "../support/judges.ts";
import { TEST_TOKEN } from "../support/token.ts";

/** What the page tries, run in the browser: answers what it could read, each as a line. */
const ATTACK = Deno.readTextFileSync(new URL("../support/web_page_attack.js", import.meta.url));

function tryAll(page: Page, bases: string[]): Promise<string[]> {
  return page.evaluate(`(${ATTACK.slice(ATTACK.indexOf("async"))})(${JSON.stringify(bases)})`) as Promise<string[]>;
}

/** Everything that a page might change. */
async function state(fabric: TestFabric): Promise<string> {
  const [vfs, nic, vports, ports] = await Promise.all([
    must(`${fabric.info.api}/api/v1/vfs`),
    must(`${fabric.info.api}/api/v1/nic`),
    must(`${fabric.info.api}/api/v1/vports`),
    must(`${fabric.url("vhost")}/api/v1/ports`),
  ]);
  const { numVfs, switchMode, link } = nic;
  const policies = vfs.map(({ mac, vlan, trust, mode }: Record<string, unknown>) => ({ mac, vlan, trust, mode }));
  return JSON.stringify({
    policies,
    numVfs,
    switchMode,
    link,
    vports: vports.length,
    roles: ports.map(({ role }: { role: string }) => role),
  });
}

for (const args of [[], ["--no-token"]]) {
  judgedTest(["chromium"], `a web page changes nothing and reads nothing (up ${args.join(" ")})`, async () => {
    await using fabric = await TestFabric.start(2, ["--guests", "1", ...args]);
    const bases = ["pf", "vhost", "vf", "nic"].map((name) => fabric.url(name as "pf"));
    bases.push(fabric.info.guests[0]?.api ?? "");
    await using site = Deno.serve(
      { hostname: "127.0.0.1", port: 0, onListen: () => {} },
      () => new Response("<!doctype html><title>a page</title><body>", { headers: { "content-type": "text/html" } }),
    );
    const before = await state(fabric);
    const browser = await startBrowser();
    try {
      const visit = async (url: string, run: (page: Page) => Promise<string[]>) => {
        const page = await browser.newPage();
        await page.goto(url);
        assertEquals(await run(page), [], `read from ${url}`);
        await page.close();
      };
      const names = bases.map((base) => base.replace("127.0.0.1", EVIL_HOST));
      for (const host of ["127.0.0.1", EVIL_HOST]) {
        await visit(`http://${host}:${site.addr.port}/`, (page) => tryAll(page, [...bases, ...names]));
      }
      // The page's name leads to the service itself: to the browser they are the same site.
      for (const base of names) await visit(`${base}/docs`, (page) => tryAll(page, [base]));
    } finally {
      await browser.close();
    }
    assertEquals(await state(fabric), before);
    assert((await must(`${fabric.info.api}/api/v1/vports`)).length === 0);
  });
}

judgedTest(["chromium"], "the API's page takes the token from its address, and forgets the address", async () => {
  await using fabric = await TestFabric.start(1);
  const browser = await startBrowser();
  try {
    const page = await browser.newPage();
    const broken: string[] = [];
    page.on("pageerror", (error) => broken.push(String(error)));
    page.on("console", (message) => message.type() === "error" && broken.push(message.text()));
    await page.goto(`${fabric.info.api}/docs#token=${TEST_TOKEN}`);
    await page.waitForSelector(".opblock", { timeout: 20_000 });
    assertEquals(new URL(page.url()).hash, "");
    const answered = page.waitForResponse((response) => response.url() === `${fabric.info.api}/api/v1/nic`);
    for (const part of [".opblock-summary-control", ".try-out__btn", ".execute"]) {
      await (await page.waitForSelector(`.opblock-get:has([data-path="/api/v1/nic"]) ${part}`))?.click();
    }
    const response = await answered;
    assertEquals([response.status(), response.request().headers().authorization], [200, `Bearer ${TEST_TOKEN}`]);
    assertEquals(broken, []);
  } finally {
    await browser.close();
  }
});
