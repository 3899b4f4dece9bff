/**
 * What a hostile guest does with its virtqueues (hostile.md 1–6, 8, 9), as one table over the formats: each attack
 * writes into a guest's memory and names the reason with which its queue must stop, or the counter that must count the
 * frame. The same attacks run on transmit and on receive rings, against the engine alone and against the whole fabric.
 */
import { VIRTQ_DESC_F_INDIRECT, VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE } from "../../shared/layout/virtio.ts";
import { BAD_ADDRESS, BAD_CHAIN_LENGTH, BAD_DIRECTION, BAD_HEADER, BAD_INDIRECT } from "../../shared/layout/nic.ts";
import {
  type Attacker,
  goodBuffer,
  offer,
  offerTable,
  type RingAttack,
  type Side,
  type Target,
  writeEntry,
} from "./attack_kit.ts";
import { frame, MockGuest } from "./mock_guest.ts";
import { PACKED_ATTACKS } from "./packed_attacks.ts";
import type { PackedGuest } from "./packed_guest.ts";
import { SPLIT_ATTACKS } from "./split_attacks.ts";

/** Sends a frame whose virtio-net header holds `header`. */
function withHeader(...header: number[]): RingAttack["attack"] {
  return (a) => {
    const len = a.guest.writeFrame(a.guest.heap, frame(a.target), Uint8Array.from(header));
    offer(a, { addr: a.guest.iova(a.guest.heap), len });
  };
}

/** Sends raw bytes as a frame. */
function rawFrame(make: (target: Target) => Uint8Array): RingAttack["attack"] {
  return (a) => {
    const len = a.guest.writeFrame(a.guest.heap, make(a.target));
    offer(a, { addr: a.guest.iova(a.guest.heap), len });
  };
}

/** Offers one buffer at an address that the guest has not got. */
function at(name: string, address: (a: Attacker) => bigint, len: number): RingAttack {
  return { name, reason: BAD_ADDRESS, attack: (a) => offer(a, { addr: address(a), len }) };
}

const memoryEnd = ({ guest: { options } }: Attacker) => options.iova + BigInt(options.bytes);
/** A chain of so many entries of an indirect table, of a byte each. */
const tableChain = (a: Attacker, count: number) =>
  Array.from({ length: count }, (_, i) => ({
    ...someBuffer(a, 1),
    flags: a.guest instanceof MockGuest && i < count - 1 ? VIRTQ_DESC_F_NEXT : 0,
    next: i + 1,
  }));
const someBuffer = ({ guest }: Attacker, len = 100) => ({ addr: guest.options.iova, len });

/** What every format can do wrong. */
const COMMON_ATTACKS: RingAttack[] = [
  // 1. addresses
  at("1 buffer at address 0", () => 0n, 100),
  at("1 buffer just below the memory", (a) => a.guest.options.iova - 1n, 100),
  at("1 buffer just behind the memory", memoryEnd, 100),
  { ...at("1 buffer that leaves the memory by a byte", (a) => memoryEnd(a) - 99n, 100), mayReceive: true },
  at("1 buffer that wraps past 2^64", () => (1n << 64n) - 50n, 100),
  { ...at("1 buffer of 4 GiB - 1", (a) => a.guest.iova(a.guest.heap), 0xffff_ffff), mayReceive: true },
  at("1 buffer at the arena's own offsets", () => 0x10000n, 4096),
  {
    name: "1 good frame whose end leaves the memory",
    reason: BAD_ADDRESS,
    mayReceive: true,
    attack: (a) => {
      const begin = a.guest.options.offset + a.guest.options.bytes - 76;
      a.guest.writeFrame(begin, frame({ ...a.target, etherType: 0x1234, bytes: 64 }));
      offer(a, { addr: a.guest.iova(begin), len: 77 });
    },
  },
  {
    name: "1 chain whose second buffer is at address 0",
    reason: BAD_ADDRESS,
    attack: (a) => offer(a, { ...someBuffer(a), flags: VIRTQ_DESC_F_NEXT }, { addr: 0n, len: 100 }),
  },
  {
    name: "1 indirect table whose second buffer is behind the memory",
    reason: BAD_ADDRESS,
    attack: (a) =>
      offerTable(a, [
        { ...someBuffer(a), flags: a.guest instanceof MockGuest ? VIRTQ_DESC_F_NEXT : 0, next: 1 },
        { addr: memoryEnd(a), len: 1 },
      ]),
  },
  // 3. indirect
  {
    name: "3 INDIRECT with NEXT",
    reason: BAD_INDIRECT,
    attack: (a) => offerTable(a, [someBuffer(a)], 16, VIRTQ_DESC_F_INDIRECT | VIRTQ_DESC_F_NEXT),
  },
  { name: "3 indirect table of 17 bytes", reason: BAD_INDIRECT, attack: (a) => offerTable(a, [someBuffer(a)], 17) },
  { name: "3 indirect table of 0 bytes", reason: BAD_INDIRECT, attack: (a) => offerTable(a, [], 0) },
  {
    name: "3 chain in an indirect table longer than the queue",
    reason: BAD_CHAIN_LENGTH,
    attack: (a) => offerTable(a, tableChain(a, a.ring.size + 1)),
  },
  {
    name: "3 chain in an indirect table of 4 GiB - 16",
    reason: BAD_CHAIN_LENGTH,
    attack: (a) => offerTable(a, tableChain(a, a.ring.size + 1), 0xffff_fff0),
  },
  {
    name: "3 indirect table outside the memory",
    reason: BAD_INDIRECT,
    attack: (a) => offer(a, { addr: memoryEnd(a), len: 16, flags: VIRTQ_DESC_F_INDIRECT }),
  },
  {
    name: "3 indirect table that leaves the memory half-way",
    reason: BAD_INDIRECT,
    attack: (a) => {
      const begin = a.guest.options.offset + a.guest.options.bytes - 16;
      const next = a.guest instanceof MockGuest ? VIRTQ_DESC_F_NEXT : 0;
      writeEntry(a.guest, begin, { ...someBuffer(a, 16), flags: next ^ a.flags, next: 1 });
      offer(a, { addr: a.guest.iova(begin), len: 32, flags: VIRTQ_DESC_F_INDIRECT });
    },
  },
  // 4. direction: NEXT and INDIRECT as they are to be, WRITE as it is not
  {
    name: "4 buffer of the wrong direction",
    reason: BAD_DIRECTION,
    attack: (a) => offer(a, { ...goodBuffer(a), flags: VIRTQ_DESC_F_WRITE }),
  },
  {
    name: "4 chain whose second buffer has the wrong direction",
    reason: BAD_DIRECTION,
    attack: (a) =>
      offer(a, { ...goodBuffer(a), flags: VIRTQ_DESC_F_NEXT }, { ...goodBuffer(a), flags: VIRTQ_DESC_F_WRITE }),
  },
  {
    name: "4 indirect buffer of the wrong direction",
    reason: BAD_DIRECTION,
    attack: (a) => offerTable(a, [{ ...goodBuffer(a), flags: VIRTQ_DESC_F_WRITE }]),
  },
  // 6. the virtio-net header
  ...([
    { name: "6 chain shorter than the header", reason: BAD_HEADER, attack: (a) => offer(a, someBuffer(a, 11)) },
    { name: "6 empty buffer", reason: BAD_HEADER, attack: (a) => offer(a, someBuffer(a, 0)) },
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
      attack: (a) => offer(a, { ...goodBuffer(a), len: a.guest.options.hdrBytes + 65537 }),
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
  ] satisfies RingAttack[]).map((one): RingAttack => ({ ...one, sides: ["tx"] })),
];

/** Attacks with a guest's first ring of a side. */
export function attack(
  { attack }: RingAttack,
  guest: MockGuest | PackedGuest,
  side: Side,
  target: Target,
): void {
  const ring = side === "tx" ? guest.tx() : guest.rx();
  attack({ guest, ring, flags: side === "rx" ? VIRTQ_DESC_F_WRITE : 0, target });
}

/** The attacks that a guest's format has, on one side. */
export function ringAttacks(guest: "split" | "packed", side: Side): RingAttack[] {
  const own = guest === "split" ? SPLIT_ATTACKS : PACKED_ATTACKS;
  // Whoever runs an attack has a guest of its format.
  return [...COMMON_ATTACKS, ...own as unknown as RingAttack[]].filter(({ sides }) => sides?.includes(side) ?? true);
}
