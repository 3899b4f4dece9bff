/** Mirrors: who gets copies of a VF's frames, which ones, as what, and what becomes of copies that nobody takes. */
import { assertEquals } from "@std/assert";
import { P_MIRROR, POOL_PF, POOLS } from "../../shared/layout/nic.ts";
import { asked, inLines, rigCaptures, taken } from "../support/capture_rig.ts";
import { EngineRig, rigMac } from "../support/engine_rig.ts";
import { frame } from "../support/mock_guest.ts";
import { attach, exchange, rig, test } from "../support/switch_bench.ts";

const FOREIGN = "02:99:99:99:99:99";
const EVERYBODY = "ff:ff:ff:ff:ff:ff";
const between = (src: number, dst: number, bytes = 64) => frame({ src: rigMac(src), dst: rigMac(dst), bytes });

test("out: what a VF sends is copied; in: what it gets; both: either, and nothing else", () => {
  const r = rig(4);
  const [there, back, other] = [between(0, 1), between(1, 0, 300), between(1, 3)];
  const look = () => [there, back, other].map((one, i) => exchange(r, i === 0 ? 0 : 1, one)[2]);
  assertEquals(look(), [[], [], []]);
  r.rig.set(0, { mirror: "out:2" });
  assertEquals(look(), [[there], [], []]);
  r.rig.set(0, { mirror: "in:2" });
  assertEquals(look(), [[], [back], []]);
  r.rig.set(0, { mirror: "both:2" });
  assertEquals(look(), [[there], [back], []]);
  r.rig.set(0, { mirror: null });
  assertEquals(look(), [[], [], []]);
});

test("many frames at once are copied, each once and in their order, and everybody else gets what they got", () => {
  const r = rig(4);
  for (const guest of r.guests) guest.fill(28);
  r.rig.set(0, { mirror: "both:3" });
  const sent = Array.from({ length: 30 }, (_, i) => between(0, 1 + i % 2, 60 + i));
  r.guests[0]?.send(sent);
  r.rig.run();
  assertEquals(r.guests.map((guest) => guest.receive()), [
    [],
    sent.filter((_, i) => i % 2 === 0),
    sent.filter((_, i) => i % 2 === 1),
    sent,
  ]);
  r.rig.checkCanaries();
});

test("what a VF may not send is not copied, and what has no room at its receiver is", () => {
  const r = rig(3, { 0: { spoofCheck: true } });
  r.rig.set(0, { mirror: "out:2" });
  assertEquals(exchange(r, 0, frame({ src: FOREIGN, dst: rigMac(1) })), [[], [], []]);
  r.rig.set(1, { linkState: "disable" });
  assertEquals(exchange(r, 0, between(0, 1)), [[], [], [between(0, 1)]]);
});

test("a frame for everybody is copied once for its sender, and once for each that gets it", () => {
  const r = rig(4);
  const all = frame({ src: rigMac(0), dst: EVERYBODY });
  r.rig.set(0, { mirror: "out:3" });
  assertEquals(exchange(r, 0, all), [[], [all], [all], [all, all]]);
  r.rig.set(1, { mirror: "in:3" });
  assertEquals(exchange(r, 0, all), [[], [all], [all], [all, all, all]]);
});

test("a copy is the frame as the VF's port has it, whatever the VLAN of who gets it", () => {
  const r = rig(3, { 0: { vlan: 100 }, 1: { trunk: [100] }, 2: { vlan: 7 } });
  const tagged = frame({ src: rigMac(0), dst: rigMac(1), bytes: 68, tags: [{ vid: 100 }] });
  r.rig.set(0, { mirror: "out:2" });
  assertEquals(exchange(r, 0, between(0, 1)), [[], [tagged], [between(0, 1)]]);
  r.rig.set(0, { mirror: null });
  r.rig.set(1, { mirror: "in:2" });
  assertEquals(exchange(r, 0, between(0, 1)), [[], [tagged], [tagged]]);
});

test("copies go to the uplink, and never back to where a frame came from; they are not mirrored again", () => {
  const r = rig(3, {}, true);
  r.rig.set(0, { mirror: "both:uplink" });
  const inbound = frame({ src: FOREIGN, dst: rigMac(0) });
  assertEquals(exchange(r, 0, between(0, 1)), [[], [between(0, 1)], [], [between(0, 1)]]);
  assertEquals(exchange(r, 1, between(1, 0)), [[between(1, 0)], [], [], [between(1, 0)]]);
  assertEquals(exchange(r, 3, inbound), [[inbound], [], [], []]);
  r.rig.set(0, { mirror: "both:1" });
  r.rig.set(1, { mirror: "in:2" });
  assertEquals(exchange(r, 1, between(1, 0)), [[between(1, 0)], [], [], []]);
  assertEquals(exchange(r, 2, between(2, 0)), [[between(2, 0)], [between(2, 0)], [], []]);
});

test("the PF's pool: what guests behind it send and get is copied, out of it and in to it", () => {
  const r = rig(3, {}, true);
  const pf = attach(r.rig, POOL_PF);
  pf.fill(32);
  const GUEST = "02:00:00:00:aa:01";
  r.rig.setNic({ vports: [{ mac: GUEST, allowedMacs: [], vlan: 0, vlanProto: "802.1Q" }] });
  const bench = { ...r, guests: [...r.guests.slice(0, 3), pf, ...r.guests.slice(3)] };
  const [there, back] = [frame({ src: GUEST, dst: rigMac(0) }), frame({ src: rigMac(0), dst: GUEST })];
  const look = () => [exchange(bench, 3, there), exchange(bench, 0, back)].map((got) => [got[2], got[4]]);
  const none: Uint8Array[] = [];
  assertEquals(look(), [[none, none], [none, none]]);
  for (
    const [pfMirror, expected] of [
      ["both:2", [[[there], none], [[back], none]]],
      ["out:2", [[[there], none], [none, none]]],
      ["in:uplink", [[none, none], [none, [back]]]],
      [null, [[none, none], [none, none]]],
    ] as const
  ) {
    r.rig.setNic({ pfMirror });
    assertEquals(look(), expected as unknown, pfMirror ?? "none");
  }
});

test("copies that nobody takes are counted where they were to go, and the frames themselves arrive", () => {
  const r = rig(3);
  r.rig.set(0, { mirror: "out:2" });
  r.rig.set(2, { linkState: "disable" });
  assertEquals(exchange(r, 0, between(0, 1)), [[], [between(0, 1)], []]);
  assertEquals(r.rig.counters(2).rx_link_down, 1);
  r.rig.set(2, { linkState: "auto" });
  assertEquals(exchange(r, 0, between(0, 1)), [[], [between(0, 1)], [between(0, 1)]]);
});

Deno.test("a target without a queue counts copies; one that goes away has none; a VF that goes leaves no mirror", () => {
  const r = new EngineRig(3);
  const [a, b] = [r.attach(0), r.attach(1)];
  b.fill(8);
  r.set(0, { mirror: "out:2" });
  a.send([between(0, 1), between(0, 1)]);
  r.run();
  assertEquals([r.counters(2).rx_no_queue, b.receive().length], [2, 2]);
  const mirror = () => r.view.getUint32(POOLS + P_MIRROR, true);
  assertEquals(mirror() !== 0, true);
  r.setNic({ vfs: [] });
  assertEquals(mirror(), 0);
});

Deno.test("copies are seen by who captures whoever gets them, dropped ones with the reason", () => {
  const r = new EngineRig(3);
  const [a, b, c] = [0, 1, 2].map((vf) => r.attach(vf, { queueSize: 64 }));
  b?.fill(8);
  c?.fill(2);
  r.set(0, { mirror: "out:2" });
  const capture = rigCaptures(r).captures.open(asked("ports=2", 3));
  a?.send([between(0, 1), between(0, 1), between(0, 1)]);
  r.run();
  assertEquals(inLines(taken(capture)), ["0 in", "0 in", "0 in dropped: rx_no_buffer"]);
  assertEquals([b?.receive().length, r.counters(2).rx_no_buffer], [3, 1]);
});
