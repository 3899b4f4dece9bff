/** Offloads of a virtqueue: what follows from its virtio features (virtio 1.2 §5.1.3), as bits that the engine reads. */
import * as L from "../layout/nic.ts";
import {
  VIRTIO_NET_F_CSUM,
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_ECN,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_GUEST_TSO6,
  VIRTIO_NET_F_GUEST_USO4,
  VIRTIO_NET_F_GUEST_USO6,
  VIRTIO_NET_F_HOST_ECN,
  VIRTIO_NET_F_HOST_TSO4,
  VIRTIO_NET_F_HOST_TSO6,
  VIRTIO_NET_F_HOST_USO,
} from "../layout/virtio.ts";

/** What a driver may ask its device to finish, by feature. */
const SENDS: readonly [bit: number, offloads: number][] = [
  [VIRTIO_NET_F_CSUM, L.OFFLOAD_F_CSUM],
  [VIRTIO_NET_F_HOST_TSO4, L.OFFLOAD_F_TSO4],
  [VIRTIO_NET_F_HOST_TSO6, L.OFFLOAD_F_TSO6],
  [VIRTIO_NET_F_HOST_ECN, L.OFFLOAD_F_ECN],
  [VIRTIO_NET_F_HOST_USO, L.OFFLOAD_F_USO4 | L.OFFLOAD_F_USO6],
];

/** What a driver accepts unfinished, by feature. */
const RECEIVES: readonly [bit: number, offloads: number][] = [
  [VIRTIO_NET_F_GUEST_CSUM, L.OFFLOAD_F_CSUM],
  [VIRTIO_NET_F_GUEST_TSO4, L.OFFLOAD_F_TSO4],
  [VIRTIO_NET_F_GUEST_TSO6, L.OFFLOAD_F_TSO6],
  [VIRTIO_NET_F_GUEST_ECN, L.OFFLOAD_F_ECN],
  [VIRTIO_NET_F_GUEST_USO4, L.OFFLOAD_F_USO4],
  [VIRTIO_NET_F_GUEST_USO6, L.OFFLOAD_F_USO6],
];

const maskOf = (table: typeof SENDS) => table.reduce((bits, [bit]) => bits | 1n << BigInt(bit), 0n);

/** The features that say what a driver accepts. It may switch each of them off, and on again, while its queues run. */
export const GUEST_OFFLOADS = maskOf(RECEIVES);

/** Every feature that is about offloads. */
export const OFFLOAD_FEATURES = maskOf(SENDS) | GUEST_OFFLOADS;

/**
 * OFFLOAD_F_* of virtqueue `index` with these features: what may be asked for on a transmit queue, what is accepted on a
 * receive queue. Segmentation needs checksums (§5.1.3.1): without them there is none.
 */
export function offloadsOf(features: bigint, index: number): number {
  const bits = (index % 2 === 1 ? SENDS : RECEIVES)
    .reduce((all, [bit, offloads]) => (features >> BigInt(bit) & 1n) === 1n ? all | offloads : all, 0);
  return (bits & L.OFFLOAD_F_CSUM) === 0 ? 0 : bits;
}

/**
 * OFFLOAD_F_* of advanced queue `index`: one without virtio-net headers asks for everything by its descriptors, and gets
 * frames that are finished.
 */
export function advancedOffloads(index: number, virtioHeader: boolean): number {
  if (virtioHeader) return L.OFFLOADS_ALL;
  return index % 2 === 1 ? L.OFFLOADS_ALL & ~L.OFFLOAD_F_VALID : 0;
}
