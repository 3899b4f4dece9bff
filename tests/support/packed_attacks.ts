/**
 * What only packed rings can do wrong (hostile.md 9): chains that are there in part, laps that do not agree, loops
 * around the ring. A chain's later descriptors must be available when its first one is (VIRTIO 1.2 §2.8.6), so one that
 * is not breaks the protocol: a device that waited for it would wait for its guest.
 */
import {
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_PACKED_DESC_F_AVAIL,
  VIRTQ_PACKED_DESC_F_USED,
} from "../../shared/layout/virtio.ts";
import { BAD_CHAIN_LENGTH, BAD_DESCRIPTOR, BAD_INDIRECT } from "../../shared/layout/nic.ts";
import type { PackedGuest } from "./packed_guest.ts";
import { type Attacker, goodBuffer, offer, type RingAttack } from "./attack_kit.ts";

/** AVAIL and USED of a descriptor that was used in a lap. */
function usedBits(wrap: boolean): number {
  return wrap ? VIRTQ_PACKED_DESC_F_AVAIL | VIRTQ_PACKED_DESC_F_USED : 0;
}

/** Offers a chain of `length` descriptors, the one at `odd` with other bits instead of AVAIL and USED. */
function offerPartly(a: Attacker<PackedGuest>, length: number, odd: number, bits: (wrap: boolean) => number): void {
  const { ring } = a;
  const place = ring.behind(ring.next, odd);
  const flags = (i: number) => (i + 1 < length ? VIRTQ_DESC_F_NEXT : 0) | a.flags;
  ring.addRaw(Array.from({ length }, (_, i) => ({ ...goodBuffer(a), flags: flags(i) })));
  ring.writeFlags(place.index, flags(odd) | bits(place.wrap));
  ring.publish();
}

/** A chain of two or three, one of whose later descriptors the device must not take for one of them. */
function partly(
  name: string,
  bits: (ring: Attacker<PackedGuest>["ring"]) => (wrap: boolean) => number,
  [length, odd]: [number, number] = [2, 1],
): RingAttack<PackedGuest> {
  return { name, reason: BAD_DESCRIPTOR, attack: (a) => offerPartly(a, length, odd, bits(a.ring)) };
}

const notYet = () => (wrap: boolean) => usedBits(!wrap);
const usedAlready = () => (wrap: boolean) => usedBits(wrap);
const otherLap = (ring: Attacker<PackedGuest>["ring"]) => (wrap: boolean) => ring.availableBits(!wrap);

/** All descriptors of the ring, each with NEXT: the last one leads to the first. */
function loop(name: string, len: number): RingAttack<PackedGuest> {
  return {
    name,
    reason: BAD_CHAIN_LENGTH,
    attack: (a) => {
      const one = { addr: a.guest.options.iova, len, flags: VIRTQ_DESC_F_NEXT };
      offer(a, ...Array.from({ length: a.ring.size }, () => one));
    },
  };
}

/** The attacks. */
export const PACKED_ATTACKS: RingAttack<PackedGuest>[] = [
  loop("9 all descriptors chained in a loop around the ring", 16),
  loop("9 all descriptors, of no bytes each, chained in a loop around the ring", 0),
  { ...loop("9 loop around the ring from its last descriptor on", 16), beforeEnd: 1 },
  partly("9 chain whose second descriptor is not available yet", notYet),
  partly("9 chain whose last descriptor is not available yet", notYet, [3, 2]),
  partly("9 chain whose second descriptor is marked used", usedAlready),
  partly("9 chain whose second descriptor is of the other lap", otherLap),
  { ...partly("9 chain that the ring's end cuts off", notYet), beforeEnd: 1 },
  { ...partly("9 chain through the ring's end that keeps its lap", otherLap), beforeEnd: 1 },
  { ...partly("9 chain through the ring's end with one descriptor used behind it", usedAlready, [3, 2]), beforeEnd: 2 },
  {
    name: "3 indirect table behind a chained descriptor",
    reason: BAD_INDIRECT,
    attack: (a) => {
      const table = { addr: a.guest.iova(a.guest.heap + 65536), len: 16, flags: VIRTQ_DESC_F_INDIRECT };
      offer(a, { ...goodBuffer(a), flags: VIRTQ_DESC_F_NEXT }, table);
    },
  },
];
