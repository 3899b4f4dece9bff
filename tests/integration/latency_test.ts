/**
 * Latency without a probe, as a user sees it: a histogram for each VF and vport that grows with what its guest sends,
 * whatever its mode, and that API, metrics, `fabric` and page tell alike.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { LATENCY_LIMITS_US, type LatencyView } from "../../shared/api/mod.ts";
import { startBrowser } from "../support/browser.ts";
import { cli } from "../support/cli.ts";
import { TestFabric } from "../support/fabric.ts";
import { MODES, must, setMode, TestGuest } from "../support/guests.ts";
import { judgedTest } from "../support/judges.ts";
import { FabricPage } from "../support/page.ts";
import { authorized } from "../support/token.ts";
import { until } from "../support/wait.ts";

const NAME = "ringfabric_vf_latency_seconds";

/** A VF's histogram as Prometheus is told it, with each sample in one bucket again. */
async function scraped(fabric: TestFabric, vf: number): Promise<Pick<LatencyView, "counts" | "samples">> {
  const text = await (await authorized(`${fabric.info.api}/metrics`)).text();
  const figure = (name: string) => Number(text.split("\n").find((line) => line.startsWith(name))?.split(" ").at(-1));
  const upTo = [...LATENCY_LIMITS_US.map((us) => String(us / 1e6)), "+Inf"].map((limit) =>
    figure(`${NAME}_bucket{vf="${vf}",le="${limit}"}`)
  );
  return {
    counts: upTo.map((count, i) => count - (upTo[i - 1] ?? 0)),
    samples: figure(`${NAME}_count{vf="${vf}"}`),
  };
}

/** A figure on the page, without the spaces between its thousands. */
const plain = (text = "") => text.replaceAll("\u202f", "");

/** What the page shows of the port that it is at. */
async function shown(page: FabricPage): Promise<{ samples: number; p50: string; p99: string; buckets: number[] }> {
  const figure = async (name: string) => plain((await page.texts(`[data-latency="${name}"]`))[0]);
  const buckets = (await page.texts("[data-bucket]")).map((text) => Number(plain(text)));
  return {
    samples: Number(await figure("samples")),
    p50: await figure("p50"),
    p99: await figure("p99"),
    buckets,
  };
}

/** The buckets from the first to the last that has samples. */
function filled(counts: readonly number[]): number[] {
  return counts.slice(counts.findIndex((n) => n > 0), counts.findLastIndex((n) => n > 0) + 1);
}

/** Page, `fabric`, metrics and API say the same of a VF that sends no more. */
async function areOfOneMind(fabric: TestFabric, page: FabricPage, vf: number): Promise<void> {
  const { latency } = await fabric.get(`/api/v1/vfs/${vf}/stats`) as { latency: LatencyView };
  const { samples, p50Us, p99Us, counts } = latency;
  assertEquals(await scraped(fabric, vf), { counts, samples });
  const { out } = await cli(fabric, "vf", "show", String(vf));
  assertMatch(out, new RegExp(`^ +latency +p50 ${p50Us} µs, p99 ${p99Us} µs, of ${samples} samples$`, "m"));
  const { out: json } = await cli(fabric, "--json", "vf", "show", String(vf));
  assertEquals(JSON.parse(json).latency, latency);
  const milliseconds = (us: number) =>
    us < 999.95 ? `${us < 100 ? us : Math.round(us)}µs` : `${(us / 1000).toPrecision(3)}ms`;
  await until("the page to show the same", async () => {
    const { samples: total, p50, p99, buckets } = await shown(page);
    return total === samples && JSON.stringify(buckets) === JSON.stringify(filled(counts)) &&
      p50 === milliseconds(p50Us ?? NaN) && p99 === milliseconds(p99Us ?? NaN);
  });
}

judgedTest(
  ["chromium"],
  "latency of what guests send: in every mode, on vports, and nothing where nothing is sent",
  async (t) => {
    await using fabric = await TestFabric.start(2, ["--guests", "3"]);
    await must(`${fabric.info.api}/api/v1/nic`, "PATCH", { numVfs: 3 });
    const [a, b, c] = [0, 1, 2].map((i) => TestGuest.of(fabric, i)) as [TestGuest, TestGuest, TestGuest];
    const samples = async (port: string) => {
      const { latency } = await fabric.get(`/api/v1/${port}`) as { latency: LatencyView };
      return latency.samples;
    };
    /** Sends until the histogram of who sends has grown, and then no more. */
    const grows = async (port: string, from: TestGuest, to: TestGuest) => {
      await from.reaches(to.ip);
      const before = await samples(port);
      const { id } = await from.send(to.ip, { rate: 20_000, size: 200 });
      await until(`twenty samples of ${port}`, async () => await samples(port) >= before + 20);
      await from.stop(id);
    };
    const browser = await startBrowser();
    try {
      const page = await FabricPage.open(browser, fabric);
      await page.see("h1", "Fabric");
      for (const [name, mode] of Object.entries(MODES)) {
        await t.step(`a VF in ${name}`, async () => {
          await setMode(fabric, 0, mode);
          await page.go("#/vf/0", "VF 0");
          await grows("vfs/0/stats", a, b);
          await areOfOneMind(fabric, page, 0);
          assertEquals(await page.barriers(), []);
        });
      }
      await page.shoot("latency");
      await t.step("a vport", async () => {
        await grows("vports/0", c, a);
        await page.go("#/vport/0", "vport 0");
        const { latency } = await fabric.get("/api/v1/vports/0") as { latency: LatencyView };
        await until("the page to show the same", async () => (await shown(page)).samples === latency.samples);
        assertMatch(
          (await cli(fabric, "vport", "show", "0")).out,
          new RegExp(`latency .*of ${latency.samples} samples`),
        );
      });
      await t.step("a VF whose guest has sent nothing", async () => {
        assertEquals(await samples("vfs/2/stats"), 0);
        assertEquals((await scraped(fabric, 2)).samples, 0);
        assertMatch((await cli(fabric, "vf", "show", "2")).out, /^ +latency +no frames yet$/m);
        await page.go("#/vf/2", "VF 2");
        await page.see(".latency .none", "No frames yet.");
        assert((await page.texts("[data-bucket]")).length === 0);
      });
      assertEquals(page.complaints, []);
    } finally {
      await browser.close();
    }
  },
);
