/** Which VLANs the uplink carries: in and out, with tags and without, whatever the rings. */
import { assertEquals } from "@std/assert";
import { POOL_UPLINK } from "../../shared/layout/nic.ts";
import type { VfPolicy } from "../../shared/api/mod.ts";
import { rigMac } from "../support/engine_rig.ts";
import { BROADCAST, frame } from "../support/mock_guest.ts";
import { type Bench, exchange, rig, test } from "../support/switch_bench.ts";

const OUTSIDE = "02:99:99:99:99:99";
const NOBODY: Uint8Array[] = [];

/** VF 0 without a VLAN, 1 in VLAN 10, 2 in VLAN 20, and the uplink. */
function trunked(policy: Record<number, Partial<VfPolicy>> = {}): Bench {
  return rig(3, { 1: { vlan: 10 }, 2: { vlan: 20 }, ...policy }, true);
}

const plain = (dst: string, src: string) => frame({ dst, src, bytes: 60 });
const out = (vf: number, dst = OUTSIDE) => plain(dst, rigMac(vf));
const tagged = (vid: number, dst: string, src: string) => frame({ dst, src, tags: [{ vid }] });

test("an uplink carries every VLAN, unless it has a list of them", () => {
  const r = trunked();
  assertEquals(exchange(r, 1, out(1))[3], [tagged(10, OUTSIDE, rigMac(1))]);
  assertEquals(exchange(r, 2, out(2))[3], [tagged(20, OUTSIDE, rigMac(2))]);
  r.rig.setNic({ uplinkTrunk: [10] });
  assertEquals(exchange(r, 1, out(1))[3], [tagged(10, OUTSIDE, rigMac(1))]);
  assertEquals(exchange(r, 2, out(2))[3], NOBODY);
  assertEquals(r.rig.counters(2).tx_no_destination, 1);
  assertEquals(exchange(r, 0, out(0))[3], [out(0)], "frames without a VLAN go out without a tag");
  assertEquals(exchange(r, 2, out(2, BROADCAST))[3], NOBODY);
  assertEquals(exchange(r, 1, out(1, BROADCAST))[3], [tagged(10, BROADCAST, rigMac(1))]);
  r.rig.setNic({ uplinkTrunk: "all" });
  assertEquals(exchange(r, 2, out(2))[3], [tagged(20, OUTSIDE, rigMac(2))]);
});

test("what comes in with a tag that the uplink does not carry is counted, and reaches nobody", () => {
  const r = trunked();
  r.rig.setNic({ uplinkTrunk: [10] });
  assertEquals(exchange(r, 3, tagged(10, rigMac(1), OUTSIDE))[1], [plain(rigMac(1), OUTSIDE)]);
  assertEquals(exchange(r, 3, tagged(20, rigMac(2), OUTSIDE)), [NOBODY, NOBODY, NOBODY, NOBODY]);
  assertEquals(exchange(r, 3, tagged(20, BROADCAST, OUTSIDE)), [NOBODY, NOBODY, NOBODY, NOBODY]);
  assertEquals(r.rig.counters(POOL_UPLINK).tx_vlan_denied, 2);
  assertEquals(exchange(r, 3, plain(rigMac(0), OUTSIDE))[0]?.length, 1);
});

test("the native VLAN of the uplink goes in and out without a tag", () => {
  const r = trunked();
  r.rig.setNic({ uplinkTrunk: [20], uplinkNativeVlan: 10 });
  assertEquals(exchange(r, 1, out(1))[3], [out(1)]);
  assertEquals(exchange(r, 3, plain(rigMac(1), OUTSIDE))[1], [plain(rigMac(1), OUTSIDE)]);
  assertEquals(exchange(r, 2, out(2))[3], [tagged(20, OUTSIDE, rigMac(2))]);
  assertEquals(exchange(r, 0, out(0))[3], NOBODY, "what has no VLAN is not in the native one");
  assertEquals(exchange(r, 3, plain(rigMac(0), OUTSIDE))[0], NOBODY);
});

test("VEPA: a frame of a VLAN that the uplink does not carry goes nowhere", () => {
  const r = trunked();
  r.rig.setNic({ switchMode: "vepa", uplinkTrunk: [10] });
  assertEquals(exchange(r, 1, out(1))[3], [tagged(10, OUTSIDE, rigMac(1))]);
  assertEquals(exchange(r, 2, out(2)), [NOBODY, NOBODY, NOBODY, NOBODY]);
  assertEquals(r.rig.counters(2).tx_no_destination, 1);
});

test("a tag behind a priority tag is looked at where the uplink has a list", () => {
  const r = trunked();
  const hidden = frame({ dst: rigMac(0), src: OUTSIDE, tags: [{ vid: 0 }, { vid: 20 }] });
  assertEquals(exchange(r, 3, hidden)[0]?.length, 1);
  r.rig.setNic({ uplinkTrunk: [10] });
  assertEquals(exchange(r, 3, hidden)[0], NOBODY);
  assertEquals(r.rig.counters(POOL_UPLINK).tx_vlan_denied, 1);
});
