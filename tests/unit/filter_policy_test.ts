/**
 * What the PF sets against what was learned (tests/unit/switch_test.ts has the rest of the switch): whose an address is
 * when the PF gives it to somebody after a trusted VF has used it, who may take it over, and who may not.
 */
import { assertEquals } from "@std/assert";
import { CLAIM_REFUSED, LEARNED_PER_POOL_MAX, POOL_PF, VLAN_ANY } from "../../shared/layout/nic.ts";
import { macToNumber } from "../../shared/engine/names.ts";
import type { VfPolicy } from "../../shared/api/mod.ts";
import { EngineRig, type RigGuest, rigMac } from "../support/engine_rig.ts";
import { frame, type FrameOptions } from "../support/mock_guest.ts";

const ADDRESS = "02:00:00:00:00:77";
const SECOND_NS = 1e9;

/** A rig whose VFs each have a guest with receive buffers. */
class Bench {
  readonly rig: EngineRig;
  readonly guests: RigGuest[];

  constructor(vfs: number, policies: Record<number, Partial<VfPolicy>>) {
    this.rig = new EngineRig(vfs, policies);
    this.guests = Array.from({ length: vfs }, (_, vf) => this.rig.attach(vf));
    for (const guest of this.guests) guest.fill(32);
  }

  /** Sends a frame from VF `from`; answers the VFs that have received one. */
  send(from: number, options: FrameOptions): number[] {
    this.guests[from]?.send([frame(options)]);
    this.rig.run();
    this.rig.checkCanaries();
    return this.guests.flatMap((guest, vf) => guest.receive().map(() => vf));
  }

  /** The entries of an address, as `fabric filters` shows them. */
  entries(mac = ADDRESS): string[] {
    return this.rig.pools.filters().filter((entry) => entry.mac === mac)
      .map(({ vlan, pool, source }) => `${vlan} ${pool} ${source}`).sort();
  }

  /** Lets `seconds` go by. */
  wait(seconds: number): void {
    this.rig.run(10, seconds * SECOND_NS);
  }
}

Deno.test("an address that a trusted VF has learned is another VF's from the moment the PF gives it to that one", () => {
  const bench = new Bench(3, { 1: { trust: true } });
  bench.send(1, { dst: rigMac(0), src: ADDRESS });
  assertEquals(bench.send(0, { dst: ADDRESS, src: rigMac(0) }), [1]);
  bench.rig.set(2, { mac: ADDRESS });
  assertEquals(bench.entries(), ["any 2 static"]);
  assertEquals(bench.rig.pools.learned(1), 0);
  assertEquals(bench.send(0, { dst: ADDRESS, src: rigMac(0) }), [2]);
  // Whoever had it before may not send from it any more, nor learn it again.
  assertEquals(bench.send(1, { dst: rigMac(0), src: ADDRESS }), []);
  assertEquals(bench.rig.counters(1).tx_spoofed, 1);
  assertEquals(bench.entries(), ["any 2 static"]);
});

Deno.test("an address that a trusted VF has learned in some VLANs is another VF's in all of them once the PF sets it", () => {
  const vids = [1, 10, 4094, 77, 512];
  const bench = new Bench(3, { 0: { trunk: vids }, 1: { trust: true }, 2: { trunk: vids } });
  for (const vid of vids) bench.send(1, { dst: rigMac(0), src: ADDRESS, tags: [{ vid }] });
  assertEquals(bench.rig.pools.learned(1), 5);
  assertEquals(bench.send(0, { dst: ADDRESS, src: rigMac(0), tags: [{ vid: 10 }] }), [1]);
  bench.rig.set(2, { mac: ADDRESS });
  assertEquals(bench.entries(), ["any 2 static"]);
  assertEquals(bench.rig.pools.learned(1), 0);
  for (const vid of vids) assertEquals(bench.send(0, { dst: ADDRESS, src: rigMac(0), tags: [{ vid }] }), [2]);
  // In a VLAN in which its VF is not, the address is nobody's: not whose it was.
  bench.rig.set(2, { trunk: [1] });
  assertEquals(bench.send(0, { dst: ADDRESS, src: rigMac(0), tags: [{ vid: 10 }] }), []);
});

Deno.test("an address that the PF sets in one VLAN takes what was learned there, and leaves what was learned elsewhere", () => {
  const bench = new Bench(3, { 0: { trust: true }, 1: { trust: true } });
  for (const vid of [7, 8]) bench.send(1, { dst: rigMac(0), src: ADDRESS, tags: [{ vid }] });
  bench.rig.set(2, { mac: ADDRESS, vlan: 7 });
  assertEquals(bench.entries(), ["7 2 static", "8 1 learned"]);
  assertEquals(bench.send(0, { dst: ADDRESS, src: rigMac(0), tags: [{ vid: 7 }] }), [2]);
  assertEquals(bench.send(0, { dst: ADDRESS, src: rigMac(0), tags: [{ vid: 8 }] }), [1]);
  assertEquals(bench.send(1, { dst: rigMac(0), src: ADDRESS, tags: [{ vid: 7 }] }), []);
});

Deno.test("an address that the PF has set is not learned, in any VLAN, by a trusted VF or behind the PF", () => {
  const bench = new Bench(3, { 0: { trust: true }, 1: { trust: true }, 2: { mac: ADDRESS } });
  for (const tags of [[], [{ vid: 9 }]]) {
    assertEquals(bench.send(1, { dst: rigMac(0), src: ADDRESS, tags }), []);
    assertEquals(bench.rig.wasm.claimAddress(macToNumber(ADDRESS), tags[0]?.vid ?? 0, POOL_PF, 1), CLAIM_REFUSED);
  }
  assertEquals(bench.entries(), ["any 2 static"]);
});

Deno.test("two trusted VFs' chosen addresses do not stand in the way of an address that the PF sets", () => {
  const bench = new Bench(6, { 1: { trust: true }, 2: { trust: true } });
  const { wasm } = bench.rig;
  // As if a guest knew the seed: all slots from that address's on are full, and so is the one behind them.
  const home = wasm.filterHome(macToNumber(ADDRESS), VLAN_ANY);
  for (const [pool, distance] of [[1, 0], [2, 1]] as const) {
    let learned = 0;
    for (let mac = 2n; learned < LEARNED_PER_POOL_MAX; mac += 0x100n) {
      if (((wasm.filterHome(mac, 0) - home) & 0xffff) !== distance) continue;
      if (wasm.claimAddress(mac, 0, pool, 1) === CLAIM_REFUSED) break;
      learned++;
    }
  }
  assertEquals([1, 2].map((vf) => bench.rig.pools.learned(vf)), [64, 1]);
  bench.rig.set(5, { mac: ADDRESS });
  assertEquals(bench.entries(), ["any 5 static"]);
  assertEquals(bench.rig.pools.learned(1) + bench.rig.pools.learned(2), 64);
  assertEquals(bench.send(0, { dst: ADDRESS, src: rigMac(0) }), [5]);
});

Deno.test("a station that one trusted VF has learned goes over to another that uses its address, and cached ways are forgotten", () => {
  const bench = new Bench(3, { 1: { trust: true }, 2: { trust: true } });
  bench.send(1, { dst: rigMac(0), src: ADDRESS });
  for (let i = 0; i < 3; i++) assertEquals(bench.send(0, { dst: ADDRESS, src: rigMac(0) }), [1]);
  bench.wait(1);
  assertEquals(bench.send(2, { dst: rigMac(0), src: ADDRESS }), [0]);
  assertEquals(bench.entries(), ["0 2 learned"]);
  assertEquals([1, 2].map((vf) => bench.rig.pools.learned(vf)), [0, 1]);
  for (let i = 0; i < 3; i++) assertEquals(bench.send(0, { dst: ADDRESS, src: rigMac(0) }), [2]);
  // Within the same second it stays, whoever claims it; then it goes back.
  assertEquals(bench.send(1, { dst: rigMac(0), src: ADDRESS }), []);
  assertEquals(bench.send(0, { dst: ADDRESS, src: rigMac(0) }), [2]);
  bench.wait(1);
  assertEquals(bench.send(1, { dst: rigMac(0), src: ADDRESS }), [0]);
  assertEquals(bench.send(0, { dst: ADDRESS, src: rigMac(0) }), [1]);
});

Deno.test("a station does not go over to a VF that is not trusted, nor to one that has learned as many as it may", () => {
  const bench = new Bench(3, { 1: { trust: true }, 2: { spoofCheck: false } });
  bench.send(1, { dst: rigMac(0), src: ADDRESS });
  bench.wait(1);
  // Without spoof check its frames pass, and the address stays where it is.
  assertEquals(bench.send(2, { dst: rigMac(0), src: ADDRESS }), [0]);
  assertEquals(bench.entries(), ["0 1 learned"]);
  bench.rig.set(2, { spoofCheck: true, trust: true });
  for (let i = 0; i < LEARNED_PER_POOL_MAX; i++) {
    bench.rig.wasm.claimAddress(macToNumber(`02:bb:00:00:00:${i.toString(16).padStart(2, "0")}`), 0, 2, 1);
  }
  assertEquals(bench.send(2, { dst: rigMac(0), src: ADDRESS }), []);
  assertEquals(bench.entries(), ["0 1 learned"]);
  assertEquals([1, 2].map((vf) => bench.rig.pools.learned(vf)), [1, 64]);
});

Deno.test("two VFs exchange their addresses in one programme", () => {
  const bench = new Bench(3, {});
  const { programme } = bench.rig.pools;
  const [a, b] = [programme?.vfs[1], programme?.vfs[2]];
  if (!programme || !a || !b) throw new Error("the rig has no programme");
  bench.rig.pools.apply({ ...programme, vfs: [programme.vfs[0], { ...a, mac: b.mac }, { ...b, mac: a.mac }] });
  assertEquals(bench.send(0, { dst: rigMac(1), src: rigMac(0) }), [2]);
  assertEquals(bench.send(0, { dst: rigMac(2), src: rigMac(0) }), [1]);
  assertEquals(bench.send(1, { dst: rigMac(0), src: rigMac(2) }), [0]);
  assertEquals(bench.send(1, { dst: rigMac(0), src: rigMac(1) }), []);
});

Deno.test("a VF takes the address that another has just lost, in the same programme or in the next", () => {
  const bench = new Bench(3, {});
  bench.rig.set(1, { mac: ADDRESS });
  assertEquals(bench.send(0, { dst: rigMac(1), src: rigMac(0) }), []);
  bench.rig.set(2, { mac: rigMac(1) });
  assertEquals(bench.send(0, { dst: rigMac(1), src: rigMac(0) }), [2]);
  assertEquals(bench.send(0, { dst: ADDRESS, src: rigMac(0) }), [1]);
  const { programme } = bench.rig.pools;
  const [a, b] = [programme?.vfs[1], programme?.vfs[2]];
  if (!programme || !a || !b) throw new Error("the rig has no programme");
  bench.rig.pools.apply({ ...programme, vfs: [programme.vfs[0], { ...a, mac: rigMac(4) }, { ...b, mac: ADDRESS }] });
  assertEquals(bench.send(0, { dst: ADDRESS, src: rigMac(0) }), [2]);
  assertEquals(bench.send(0, { dst: rigMac(1), src: rigMac(0) }), []);
});

Deno.test("what a VF has learned goes with its trust, with its VLAN, and with the VF; a new address leaves it", () => {
  const learned = (change: (rig: EngineRig) => void) => {
    const bench = new Bench(3, { 1: { trust: true }, 2: { trust: true } });
    for (const vf of [1, 2]) bench.send(vf, { dst: rigMac(0), src: `02:aa:00:00:00:0${vf}` });
    change(bench.rig);
    return [1, 2].map((vf) => bench.rig.pools.learned(vf));
  };
  assertEquals(learned(() => {}), [1, 1]);
  assertEquals(learned((rig) => rig.set(1, { trust: false })), [0, 1]);
  assertEquals(learned((rig) => rig.set(1, { vlan: 5 })), [0, 1]);
  assertEquals(learned((rig) => rig.set(1, { mac: ADDRESS, linkState: "disable", maxTxRate: 10 })), [1, 1]);
  assertEquals(
    learned((rig) => {
      const { programme } = rig.pools;
      if (programme) rig.pools.apply({ ...programme, vfs: programme.vfs.slice(0, 2) });
    }),
    [1, 0],
  );
});
