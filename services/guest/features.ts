/**
 * Which virtio features the guest asks for, and what follows from those that it gets. Packed rings and IN_ORDER are the
 * best that there is, so they are asked for unless somebody has said otherwise; a back-end or a VF that has none of them
 * gets split rings.
 */
import { OFFLOAD_FEATURES } from "../../shared/engine/mod.ts";
import { VIRTIO_F_IN_ORDER, VIRTIO_F_RING_PACKED, VIRTQ_PACKED_BASE_INITIAL } from "../../shared/layout/virtio.ts";

/** Feature bit `n` as a number. */
export function featureBit(n: number): bigint {
  return 1n << BigInt(n);
}

/** Features that a plugin uses only if it says so (PC_ACCEPTED). */
const TO_BE_ACCEPTED = featureBit(VIRTIO_F_RING_PACKED) | featureBit(VIRTIO_F_IN_ORDER) | OFFLOAD_FEATURES;

/** What the guest was told of its rings. */
export interface RingWishes {
  ring: "packed" | "split";
  inOrder: boolean;
  /** Feature bits not to ask for. */
  without: readonly number[];
}

/** The features that the guest does not ask for, whoever offers them. */
export function declined({ ring, inOrder, without }: RingWishes): bigint {
  const bits = [
    ...without,
    ...(ring === "split" ? [VIRTIO_F_RING_PACKED] : []),
    ...(inOrder ? [] : [VIRTIO_F_IN_ORDER]),
  ];
  return bits.reduce((all, bit) => all | featureBit(bit), 0n);
}

/** The features that rings of a plugin have: those that were offered, but what it did not take up of the later ones. */
export function inUse(offered: bigint, accepted: bigint): bigint {
  return offered & (accepted | ~TO_BE_ACCEPTED);
}

/** Whether virtio rings with these features are packed. */
export function isPacked(features: bigint): boolean {
  return (features & featureBit(VIRTIO_F_RING_PACKED)) !== 0n;
}

/** Descriptors of a ring that is to have `wanted`: only packed rings need no power of two. */
export function ringSizeFor(wanted: number, packed: boolean): number {
  return packed ? wanted : 2 ** Math.floor(Math.log2(wanted));
}

/** Where a virtio ring begins, in the words of vhost-user and the device socket. */
export function firstBase(features: bigint): number {
  return isPacked(features) ? VIRTQ_PACKED_BASE_INITIAL : 0;
}
