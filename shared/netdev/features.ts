/**
 * Offloads of a port in the three ways in which they are named: virtio-net features, what a TAP's reader takes, and what
 * people read. The port is the driver: it sends (HOST_*, CSUM) what the kernel hands over, and gets (GUEST_*) what the
 * kernel takes whole in any case.
 */
import * as V from "../layout/virtio.ts";
import { TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, TUN_F_TSO_ECN, TUN_F_USO4, TUN_F_USO6 } from "../os/mod.ts";

const bit = (n: number): bigint => 1n << BigInt(n);

/** What every port has. */
export const RING_FEATURES = bit(V.VIRTIO_F_VERSION_1) | bit(V.VIRTIO_RING_F_EVENT_IDX);

/** {feature, name for people, TUN_F_* bits}. */
const OFFLOADS: readonly (readonly [number, string, number])[] = [
  [V.VIRTIO_NET_F_CSUM, "send-checksum", TUN_F_CSUM],
  [V.VIRTIO_NET_F_HOST_TSO4, "send-tso4", TUN_F_TSO4],
  [V.VIRTIO_NET_F_HOST_TSO6, "send-tso6", TUN_F_TSO6],
  [V.VIRTIO_NET_F_HOST_ECN, "send-ecn", TUN_F_TSO_ECN],
  [V.VIRTIO_NET_F_HOST_USO, "send-uso", TUN_F_USO4 | TUN_F_USO6],
  [V.VIRTIO_NET_F_GUEST_CSUM, "receive-checksum", 0],
  [V.VIRTIO_NET_F_GUEST_TSO4, "receive-tso4", 0],
  [V.VIRTIO_NET_F_GUEST_TSO6, "receive-tso6", 0],
  [V.VIRTIO_NET_F_GUEST_ECN, "receive-ecn", 0],
  [V.VIRTIO_NET_F_GUEST_USO4, "receive-uso4", 0],
  [V.VIRTIO_NET_F_GUEST_USO6, "receive-uso6", 0],
];

/** All offloads, for files that take frames as a guest's driver makes them. */
export const OFFLOAD_FEATURES = OFFLOADS.reduce((all, [feature]) => all | bit(feature), 0n);

function inForce(features: bigint): (typeof OFFLOADS)[number][] {
  return OFFLOADS.filter(([feature]) => (features & bit(feature)) !== 0n);
}

/** The names of the offloads that are in force, as the API shows them. */
export function offloadNames(features: bigint): string[] {
  return inForce(features).map(([, name]) => name);
}

/** What a TAP's reader takes of the kernel (TUN_F_* bits). */
export function tapOffloads(features: bigint): number {
  return inForce(features).reduce((bits, [, , tun]) => bits | tun, 0);
}
