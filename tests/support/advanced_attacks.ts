/**
 * What a hostile guest does with its advanced rings (hostile.md 1–8 in the words of this flavour): each attack writes
 * into a guest's memory or registers and names the reason with which its queue must stop, or the counter that must count
 * the frame. The same attacks run against the engine alone and against the whole fabric.
 */
import {
  ADV_TXD_DCMD_DEXT,
  ADV_TXD_DCMD_EOP,
  ADV_TXD_DCMD_RS,
  ADV_TXD_DCMD_TSE,
  ADV_TXD_DCMD_VLE,
  ADV_TXD_DTYP_CTXT,
} from "../../shared/layout/advanced.ts";
import { BAD_ADDRESS, BAD_CHAIN_LENGTH, BAD_DESCRIPTOR, BAD_TAIL } from "../../shared/layout/nic.ts";
import type { CounterName } from "../../shared/layout/counter_names.ts";
import { type AdvancedGuest, txMeta } from "./advanced_guest.ts";
import { frame } from "./mock_guest.ts";

/** One attack. Either `reason` (the queue stops) or `counter` (the frame is dropped and counted). */
export interface AdvancedAttack {
  name: string;
  reason?: number;
  counter?: CounterName;
  attack(guest: AdvancedGuest, target: { dst: string; src: string }): void;
}

/** Offers one descriptor. */
function offer(guest: AdvancedGuest, address: bigint, meta: bigint): void {
  guest.tx().add(address, meta);
  guest.tx().doorbell();
}

/** Offers the bytes of a frame. */
function raw(make: (target: { dst: string; src: string }) => Uint8Array, flags = 0): AdvancedAttack["attack"] {
  return (guest, target) => {
    const length = guest.writeFrame(guest.heap, make(target));
    offer(guest, guest.iova(guest.heap), txMeta(length, ADV_TXD_DCMD_EOP | ADV_TXD_DCMD_RS | flags));
  };
}

const end = (guest: AdvancedGuest) => guest.options.iova + BigInt(guest.options.bytes);

/** All attacks on the transmit ring. */
export const ADVANCED_ATTACKS: AdvancedAttack[] = [
  // 1. addresses
  { name: "1 buffer at address 0", reason: BAD_ADDRESS, attack: (g) => offer(g, 0n, txMeta(100)) },
  {
    name: "1 buffer just below the memory",
    reason: BAD_ADDRESS,
    attack: (g) => offer(g, g.options.iova - 1n, txMeta(100)),
  },
  { name: "1 buffer just behind the memory", reason: BAD_ADDRESS, attack: (g) => offer(g, end(g), txMeta(100)) },
  {
    name: "1 buffer that leaves the memory by a byte",
    reason: BAD_ADDRESS,
    attack: (g) => offer(g, end(g) - 99n, txMeta(100)),
  },
  {
    name: "1 buffer that wraps past 2^64",
    reason: BAD_ADDRESS,
    attack: (g) => offer(g, (1n << 64n) - 50n, txMeta(100)),
  },
  { name: "1 buffer at the arena's own offsets", reason: BAD_ADDRESS, attack: (g) => offer(g, 0x10000n, txMeta(4096)) },
  {
    name: "1 good frame whose end leaves the memory",
    reason: BAD_ADDRESS,
    attack: (g, t) => {
      const at = g.options.offset + g.options.bytes - 64;
      g.writeFrame(at, frame({ ...t, etherType: 0x1234, bytes: 64 }));
      offer(g, g.iova(at), txMeta(65));
    },
  },
  // 2. chains
  {
    name: "2 frame without an end",
    reason: BAD_DESCRIPTOR,
    attack: (g) => offer(g, g.iova(g.heap), txMeta(100, 0)),
  },
  {
    name: "2 frame of 41 descriptors",
    reason: BAD_CHAIN_LENGTH,
    attack: (g) => {
      for (let i = 0; i < 41; i++) g.tx().add(g.iova(g.heap), txMeta(10, i === 40 ? ADV_TXD_DCMD_EOP : 0));
      g.tx().doorbell();
    },
  },
  {
    name: "2 context descriptors without end",
    reason: BAD_CHAIN_LENGTH,
    attack: (g) => {
      for (let i = 0; i < 50; i++) g.tx().add(0n, BigInt((ADV_TXD_DTYP_CTXT | ADV_TXD_DCMD_DEXT) >>> 0));
      g.tx().doorbell();
    },
  },
  {
    name: "2 context descriptor amid a frame",
    reason: BAD_DESCRIPTOR,
    attack: (g) => {
      g.tx().add(g.iova(g.heap), txMeta(50, 0));
      g.tx().add(0n, BigInt((ADV_TXD_DTYP_CTXT | ADV_TXD_DCMD_DEXT) >>> 0));
      g.tx().add(g.iova(g.heap), txMeta(50));
      g.tx().doorbell();
    },
  },
  {
    name: "2 descriptor that is not an extended one",
    reason: BAD_DESCRIPTOR,
    attack: (g) => offer(g, g.iova(g.heap), 100n),
  },
  {
    name: "2 descriptor of a type that does not exist",
    reason: BAD_DESCRIPTOR,
    attack: (g) => offer(g, g.iova(g.heap), BigInt((0x00f00000 | ADV_TXD_DCMD_DEXT | ADV_TXD_DCMD_EOP | 64) >>> 0)),
  },
  // 5. doorbells
  { name: "5 doorbell at the ring's size", reason: BAD_TAIL, attack: (g) => g.tx().doorbell(g.tx().size) },
  { name: "5 doorbell at 2^32 - 1", reason: BAD_TAIL, attack: (g) => g.tx().doorbell(0xffff_ffff) },
  {
    name: "5 doorbell goes backwards, over descriptors that were never written",
    reason: BAD_DESCRIPTOR,
    attack: (g) => {
      for (let i = 0; i < g.tx().size; i++) g.tx().write(i, 0n, 0n);
      g.tx().doorbell((g.tx().head + g.tx().size - 1) % g.tx().size);
    },
  },
  // 6. offloads that no context describes
  { name: "6 segmentation", counter: "tx_bad_offload", attack: raw((t) => frame(t), ADV_TXD_DCMD_TSE) },
  { name: "6 VLAN insertion", counter: "tx_bad_offload", attack: raw((t) => frame(t), ADV_TXD_DCMD_VLE) },
  {
    name: "6 checksums",
    counter: "tx_bad_offload",
    attack: (g, t) => {
      const length = g.writeFrame(g.heap, frame(t));
      offer(g, g.iova(g.heap), txMeta(length) | 0x300n << 32n);
    },
  },
  // 8. frames
  { name: "8 frame of 0 bytes", counter: "tx_runt", attack: raw(() => new Uint8Array()) },
  { name: "8 frame of 13 bytes", counter: "tx_runt", attack: raw((t) => frame(t).slice(0, 13)) },
  {
    name: "8 tag cut off after the TPID",
    counter: "tx_runt",
    attack: raw((t) => frame({ ...t, tags: [{ vid: 1 }] }).slice(0, 14)),
  },
  {
    name: "8 frame of more than 64 KiB",
    counter: "tx_oversize",
    attack: (g, t) => {
      g.writeFrame(g.heap, frame(t));
      for (let i = 0; i < 2; i++) {
        g.tx().add(g.iova(g.heap), txMeta(40_000, i === 1 ? ADV_TXD_DCMD_EOP | ADV_TXD_DCMD_RS : 0));
      }
      g.tx().doorbell();
    },
  },
  {
    name: "8 multicast source",
    counter: "tx_bad_source",
    attack: raw((t) => frame({ ...t, src: "01:00:5e:00:00:01" })),
  },
  {
    name: "8 all-zero source",
    counter: "tx_bad_source",
    attack: raw((t) => frame({ ...t, src: "00:00:00:00:00:00" })),
  },
  {
    name: "8 stacked tags without a trunk",
    counter: "tx_vlan_denied",
    attack: raw((t) => frame({ ...t, tags: [{ vid: 1 }, { vid: 2 }] })),
  },
  {
    name: "19 source of somebody else",
    counter: "tx_spoofed",
    attack: raw((t) => frame({ ...t, src: "02:de:ad:be:ef:00" })),
  },
];
