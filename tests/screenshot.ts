/**
 * `deno task screenshot`: the picture at the README's top, docs/page.png, of a real fabric under traffic, as Chromium
 * shows it. It runs in a network namespace of its own, in which the fabric's uplink is a TAP.
 */
import { startBrowser } from "./support/browser.ts";
import { TestFabric } from "./support/fabric.ts";
import { setMode, TestGuest } from "./support/guests.ts";
import { FabricPage } from "./support/page.ts";

const PICTURE = new URL("../docs/page.png", import.meta.url);
const INSIDE = "RINGFABRIC_SCREENSHOT_INSIDE";
/** How long the plots have something to show. */
const TRAFFIC_MS = 40_000;
const HOST = "10.0.255.254";

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Guests in every mode, VLANs, frames that are dropped for a reason, and a way out. */
async function scene(fabric: TestFabric): Promise<void> {
  const [a, b, c, d] = [0, 1, 2, 3].map((i) => TestGuest.of(fabric, i)) as [TestGuest, TestGuest, TestGuest, TestGuest];
  await a.reaches(b.ip);
  await a.reaches(HOST);
  await a.send(b.ip, { rate: 12_000, size: 1500 });
  await c.send(HOST, { rate: 300, size: 900 });
  await d.send(a.ip, { rate: 40, size: 300 });
  await pause(TRAFFIC_MS / 4);
  await setMode(fabric, 0, { mode: "passthrough", plugin: "advanced" });
  await b.send(a.ip, { rate: 2500, size: 400 });
  await setMode(fabric, 2, { mode: "emulated", dataPath: "zerocopy" });
  await fabric.patch(3, { allowedIps: ["192.0.2.1"] });
  await fabric.patch(4, { vlan: 100, qos: 3, linkState: "disable" });
  await pause(TRAFFIC_MS * 3 / 4);
}

async function shoot(): Promise<void> {
  await using fabric = await TestFabric.start(5, [
    ...["--guests", "4", "--uplink", "tap:rf0", "--uplink-address", `${HOST}/16`],
  ]);
  const browser = await startBrowser();
  try {
    const page = await FabricPage.open(browser, fabric);
    await page.see("h1", "Fabric");
    await scene(fabric);
    await page.page.screenshot({ path: PICTURE.pathname as `${string}.png`, optimizeForSpeed: false });
  } finally {
    await browser.close();
  }
}

if (Deno.env.get(INSIDE)) await shoot();
else {
  const inside = `ip link set lo up && exec "$0" "$@"`;
  const again = [Deno.execPath(), "run", "--quiet", "-A", new URL(import.meta.url).pathname];
  const { code } = await new Deno.Command("unshare", {
    args: ["--net", "--map-root-user", "sh", "-c", inside, ...again],
    env: { [INSIDE]: "1" },
  }).spawn().status;
  Deno.exit(code);
}
