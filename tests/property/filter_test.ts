/**
 * The filter table against a model: two Maps, one of what is set and one of what is learned. Any sequence of settings,
 * removals, claims, moves and ageing, with any seed, over keys of which most want the same few slots.
 */
import fc from "fast-check";
import { assert, assertEquals } from "@std/assert";
import {
  CLAIM_LEARNED,
  CLAIM_REFUSED,
  CLAIM_SET,
  CTL,
  CTL_FILTER_COUNT,
  CTL_FILTER_SEED,
  CTL_GENERATION,
  CTL_LEARNED_COUNT,
  CTL_NOW_NS,
  FILTER_PROBES_MAX,
  LEARNED_AGE_SECONDS,
  POOL_PF,
  VLAN_ANY,
} from "../../shared/layout/nic.ts";
import { macFromNumber } from "../../shared/engine/names.ts";
import { EngineRig } from "../support/engine_rig.ts";

const RUNS = 60;
const VFS = 4;

interface Learned {
  pool: number;
  seen: number;
  arrived: number;
}

/** A rig whose VFs are all trusted, and whose filter table is empty and has this seed. */
function emptyTable(seed: bigint): EngineRig {
  const rig = new EngineRig(VFS, Object.fromEntries(Array.from({ length: VFS }, (_, vf) => [vf, { trust: true }])));
  rig.wasm.clearFilters();
  rig.view.setBigUint64(CTL + CTL_FILTER_SEED, seed, true);
  return rig;
}

/** VLANs of `mac` whose entries begin at the same slot. */
function sameHome(rig: EngineRig, mac: bigint, most: number): number[] {
  const home = rig.wasm.filterHome(mac, 1);
  const vlans: number[] = [];
  for (let vlan = 1; vlan < VLAN_ANY && vlans.length < most; vlan++) {
    if (rig.wasm.filterHome(mac, vlan) === home) vlans.push(vlan);
  }
  return vlans;
}

/** MACs whose entries in `vlan` begin at one of the `width` slots from `home`. */
function macsAt(rig: EngineRig, vlan: number, [home, width]: [number, number], most: number): bigint[] {
  const macs: bigint[] = [];
  for (let mac = 0x02n + (BigInt(vlan) << 32n); macs.length < most; mac += 0x100n) {
    if (((rig.wasm.filterHome(mac, vlan) - home) & 0xffff) < width) macs.push(mac);
  }
  return macs;
}

/** What the table must hold. */
class Model {
  readonly set = new Map<string, number>();
  readonly learned = new Map<string, Learned>();
  now = 1000;

  insert(mac: bigint, vlan: number, pool: number): void {
    this.set.set(`${mac} ${vlan}`, pool);
    for (const key of this.learned.keys()) {
      if (key === `${mac} ${vlan}` || (vlan === VLAN_ANY && key.startsWith(`${mac} `))) this.learned.delete(key);
    }
  }

  claim(mac: bigint, vlan: number, pool: number, trusted: boolean): number {
    const key = `${mac} ${vlan}`;
    const owner = this.set.get(key) ?? this.set.get(`${mac} ${VLAN_ANY}`);
    if (owner !== undefined) return owner === pool ? CLAIM_SET : CLAIM_REFUSED;
    const entry = this.learned.get(key);
    if (entry?.pool === pool) {
      entry.seen = this.now;
      return CLAIM_LEARNED;
    }
    if (!trusted || entry?.arrived === this.now) return CLAIM_REFUSED;
    this.learned.set(key, { pool, seen: this.now, arrived: this.now });
    return CLAIM_LEARNED;
  }

  age(): void {
    for (const [key, { seen }] of this.learned) {
      if (this.now - seen > LEARNED_AGE_SECONDS) this.learned.delete(key);
    }
  }

  /** The pool that receives; every VF of the rig is a member of every VLAN. */
  find(mac: bigint, vlan: number): number {
    const key = `${mac} ${vlan}`;
    return this.set.get(key) ?? this.learned.get(key)?.pool ?? this.set.get(`${mac} ${VLAN_ANY}`) ?? -1;
  }
}

/** The table as the API lists it, in the model's words. */
function listed(rig: EngineRig): string[] {
  return rig.pools.filters().map(({ mac, vlan, proto, pool, source }) => {
    const key = vlan === "any" ? VLAN_ANY : vlan | (proto === "802.1ad" ? 0x1000 : 0);
    return `${mac} ${key} ${source} ${pool === "pf" ? POOL_PF : pool}`;
  }).sort();
}

function expected(model: Model): string[] {
  const line = (key: string, source: string, pool: number) => {
    const [mac = "", vlan = ""] = key.split(" ");
    return `${macFromNumber(BigInt(mac))} ${vlan} ${source} ${pool}`;
  };
  return [
    ...[...model.set].map(([key, pool]) => line(key, "static", pool)),
    ...[...model.learned].map(([key, { pool }]) => line(key, "learned", pool)),
  ].sort();
}

function checkCounts(rig: EngineRig, model: Model): void {
  const owners = [...model.learned.values()].map(({ pool }) => pool);
  for (const pool of [...Array(VFS).keys(), POOL_PF]) {
    assertEquals(rig.pools.learned(pool), owners.filter((owner) => owner === pool).length, `learned by ${pool}`);
  }
  assertEquals(rig.view.getUint32(CTL + CTL_LEARNED_COUNT, true), owners.length);
  assertEquals(rig.view.getUint32(CTL + CTL_FILTER_COUNT, true), owners.length + model.set.size);
}

Deno.test("set, claimed, moved, aged and removed in any order, the table is what a map would be", () => {
  const step = fc.record({
    what: fc.constantFrom("insert", "remove", "claim", "claim", "claim", "untrusted", "tick", "age"),
    key: fc.nat(),
    any: fc.nat(5),
    pool: fc.constantFrom(0, 1, 2, 3, POOL_PF),
    seconds: fc.constantFrom(1, 1, 2, LEARNED_AGE_SECONDS - 1, LEARNED_AGE_SECONDS + 1),
  });
  fc.assert(
    fc.property(
      fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      fc.array(step, { maxLength: 300, size: "max" }),
      (seed, steps) => {
        const rig = emptyTable(seed);
        const crowd = 0x0b_0000_0002n;
        const vlans = sameHome(rig, crowd, 40);
        // All of them together are fewer than a search looks at, so that none is ever refused for want of room.
        const keys: [bigint, number][] = [
          ...vlans.map((vlan): [bigint, number] => [crowd, vlan]),
          ...macsAt(rig, VLAN_ANY, [rig.wasm.filterHome(crowd, 1), 40], 2).flatMap((mac): [bigint, number][] =>
            [0, 7, 0x1007, VLAN_ANY].map((vlan) => [mac, vlan])
          ),
          [crowd, VLAN_ANY],
        ];
        assert(keys.length < FILTER_PROBES_MAX);
        const model = new Model();
        for (const { what, key, any, pool, seconds } of steps) {
          const [mac, exact] = keys[key % keys.length] ?? [0n, 0];
          rig.view.setFloat64(CTL + CTL_NOW_NS, model.now * 1e9, true);
          if (what === "insert") {
            // Now and then for any VLAN, which takes out what was learned in all of them.
            const vlan = any === 0 ? VLAN_ANY : exact;
            assertEquals(rig.wasm.insertFilter(mac, vlan, pool), 1);
            model.insert(mac, vlan, pool);
          } else if (what === "remove") {
            rig.wasm.removeFilter(mac, exact);
            model.set.delete(`${mac} ${exact}`);
            model.learned.delete(`${mac} ${exact}`);
          } else if (what === "tick") {
            model.now += seconds;
          } else if (what === "age") {
            rig.wasm.ageFilters();
            model.age();
          } else if (exact !== VLAN_ANY) {
            const trusted = what === "claim";
            assertEquals(
              rig.wasm.claimAddress(mac, exact, pool, trusted ? 1 : 0),
              model.claim(mac, exact, pool, trusted),
            );
          }
        }
        assertEquals(listed(rig), expected(model));
        checkCounts(rig, model);
        for (const [mac, vlan] of keys) {
          if (vlan !== VLAN_ANY) assertEquals(rig.wasm.findPool(mac, vlan), model.find(mac, vlan));
        }
      },
    ),
    { numRuns: RUNS },
  );
});

Deno.test("whatever trusted pools have learned around it, what the PF sets finds its place, and no other entry is lost", () => {
  fc.assert(
    fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), fc.nat(40), (seed, offset) => {
      const rig = emptyTable(seed);
      const crowd = 0x0b_0000_0002n;
      const home = rig.wasm.filterHome(crowd, 1);
      const model = new Model();
      const claim = (mac: bigint, vlan: number, pool: number) => {
        if (rig.wasm.claimAddress(mac, vlan, pool, 1)) model.claim(mac, vlan, pool, true);
      };
      // More than a search looks at, at one slot and behind it.
      for (const [i, vlan] of sameHome(rig, crowd, 80).entries()) claim(crowd, vlan, i % VFS);
      const others = macsAt(rig, 1, [home, 64], 6);
      for (const mac of others) for (const vlan of sameHome(rig, mac, 20)) claim(mac, vlan, POOL_PF);
      assert(model.learned.size >= FILTER_PROBES_MAX);
      const learned = model.learned.size;
      const [mac = 0n] = macsAt(rig, VLAN_ANY, [(home + offset) & 0xffff, 1], 1);
      assertEquals(rig.wasm.insertFilter(mac, VLAN_ANY, 0), 1);
      assertEquals(rig.wasm.findPool(mac, 5), 0);
      // At most one has had to go for it, and at the slot where it is fullest one must.
      const left = new Set(listed(rig));
      const gone = expected(model).filter((line) => !left.has(line));
      assert(gone.length === 1 || (gone.length === 0 && offset > 0), `gone: ${gone}`);
      assertEquals(rig.view.getUint32(CTL + CTL_LEARNED_COUNT, true), learned - gone.length);
      for (const [key, { pool }] of model.learned) {
        const [one = "", vlan = ""] = key.split(" ");
        const line = `${macFromNumber(BigInt(one))} ${vlan} learned ${pool}`;
        if (!gone.includes(line)) assertEquals(rig.wasm.findPool(BigInt(one), Number(vlan)), pool);
      }
    }),
    { numRuns: 20 },
  );
});

Deno.test("which addresses collide depends on the seed: those that do under one do not under another", () => {
  const rig = emptyTable(1n);
  const macs = Array.from({ length: 3000 }, (_, i) => 2n + BigInt(i) * 0x100n);
  const homes = () => macs.map((mac) => rig.wasm.filterHome(mac, VLAN_ANY));
  const collisions = (homes: number[]) => {
    const seen = new Map<number, number>();
    return homes.flatMap((home, i) => {
      const other = seen.get(home);
      seen.set(home, i);
      return other === undefined ? [] : [`${other} ${i}`];
    });
  };
  const first = collisions(homes());
  // 3,000 random homes of 65,536 collide about 68 times; addresses in a row are no different.
  assert(first.length > 30 && first.length < 120, `${first.length} collisions`);
  rig.view.setBigUint64(CTL + CTL_FILTER_SEED, 2n, true);
  const second = new Set(collisions(homes()));
  const both = first.filter((pair) => second.has(pair));
  assert(both.length < 5, `${both.length} of ${first.length} pairs collide under both seeds`);
});

Deno.test("a station that is learned or moves voids cached decisions, once each time", () => {
  const rig = emptyTable(3n);
  const generation = () => rig.view.getUint32(CTL + CTL_GENERATION, true);
  const claim = (pool: number, second: number) => {
    rig.view.setFloat64(CTL + CTL_NOW_NS, second * 1e9, true);
    return rig.wasm.claimAddress(0x0a_0000_0002n, 0, pool, 1);
  };
  const unlearned = generation();
  assertEquals(claim(1, 10), CLAIM_LEARNED);
  const before = generation();
  assertEquals(before, unlearned + 1);
  assertEquals(claim(2, 10), CLAIM_REFUSED);
  assertEquals(generation(), before);
  assertEquals(claim(2, 11), CLAIM_LEARNED);
  assertEquals(generation(), before + 1);
  for (let i = 0; i < 100; i++) assertEquals(claim(1, 11), CLAIM_REFUSED);
  assertEquals(claim(2, 11), CLAIM_LEARNED);
  assertEquals(generation(), before + 1);
  assertEquals(claim(1, 12), CLAIM_LEARNED);
  assertEquals(generation(), before + 2);
});
