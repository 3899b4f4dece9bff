/** How long it takes to take a VF back: from the operator's order to its answer, with a neighbour's traffic beside it. */
import { table } from "../../services/cli/views.ts";
import { generateKeys } from "../../shared/plugin/mod.ts";
import { TestFabric } from "../support/fabric.ts";
import { must, setMode, TestGuest } from "../support/guests.ts";
import { compilePlugin, ENDLESS, RINGS, sign } from "../support/plugins.ts";
import { median } from "./stats.ts";

/** Milliseconds of many take-backs. */
export interface TakeBackResult {
  what: string;
  medianMs: number;
  p99Ms: number;
  longestMs: number;
}

/** Takes a VF back `times` times, from an honest plugin and from one that does not come back. */
export async function takeBacks(times: number): Promise<TakeBackResult[]> {
  const keys = await generateKeys();
  const trust = await Deno.makeTempFile({ prefix: "ringfabric-trust-" });
  await Deno.writeTextFile(trust, `${keys.publicKey}\n`);
  await using fabric = await TestFabric.start(3, ["--guests", "3", "--trust", trust]);
  await Deno.remove(trust);
  const [a, b, c] = [0, 1, 2].map((i) => TestGuest.of(fabric, i)) as [TestGuest, TestGuest, TestGuest];
  const endless = await sign(await compilePlugin({ start: RINGS, ...ENDLESS["does not send and does not end"] }), keys);
  await must(`${fabric.url("vf")}/api/v1/plugins`, "POST", endless);
  for (const vf of [1, 2]) await setMode(fabric, vf, { mode: "passthrough", plugin: "advanced" });
  await b.send(c.ip, { rate: 10_000, size: 128 });
  await a.send(b.ip, { rate: 1000, size: 128 });
  const cases: [string, string, boolean][] = [
    ["honest plugin, asked", "advanced", false],
    ["honest plugin, by force", "advanced", true],
    ["endless plugin, by force", "test", true],
  ];
  const results: TakeBackResult[] = [];
  for (const [what, plugin, force] of cases) {
    const took: number[] = [];
    for (let i = 0; i < times; i++) {
      await setMode(fabric, 0, { mode: "passthrough", plugin });
      const started = performance.now();
      await setMode(fabric, 0, { mode: "emulated", ...(force ? { force } : {}) });
      took.push(performance.now() - started);
    }
    took.sort((x, y) => x - y);
    const at = (q: number) => took[Math.min(took.length - 1, Math.floor(took.length * q))] ?? NaN;
    results.push({ what, medianMs: median(took), p99Ms: at(0.99), longestMs: at(1) });
  }
  return results;
}

/** The figures in a table. */
export function takeBackTable(results: readonly TakeBackResult[], times: number): string {
  return table(
    [`TAKING A VF BACK, ${times} TIMES`, "MEDIAN MS", "P99 MS", "LONGEST MS"],
    results.map(({ what, medianMs, p99Ms, longestMs }) => [
      what,
      ...[medianMs, p99Ms, longestMs].map((ms) => ms.toFixed(1)),
    ]),
  );
}
