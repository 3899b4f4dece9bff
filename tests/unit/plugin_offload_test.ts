/**
 * Offloads through the plugins: the headers before frames that are sent reach the device, in its own words; and what the
 * device says of frames that it delivers reaches the shell. Only if the plugin has accepted it.
 */
import fc from "fast-check";
import { assertEquals } from "@std/assert";
import * as A from "../../shared/layout/advanced.ts";
import * as P from "../../shared/layout/plugin.ts";
import * as V from "../../shared/layout/virtio.ts";
import { OFFLOAD_FEATURES } from "../../shared/engine/offloads.ts";
import { Random } from "../fuzz/random.ts";
import { AdvancedPluginRig } from "../support/advanced_plugin_rig.ts";
import { MockNet } from "../support/mock_net.ts";
import { lawfulFrame, type Sent } from "../support/offload_frames.ts";
import { headerBytes } from "../support/offload_world.ts";
import { featureSets, join, PLAIN, PluginRig } from "../support/plugin_rig.ts";
import { meaning } from "../support/reference_context.ts";
import { GSO_ECN, GSO_NONE } from "../support/reference_offload.ts";
import { type Ip, ipOf, payloadOf, PROTOCOL_TCP, viewOf } from "../support/reference_packet.ts";

const bits = (...positions: number[]) => positions.reduce((all, bit) => all | 1n << BigInt(bit), 0n);
/** What a device of the NIC's advanced rings can be asked for, and says. */
const ADVANCED = bits(
  ...[V.VIRTIO_NET_F_CSUM, V.VIRTIO_NET_F_GUEST_CSUM, V.VIRTIO_NET_F_HOST_ECN, V.VIRTIO_NET_F_HOST_USO],
  ...[V.VIRTIO_NET_F_HOST_TSO4, V.VIRTIO_NET_F_HOST_TSO6],
);
const LARGE = bits(
  ...[V.VIRTIO_NET_F_GUEST_TSO4, V.VIRTIO_NET_F_GUEST_TSO6, V.VIRTIO_NET_F_GUEST_ECN],
  ...[V.VIRTIO_NET_F_GUEST_USO4, V.VIRTIO_NET_F_GUEST_USO6],
);
const SEED = 20_261_126;
const CWR = 0x80;

/** A frame in pieces that fit into buffers: the first one has all headers. */
function pieces(frame: Uint8Array): Uint8Array[] {
  const first = frame.subarray(0, P.PLUGIN_BUFFER_BYTES - P.TX_HEADROOM);
  const rest = Math.ceil((frame.length - first.length) / P.PLUGIN_BUFFER_BYTES);
  return [
    first,
    ...Array.from(
      { length: rest },
      (_, i) =>
        frame.subarray(first.length + i * P.PLUGIN_BUFFER_BYTES, first.length + (i + 1) * P.PLUGIN_BUFFER_BYTES),
    ),
  ];
}

for (const [set, features] of featureSets()) {
  Deno.test(`virtio plugin, ${set}: headers reach the device as they are, and the others are zero`, () => {
    const on = { ...features, offloads: true };
    const rig = new PluginRig(on, 64);
    assertEquals(rig.accepted & OFFLOAD_FEATURES, features.mergeable ? OFFLOAD_FEATURES : OFFLOAD_FEATURES & ~LARGE);
    const net = new MockNet(rig, on, new Random(SEED));
    const asks = headerBytes({ flags: 1, gsoType: 5, hdrLen: 42, gsoSize: 1000, csumStart: 34, csumOffset: 6 });
    const frames = [60, 1500, 30_000, 60].map((length) => new Uint8Array(length).fill(length & 0xff));
    const headers = [asks, undefined, asks, undefined];
    assertEquals(rig.send(frames.map(pieces), 0, headers), 4);
    net.fetch();
    net.transmit(Infinity);
    assertEquals(net.arrived.map(({ length }) => length), frames.map(({ length }) => length));
    assertEquals(net.headers, headers.map((header) => header ?? new Uint8Array(12)));
  });
}

/** Headers of the device, and what the shell is to hear. */
const HEARD: [flags: number, gsoType: number, says: number][] = [
  [0, 0, 0],
  [2, 0, P.ENTRY_CSUM_VALID],
  [1, 0, P.ENTRY_NET_HDR],
  [1, 1, P.ENTRY_NET_HDR],
  [3, 5, P.ENTRY_NET_HDR],
  [0, 4, P.ENTRY_NET_HDR],
];

for (const [set, features] of featureSets()) {
  Deno.test(`virtio plugin, ${set}: the shell hears what is left to be done, and that a checksum is good`, () => {
    for (const offloads of [true, false]) {
      const on = { ...features, offloads };
      const rig = new PluginRig(on, 64);
      const net = new MockNet(rig, on, new Random(SEED));
      rig.post(64);
      net.fetch();
      for (const [flags, gsoType, says] of HEARD) {
        for (const length of features.mergeable ? [100, 5000] : [100]) {
          const header = headerBytes({ flags, gsoType, hdrLen: 54, gsoSize: 1448, csumStart: 34, csumOffset: 16 });
          const frame = new Uint8Array(length).fill(length & 0xff);
          net.deliver(frame, header.slice(0, 10));
          net.completeRx(Infinity);
          const entries = rig.entries(P.LIST_MAX);
          const [first] = entries;
          assertEquals(entries.map((entry) => entry.says), entries.map((_, i) => offloads && i === 0 ? says : 0));
          const at = rig.bufferAt(first?.buffer ?? 0) + (first?.offset ?? 0);
          if (first?.says === P.ENTRY_NET_HDR) assertEquals(rig.bytes.slice(at - 12, at - 2), header.slice(0, 10));
        }
      }
    }
  });
}

Deno.test("virtio plugin: what comes of a header that is not whole says nothing, and one of 10 bytes has no offloads", () => {
  const old = new PluginRig({ ...PLAIN, modern: false, offloads: true }, 64);
  assertEquals([old.hdrBytes, old.accepted & OFFLOAD_FEATURES], [10, 0n]);
  for (const mergeable of [true, false]) {
    const rig = new PluginRig({ ...PLAIN, mergeable, offloads: true }, 64);
    rig.post(1);
    const chain = rig.rings[0]?.take();
    if (!chain) throw new Error("no buffer");
    rig.bytes.fill(1, chain.segments[0]?.at, (chain.segments[0]?.at ?? 0) + 10);
    rig.view.setUint16((chain.segments[0]?.at ?? 0) + 10, 1, true);
    rig.rings[0]?.use([{ chain, written: 5 }], false);
    assertEquals(rig.entries(1).map(({ length, says }) => [length, says]), [[0, 0]]);
  }
});

/** What an advanced device understands: ECN is marked by the TCP header, and no hint comes with it. */
function understood({ frame, header }: Sent): Sent {
  const ip = ipOf(frame) as Ip;
  const isCut = header.gsoType !== GSO_NONE;
  const hasCwr = ip.protocol === PROTOCOL_TCP && (viewOf(frame).getUint8(ip.transportAt + 13) & CWR) !== 0;
  const gsoType = isCut ? (header.gsoType & ~GSO_ECN) | (hasCwr ? GSO_ECN : 0) : GSO_NONE;
  return { frame, header: { ...header, hdrLen: 0, gsoType, gsoSize: isCut ? header.gsoSize : 0 } };
}

Deno.test("advanced plugin: what is left to the device is put into contexts, each written when it changes", () => {
  const few = fc.array(lawfulFrame({ payloadBytesMax: 20_000 }), { minLength: 1, maxLength: 8 });
  fc.assert(
    fc.property(few, fc.array(fc.boolean(), { minLength: 8, maxLength: 8 }), (all, asks) => {
      const rig = new AdvancedPluginRig(OFFLOAD_FEATURES, 64);
      assertEquals(rig.accepted, ADVANCED);
      let back = 0;
      for (const [i, sent] of all.entries()) {
        const ip = ipOf(sent.frame) as Ip;
        const header = { ...sent.header, hdrLen: payloadOf(sent.frame, ip) as number };
        // Sent twice: the second time its context is there.
        for (const round of [0, 1]) {
          const before = rig.contexts;
          rig.send(pieces(sent.frame.slice()), asks[i] ? headerBytes(header) : undefined);
          const [arrived] = rig.transmitted();
          back += rig.takeBack();
          if (!arrived) throw new Error("nothing arrived");
          const wanted = asks[i] ? understood(sent) : { frame: sent.frame, header: { ...NO_HEADER } };
          const found = meaning(arrived);
          assertEquals(found?.frame, wanted.frame);
          assertEquals(found?.header, wanted.header);
          if (round === 1) assertEquals(rig.contexts, before, "a context is not written again");
        }
      }
      assertEquals(back, rig.sent, "every buffer comes back once, and contexts have none");
    }),
    { numRuns: 60 },
  );
});

const NO_HEADER = { flags: 0, gsoType: GSO_NONE, hdrLen: 0, gsoSize: 0, csumStart: 0, csumOffset: 0 };

Deno.test("advanced plugin: a frame and its context go in together or not at all, and a frame is changed once", () => {
  const rig = new AdvancedPluginRig(OFFLOAD_FEATURES, 8);
  const [sent] = fc.sample(
    lawfulFrame({ payloadBytesMax: 3000 }).filter(({ frame, header }) =>
      header.gsoType !== GSO_NONE && frame.length > 2000 && frame.length < 3500
    ),
    { numRuns: 1, seed: SEED },
  );
  if (!sent) throw new Error("no frame");
  const hdrLen = payloadOf(sent.frame, ipOf(sent.frame) as Ip) as number;
  // Seven places: three frames of two descriptors and one context.
  const header = headerBytes({ ...sent.header, hdrLen });
  assertEquals([1, 2, 3].map(() => rig.send(pieces(sent.frame.slice()), header)), [2, 2, 2]);
  const late = rig.list(pieces(sent.frame.slice()), header);
  assertEquals([rig.offer(late), rig.offer(late)], [0, 0], "there is no room");
  assertEquals(rig.transmitted().length, 3);
  rig.takeBack();
  assertEquals(rig.offer(late), 2);
  assertEquals(rig.transmitted().map((arrived) => meaning(arrived)?.frame), [sent.frame]);
});

Deno.test("advanced plugin: a checksum is good if the device has looked at it and found no error, and somebody asks", () => {
  for (const features of [OFFLOAD_FEATURES, 0n]) {
    for (const headerRoom of [0, 128]) {
      const rig = new AdvancedPluginRig(features, 16, headerRoom);
      rig.post();
      const cases: [status: number, isGood: boolean][] = [
        [0, false],
        [A.ADV_RXD_STAT_L4I, true],
        [A.ADV_RXD_STAT_L4I | A.ADV_RXD_STAT_IPCS, true],
        [A.ADV_RXD_STAT_L4I | A.ADV_RXD_ERR_L4E, false],
        [A.ADV_RXD_STAT_IPCS, false],
      ];
      for (const [status, isGood] of cases) {
        rig.arrives(new Uint8Array(3000).fill(7), status);
        const { bytes, says } = rig.receive();
        const heard = isGood && features !== 0n ? P.ENTRY_CSUM_VALID : 0;
        assertEquals([join(bytes).length, ...says], [3000, heard, ...says.slice(1).map(() => 0)]);
      }
    }
  }
});
