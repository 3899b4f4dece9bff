/**
 * Offloads in the guest's stack: what it leaves to its data path, what it takes from it, and what becomes of frames that
 * were made for another one. Frames are judged by the reference (reference_offload.ts).
 */
import { assert, assertEquals } from "@std/assert";
import { OFFLOAD_F_CSUM, OFFLOAD_F_TSO4, OFFLOAD_F_USO4, OFFLOADS_ALL } from "../../shared/layout/nic.ts";
import { ENTRY_CSUM_VALID, ENTRY_EOP, ENTRY_NET_HDR } from "../../shared/layout/plugin.ts";
import { GC_FREE_COUNT, GC_VLAN } from "../../shared/layout/guest.ts";
import { type PathOffloads, TestHost } from "../support/guest_host.ts";
import { GSO_NONE, GSO_UDP_L4, NEEDS_CSUM, NOTHING, type Offloads, validate } from "../support/reference_offload.ts";
import { type Ip, ipOf, payloadOf, viewOf } from "../support/reference_packet.ts";
import { deliveries, pseudoSum, sumOf } from "../support/reference_segments.ts";
import type { Sent } from "../support/offload_frames.ts";

const ALL: PathOffloads = { tx: OFFLOADS_ALL, rx: OFFLOADS_ALL };
const NONE: PathOffloads = { tx: 0, rx: 0 };
const MACS = ["02:00:00:00:00:01", "02:00:00:00:00:02"] as const;

const uso = { ...NOTHING, csum: true, uso4: true, uso6: true, tso4: true, tso6: true, ecn: true };
const accepted = ({ rx }: PathOffloads): Offloads => {
  if ((rx & OFFLOAD_F_CSUM) === 0) return NOTHING;
  return (rx & OFFLOAD_F_USO4) !== 0 ? uso : { ...NOTHING, csum: true };
};

/** Two hosts that know each other's addresses. */
function pair(left: PathOffloads, right: PathOffloads, mtu = 1500): [TestHost, TestHost] {
  const a = new TestHost("10.0.0.1", MACS[0], left, mtu);
  const b = new TestHost("10.0.0.2", MACS[1], right, mtu);
  a.host.startTraffic({ ...TRAFFIC, to: b.ip, count: 1 });
  for (let i = 0; i < 4; i++) exchange(a, b, right);
  a.host.clearFlows();
  b.host.clearFlows();
  return [a, b];
}

const TRAFFIC = { rate: 0, size: 1514, port: 9, echo: false, segment: false } as const;

/** What one host hands over reaches the other as a device delivers it that accepts what `path` says. */
function deliver(to: TestHost, frames: readonly (Sent | Uint8Array)[], path: PathOffloads): void {
  for (const one of frames) {
    if (one instanceof Uint8Array) {
      assert(to.arrives(one));
      continue;
    }
    assertEquals(validate(one.frame, one.header, { ...uso }), undefined, "a device takes it");
    for (const { frame, header } of deliveries(one.frame, one.header, accepted(path))) {
      assert(to.arrives(frame, header ? { header } : { isGood: accepted(path).csum }));
    }
  }
}

/** Lets both do what is due, and carries what they send. */
function exchange(a: TestHost, b: TestHost, right: PathOffloads, left = ALL): void {
  for (const host of [a, b]) host.pass();
  deliver(b, a.take(), right);
  deliver(a, b.take(), left);
}

/** Whether the checksums of a UDP frame are right. */
function isSummed(frame: Uint8Array): boolean {
  const ip = ipOf(frame) as Ip;
  const udp = frame.subarray(ip.transportAt, ip.end);
  const total = sumOf(Uint8Array.from([...udp, ...udp.length % 2 ? [0] : []])) + pseudoSum(frame, ip, udp.length);
  return total % 0xffff === 0 && sumOf(frame.subarray(ip.at, ip.transportAt)) === 0xffff;
}

const SIZES = [128, 600, 1514];

for (const vlan of [0, 5]) {
  Deno.test(`a generator that may be segmented hands over many frames as one, ${vlan ? "tagged" : "untagged"}`, () => {
    for (const size of SIZES) {
      const [a, b] = pair(ALL, ALL);
      for (const host of [a, b]) host.host.set(GC_VLAN, vlan);
      a.host.startTraffic({ ...TRAFFIC, to: b.ip, size, count: 500, segment: true });
      const sent: Sent[] = [];
      for (let i = 0; i < 30; i++) {
        a.pass();
        const frames = a.take();
        deliver(b, frames, ALL);
        sent.push(...frames.filter((one): one is Sent => !(one instanceof Uint8Array)));
      }
      const large = sent.filter(({ header }) => header.gsoType === GSO_UDP_L4);
      assert(large.length > 5, "nothing was handed over together");
      for (const { frame, header } of large) {
        const ip = ipOf(frame) as Ip;
        assertEquals([header.csumStart, header.csumOffset], [ip.transportAt, 6]);
        assertEquals(header.hdrLen, payloadOf(frame, ip));
        assertEquals(ip.transportAt + 8 + header.gsoSize, size, "each datagram is a frame of that size");
      }
      const [flow] = b.host.flows();
      assertEquals([flow?.received, flow?.lost, flow?.reordered, flow?.duplicates], [500, 0, 0, 0]);
      assertEquals(b.counters.rx_checksum, 0);
      assertEquals([a.counters.tx_large, b.counters.rx_large], [large.length, large.length]);
    }
  });
}

/** What a path may do, by name. */
const PATHS: Record<string, PathOffloads> = {
  "nothing": NONE,
  "checksums": { tx: OFFLOAD_F_CSUM, rx: OFFLOAD_F_CSUM },
  "everything": ALL,
};

for (const [left, a_] of Object.entries(PATHS)) {
  for (const [right, b_] of Object.entries(PATHS)) {
    Deno.test(`echoes between a path that does ${left} and one that does ${right}: none has a bad checksum`, () => {
      for (const mtu of [1500, 9000]) {
        for (const size of mtu === 1500 ? SIZES : [1514, 4001, 9014]) {
          const [a, b] = pair(a_, b_, mtu);
          a.host.startTraffic({ ...TRAFFIC, to: b.ip, size, count: 300, segment: true, echo: true, window: 100 });
          for (let i = 0; i < 60; i++) exchange(a, b, b_, a_);
          const [flow] = a.host.flows();
          assertEquals(
            [flow?.received, flow?.lost, flow?.reordered, flow?.duplicates],
            [300, 0, 0, 0],
            `${mtu} ${size}`,
          );
          assertEquals([a.counters.rx_checksum, b.counters.rx_checksum, b.counters.rx_bad], [0, 0, 0]);
          assertEquals(b.counters.udp_echoes, 300);
          assertEquals(a.counters.tx_large !== 0, left === "everything");
          if (size > 2100 && left === "checksums") assert((b.counters.rx_unsummed ?? 0) > 0 === (b_.rx !== 0));
        }
      }
    });
  }
}

Deno.test("frames that were made for one data path are finished for the next, in order and none lost", () => {
  for (const mtu of [1500, 9000]) {
    for (const size of mtu === 1500 ? [100, 1514] : [1514, 9013]) {
      for (const next of [NONE, PATHS.checksums as PathOffloads]) {
        const [a, b] = pair(ALL, NONE, mtu);
        a.host.startTraffic({ ...TRAFFIC, to: b.ip, size, count: 200, segment: true });
        // All of it waits in the transmit queue when the path changes.
        for (let i = 0; i < 6; i++) a.pass();
        a.host.setOffloads(1, next);
        const frames: (Sent | Uint8Array)[] = [];
        for (let i = 0; i < 100; i++) {
          a.pass();
          frames.push(...a.take());
        }
        for (const one of frames) {
          if (one instanceof Uint8Array) assert(isSummed(one), "a frame without its checksum");
          else assertEquals([next.tx, one.header.gsoType], [OFFLOAD_F_CSUM, GSO_NONE]);
        }
        deliver(b, frames, NONE);
        const [flow] = b.host.flows();
        assertEquals([flow?.received, flow?.lost, flow?.reordered], [200, 0, 0], `${mtu} ${size}`);
        assertEquals([a.counters.tx_no_buffer, b.counters.rx_checksum], [0, 0]);
        const free = a.host.get(GC_FREE_COUNT);
        assert(free >= 4096 - 512, `${free} buffers are free: some have leaked`);
      }
    }
  }
});

Deno.test("a frame that cannot be cut for want of buffers waits for them, and is dropped if none will come", () => {
  const [a, b] = pair(ALL, NONE);
  a.host.startTraffic({ ...TRAFFIC, to: b.ip, size: 100, count: 64, segment: true });
  a.pass();
  // Its path has all buffers but a few, in frames that it is sending.
  const free = a.host.get(GC_FREE_COUNT);
  a.host.set(GC_FREE_COUNT, 10);
  a.host.setOffloads(1, NONE);
  const noBuffer = a.counters.tx_no_buffer ?? 0;
  assertEquals(a.take().length, 0);
  assertEquals((a.counters.tx_no_buffer ?? 0) - noBuffer, 1, "nothing is on its way: none will come");
  assert(free > 64);
  a.host.startTraffic({ ...TRAFFIC, to: b.ip, size: 1514, count: 1 });
  a.host.setOffloads(1, ALL);
  a.pass();
  assertEquals(a.take(false).length, 1);
  a.host.startTraffic({ ...TRAFFIC, to: b.ip, size: 100, count: 64, segment: true });
  a.host.set(GC_FREE_COUNT, free - 20);
  a.pass();
  a.host.set(GC_FREE_COUNT, 10);
  a.host.setOffloads(1, NONE);
  assertEquals(a.take().length, 0);
  assertEquals((a.counters.tx_no_buffer ?? 0) - noBuffer, 1, "it waits");
});

/** A large frame of datagrams with `size` bytes of payload each. */
function large(a: TestHost, b: TestHost, size: number): Sent {
  a.host.startTraffic({ ...TRAFFIC, to: b.ip, size, count: 64, segment: true });
  a.pass();
  const [one] = a.take();
  if (!one || one instanceof Uint8Array) throw new Error("no large frame");
  return one;
}

Deno.test("what is said of a frame is believed only where it can be, and if it was asked for", () => {
  const [a, b] = pair(ALL, ALL);
  const { frame, header } = large(a, b, 1000);
  const before = b.counters.udp_rx ?? 0;
  // Sums that begin elsewhere say nothing of this one.
  for (const bad of [{ csumStart: 14 }, { csumOffset: 16 }, { flags: 0 }]) {
    b.arrives(frame, { header: { ...header, ...bad } });
  }
  assertEquals([b.counters.rx_checksum, b.counters.udp_rx], [3, before]);
  // More datagrams than any device makes one of, and none at all.
  b.arrives(frame, { header: { ...header, gsoSize: 1 } });
  assertEquals([b.counters.rx_bad, b.counters.udp_rx], [1, before]);
  b.arrives(frame, { header: { ...header, gsoSize: 0 } });
  b.arrives(frame, { header: { ...header, gsoSize: 0xffff } });
  assertEquals(b.counters.udp_rx, before + 2, "one datagram each");
  b.host.setOffloads(1, { tx: 0, rx: 0 });
  b.arrives(frame, { header });
  b.arrives(frame, { isGood: true });
  assertEquals([b.counters.rx_checksum, b.counters.udp_rx], [5, before + 2], "nobody has asked");
  assertEquals(b.arrives(frame, { isGood: true }), true);
});

Deno.test("a header that would lie before its buffer ends the plugin; frames that are too long are dropped", () => {
  const [a, b] = pair(ALL, ALL);
  assertEquals(b.reports(11, 100, ENTRY_EOP | ENTRY_NET_HDR), false);
  assertEquals(b.reports(0, 100, ENTRY_EOP | ENTRY_NET_HDR), false);
  assertEquals(b.reports(0, 100, ENTRY_EOP | ENTRY_CSUM_VALID), true);
  b.host.setOffloads(1, NONE);
  assertEquals(b.reports(0, 100, ENTRY_EOP | ENTRY_NET_HDR), true, "nobody has asked");
  b.host.setOffloads(1, ALL);
  const bad = b.counters.rx_bad ?? 0;
  const { frame, header } = large(a, b, 1400);
  const long = new Uint8Array(80_000);
  long.set(frame);
  assert(b.arrives(long, { header }));
  assertEquals((b.counters.rx_bad ?? 0) - bad, 1);
  const ok = b.counters.udp_rx ?? 0;
  b.arrives(frame, { header });
  assert((b.counters.udp_rx ?? 0) > ok + 20);
});

Deno.test("a large TCP frame is taken in and counted, though nobody here speaks TCP", () => {
  const [a, b] = pair(ALL, { tx: 0, rx: OFFLOAD_F_CSUM | OFFLOAD_F_TSO4 });
  const { frame, header } = large(a, b, 1000);
  const tcp = frame.slice();
  viewOf(tcp).setUint8(23, 6);
  viewOf(tcp).setUint16(24, 0);
  viewOf(tcp).setUint16(24, 0xffff - sumOf(tcp.subarray(14, 34)));
  const { rx_frames: frames = 0, rx_bad: bad = 0 } = b.counters;
  b.arrives(tcp, { header: { ...header, flags: NEEDS_CSUM, gsoType: 1, csumOffset: 16 } });
  assertEquals([b.counters.rx_frames, b.counters.rx_large, b.counters.rx_bad], [frames + 1, 1, bad]);
});
