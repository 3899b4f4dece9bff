/** The filter table against a Map: any sequence of insertions and removals, with colliding keys. */
import fc from "fast-check";
import { assertEquals } from "@std/assert";
import { VLAN_ANY } from "../../shared/layout/nic.ts";
import { EngineRig } from "../support/engine_rig.ts";

const RUNS = 60;

/** slotOf of filter.ts, to make keys that collide. */
function slotOf(mac: bigint, vlan: number): number {
  const key = mac | (BigInt(vlan) << 48n) | (1n << 63n);
  return Number(BigInt.asUintN(64, key * 0x9e3779b97f4a7c15n) >> 48n);
}

const crowded: bigint[] = [];
for (let mac = 2n; crowded.length < 40; mac += 2n) if (slotOf(mac, VLAN_ANY) < 16) crowded.push(mac);

Deno.test("the filter table is a map of (MAC, VLAN), whatever collides", () => {
  const step = fc.record({
    add: fc.boolean(),
    mac: fc.oneof(fc.constantFrom(...crowded), fc.bigInt({ min: 2n, max: 60n })),
    vlan: fc.constantFrom(0, 7, VLAN_ANY),
    pool: fc.integer({ min: 0, max: 7 }),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200, size: "max" }), (steps) => {
      const rig = new EngineRig(8);
      for (let vf = 0; vf < 8; vf++) rig.wasm.removeFiltersOf(vf, 0);
      const model = new Map<string, number>();
      for (const { add, mac, vlan, pool } of steps) {
        if (add) {
          assertEquals(rig.wasm.insertFilter(mac, vlan, pool, 0), 1);
          model.set(`${mac} ${vlan}`, pool);
        } else {
          rig.wasm.removeFilter(mac, vlan);
          model.delete(`${mac} ${vlan}`);
        }
      }
      const found = new Map(
        rig.pools.filters().filter((entry) => entry.pool !== "pf").map((entry) => {
          const mac = entry.mac.split(":").reduceRight((n, byte) => (n << 8n) | BigInt(parseInt(byte, 16)), 0n);
          return [`${mac} ${entry.vlan === "any" ? VLAN_ANY : entry.vlan}`, Number(entry.pool)];
        }),
      );
      assertEquals(found, model);
      for (const [key, pool] of model) {
        const [mac = "", vlan = ""] = key.split(" ");
        assertEquals(rig.wasm.findPoolExact(BigInt(mac), Number(vlan)), pool);
      }
    }),
    { numRuns: RUNS },
  );
});
