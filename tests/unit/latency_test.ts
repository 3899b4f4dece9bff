/** Latency without a probe: how long frames wait in their ring, sampled in the engine, and how the PF tells it. */
import { assert, assertEquals } from "@std/assert";
import { P_SAMPLE_QUEUE, POOLS } from "../../shared/layout/nic.ts";
import { latencySummary, type VfStats } from "../../shared/api/mod.ts";
import { RecentLatency } from "../../services/pf/latency.ts";
import { latencyOf } from "../../shared/engine/mod.ts";
import { rigMac } from "../support/engine_rig.ts";
import { frame } from "../support/mock_guest.ts";
import { rig, test } from "../support/switch_bench.ts";
import { histogram } from "../support/latency.ts";
import { TestPf } from "../support/test_pf.ts";

const made = (bytes: number) => frame({ src: rigMac(0), dst: rigMac(1), bytes });
const samples = (counts: readonly number[]) => counts.reduce((sum, count) => sum + count, 0);

test("one visit in some sixty is a sample, of what was sent and of nobody else", () => {
  const { rig: engine, guests: [a, b] } = rig(3);
  engine.isClockStill = true;
  for (let i = 0; i < 200; i++) {
    a?.send([made(64)]);
    engine.run(20);
    b?.receive();
    b?.fill(1);
  }
  const { counts, sumNs } = latencyOf(engine.view, 0);
  assert(counts[0] === samples(counts) && samples(counts) >= 3 && samples(counts) <= 5, String(counts));
  assertEquals(sumNs, 0, "no time went by within a visit");
  for (const pool of [1, 2]) assertEquals(samples(latencyOf(engine.view, pool).counts), 0);
});

test("frames that wait for a maximum rate wait in their ring, and that counts", () => {
  const { rig: engine, guests: [a] } = rig(2, { 0: { maxTxRate: 8 } });
  engine.isClockStill = true;
  a?.send(Array.from({ length: 30 }, () => made(1000)));
  for (let ms = 0; ms < 40; ms++) engine.run(20, 1_000_000);
  assertEquals(a?.unsent(), 0);
  const { counts, sumNs } = latencyOf(engine.view, 0);
  // 4 ms may go at once; the rest takes 26, which is up to 2^15 µs.
  assertEquals([counts[15], samples(counts)], [1, 1]);
  assert(sumNs >= 24e6 && sumNs <= 30e6, String(sumNs));
});

test("a queue that begins anew takes its sample along", () => {
  const { rig: engine, guests: [a] } = rig(2, { 0: { maxTxRate: 8 } });
  engine.isClockStill = true;
  a?.send(Array.from({ length: 30 }, () => made(1000)));
  engine.run(20, 1000);
  const sampled = () => engine.view.getUint32(POOLS + P_SAMPLE_QUEUE, true);
  const queue = engine.guests.get(0)?.queuePointer(1) ?? 0;
  assertEquals(sampled(), queue);
  engine.wasm.startQueue(queue, -1);
  assertEquals([sampled(), samples(latencyOf(engine.view, 0).counts)], [0, 0]);
});

Deno.test("half and 99 of 100 of the samples are found in a histogram as Prometheus finds them", () => {
  const of = (counts: Record<number, number>) => latencySummary(histogram(counts).counts);
  assertEquals(of({}), { samples: 0, p50Us: null, p99Us: null });
  assertEquals(of({ 0: 4 }), { samples: 4, p50Us: 0.5, p99Us: 1 }, "the first bucket begins at 0");
  assertEquals(of({ 4: 100 }), { samples: 100, p50Us: 12, p99Us: 15.9 }, "spread over 8 to 16 µs");
  assertEquals(of({ 3: 98, 9: 2 }), { samples: 100, p50Us: 6, p99Us: 384 });
  assertEquals(of({ 2: 1, 16: 1 }), { samples: 2, p50Us: 4, p99Us: 32_768 }, "the last bucket has no end");
});

Deno.test("what is recent is what a histogram gained in ten seconds, until it begins anew", () => {
  const recent = new RecentLatency();
  const take = (s: number, counts: Record<number, number>) =>
    recent.take(s * 1000, new Map([["vf0", histogram(counts).counts]]));
  assertEquals(recent.of("vf0"), undefined);
  take(0, { 10: 1000 });
  assertEquals(recent.of("vf0"), undefined, "since when is not known");
  take(1, { 10: 1000 });
  assertEquals(recent.of("vf0"), { samples: 0, p50Us: null, p99Us: null });
  take(2, { 10: 1000, 4: 10 });
  assertEquals(recent.of("vf0"), { samples: 10, p50Us: 12, p99Us: 15.9 }, "the thousand before are not");
  for (let s = 3; s <= 11; s++) take(s, { 10: 1000, 4: 10 });
  assertEquals(recent.of("vf0")?.samples, 10);
  take(12, { 10: 1000, 4: 10 });
  assertEquals(recent.of("vf0")?.samples, 0, "eleven seconds ago is not recent");
  take(13, { 2: 3 });
  assertEquals(recent.of("vf0")?.samples, 3, "another NIC counts from 0");
  assertEquals(recent.of("vf1"), undefined);
  take(30, { 2: 90 });
  assertEquals(recent.of("vf0"), undefined, "nobody has looked for long");
});

Deno.test("a VF's statistics tell its histogram and what it says", async () => {
  await using pf = await TestPf.start(2);
  pf.nic.pools.set(1, { latency: histogram({ 4: 100 }, 1_200_000) });
  assertEquals((await pf.get<VfStats>("vfs/1/stats")).latency, {
    ...histogram({ 4: 100 }, 1_200_000),
    ...{ samples: 100, p50Us: 12, p99Us: 15.9 },
  });
  const nothing = { ...histogram(), samples: 0, p50Us: null, p99Us: null };
  assertEquals((await pf.get<VfStats>("vfs/0/stats")).latency, nothing);
});

Deno.test("the metrics have a histogram for each VF and the uplink", async () => {
  await using pf = await TestPf.start(2);
  pf.nic.pools.set(1, { latency: histogram({ 1: 3, 16: 2 }, 2_500_000_000) });
  const text = await (await pf.app.request("/metrics")).text();
  const name = "ringfabric_vf_latency_seconds";
  const lines = text.split("\n").filter((line) => line.includes(name) && /^#|vf="1"/.test(line));
  assertEquals(lines.slice(0, 5), [
    `# HELP ${name} From when a frame that the VF sent is seen in its ring until it is delivered, sampled`,
    `# TYPE ${name} histogram`,
    `${name}_bucket{vf="1",le="0.000001"} 0`,
    `${name}_bucket{vf="1",le="0.000002"} 3`,
    `${name}_bucket{vf="1",le="0.000004"} 3`,
  ]);
  assertEquals(lines.slice(-4), [
    `${name}_bucket{vf="1",le="0.032768"} 3`,
    `${name}_bucket{vf="1",le="+Inf"} 5`,
    `${name}_sum{vf="1"} 2.5`,
    `${name}_count{vf="1"} 5`,
  ]);
  assert(text.includes(`${name}_count{vf="uplink"} 0`));
});
