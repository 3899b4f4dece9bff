/**
 * What a hostile guest does with its rings (hostile.md 1–8): each attack writes into a guest's memory and names the
 * reason with which its queue must stop, or the counter that must count the frame. The same attacks run against the
 * engine alone and against the whole fabric.
 */
import { VIRTQ_DESC_F_INDIRECT, VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE } from "../../shared/layout/virtio.ts";
import {
  BAD_ADDRESS,
  BAD_AVAIL_IDX,
  BAD_CHAIN_LENGTH,
  BAD_DIRECTION,
  BAD_HEAD,
  BAD_HEADER,
  BAD_INDIRECT,
  BAD_NEXT,
} from "../../shared/layout/nic.ts";
import type { CounterName } from "../../shared/layout/counter_names.ts";
import { frame, type MockGuest, writeDescriptor } from "./mock_guest.ts";

/** One attack. Either `reason` (the queue stops) or `counter` (the frame is dropped and counted). */
export interface RingAttack {
  name: string;
  reason?: number;
  counter?: CounterName;
  attack(guest: MockGuest, target: { dst: string; src: string }): void;
}

/** Offers descriptor 0 as a chain of one on the TX queue. */
function offerOne(guest: MockGuest, addr: bigint, len: number, flags = 0, next = 0): void {
  const tx = guest.tx();
  tx.writeDescriptor(0, { addr, len, flags, next });
  tx.offer(0);
  tx.publish();
}

/** A good frame at the heap; answers its IOVA and length with the header. */
function goodFrame(guest: MockGuest, target: { dst: string; src: string }, bytes = 64): { addr: bigint; len: number } {
  const len = guest.writeFrame(guest.heap, frame({ ...target, bytes }));
  return { addr: guest.iova(guest.heap), len };
}

/** Sends a frame whose virtio-net header holds `header`. */
function withHeader(...header: number[]): RingAttack["attack"] {
  return (guest, target) => {
    const len = guest.writeFrame(guest.heap, frame(target), Uint8Array.from(header));
    offerOne(guest, guest.iova(guest.heap), len);
  };
}

/** Sends raw bytes as a frame. */
function rawFrame(make: (target: { dst: string; src: string }) => Uint8Array): RingAttack["attack"] {
  return (guest, target) => {
    const len = guest.writeFrame(guest.heap, make(target));
    offerOne(guest, guest.iova(guest.heap), len);
  };
}

/** Offers an indirect table of `entries` at the heap. */
function indirect(
  guest: MockGuest,
  entries: { addr: bigint; len: number; flags?: number; next?: number }[],
  length = entries.length * 16,
  flags = VIRTQ_DESC_F_INDIRECT,
): void {
  const at = guest.heap + 65536;
  entries.forEach((entry, i) => writeDescriptor(guest.view, at + i * 16, entry));
  offerOne(guest, guest.iova(at), length, flags);
}

const memoryEnd = (guest: MockGuest) => guest.options.iova + BigInt(guest.options.bytes);

/** All ring attacks on the TX queue. */
export const RING_ATTACKS: RingAttack[] = [
  // 1. addresses
  { name: "1 buffer at address 0", reason: BAD_ADDRESS, attack: (g) => offerOne(g, 0n, 100) },
  { name: "1 buffer just below the memory", reason: BAD_ADDRESS, attack: (g) => offerOne(g, g.options.iova - 1n, 100) },
  { name: "1 buffer just behind the memory", reason: BAD_ADDRESS, attack: (g) => offerOne(g, memoryEnd(g), 100) },
  {
    name: "1 buffer that leaves the memory by a byte",
    reason: BAD_ADDRESS,
    attack: (g) => offerOne(g, memoryEnd(g) - 99n, 100),
  },
  { name: "1 buffer that wraps past 2^64", reason: BAD_ADDRESS, attack: (g) => offerOne(g, (1n << 64n) - 50n, 100) },
  { name: "1 buffer of 4 GiB - 1", reason: BAD_ADDRESS, attack: (g) => offerOne(g, g.options.iova, 0xffff_ffff) },
  { name: "1 buffer at the arena's own offsets", reason: BAD_ADDRESS, attack: (g) => offerOne(g, 0x10000n, 4096) },
  {
    name: "1 good frame whose end leaves the memory",
    reason: BAD_ADDRESS,
    attack: (g, t) => {
      const at = g.options.offset + g.options.bytes - 76;
      g.writeFrame(at, frame({ ...t, etherType: 0x1234, bytes: 64 }));
      offerOne(g, g.iova(at), 77);
    },
  },
  // 2. chains
  {
    name: "2 chain that loops onto itself",
    reason: BAD_CHAIN_LENGTH,
    attack: (g) => offerOne(g, g.options.iova, 16, VIRTQ_DESC_F_NEXT, 0),
  },
  {
    name: "2 chain of zero-length descriptors in a loop",
    reason: BAD_CHAIN_LENGTH,
    attack: (g) => {
      g.tx().writeDescriptor(1, { addr: g.options.iova, len: 0, flags: VIRTQ_DESC_F_NEXT, next: 0 });
      offerOne(g, g.options.iova, 0, VIRTQ_DESC_F_NEXT, 1);
    },
  },
  {
    name: "2 next index at the queue size",
    reason: BAD_NEXT,
    attack: (g) => offerOne(g, g.options.iova, 16, VIRTQ_DESC_F_NEXT, g.tx().size),
  },
  {
    name: "2 next index 65535",
    reason: BAD_NEXT,
    attack: (g) => offerOne(g, g.options.iova, 16, VIRTQ_DESC_F_NEXT, 65535),
  },
  {
    name: "2 head at the queue size",
    reason: BAD_HEAD,
    attack: (g) => {
      g.tx().offer(g.tx().size);
      g.tx().publish();
    },
  },
  {
    name: "2 head 65535",
    reason: BAD_HEAD,
    attack: (g) => {
      g.tx().offer(65535);
      g.tx().publish();
    },
  },
  // 3. indirect
  {
    name: "3 indirect table in an indirect table",
    reason: BAD_INDIRECT,
    attack: (g) => indirect(g, [{ addr: g.iova(g.heap), len: 16, flags: VIRTQ_DESC_F_INDIRECT }]),
  },
  {
    name: "3 INDIRECT with NEXT",
    reason: BAD_INDIRECT,
    attack: (g) => indirect(g, [{ addr: g.options.iova, len: 100 }], 16, VIRTQ_DESC_F_INDIRECT | VIRTQ_DESC_F_NEXT),
  },
  {
    name: "3 indirect table of 17 bytes",
    reason: BAD_INDIRECT,
    attack: (g) => indirect(g, [{ addr: g.options.iova, len: 100 }], 17),
  },
  { name: "3 indirect table of 0 bytes", reason: BAD_INDIRECT, attack: (g) => indirect(g, [], 0) },
  {
    name: "3 indirect table larger than the queue",
    reason: BAD_INDIRECT,
    attack: (g) => indirect(g, [{ addr: g.options.iova, len: 100 }], (g.tx().size + 1) * 16),
  },
  {
    name: "3 indirect table outside the memory",
    reason: BAD_INDIRECT,
    attack: (g) => offerOne(g, memoryEnd(g), 16, VIRTQ_DESC_F_INDIRECT),
  },
  {
    name: "3 indirect table that leaves the memory half-way",
    reason: BAD_INDIRECT,
    attack: (g) => {
      const at = g.options.offset + g.options.bytes - 16;
      writeDescriptor(g.view, at, { addr: g.options.iova, len: 16, flags: VIRTQ_DESC_F_NEXT, next: 1 });
      offerOne(g, g.iova(at), 32, VIRTQ_DESC_F_INDIRECT);
    },
  },
  {
    name: "3 next index beyond the indirect table",
    reason: BAD_NEXT,
    attack: (g) => indirect(g, [{ addr: g.options.iova, len: 16, flags: VIRTQ_DESC_F_NEXT, next: 1 }]),
  },
  {
    name: "3 loop in the indirect table",
    reason: BAD_CHAIN_LENGTH,
    attack: (g) => indirect(g, [{ addr: g.options.iova, len: 16, flags: VIRTQ_DESC_F_NEXT, next: 0 }]),
  },
  // 4. direction
  {
    name: "4 device-writable buffer in TX",
    reason: BAD_DIRECTION,
    attack: (g, t) => {
      const { addr, len } = goodFrame(g, t);
      offerOne(g, addr, len, VIRTQ_DESC_F_WRITE);
    },
  },
  {
    name: "4 chain whose second buffer is device-writable",
    reason: BAD_DIRECTION,
    attack: (g, t) => {
      const { addr, len } = goodFrame(g, t);
      g.tx().writeDescriptor(1, { addr, len, flags: VIRTQ_DESC_F_WRITE });
      offerOne(g, addr, len, VIRTQ_DESC_F_NEXT, 1);
    },
  },
  // 5. indices
  {
    name: "5 avail index jumps by the queue size + 1",
    reason: BAD_AVAIL_IDX,
    attack: (g) => g.tx().publish(g.tx().availIdx + g.tx().size + 1),
  },
  {
    name: "5 avail index goes backwards",
    reason: BAD_AVAIL_IDX,
    attack: (g) => g.tx().publish((g.tx().availIdx - 1) & 0xffff),
  },
  // 6. the virtio-net header
  {
    name: "6 chain shorter than the header",
    reason: BAD_HEADER,
    attack: (g) => offerOne(g, g.iova(g.heap), 11),
  },
  { name: "6 empty buffer", reason: BAD_HEADER, attack: (g) => offerOne(g, g.iova(g.heap), 0) },
  {
    name: "6 NEEDS_CSUM with csum_start beyond the frame",
    counter: "tx_bad_offload",
    attack: withHeader(1, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff),
  },
  { name: "6 gso without gso_size", counter: "tx_bad_offload", attack: withHeader(1, 1, 54, 0, 0, 0, 34, 0, 16, 0) },
  {
    name: "6 gso with a lying hdr_len",
    counter: "tx_bad_offload",
    attack: withHeader(1, 4, 0xff, 0xff, 0xff, 0xff, 34, 0, 16, 0),
  },
  { name: "6 unknown gso type", counter: "tx_bad_offload", attack: withHeader(0, 0x7f) },
  // 8. frames
  { name: "8 frame of 0 bytes", counter: "tx_runt", attack: rawFrame(() => new Uint8Array()) },
  { name: "8 frame of 13 bytes", counter: "tx_runt", attack: rawFrame((t) => frame(t).slice(0, 13)) },
  {
    name: "8 tag cut off after the TPID",
    counter: "tx_runt",
    attack: rawFrame((t) => frame({ ...t, tags: [{ vid: 1 }] }).slice(0, 14)),
  },
  {
    name: "8 tag without an EtherType behind it",
    counter: "tx_runt",
    attack: rawFrame((t) => frame({ ...t, tags: [{ vid: 1 }] }).slice(0, 17)),
  },
  {
    name: "8 frame of 64 KiB + 1",
    counter: "tx_oversize",
    attack: (g, t) => {
      const { addr } = goodFrame(g, t);
      offerOne(g, addr, g.options.hdrBytes + 65537);
    },
  },
  {
    name: "8 multicast source",
    counter: "tx_bad_source",
    attack: rawFrame((t) => frame({ ...t, src: "01:00:5e:00:00:01" })),
  },
  {
    name: "8 all-zero source",
    counter: "tx_bad_source",
    attack: rawFrame((t) => frame({ ...t, src: "00:00:00:00:00:00" })),
  },
  {
    name: "8 stacked tags without a trunk",
    counter: "tx_vlan_denied",
    attack: rawFrame((t) => frame({ ...t, tags: [{ vid: 1 }, { vid: 2 }] })),
  },
];
