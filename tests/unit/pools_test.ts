/**
 * From one programme to the next: what is written while the engine stands still, what is refused before, and what is
 * left if a change cannot be made. A recording engine counts; nothing here measures time.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import * as L from "../../shared/layout/nic.ts";
import type { FilterExports } from "../../shared/engine/filter_plan.ts";
import { macFromNumber } from "../../shared/engine/names.ts";
import { type EngineAccess, Pools } from "../../shared/engine/pools.ts";
import type { Programme } from "../../shared/api/nic.ts";
import { defaultPolicy } from "../../shared/api/policy.ts";
import { EngineRig } from "../support/engine_rig.ts";

const SEED = 0xfeedn;
const FULL_TRUNK = Array.from({ length: 4094 }, (_, i) => i + 1);
/** What a pool's policy lies in: no other bytes may change with it. */
const TABLES: [string, number, number][] = [
  ["pool", L.POOLS, L.POOL_STRIDE],
  ["vlans", L.VLAN_BITMAPS, L.VLAN_BITMAP_STRIDE],
  ["multicast", L.MULTICAST_TABLES, L.MULTICAST_TABLE_STRIDE],
];

function mac(n: number): string {
  return macFromNumber(0x02n | (BigInt(n) << 24n));
}

function vport(n: number): Programme["vports"][number] {
  return { mac: mac(n), allowedMacs: [], vlan: 0, vlanProto: "802.1Q" };
}

function programme(vfs: number, vports = 0, trunk: number[] = []): Programme {
  return {
    switchMode: "veb",
    link: "up",
    pfMac: mac(0xffff),
    vfs: Array.from({ length: vfs }, (_, vf) => ({ ...defaultPolicy(mac(vf + 1)), trunk, fallback: "none" })),
    vports: Array.from({ length: vports }, (_, i) => vport(1000 + i)),
  };
}

/** A programme with one VF's policy changed. As from HTTP: nothing is the same object as before. */
function patched(before: Programme, vf: number, change: Partial<Programme["vfs"][number]>): Programme {
  const next = structuredClone(before);
  Object.assign(next.vfs[vf] ?? {}, change);
  return next;
}

/** An engine without a worker that notes what is asked of it, and when. */
class Recorder implements EngineAccess {
  readonly rig = new EngineRig(0);
  readonly view = this.rig.view;
  readonly arena = { buffer: this.rig.view.buffer as unknown as SharedArrayBuffer };
  readonly wasm: FilterExports;
  calls: string[] = [];
  pauses = 0;
  /** How many more filters are inserted before one, and only that one, is refused. */
  untilRefusal = Infinity;
  #paused = false;

  constructor() {
    const { wasm } = this.rig;
    const during = (name: string) => {
      assert(this.#paused, `${name} while the engine runs`);
      this.calls.push(name);
    };
    this.wasm = {
      filterHome: (mac, vlan) => wasm.filterHome(mac, vlan),
      clearFilters: () => (during("clear"), wasm.clearFilters()),
      insertFilter: (mac, vlan, pool) => {
        during("insert");
        return this.untilRefusal-- === 0 ? 0 : wasm.insertFilter(mac, vlan, pool);
      },
      removeFilter: (mac, vlan) => (during("remove"), wasm.removeFilter(mac, vlan)),
      ageFilters: () => (during("scan"), wasm.ageFilters()),
    };
  }

  between<T>(change: () => T): T {
    this.pauses++;
    this.#paused = true;
    try {
      return change();
    } finally {
      this.#paused = false;
    }
  }

  /** Everything that the engine reads: policy, filters, settings of the whole NIC. */
  snapshot(): Uint8Array {
    return new Uint8Array(this.arena.buffer).slice(L.CTL, L.WINDOWS);
  }

  /**
   * The bytes that `change` writes to pools' tables, as "table pool+offset" of the first, and how many. Every byte is
   * altered before, so that one shows that is written with what stood there.
   */
  written(change: () => void): Map<string, number> {
    const bytes = new Uint8Array(this.arena.buffer);
    const altered = (byte = 0) => byte ^ 0x5a;
    const eachByte = (see: (i: number, name: string, offset: number) => void) => {
      for (const [name, at, stride] of TABLES) {
        for (let i = 0; i < L.POOL_COUNT * stride; i++) see(at + i, `${name} ${Math.floor(i / stride)}`, i % stride);
      }
    };
    const before = bytes.slice(0, L.WINDOWS);
    eachByte((i) => bytes[i] = altered(before[i]));
    change();
    const found = new Map<string, number>();
    let run = "";
    eachByte((i, name, offset) => {
      if (bytes[i] === altered(before[i])) {
        bytes[i] = before[i] ?? 0;
        run = "";
      } else {
        run ||= `${name}+${offset}`;
        found.set(run, (found.get(run) ?? 0) + 1);
      }
    });
    return found;
  }
}

/** Pools over a recorder, with a programme in force. */
function started(first: Programme): { recorder: Recorder; pools: Pools } {
  const recorder = new Recorder();
  const pools = new Pools(recorder, SEED);
  pools.apply(first);
  recorder.calls = [];
  recorder.pauses = 0;
  return { recorder, pools };
}

const total = (written: Map<string, number>) => [...written.values()].reduce((a, b) => a + b, 0);

Deno.test("a programme that changes nothing does not stop the engine", () => {
  const first = programme(250, 128, FULL_TRUNK);
  const { recorder, pools } = started(first);
  pools.apply(structuredClone(first));
  assertEquals([recorder.pauses, recorder.calls], [0, []]);
});

Deno.test("a PATCH writes only what it changes, beside 249 VFs with full trunk lists", () => {
  const first = programme(250, 128, FULL_TRUNK);
  const { recorder, pools } = started(first);
  let now = first;
  const patch = (change: Partial<Programme["vfs"][number]>) =>
    recorder.written(() => pools.apply(now = patched(now, 77, change)));
  const policy = `pool 77+${L.P_FLAGS}`;
  assertEquals(patch({ spoofCheck: false }), new Map([[policy, 12]]));
  assertEquals(patch({ maxTxRate: 100 }), new Map([[`pool 77+${L.P_RATE}`, 32]]));
  assertEquals(patch({ trunk: FULL_TRUNK.slice(1) }), new Map([["vlans 77+0", L.VLAN_BITMAP_STRIDE]]));
  assertEquals(
    patch({ multicast: ["01:00:5e:00:00:01"] }),
    new Map([[policy, 12], ["multicast 77+0", L.MULTICAST_TABLE_STRIDE]]),
  );
  assertEquals(recorder.calls, []);
  assertEquals(patch({ mac: mac(5000) }), new Map([[`pool 77+${L.P_MAC}`, 8]]));
  assertEquals(recorder.calls, ["remove", "insert"]);
  recorder.calls = [];
  assertEquals(patch({ vlan: 9 }), new Map([[policy, 12], ["vlans 77+0", L.VLAN_BITMAP_STRIDE]]));
  assertEquals(recorder.calls, ["remove", "insert"]);
  assertEquals(recorder.pauses, 6);
});

Deno.test("one minimum rate changes the shares that depend on it, and no other byte", () => {
  const first = programme(4);
  const { recorder, pools } = started(first);
  const second = patched(first, 1, { minTxRate: 100 });
  assertEquals(total(recorder.written(() => pools.apply(second))), 4 * 4);
  // Half of the largest stays half of the largest.
  const third = patched(second, 2, { minTxRate: 50 });
  assertEquals(recorder.written(() => pools.apply(third)), new Map([[`pool 2+${L.P_QUANTUM}`, 4]]));
});

Deno.test("the NIC's link changes the flags of the VFs that follow it", () => {
  const first = patched(patched(programme(4), 1, { linkState: "enable" }), 2, { linkState: "disable" });
  const { recorder, pools } = started(first);
  const written = recorder.written(() => pools.apply({ ...first, link: "down" }));
  assertEquals([...written.keys()], [0, 3].map((vf) => `pool ${vf}+${L.P_FLAGS}`));
});

Deno.test("addresses change by their keys: the whole table is looked at only if a VF that has learned loses its right to", () => {
  const first = patched(patched(programme(8, 16), 3, { trust: true }), 4, { trust: true });
  const { recorder, pools } = started(first);
  const learned = recorder.rig.wasm.claimAddress(0x0a_0000_0002n, 0, 3, 1);
  assertEquals([learned, pools.learned(3)], [L.CLAIM_LEARNED, 1]);
  const calls = (next: Programme) => {
    recorder.calls = [];
    pools.apply(next);
    return recorder.calls;
  };
  let now = first;
  assertEquals(calls(now = patched(now, 3, { mac: mac(700) })), ["remove", "insert"]);
  assertEquals(calls(now = { ...now, vports: [...now.vports, vport(900)] }), ["insert"]);
  assertEquals(calls(now = patched(now, 4, { trust: false })), []);
  assertEquals(calls(now = patched(now, 3, { trust: false })), ["scan"]);
  assertEquals(pools.learned(3), 0);
  assertEquals(calls({ ...now, vfs: now.vfs.slice(0, 7) }), ["remove"]);
});

Deno.test("a programme that gives two ports one address is refused before the engine stops, and changes nothing", () => {
  const first = patched(programme(4, 1), 3, { vlan: 7 });
  const { recorder, pools } = started(first);
  const before = recorder.snapshot();
  const refused: [Programme, string][] = [
    [patched(first, 0, { mac: mac(2) }), `Cannot give vf 1 the address ${mac(2)} in any VLAN: vf 0 has it`],
    [patched(first, 0, { mac: mac(0xffff) }), "the PF or a vport the address"],
    [patched(first, 0, { mac: mac(1000) }), "the PF or a vport the address"],
    [patched(first, 0, { mac: mac(4), vlan: 7 }), `Cannot give vf 3 the address ${mac(4)} in VLAN 7: vf 0 has it`],
    [programme(257), "Cannot have 257 VFs: there are at most 256"],
  ];
  for (const [next, message] of refused) {
    assertThrows(() => pools.apply(next), Error, message);
    assertEquals(pools.programme, first);
  }
  assertEquals([recorder.pauses, recorder.calls], [0, []]);
  assertEquals(recorder.snapshot(), before);
  // In another VLAN, or if one of them sees tags, it is another address.
  pools.apply(patched(first, 0, { mac: mac(4), vlan: 8 }));
  pools.apply(patched(first, 0, { mac: mac(4) }));
});

Deno.test("addresses that the table has no room for are refused before the engine stops, and change nothing", () => {
  const first = programme(2);
  const { recorder, pools } = started(first);
  const home = recorder.rig.wasm.filterHome(0x02n, L.VLAN_ANY);
  const near: Programme["vports"] = [];
  for (let i = 0x100n; near.length < 65; i += 0x100n) {
    const distance = (recorder.rig.wasm.filterHome(0x02n | i, L.VLAN_ANY) - home) & 0xffff;
    if (distance < 64) near.push({ mac: macFromNumber(0x02n | i), allowedMacs: [], vlan: 0, vlanProto: "802.1Q" });
  }
  const before = recorder.snapshot();
  assertThrows(
    () => pools.apply({ ...patched(first, 1, { mac: mac(900), trust: true }), vports: near }),
    Error,
    "Cannot set 68 addresses: more than 64 of them lie in one place of the filter table",
  );
  assertEquals([recorder.pauses, recorder.calls, pools.programme], [0, [], first]);
  assertEquals(recorder.snapshot(), before);
  pools.apply({ ...first, vports: near.slice(1) });
  assertEquals(pools.filters().length, 2 + 1 + 64);
});

Deno.test("a change that cannot be made leaves everything as it was, wherever it fails", () => {
  const first = programme(4, 2);
  const { recorder, pools } = started(first);
  const before = recorder.snapshot();
  const filters = pools.filters();
  // Two VFs exchange their addresses, two VFs come, the PF has another address, three vports come.
  const swapped = patched(patched(programme(6, 5), 0, { mac: mac(2) }), 1, { mac: mac(1) });
  const next = { ...swapped, pfMac: mac(800) };
  for (let possible = 0; possible < 8; possible++) {
    recorder.untilRefusal = possible;
    assertThrows(() => pools.apply(next), Error, "Cannot change the filter table");
    assertEquals(pools.programme, first);
    assertEquals(pools.filters(), filters, `after ${possible} entries`);
    const [old, now] = [before, recorder.snapshot()];
    // Entries may lie elsewhere in the table; every other byte is the same.
    for (const bytes of [old, now]) {
      bytes.fill(0, L.FILTERS - L.CTL, L.FILTERS - L.CTL + L.FILTER_COUNT * L.FILTER_STRIDE);
    }
    assertEquals(now, old);
  }
  recorder.untilRefusal = Infinity;
  pools.apply(next);
  assertEquals(pools.filters().length, 6 + 1 + 5);
});

Deno.test("256 VFs and 1,024 vports have their addresses, whatever the seed, and keep them as all VFs exchange theirs", () => {
  for (const seed of [0n, 1n, 2n ** 63n, 2n ** 64n - 1n, undefined]) {
    const recorder = new Recorder();
    const pools = new Pools(recorder, seed);
    const first = programme(256, 1024);
    pools.apply(first);
    const next = structuredClone(first);
    next.vfs.forEach((policy, vf) => policy.mac = mac(256 - vf));
    pools.apply(next);
    const pool = new Map(pools.filters().map((entry) => [entry.mac, entry.pool]));
    const used = recorder.view.getBigUint64(L.CTL + L.CTL_FILTER_SEED, true);
    assertEquals(pool.size, 256 + 1024 + 1, `seed ${used}`);
    for (let vf = 0; vf < 256; vf++) assertEquals(pool.get(mac(256 - vf)), vf);
    for (let i = 0; i < 1024; i++) assertEquals(pool.get(mac(1000 + i)), "pf");
    pools.apply({ ...next, vfs: [], vports: [] });
    assertEquals(pools.filters().map((entry) => entry.pool), ["pf"]);
  }
});
