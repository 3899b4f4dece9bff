/**
 * What a port may send beyond its own address and VLAN, and what it may not: further addresses, IP addresses, a native
 * VLAN beside tagged ones, a limit of broadcasts. Over guests of each ring format, and of several beside each other.
 */
import { assert, assertEquals } from "@std/assert";
import type { VfPolicy } from "../../shared/api/mod.ts";
import { EngineRig, rigMac } from "../support/engine_rig.ts";
import { Flipper } from "../support/flipper.ts";
import { BROADCAST, frame } from "../support/mock_guest.ts";
import { exchange, rig, test } from "../support/switch_bench.ts";
import { until } from "../support/wait.ts";

const VRRP = "00:00:5e:00:01:07";
const IPV4 = 0x0800;
const ARP = 0x0806;
const IPV6 = 0x86dd;

type Tag = { tpid?: number; vid: number };

/** A payload of zeros with bytes put in. */
function payload(bytes: number, at: number, put: readonly number[]): Uint8Array {
  const made = new Uint8Array(bytes);
  made.set(put, at);
  return made;
}

const ipv4 = (source: readonly number[], bytes = 46) => ({ etherType: IPV4, payload: payload(bytes, 12, source) });
/** With nothing behind its header. */
function ipv6(source: readonly number[]) {
  const made = payload(46, 8, source);
  made[6] = 59;
  return { etherType: IPV6, payload: made };
}
function arp(sender: readonly number[], lengths = [6, 4]) {
  const made = payload(46, 14, sender);
  made.set([0, 1, 8, 0, ...lengths, 0, 1]);
  return { etherType: ARP, payload: made };
}
/** An ICMPv6 message of a type, behind extension headers of eight bytes each, that names a target. */
function icmpv6(source: readonly number[], type: number, target: readonly number[], extensions: number[] = []) {
  const made = payload(80 + extensions.length * 8, 8, source);
  const kinds = [...extensions, 58];
  made[6] = kinds[0] ?? 58;
  extensions.forEach((_, i) => made[40 + i * 8] = kinds[i + 1] ?? 58);
  made[40 + extensions.length * 8] = type;
  made.set(target, 48 + extensions.length * 8);
  return { etherType: IPV6, payload: made };
}
/** What stands behind an LLC and a SNAP header: a length field tells them from an EtherType. */
const snap = (etherType: number, body: Uint8Array) => ({
  etherType: body.length + 8,
  payload: Uint8Array.from([0xaa, 0xaa, 3, 0, 0, 0, etherType >> 8, etherType & 0xff, ...body]),
});
const V6 = [0x20, 1, 0xd, 0xb8, ...new Array(11).fill(0)];

test("further addresses are a port's own: it sends from them and receives for them", () => {
  const r = rig(3, { 0: { allowedMacs: [VRRP] }, 2: { vlan: 7, allowedMacs: [VRRP] } });
  const from = frame({ dst: rigMac(1), src: VRRP });
  const to = frame({ dst: VRRP, src: rigMac(1) });
  for (let i = 0; i < 2; i++) {
    assertEquals(exchange(r, 0, from), [[], [from], []]);
    assertEquals(exchange(r, 1, to), [[to], [], []]);
  }
  assertEquals(exchange(r, 1, from)[0], [], "it is nobody else's");
  assertEquals(r.rig.counters(1).tx_spoofed, 1);
  r.rig.set(0, { allowedMacs: [] });
  assertEquals(exchange(r, 0, from), [[], [], []]);
  assertEquals(r.rig.counters(0).tx_spoofed, 1);
  assertEquals(exchange(r, 1, to), [[], [], []]);
});

test("a guest sends from the IP addresses that it may use, in IPv4, IPv6 and ARP", () => {
  const r = rig(2, { 0: { allowedIps: ["10.0.0.5", "192.168.8.0/22", "2001:db8::5", "fe80::/10"] } });
  const may: [string, object][] = [
    ["10.0.0.5", ipv4([10, 0, 0, 5])],
    ["a long frame", ipv4([10, 0, 0, 5], 1400)],
    ["in the prefix", ipv4([192, 168, 11, 255])],
    ["no address yet", ipv4([0, 0, 0, 0])],
    ["ARP", arp([10, 0, 0, 5])],
    ["an ARP probe", arp([0, 0, 0, 0])],
    ["IPv6", ipv6([...V6, 5])],
    ["link-local", ipv6([0xfe, 0xbf, ...new Array(13).fill(9), 1])],
    ["no IPv6 address yet", ipv6([])],
    ["another protocol", { etherType: 0x88b5, payload: new Uint8Array(46) }],
    ["spanning tree's LLC", { etherType: 38, payload: Uint8Array.from([0x42, 0x42, 3, ...new Array(43).fill(0)]) }],
    ["an advertisement of its own address", icmpv6([...V6, 5], 136, [...V6, 5])],
    ["the same behind extension headers", icmpv6([...V6, 5], 136, [...V6, 5], [0, 60])],
    ["a search for doubles", icmpv6([], 135, [...V6, 9])],
    ["a listener report behind a router alert", icmpv6([...V6, 5], 143, [], [0])],
  ];
  for (const [name, what] of may) {
    const sent = frame({ dst: rigMac(1), src: rigMac(0), ...what });
    r.guests[1]?.fill(3);
    for (let i = 0; i < 3; i++) assertEquals(exchange(r, 0, sent), [[], [sent]], name);
  }
  const mayNot: [string, object][] = [
    ["10.0.0.6", ipv4([10, 0, 0, 6])],
    ["beside the prefix", ipv4([192, 168, 12, 0])],
    ["ARP", arp([10, 0, 0, 6])],
    ["ARP of lengths that nobody has", arp([10, 0, 0, 5], [4, 6])],
    ["ARP too short", { etherType: ARP, payload: arp([10, 0, 0, 5]).payload.subarray(0, 17) }],
    ["IPv4 too short", { etherType: IPV4, payload: payload(15, 12, [10, 0, 0]) }],
    ["IPv6", ipv6([...V6, 6])],
    ["IPv6 too short", { etherType: IPV6, payload: payload(39, 8, [...V6, 5]) }],
    ["an advertisement of another's address", icmpv6([...V6, 5], 136, [...V6, 1])],
    ["an advertisement of no address", icmpv6([...V6, 5], 136, [])],
    ["the same from no address", icmpv6([], 136, [...V6, 1])],
    ["the same behind extension headers", icmpv6([...V6, 5], 136, [...V6, 1], [0, 43, 60])],
    ["the same further in than is looked", icmpv6([...V6, 5], 136, [...V6, 1], [60, 60, 60, 60, 60, 60])],
    ["IPv4 behind SNAP", snap(IPV4, ipv4([10, 0, 0, 5]).payload)],
    ["ARP behind SNAP", snap(ARP, arp([10, 0, 0, 6]).payload)],
    ["an IPv4 address as IPv6", ipv6([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 6])],
  ];
  for (const [i, [name, what]] of mayNot.entries()) {
    assertEquals(exchange(r, 0, frame({ dst: rigMac(1), src: rigMac(0), ...what })), [[], []], name);
    assertEquals(r.rig.counters(0).tx_ip_spoofed, i + 1, name);
  }
  // The same in one burst: a frame's check is not that of the frame before.
  const good = frame({ dst: rigMac(1), src: rigMac(0), ...ipv4([10, 0, 0, 5]) });
  const bad = frame({ dst: rigMac(1), src: rigMac(0), ...ipv4([10, 0, 0, 6]) });
  r.guests[1]?.fill(32);
  r.guests[0]?.send([good, bad, good, bad, bad, good]);
  r.rig.run();
  assertEquals(r.guests[1]?.receive(), [good, good, good]);
  r.rig.set(0, { allowedIps: [] });
  assertEquals(exchange(r, 0, bad), [[], [bad]], "an empty list checks nothing");
});

test("prefixes of IPv6 have no IPv4 addresses in them, and the other way about", () => {
  const r = rig(2, { 0: { allowedIps: ["10.0.0.5", "::/0"] } });
  const passes = (what: object) => exchange(r, 0, frame({ dst: rigMac(1), src: rigMac(0), ...what }))[1]?.length;
  const sent = [ipv4([10, 0, 0, 5]), ipv4([10, 0, 0, 6]), arp([10, 0, 0, 6]), ipv6([...V6, 99])];
  assertEquals(sent.map(passes), [1, 0, 0, 1]);
  r.rig.set(0, { allowedIps: ["0.0.0.0/0"] });
  assertEquals(sent.map(passes), [1, 1, 1, 0]);
});

test("IP addresses are found behind a tag, and nothing is taken for known behind two", () => {
  const r = rig(2, { 0: { trunk: [5], allowedIps: ["10.0.0.5"] }, 1: { trunk: [5] } });
  const send = (source: number[], tags: Tag[]) =>
    exchange(r, 0, frame({ dst: rigMac(1), src: rigMac(0), tags, ...ipv4(source) }))[1]?.length;
  assertEquals(send([10, 0, 0, 5], [{ vid: 5 }]), 1);
  assertEquals(send([10, 0, 0, 6], [{ vid: 5 }]), 0);
  assertEquals(send([10, 0, 0, 5], [{ vid: 5 }, { vid: 9 }]), 0);
  assertEquals(r.rig.counters(0).tx_ip_spoofed, 2);
});

test("a checked frame keeps or changes its tag as any other", () => {
  const r = rig(3, { 0: { vlan: 100, allowedIps: ["10.0.0.5"] }, 1: { vlan: 100 }, 2: { trunk: [100] } });
  const body = ipv4([10, 0, 0, 5], 300);
  const to1 = frame({ dst: rigMac(1), src: rigMac(0), ...body });
  assertEquals(exchange(r, 0, to1), [[], [to1], []]);
  const to2 = { dst: rigMac(2), src: rigMac(0), ...body };
  assertEquals(exchange(r, 0, frame(to2)), [[], [], [frame({ ...to2, tags: [{ vid: 100 }] })]]);
  const many = frame({ dst: BROADCAST, src: rigMac(0), ...body });
  assertEquals(exchange(r, 0, many), [[], [many], [frame({
    ...{ dst: BROADCAST, src: rigMac(0), ...body },
    tags: [{ vid: 100 }],
  })]]);
  // The tag of a trunk member goes, with the head that was looked into.
  r.rig.set(0, { vlan: 0, trunk: [100] });
  const tagged = frame({ dst: rigMac(1), src: rigMac(0), tags: [{ vid: 100 }], ...body });
  assertEquals(exchange(r, 0, tagged), [[], [to1], []]);
});

test("the native VLAN: untagged frames travel in it, and its frames come untagged, beside tagged ones", () => {
  const r = rig(4, { 0: { nativeVlan: 10, trunk: [20] }, 1: { trunk: [10, 20] }, 2: { vlan: 10 }, 3: {} }, true);
  const plain = (dst: string, src: string) => frame({ dst, src, bytes: 90 });
  const tagged = (dst: string, src: string, ...vids: number[]) =>
    frame({ dst, src, tags: vids.map((vid) => ({ vid })), payload: plain(dst, src).slice(14) });
  const [a, b, c, d] = [0, 1, 2, 3].map(rigMac) as [string, string, string, string];
  for (let i = 0; i < 2; i++) {
    assertEquals(exchange(r, 0, plain(b, a)), [[], [tagged(b, a, 10)], [], [], []]);
    assertEquals(exchange(r, 0, plain(c, a)), [[], [], [plain(c, a)], [], []]);
    assertEquals(exchange(r, 1, tagged(a, b, 10)), [[plain(a, b)], [], [], [], []]);
    assertEquals(exchange(r, 2, plain(a, c)), [[plain(a, c)], [], [], [], []]);
    assertEquals(exchange(r, 1, tagged(a, b, 20)), [[tagged(a, b, 20)], [], [], [], []]);
    assertEquals(exchange(r, 0, tagged(b, a, 20)), [[], [tagged(b, a, 20)], [], [], []]);
    assertEquals(exchange(r, 0, tagged(b, a, 10)), [[], [tagged(b, a, 10)], [], [], []], "it may tag them too");
  }
  assertEquals(exchange(r, 3, plain(a, d))[0], [], "frames of no VLAN are none of its own");
  const many = plain(BROADCAST, a);
  assertEquals(exchange(r, 0, many), [[], [tagged(BROADCAST, a, 10)], [many], [], [tagged(BROADCAST, a, 10)]]);
  assertEquals(exchange(r, 1, tagged(BROADCAST, b, 10))[0], [plain(BROADCAST, b)]);
  assertEquals(exchange(r, 0, tagged(b, a, 0)), [[], [], [], [], []], "a priority tag would have to name it");
  assertEquals(r.rig.counters(0).tx_vlan_denied, 1);
  r.rig.set(0, { trust: true });
  assertEquals(exchange(r, 3, plain(a, d))[0], [], "nor while it is trusted");
});

test("a tag behind the native VLAN's does not hop into another VLAN", () => {
  const r = rig(2, { 0: { nativeVlan: 10, trunk: [20] }, 1: { trunk: [10] } });
  const twice = frame({ dst: rigMac(0), src: rigMac(1), tags: [{ vid: 10 }, { vid: 20 }], bytes: 90 });
  const once = frame({ dst: rigMac(0), src: rigMac(1), tags: [{ vid: 10 }], bytes: 90 });
  for (let i = 0; i < 2; i++) {
    assertEquals(exchange(r, 1, twice), [[twice], []], "it stays what it is: a frame of VLAN 10");
    assertEquals(exchange(r, 1, once)[0]?.[0]?.length, 86);
  }
});

test("what a trusted port has learned in no VLAN is not its own once it has a native VLAN", () => {
  const r = rig(2, { 0: { trust: true } });
  const station = "02:12:34:56:78:9a";
  exchange(r, 0, frame({ dst: rigMac(1), src: station }));
  const back = frame({ dst: station, src: rigMac(1) });
  assertEquals(exchange(r, 1, back)[0], [back]);
  r.rig.set(0, { nativeVlan: 10 });
  assertEquals(exchange(r, 1, back)[0], []);
});

test("broadcasts over the limit are dropped and counted; all else passes", () => {
  const r = rig(2, { 0: { maxBroadcastRate: 1000 } });
  const [many, one] = [frame({ dst: BROADCAST, src: rigMac(0) }), frame({ dst: rigMac(1), src: rigMac(0) })];
  const send = (frames: Uint8Array[]) => {
    r.guests[1]?.fill(32 - (r.guests[1]?.posted() ?? 0));
    r.guests[0]?.send(frames);
    r.rig.run(4, 0);
    return r.guests[1]?.receive().length ?? 0;
  };
  let arrived = 0;
  for (let i = 0; i < 20; i++) arrived += send(new Array(10).fill(many));
  assertEquals(arrived, 100, "a tenth of a second's worth at once");
  assertEquals(r.rig.counters(0).tx_broadcast_limited, 100);
  r.guests[1]?.fill(1);
  r.rig.wasm.announce(0, 0x0100_0000_0002n);
  assertEquals(r.guests[1]?.receive().length, 1, "the engine's own announcement is none of the guest's");
  assertEquals(send(new Array(10).fill(one)), 10);
  // A thousand a second are one in each millisecond.
  arrived = 0;
  for (let ms = 0; ms < 50; ms++) {
    r.rig.run(1, 1e6);
    arrived += send(new Array(5).fill(many));
  }
  assert(arrived >= 49 && arrived <= 51, `${arrived} in 50 ms`);
  assertEquals(r.rig.counters(0).tx_broadcast, 101 + arrived);
  r.rig.set(0, { maxBroadcastRate: 0 });
  assertEquals(send(new Array(10).fill(many)), 10);
});

/** A guest whose frame's 16-bit word at `at` flickers between `words` while it is taken; what its peer gets of it. */
async function flicker(policies: Record<number, Partial<VfPolicy>>, sent: Uint8Array, at: number, words: number[]) {
  const rig = new EngineRig(2, policies);
  const [evil, peer] = [rig.attach(0), rig.attach(1)];
  const { heap } = evil;
  const buffers = [{ addr: evil.iova(heap), len: evil.writeFrame(heap, sent) }];
  const memory = rig.view.buffer as unknown as SharedArrayBuffer;
  const got: Uint8Array[] = [];
  await using flipper = new Flipper({ memory, offsets: [heap + 12 + at], values: words });
  for (let round = 0; round < 3000; round++) {
    if (round % 100 === 0) {
      const { rounds } = flipper;
      await until("the thread to be at it", () => flipper.rounds > rounds, 10_000, 0);
    }
    peer.fill(32 - peer.posted());
    // Many at a time: the last is copied long after the first was looked at.
    for (let i = 0; i < 30; i++) evil.tx().add(buffers);
    evil.tx().publish();
    rig.run(10);
    while (evil.tx().popUsed());
    got.push(...peer.receive());
  }
  rig.checkCanaries();
  return { got, counters: rig.counters(0) };
}

Deno.test("an IP address that flickers while its frame is taken does not come through", async () => {
  const sent = frame({ dst: rigMac(1), src: rigMac(0), ...ipv4([10, 0, 0, 5], 900) });
  const { got, counters } = await flicker({ 0: { allowedIps: ["10.0.0.5"] } }, sent, 28, [0x0500, 0x0600]);
  assert(got.length > 100 && (counters.tx_ip_spoofed ?? 0) > 100, `${got.length} came through`);
  assertEquals(got.filter((bytes) => bytes[29] !== 5), []);
});

Deno.test("a type that flickers behind the native VLAN's tag hops into no other VLAN", async () => {
  const sent = frame({ dst: rigMac(1), src: rigMac(0), tags: [{ vid: 10 }, { vid: 20 }], bytes: 300 });
  const policies = { 0: { trunk: [10] }, 1: { nativeVlan: 10, trunk: [20] } };
  const { got } = await flicker(policies, sent, 16, [0x0081, 0xb588]);
  assert(got.length > 1000, `${got.length} came through`);
  const hopped = got.filter((bytes) => bytes[12] === 0x81 && bytes[13] === 0 && (bytes[15] ?? 0) === 20);
  assertEquals(hopped, []);
});
