/**
 * The reference implementation of offloads, that the engine is held against: frames that scapy made, each refusal, and
 * whether the generators make what they promise. The kernel judges it too (tests/integration/offload_kernel_test.ts).
 */
import { assert, assertEquals } from "@std/assert";
import { decodeHex, encodeHex } from "@std/encoding/hex";
import fc from "fast-check";
import { frameOf, hostileFrame, lawfulFrame, type Sent, type Shape } from "../support/offload_frames.ts";
import {
  EVERYTHING,
  GSO_ECN,
  GSO_NONE,
  GSO_TCPV4,
  GSO_TCPV6,
  GSO_UDP_L4,
  NEEDS_CSUM,
  type NetHeader,
  NOTHING,
  type Offloads,
  type Refusal,
  validate,
} from "../support/reference_offload.ts";
import { type Ip, ipOf, payloadOf, viewOf } from "../support/reference_packet.ts";
import { deliveries, finishChecksum, pseudoSum, segment, sumOf } from "../support/reference_segments.ts";

/** By scapy 2.5: tag of VLAN 5, IPv4 option, id 0xffff, sequence 0xfffffffe, flags CWR ECE ACK PSH FIN. */
const TCP4 = {
  whole: "0266000000020266000000018100600508004602003affff4000400623b90a0000010a000002010101001389138afffffffe" +
    "0000123460d920001cab00000101010172696e67666162726963",
  gsoSize: 4,
  csumStart: 42,
  csumOffset: 16,
  gsoType: GSO_TCPV4 | GSO_ECN,
  segments: [
    "02660000000202660000000181006005080046020034ffff4000400623bf0a0000010a000002010101001389138afffffffe" +
    "0000123460d020004ef100000101010172696e67",
    "0266000000020266000000018100600508004602003400004000400623bf0a0000010a000002010101001389138a00000002" +
    "0000123460502000676b00000101010166616272",
    "0266000000020266000000018100600508004602003200014000400623c00a0000010a000002010101001389138a00000006" +
    "0000123460592000c6d00000010101016963",
  ],
};
/** IPv6 with destination options. */
const UDP6 = {
  whole: "02660000000202660000000186dd60212345001a3c40fd000000000000000000000000000001fd0000000000000000000000" +
    "0000000211000104000000001389138a0012cbaa72696e67666162726963",
  gsoSize: 6,
  csumStart: 62,
  csumOffset: 6,
  gsoType: GSO_UDP_L4,
  segments: [
    "02660000000202660000000186dd6021234500163c40fd000000000000000000000000000001fd0000000000000000000000" +
    "0000000211000104000000001389138a000e978872696e676661",
    "02660000000202660000000186dd6021234500143c40fd000000000000000000000000000001fd0000000000000000000000" +
    "0000000211000104000000001389138a000c12e962726963",
  ],
};

function headerOf({ gsoSize, csumStart, csumOffset, gsoType }: typeof TCP4): NetHeader {
  return { flags: NEEDS_CSUM, hdrLen: 0, gsoSize, csumStart, csumOffset, gsoType };
}

Deno.test("segments are those that scapy builds", () => {
  for (const golden of [TCP4, UDP6]) {
    const frame = decodeHex(golden.whole);
    assertEquals(validate(frame, headerOf(golden), EVERYTHING), undefined);
    assertEquals(segment(frame, headerOf(golden)).map(encodeHex), golden.segments);
  }
});

Deno.test("a checksum is the one that scapy computes, and of UDP never 0", () => {
  for (const golden of [TCP4, UDP6]) {
    const frame = decodeHex(golden.whole);
    const partial = frame.slice();
    const sum = pseudoSum(frame, ipOf(frame) as Ip, frame.length - golden.csumStart);
    viewOf(partial).setUint16(golden.csumStart + golden.csumOffset, sum);
    assertEquals(encodeHex(finishChecksum(partial, headerOf(golden))), golden.whole);
  }
  const sumsToZero = decodeHex(
    "02660000000202660000000108004500001e00010000401166cc0a0000010a0000021389138a000affffc4c4",
  );
  const partial = sumsToZero.slice();
  viewOf(partial).setUint16(40, pseudoSum(partial, ipOf(partial) as Ip, 10));
  const header = { ...headerOf(UDP6), csumStart: 34, gsoType: GSO_NONE };
  assertEquals(finishChecksum(partial, header), sumsToZero);
});

const SHAPE: Shape = {
  ...{ version: 4, isTcp: true, tags: [], ipOptions: 0, extensions: [], tcpOptions: 0, tcpFlags: 0x18, hdrLen: 0 },
  ...{ sequence: 1, id: 1, dontFragment: true, payloadBytes: 3000, seed: 1, gsoSize: 1000, isEcn: false },
};
const BASE: Sent = frameOf(SHAPE);
const V6: Sent = frameOf({ ...SHAPE, version: 6, extensions: [{ type: 60, blocks: 1 }] });
const UDP: Sent = frameOf({ ...SHAPE, isTcp: false });
const TAGGED: Sent = frameOf({ ...SHAPE, tags: [{ type: 0x8100, tci: 5 }] });

/** `sent` with some of its header's fields, and of its frame's bytes, changed. */
function changed(sent: Sent, fields: Partial<NetHeader>, bytes: Record<number, number> = {}): Sent {
  const frame = sent.frame.slice();
  for (const [at, value] of Object.entries(bytes)) frame[Number(at)] = value;
  return { frame, header: { ...sent.header, ...fields } };
}

const without = (offloads: Partial<Offloads>): Offloads => ({ ...EVERYTHING, ...offloads });
const plain = { gsoType: GSO_NONE };
/** A neighbour advertisement, whose checksum may be asked for and nothing else. */
const advertisement = changed(frameOf({ ...SHAPE, version: 6 }), { ...plain, csumOffset: 2 }, { 20: 58, 54: 136 });

const REFUSALS: [Refusal, Sent, Offloads?][] = [
  ["runt", { ...BASE, frame: BASE.frame.slice(0, 13) }],
  ["checksum not negotiated", BASE, NOTHING],
  ["checksum in the Ethernet header", changed(BASE, { csumStart: 13 })],
  ["checksum in the Ethernet header", changed(TAGGED, { ...plain, csumStart: 14, csumOffset: 0 })],
  ["checksum beyond the frame", changed(BASE, { csumStart: BASE.frame.length - 17 })],
  ["checksum beyond the frame", changed(BASE, { csumOffset: 0xffff })],
  ["checksum over a header that policy reads", changed(BASE, { ...plain, csumStart: 14, csumOffset: 12 })],
  ["checksum over a header that policy reads", changed(V6, { ...plain, csumStart: 54, csumOffset: 0 })],
  ["checksum over a header that policy reads", changed(BASE, plain, { 12: 8, 13: 6 })],
  ["checksum over a header that policy reads", changed(BASE, plain, { 12: 5, 13: 0xff })],
  ["checksum over a header that policy reads", changed(advertisement, { csumOffset: 8 })],
  ["IP header broken", changed(BASE, {}, { 14: 0x44 })],
  ["IP header broken", changed(V6, {}, { 55: 0xff, 14: 0x50 })],
  ["unknown segmentation", changed(BASE, { gsoType: 2 })],
  ["unknown segmentation", changed(BASE, { gsoType: 3 })],
  ["unknown segmentation", changed(BASE, { gsoType: GSO_ECN })],
  ["segmentation not negotiated", BASE, without({ tso4: false })],
  ["segmentation not negotiated", V6, without({ tso6: false })],
  ["segmentation not negotiated", UDP, without({ uso4: false, uso6: false })],
  ["ECN not negotiated", changed(BASE, { gsoType: GSO_TCPV4 | GSO_ECN }), without({ ecn: false })],
  ["segmentation without checksum", changed(BASE, { flags: 0 })],
  ["segment size 0", changed(BASE, { gsoSize: 0 })],
  ["segmentation of another protocol", changed(BASE, { gsoType: GSO_TCPV6 })],
  ["segmentation of another protocol", changed(BASE, { gsoType: GSO_UDP_L4 })],
  ["segmentation of another protocol", changed(UDP, { gsoType: GSO_TCPV4 })],
  ["segmentation of another protocol", changed(BASE, {}, { 12: 0x88, 13: 0xb5 })],
  ["segmentation of a fragment", changed(BASE, {}, { 20: 0x20 })],
  ["segmentation of a fragment", changed(BASE, {}, { 21: 1 })],
  ["IP length lies", changed(BASE, {}, { 17: 0 })],
  ["IP length lies", changed(V6, {}, { 19: 0 })],
  ["transport header broken", changed(BASE, {}, { 46: 0x40 })],
  ["UDP length lies", changed(UDP, {}, { 39: 0 })],
  ["checksum elsewhere than in the transport header", changed(BASE, { csumStart: 35 })],
  ["checksum elsewhere than in the transport header", changed(BASE, { csumOffset: 6 })],
  ["headers too long", frameOf({ ...SHAPE, version: 6, extensions: [{ type: 60, blocks: 16 }] })],
  ["nothing to segment", frameOf({ ...SHAPE, payloadBytes: 0 })],
];

Deno.test("each refusal has its reason", () => {
  for (const [reason, { frame, header }, offloads = EVERYTHING] of REFUSALS) {
    assertEquals(validate(frame, header, offloads), reason);
  }
  for (const { frame, header } of [BASE, V6, UDP, TAGGED, advertisement]) {
    assertEquals(validate(frame, header, EVERYTHING), undefined);
    for (const hdrLen of [0, 1, 0xffff]) assertEquals(validate(frame, { ...header, hdrLen }, EVERYTHING), undefined);
  }
});

/** Whether a finished TCP segment or UDP datagram sums up as its receiver wants it. */
function isWhole(frame: Uint8Array): boolean {
  const ip = ipOf(frame) as Ip;
  const transport = frame.subarray(ip.transportAt);
  const sum = pseudoSum(frame, ip, transport.length) + sumOf(transport);
  const isIpWhole = ip.version === 6 || sumOf(frame.subarray(ip.at, ip.transportAt)) === 0xffff;
  return isIpWhole && ip.end === frame.length && sum % 0xffff === 0;
}

/** Checks that what a receiver without offloads gets is whole, and carries what was sent. */
function checkDeliveries({ frame, header }: Sent): void {
  const frames = deliveries(frame, header, NOTHING).map((one) => one.frame);
  const payload = (one: Uint8Array) => encodeHex(one.subarray(payloadOf(one, ipOf(one) as Ip)));
  assert(frames.every(isWhole));
  assertEquals(frames.map(payload).join(""), payload(frame));
}

Deno.test("lawful frames are lawful, and what is made of them is whole", () => {
  fc.assert(fc.property(lawfulFrame({ payloadBytesMax: 5000 }), (sent) => {
    assertEquals(validate(sent.frame, sent.header, EVERYTHING), undefined);
    checkDeliveries(sent);
    assertEquals(deliveries(sent.frame, sent.header, EVERYTHING), [sent]);
  }));
  const longest = Math.max(...fc.sample(lawfulFrame(), 300).map(({ frame }) => frame.length));
  assert(longest > 65_000 && longest <= 65_557, `${longest} bytes`);
});

Deno.test("hostile frames are refused for every reason, or lawful still", () => {
  const reasons = new Set<Refusal | "none">();
  for (const { frame, header } of fc.sample(hostileFrame({ payloadBytesMax: 3000 }), { numRuns: 8000, seed: 1 })) {
    const reason = validate(frame, header, EVERYTHING);
    reasons.add(reason ?? "none");
    if (reason === undefined && header.gsoType !== GSO_NONE) checkDeliveries({ frame, header });
  }
  // What a sender has not agreed to depends on the sender.
  const others: Refusal[] = ["checksum not negotiated", "segmentation not negotiated", "ECN not negotiated"];
  const missing = REFUSALS.map(([reason]) => reason).filter((reason) =>
    !reasons.has(reason) && !others.includes(reason)
  );
  assertEquals([...new Set(missing)], []);
  assert(reasons.has("none"));
});
