/**
 * Which virtio features the guest asks for, and what follows from those that it gets. Packed rings, IN_ORDER and offloads
 * are the best that there is, so they are asked for unless somebody has said otherwise; a back-end or a VF that has none
 * of them gets split rings and finished frames.
 */
import { OFFLOAD_FEATURES, offloadsOf } from "../../shared/engine/mod.ts";
import { OFFLOAD_F_CSUM, OFFLOAD_F_TSO4, OFFLOAD_F_USO4 } from "../../shared/layout/nic.ts";
import type { GuestOffload } from "../../shared/api/mod.ts";
import {
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_RING_PACKED,
  VIRTIO_NET_F_CSUM,
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_ECN,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_GUEST_TSO6,
  VIRTIO_NET_F_GUEST_USO4,
  VIRTIO_NET_F_GUEST_USO6,
  VIRTIO_NET_F_HOST_USO,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTQ_PACKED_BASE_INITIAL,
} from "../../shared/layout/virtio.ts";

/** What comes in several segments together, each by the feature that accepts it. */
const LARGE = [
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_GUEST_TSO6,
  VIRTIO_NET_F_GUEST_ECN,
  VIRTIO_NET_F_GUEST_USO4,
  VIRTIO_NET_F_GUEST_USO6,
];
/** The offloads that the host uses. It sends no TCP. */
const USED = [VIRTIO_NET_F_CSUM, VIRTIO_NET_F_HOST_USO, VIRTIO_NET_F_GUEST_CSUM, ...LARGE];
/** A frame of 64 KiB takes 33 buffers, and a context: in smaller rings there is no room for one. */
const LARGE_RING_SIZE_MIN = 64;

/** Feature bit `n` as a number. */
export function featureBit(n: number): bigint {
  return 1n << BigInt(n);
}

function featureBits(bits: readonly number[]): bigint {
  return bits.reduce((all, bit) => all | featureBit(bit), 0n);
}

/** The features of the offloads that the host uses. */
export const USED_OFFLOADS = featureBits(USED);

/** Features that a plugin uses only if it says so (PC_ACCEPTED). */
const TO_BE_ACCEPTED = featureBit(VIRTIO_F_RING_PACKED) | featureBit(VIRTIO_F_IN_ORDER) | OFFLOAD_FEATURES;

/** What the guest was told of its rings. */
export interface RingWishes {
  ring: "packed" | "split";
  inOrder: boolean;
  /** Offloads not to use: see services/guest/main.ts. */
  txChecksum: boolean;
  txSegmentation: boolean;
  rxChecksum: boolean;
  rxLarge: boolean;
  /** Descriptors of a ring. */
  ringSize: number;
  /** Feature bits not to ask for. */
  without: readonly number[];
}

/** The features that the guest does not ask for, whoever offers them. */
export function declined(wishes: RingWishes): bigint {
  const { ring, inOrder, without, txChecksum, txSegmentation, rxChecksum, rxLarge, ringSize } = wishes;
  const isSmall = ringSize < LARGE_RING_SIZE_MIN;
  const bits = featureBits([
    ...without,
    ...(ring === "split" ? [VIRTIO_F_RING_PACKED] : []),
    ...(inOrder ? [] : [VIRTIO_F_IN_ORDER]),
    ...(txChecksum ? [] : [VIRTIO_NET_F_CSUM]),
    ...(txSegmentation && !isSmall ? [] : [VIRTIO_NET_F_HOST_USO]),
    ...(rxChecksum ? [] : [VIRTIO_NET_F_GUEST_CSUM]),
    ...(rxLarge && !isSmall ? [] : LARGE),
  ]);
  return bits | (OFFLOAD_FEATURES & ~USED_OFFLOADS);
}

/**
 * Those of `features` that go together (virtio 1.2 §5.1.3.1): segmentation needs checksums, and a frame that is longer
 * than a buffer has to come in several.
 */
export function coherent(features: bigint): bigint {
  const has = (bit: number) => (features & featureBit(bit)) !== 0n;
  const large = has(VIRTIO_NET_F_GUEST_CSUM) && has(VIRTIO_NET_F_MRG_RXBUF);
  return features & ~(large ? 0n : featureBits(LARGE)) &
    ~(has(VIRTIO_NET_F_CSUM) ? 0n : featureBit(VIRTIO_NET_F_HOST_USO));
}

/** What a data path with these features does for the host, and what it leaves to it, as OFFLOAD_F_*. */
export function pathOffloads(features: bigint): { tx: number; rx: number } {
  return { tx: offloadsOf(features, 1), rx: offloadsOf(features, 0) };
}

/** The names of what a data path does and leaves. */
export function offloadNames({ tx, rx }: { tx: number; rx: number }): GuestOffload[] {
  const names: [on: number, name: GuestOffload][] = [
    [tx & OFFLOAD_F_CSUM, "tx-checksum"],
    [tx & OFFLOAD_F_USO4, "tx-segmentation"],
    [rx & OFFLOAD_F_CSUM, "rx-checksum"],
    [rx & (OFFLOAD_F_TSO4 | OFFLOAD_F_USO4), "rx-large"],
  ];
  return names.filter(([on]) => on !== 0).map(([, name]) => name);
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
