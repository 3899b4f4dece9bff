/** The benchmarks' own rules: what misses a goal is said first, and every row of the engine measures what it says. */
import { assert, assertEquals } from "@std/assert";
import { ROOT } from "../../shared/wasm/load.ts";
import { isMissed, type Judged, judgedTable } from "../bench/judged.ts";
import { packedPort, type PackedRing } from "../bench/engine/packed_port.ts";
import { ROWS } from "../bench/engine/rows.ts";
import { loadKit } from "../bench/engine/world.ts";

const FIGURES = { against: "peer", unit: "Mpps" };

Deno.test("a goal is missed on its wrong side, and not by a figure that is not there", () => {
  assertEquals([1.2, 1.19, 1.21].map((ratio) => isMissed(ratio, { atLeast: 1.2 })), [false, true, false]);
  assertEquals([0.85, 0.84, 0.86].map((ratio) => isMissed(ratio, { atMost: 0.85 })), [false, false, true]);
  assertEquals([undefined, NaN].map((ratio) => isMissed(ratio, { atLeast: 1 })), [false, false]);
  assert(!isMissed(0.1, undefined));
});

Deno.test("rows that miss their goals come first, in their order", () => {
  const rows: Judged[] = [
    { what: "kept", ours: 3, theirs: 2, goal: { atLeast: 1.2 }, ...FIGURES },
    { what: "first", ours: 2, theirs: 2, goal: { atLeast: 1.2 }, ...FIGURES },
    { what: "without a goal", ours: 1, theirs: 2, ...FIGURES },
    { what: "second", ours: 1, theirs: 2, goal: { atLeast: 1.2 }, ...FIGURES },
  ];
  const lines = judgedTable("LOAD", rows).split("\n").slice(1).map((line) => line.trim().split(/\s{2,}/).slice(0, 2));
  assertEquals(lines.slice(0, 2), [["MISSED", "first"], ["MISSED", "second"]]);
  assertEquals(lines.slice(2).map(([what]) => what), ["kept", "without a goal"]);
});

/** A device that returns so many buffers at a time: each by itself, or all by the last one's id (IN_ORDER). */
function returnBuffers(ring: PackedRing, from: number, count: number, isBatch: boolean): void {
  for (let place = from; place < from + count; place++) {
    const at = ring.desc + (place % ring.size) * 16;
    const wrap = Math.floor(place / ring.size) % 2 === 0;
    assertEquals(ring.view.getUint16(at + 14, true) & 0x8080, wrap ? 0x0080 : 0x8000, `place ${place} is available`);
    if (isBatch && place > from) continue;
    const last = isBatch ? from + count - 1 : place;
    ring.view.setUint16(at + 12, last % ring.size, true);
    ring.view.setUint16(at + 14, wrap ? 0x8080 : 0, true);
  }
}

for (const isBatch of [false, true]) {
  Deno.test(`a packed ring is refilled over its wrap, buffers returned ${isBatch ? "in batches" : "one by one"}`, () => {
    const ring: PackedRing = { view: new DataView(new ArrayBuffer(1024)), desc: 64, size: 10, noInterrupt: false };
    const port = packedPort(ring, 0, (slot) => [BigInt(slot), slot]);
    let place = 0;
    for (const count of [3, 7, 10, 1, 9, 10, 4]) {
      port.refill();
      assert(!port.drained());
      returnBuffers(ring, place, count, isBatch);
      place += count;
      assertEquals(port.drained(), count === ring.size);
    }
  });
}

const kit = await loadKit(ROOT);
for (const row of ROWS) {
  Deno.test({
    name: `the engine's benchmark measures "${row.name}", and no frame is missing`,
    ignore: row.heavy === true || !(row.needs ?? []).every((format) => kit.has(format)),
    fn() {
      const value = row.run(kit, { ms: 2, warmMs: 0 });
      assert(value > 0 && Number.isFinite(value), `${value} ${row.unit}`);
    },
  });
}

Deno.test("every row is held against a row that comes before it", () => {
  const names = ROWS.map(({ name }) => name);
  assertEquals(new Set(names).size, names.length);
  ROWS.forEach(({ base }, i) => assert(base === undefined || names.indexOf(base) < i));
});
