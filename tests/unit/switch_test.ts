/**
 * The embedded switch: who gets a frame, how it is tagged, and which counter tells if nobody does. One table of tests,
 * run over guests of each ring format, and of several beside each other.
 */
import { assert, assertEquals } from "@std/assert";
import { CTL, CTL_PASSES, POOL_UPLINK, SWITCH_VEPA } from "../../shared/layout/nic.ts";
import { EngineRig, rigMac } from "../support/engine_rig.ts";
import { BROADCAST, frame } from "../support/mock_guest.ts";
import { attach, exchange, formatOf, rig, test } from "../support/switch_bench.ts";

const UNKNOWN = "02:99:99:99:99:99";
const MULTICAST = "01:00:5e:00:00:01";

test("a unicast frame reaches the VF that has its address, byte for byte, and nobody else", () => {
  const r = rig(3);
  const sent = frame({ dst: rigMac(1), src: rigMac(0), bytes: 1514 });
  assertEquals(exchange(r, 0, sent), [[], [sent], []]);
  assertEquals(r.rig.counters(0).tx_frames, 1);
  assertEquals(r.rig.counters(0).tx_bytes, 1514);
  assertEquals(r.rig.counters(1).rx_frames, 1);
  assertEquals(r.rig.counters(1).rx_bytes, 1514);
  // The second frame takes the run, the third the remembered decision after another destination.
  assertEquals(exchange(r, 0, sent), [[], [sent], []]);
  const other = frame({ dst: rigMac(2), src: rigMac(0) });
  assertEquals(exchange(r, 0, other), [[], [], [other]]);
  assertEquals(exchange(r, 0, sent), [[], [sent], []]);
});

for (const bytes of [14, 15, 16, 17, 30, 31, 32, 33, 60, 64, 100, 511, 512, 513, 528, 529, 1000, 1514, 2036]) {
  test(`a frame of ${bytes} bytes arrives whole on the first and on the fast path`, () => {
    const r = rig(2);
    for (let i = 0; i < 3; i++) {
      const sent = frame({
        dst: rigMac(1),
        src: rigMac(0),
        payload: crypto.getRandomValues(new Uint8Array(bytes - 14)),
      });
      assertEquals(exchange(r, 0, sent), [[], [sent]]);
    }
  });
}

test("broadcast and multicast reach every VF of the VLAN and the uplink, but not the sender", () => {
  const r = rig(3, { 2: { vlan: 7 } }, true);
  for (const dst of [BROADCAST, MULTICAST]) {
    const sent = frame({ dst, src: rigMac(0) });
    assertEquals(exchange(r, 0, sent), [[], [sent], [], [sent]]);
  }
  assertEquals(r.rig.counters(0).tx_broadcast, 1);
  assertEquals(r.rig.counters(0).tx_multicast, 1);
  assertEquals(r.rig.counters(1).rx_broadcast, 1);
  assertEquals(r.rig.counters(1).rx_multicast, 1);
});

test("unknown unicast goes to the uplink and to promiscuous trusted VFs, and is counted if nobody takes it", () => {
  const sent = frame({ dst: UNKNOWN, src: rigMac(0) });
  assertEquals(exchange(rig(3, { 2: { trust: true, promisc: true } }, true), 0, sent), [[], [], [sent], [sent]]);
  const alone = rig(3);
  assertEquals(exchange(alone, 0, sent), [[], [], []]);
  assertEquals(alone.rig.counters(0).tx_no_destination, 1);
});

test("a frame to the sender's own address goes nowhere", () => {
  const r = rig(2);
  assertEquals(exchange(r, 0, frame({ dst: rigMac(0), src: rigMac(0) })), [[], []]);
  assertEquals(r.rig.counters(0).tx_to_self, 1);
});

test("VST: VFs of one VLAN meet, others do not, and their guests see no tags", () => {
  const r = rig(3, { 0: { vlan: 100 }, 1: { vlan: 100 } });
  const to1 = frame({ dst: rigMac(1), src: rigMac(0) });
  assertEquals(exchange(r, 0, to1), [[], [to1], []]);
  assertEquals(exchange(r, 0, to1), [[], [to1], []]);
  assertEquals(exchange(r, 0, frame({ dst: rigMac(2), src: rigMac(0) })), [[], [], []]);
  assertEquals(exchange(r, 2, frame({ dst: rigMac(0), src: rigMac(2) })), [[], [], []]);
  assertEquals(exchange(r, 0, frame({ dst: BROADCAST, src: rigMac(0) }))[2], []);
});

test("VST: the uplink sees the tag with its priority, 802.1Q or 802.1ad, and its frames come in by their tag", () => {
  for (const [vlanProto, tpid] of [["802.1Q", 0x8100], ["802.1ad", 0x88a8]] as const) {
    const r = rig(1, { 0: { vlan: 100, qos: 5, vlanProto } }, true);
    const plain = frame({ dst: UNKNOWN, src: rigMac(0), bytes: 64 });
    const [, up] = exchange(r, 0, plain);
    const payload = plain.slice(14);
    assertEquals(up, [frame({ dst: UNKNOWN, src: rigMac(0), tags: [{ tpid, vid: 100, pcp: 5 }], payload })]);
    const down = frame({ dst: rigMac(0), src: UNKNOWN, tags: [{ tpid, vid: 100 }], payload });
    assertEquals(exchange(r, 1, down)[0], [frame({ dst: rigMac(0), src: UNKNOWN, payload })]);
    for (const tags of [[], [{ tpid, vid: 101 }], [{ tpid: tpid ^ 0x8100 ^ 0x88a8, vid: 100 }]]) {
      assertEquals(exchange(r, 1, frame({ dst: rigMac(0), src: UNKNOWN, tags }))[0], []);
    }
  }
});

test("VST: a guest's own tag is refused, also when it looks like its VLAN", () => {
  const r = rig(2, { 0: { vlan: 100 }, 1: { vlan: 200 } });
  for (
    const tags of [[{ vid: 200 }], [{ vid: 100 }], [{ vid: 0 }], [{ vid: 100 }, { vid: 200 }], [{
      tpid: 0x88a8,
      vid: 200,
    }]]
  ) {
    assertEquals(exchange(r, 0, frame({ dst: rigMac(1), src: rigMac(0), tags })), [[], []]);
  }
  assertEquals(r.rig.counters(0).tx_vlan_tagged, 5);
});

test("802.1ad VST carries the guest's C-tag inside the S-tag", () => {
  const r = rig(2, { 0: { vlan: 100, vlanProto: "802.1ad" }, 1: { vlan: 100, vlanProto: "802.1ad" } });
  const inner = frame({ dst: rigMac(1), src: rigMac(0), tags: [{ vid: 5 }] });
  assertEquals(exchange(r, 0, inner), [[], [inner]]);
  const plain = frame({ dst: rigMac(1), src: rigMac(0) });
  assertEquals(exchange(r, 0, plain), [[], [plain]]);
  assertEquals(exchange(r, 0, frame({ dst: rigMac(1), src: rigMac(0), tags: [{ tpid: 0x88a8, vid: 100 }] })), [[], []]);
});

test("VGT: tags of the trunk list pass and stay, others are refused, VID 4095 always", () => {
  const r = rig(3, { 0: { trunk: [10, 20] }, 1: { trunk: [10] }, 2: { vlan: 10 } });
  const tagged = (dst: string, vid: number) => frame({ dst, src: rigMac(0), tags: [{ vid, pcp: 3 }] });
  assertEquals(exchange(r, 0, tagged(rigMac(1), 10)), [[], [tagged(rigMac(1), 10)], []]);
  // The VST member of VLAN 10 gets it without the tag.
  const stripped = frame({ dst: rigMac(2), src: rigMac(0), payload: tagged(rigMac(2), 10).slice(18) });
  assertEquals(exchange(r, 0, tagged(rigMac(2), 10)), [[], [], [stripped]]);
  assertEquals(exchange(r, 0, tagged(rigMac(1), 20)), [[], [], []]);
  assertEquals(r.rig.counters(0).tx_no_destination, 1);
  assertEquals(exchange(r, 0, tagged(rigMac(1), 30)), [[], [], []]);
  assertEquals(exchange(r, 0, tagged(rigMac(1), 4095)), [[], [], []]);
  assertEquals(r.rig.counters(0).tx_vlan_denied, 2);
  // From the VST member the trunk member gets it tagged.
  const plain = frame({ dst: rigMac(0), src: rigMac(2) });
  assertEquals(exchange(r, 2, plain)[0], [
    frame({ dst: rigMac(0), src: rigMac(2), tags: [{ vid: 10 }], payload: plain.slice(14) }),
  ]);
  // Priority tags belong to the untagged VLAN, which every VGT port is in.
  assertEquals(exchange(r, 0, tagged(rigMac(1), 0)), [[], [tagged(rigMac(1), 0)], []]);
});

test("without a trunk list a guest may send untagged frames only; a trusted one any tag", () => {
  const r = rig(2);
  const tagged = frame({ dst: rigMac(1), src: rigMac(0), tags: [{ vid: 77 }] });
  assertEquals(exchange(r, 0, tagged), [[], []]);
  assertEquals(r.rig.counters(0).tx_vlan_denied, 1);
  r.rig.set(0, { trust: true });
  assertEquals(exchange(r, 0, tagged), [[], []]);
  r.rig.set(1, { trust: true });
  assertEquals(exchange(r, 0, tagged), [[], [tagged]]);
});

test("a priority tag does not hide a second tag", () => {
  const r = rig(2, { 1: { trust: true } }, true);
  for (const dst of [rigMac(1), UNKNOWN, BROADCAST]) {
    const hidden = frame({ dst, src: rigMac(0), tags: [{ vid: 0 }, { vid: 20 }] });
    assertEquals(exchange(r, 0, hidden), [[], [], []]);
  }
  assertEquals(r.rig.counters(0).tx_vlan_denied, 3);
});

test("double tags do not hop: the inner tag of a trunk frame stays inside its VLAN", () => {
  const r = rig(3, { 0: { trunk: [10] }, 1: { vlan: 10 }, 2: { vlan: 20 } });
  const double = (dst: string) => frame({ dst, src: rigMac(0), tags: [{ vid: 10 }, { vid: 20 }] });
  assertEquals(exchange(r, 0, double(rigMac(2))), [[], [], []]);
  assertEquals(exchange(r, 0, double(BROADCAST))[2], []);
});

test("spoof check: only the VF's own address as source, unless it is off", () => {
  const r = rig(2);
  const spoofed = frame({ dst: rigMac(1), src: UNKNOWN });
  const honest = frame({ dst: rigMac(1), src: rigMac(0) });
  for (
    const bytes of [
      spoofed,
      frame({ dst: rigMac(1), src: rigMac(1) }),
      frame({ dst: rigMac(1), src: "02:00:00:00:00:ff" }),
    ]
  ) {
    assertEquals(exchange(r, 0, bytes), [[], []]);
  }
  assertEquals(r.rig.counters(0).tx_spoofed, 3);
  assertEquals(exchange(r, 0, honest), [[], [honest]]);
  assertEquals(exchange(r, 0, spoofed), [[], []]);
  r.rig.set(0, { spoofCheck: false });
  assertEquals(exchange(r, 0, spoofed), [[], [spoofed]]);
  r.rig.set(0, { spoofCheck: true });
  assertEquals(exchange(r, 0, spoofed), [[], []]);
});

test("multicast and zero source addresses are dropped whatever the policy", () => {
  const r = rig(2, { 0: { spoofCheck: false, trust: true } });
  for (const src of [MULTICAST, BROADCAST, "00:00:00:00:00:00"]) {
    assertEquals(exchange(r, 0, frame({ dst: rigMac(1), src })), [[], []]);
  }
  assertEquals(r.rig.counters(0).tx_bad_source, 3);
});

test("a trusted VF adds addresses by using them: up to the limit, never another's, forgotten with trust and age", () => {
  const r = rig(2, { 0: { trust: true } });
  const own = "02:aa:00:00:00:01";
  const first = frame({ dst: rigMac(1), src: own });
  assertEquals(exchange(r, 0, first), [[], [first]]);
  const back = frame({ dst: own, src: rigMac(1) });
  assertEquals(exchange(r, 1, back), [[back], []]);
  assertEquals(exchange(r, 0, frame({ dst: rigMac(1), src: rigMac(1) })), [[], []]);
  assertEquals(exchange(r, 0, frame({ dst: rigMac(1), src: "02:00:00:00:00:ff" })), [[], []]);
  for (let i = 0; i < 100; i++) {
    exchange(r, 0, frame({ dst: rigMac(1), src: `02:bb:00:00:00:${i.toString(16).padStart(2, "0")}` }));
    r.guests[1]?.fill(1);
  }
  assertEquals(r.rig.pools.learned(0), 64);
  assertEquals(r.rig.counters(0).tx_spoofed, 2 + 100 - 63);

  r.rig.run(10, 200e9);
  exchange(r, 0, first);
  r.rig.run(10, 200e9);
  r.rig.wasm.ageFilters();
  assertEquals(r.rig.pools.learned(0), 1);
  r.rig.set(0, { trust: false });
  assertEquals(r.rig.pools.learned(0), 0);
  assertEquals(exchange(r, 0, first), [[], []]);
});

test("link state: disabled stops both ways, auto follows the NIC, enable does not", () => {
  const r = rig(2);
  const there = frame({ dst: rigMac(1), src: rigMac(0) });
  assertEquals(exchange(r, 0, there), [[], [there]]);
  r.rig.set(1, { linkState: "disable" });
  assertEquals(exchange(r, 0, there), [[], []]);
  assertEquals(r.rig.counters(1).rx_link_down, 1);
  assertEquals(exchange(r, 1, frame({ dst: rigMac(0), src: rigMac(1) })), [[], []]);
  assertEquals(r.rig.counters(1).tx_link_down, 1);
  r.rig.set(1, { linkState: "auto" });
  r.rig.setNic({ link: "down" });
  assertEquals(exchange(r, 0, there), [[], []]);
  r.rig.set(0, { linkState: "enable" });
  r.rig.set(1, { linkState: "enable" });
  assertEquals(exchange(r, 0, there), [[], [there]]);
});

test("changing an address moves the filter at once; two VFs may exchange theirs", () => {
  const r = rig(3);
  const other = "02:cc:00:00:00:01";
  const toOld = frame({ dst: rigMac(1), src: rigMac(0) });
  assertEquals(exchange(r, 0, toOld), [[], [toOld], []]);
  r.rig.set(1, { mac: other });
  assertEquals(exchange(r, 0, toOld), [[], [], []]);
  const toNew = frame({ dst: other, src: rigMac(0) });
  assertEquals(exchange(r, 0, toNew), [[], [toNew], []]);
  const spoofed = frame({ dst: rigMac(0), src: rigMac(1) });
  assertEquals(exchange(r, 1, spoofed), [[], [], []]);
});

test("VEPA: everything goes to the uplink, and what comes back is not given to its sender", () => {
  const r = rig(2, {}, true);
  r.rig.setNic({ switchMode: "vepa" });
  assertEquals(SWITCH_VEPA, 1);
  const unicast = frame({ dst: rigMac(1), src: rigMac(0) });
  assertEquals(exchange(r, 0, unicast), [[], [], [unicast]]);
  assertEquals(exchange(r, 2, unicast), [[], [unicast], []]);
  const broadcast = frame({ dst: BROADCAST, src: rigMac(0) });
  assertEquals(exchange(r, 0, broadcast), [[], [], [broadcast]]);
  assertEquals(exchange(r, 2, broadcast), [[], [broadcast], []]);
  assertEquals(r.rig.counters(POOL_UPLINK).tx_frames, 2);
});

test("frames are forwarded however often the engine has polled", () => {
  const r = rig(2, { 0: { minTxRate: 100 } });
  for (const passes of [2n ** 31n, 2n ** 32n, 2n ** 32n + 2n ** 31n, 2n ** 40n]) {
    r.rig.view.setBigUint64(CTL + CTL_PASSES, passes - 15n, true);
    // Before, across and behind the boundary, in both directions.
    for (let i = 0; i < 4; i++) {
      for (const [from, to] of [[0, 1], [1, 0]] as const) {
        const sent = frame({ dst: rigMac(to), src: rigMac(from) });
        r.guests[from]?.send([sent]);
        r.rig.run(10);
        assertEquals(r.guests[to]?.receive(), [sent], `after ${passes} passes, round ${i}`);
        r.guests[to]?.fill(1);
      }
    }
  }
});

test("a full receiver drops and counts; the sender goes on", () => {
  const r = rig(3);
  const sent = Array.from({ length: 40 }, (_, i) => frame({ dst: rigMac(1), src: rigMac(0), bytes: 60 + i }));
  r.guests[0]?.send(sent);
  r.rig.run();
  assertEquals(r.guests[1]?.receive(), sent.slice(0, 32));
  assertEquals(r.rig.counters(1).rx_no_buffer, 8);
  assertEquals(r.guests[0]?.unsent(), 0);
  const next = frame({ dst: rigMac(2), src: rigMac(0) });
  assertEquals(exchange(r, 0, next), [[], [], [next]]);
});

test("a maximum rate holds frames back in their ring and loses none", () => {
  const r = rig(2, { 0: { maxTxRate: 8 } });
  r.rig.isClockStill = true;
  const one = frame({ dst: rigMac(1), src: rigMac(0), bytes: 1000 });
  r.guests[1]?.fill(32);
  r.guests[0]?.send(Array.from({ length: 60 }, () => one));
  r.rig.run(100, 0);
  const burst = r.rig.counters(1).rx_frames ?? 0;
  // 8 Mbit/s are 1000 bytes a millisecond; the bucket begins with its burst of 4 ms.
  assertEquals(burst, 4);
  for (let ms = 0; ms < 10; ms++) r.rig.run(100, 1e6);
  assertEquals(r.rig.counters(1).rx_frames, 14);
  for (let ms = 0; ms < 60; ms++) r.rig.run(100, 1e6);
  assertEquals(r.rig.counters(1).rx_frames, 60);
});

test("four transmit queues are no larger share of a busy engine than one", () => {
  // All on rings of one kind: frames between two kinds cost more, and what costs more is a smaller share.
  const rig = new EngineRig(5);
  const [many, one] = [
    attach(rig, 0, { queuePairs: 4, queueSize: 128 }, formatOf(0)),
    attach(rig, 2, { queueSize: 512 }, formatOf(0)),
    attach(rig, 4, {}, formatOf(0)),
  ];
  for (let round = 0; round < 100; round++) {
    for (const [guest, vf] of [[many, 0], [one, 2]] as const) {
      for (let pair = 0; pair < guest.options.queuePairs; pair++) {
        const sent = Array.from({ length: guest.room(pair) }, () => frame({ dst: rigMac(4), src: rigMac(vf) }));
        guest.send(sent, pair);
      }
    }
    rig.wasm.run(rig.nowNs, 1);
    rig.takeCalls();
  }
  const [four = 0, single = 1] = [0, 2].map((vf) => rig.counters(vf).tx_frames ?? 0);
  assert(four > 0 && Math.abs(four / single - 1) < 0.1, `${four} frames of four queues, ${single} of one`);
});

test("minimum rates share a busy engine in proportion", () => {
  const r = rig(3, { 0: { minTxRate: 400 }, 1: { minTxRate: 100 } });
  const from = (vf: number) => frame({ dst: rigMac(2), src: rigMac(vf), bytes: 1514 });
  for (let round = 0; round < 200; round++) {
    for (const vf of [0, 1]) {
      r.guests[vf]?.send(Array.from({ length: r.guests[vf]?.room() ?? 0 }, () => from(vf)));
    }
    // One pass a round: neither queue ever runs dry.
    r.rig.wasm.run(r.rig.nowNs, 1);
    r.rig.takeCalls();
  }
  const [a = 0, b = 1] = [0, 1].map((vf) => r.rig.counters(vf).tx_bytes ?? 0);
  assert(Math.abs(a / b / 4 - 1) < 0.1, `${a} bytes against ${b}`);
});
