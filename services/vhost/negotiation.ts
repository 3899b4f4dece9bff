/** What this back-end offers, and what rings may be. */
import { QUEUE_PAIRS_MAX } from "../../shared/layout/nic.ts";
import * as V from "../../shared/layout/virtio.ts";
import {
  ProtocolError,
  VHOST_F_LOG_ALL,
  VHOST_USER_F_PROTOCOL_FEATURES,
  VHOST_USER_PROTOCOL_F_BACKEND_REQ,
  VHOST_USER_PROTOCOL_F_CONFIG,
  VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS,
  VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD,
  VHOST_USER_PROTOCOL_F_LOG_SHMFD,
  VHOST_USER_PROTOCOL_F_MQ,
  VHOST_USER_PROTOCOL_F_NET_MTU,
  VHOST_USER_PROTOCOL_F_RARP,
  VHOST_USER_PROTOCOL_F_REPLY_ACK,
  VHOST_USER_PROTOCOL_F_RESET_DEVICE,
  VHOST_USER_PROTOCOL_F_STATUS,
} from "../../shared/vhost_user/mod.ts";
import { QUEUE_FEATURES } from "../../shared/engine/mod.ts";

/**
 * The answer to GET_QUEUE_NUM of a device with `pairs` queue pairs. QEMU and DPDK read it as queue pairs. crosvm, libkrun
 * and generic devices, which pass the configuration space on to the guest (so they have CONFIG), read it as virtqueues,
 * the control queue among them.
 */
export function queueNumber(pairs: number, passesConfigOn: boolean): bigint {
  return BigInt(passesConfigOn ? 2 * pairs + 1 : pairs);
}

/**
 * The queue pairs of a device that offers `pairs`, to a front-end that has agreed on `protocolFeatures`. Several are for
 * front-ends that have MQ (vhost-user, "Multiple queue support"). One that passes the configuration space on without it,
 * as User-Mode Linux does, would set up all there are and look at each of them at every interrupt: it gets one, unless
 * the policy says a number.
 */
export function pairsFor(pairs: number, protocolFeatures: bigint): number {
  const isOne = hasBit(protocolFeatures, VHOST_USER_PROTOCOL_F_CONFIG) &&
    !hasBit(protocolFeatures, VHOST_USER_PROTOCOL_F_MQ);
  return isOne && pairs === QUEUE_PAIRS_MAX ? 1 : pairs;
}

/** Whether bit `n` is set. */
export function hasBit(bits: bigint, n: number): boolean {
  return ((bits >> BigInt(n)) & 1n) !== 0n;
}

function bits(...positions: number[]): bigint {
  return positions.reduce((mask, n) => mask | (1n << BigInt(n)), 0n);
}

/** Protocol features that are offered. */
export const PROTOCOL_FEATURES = bits(
  VHOST_USER_PROTOCOL_F_MQ,
  VHOST_USER_PROTOCOL_F_LOG_SHMFD,
  VHOST_USER_PROTOCOL_F_RARP,
  VHOST_USER_PROTOCOL_F_REPLY_ACK,
  VHOST_USER_PROTOCOL_F_NET_MTU,
  VHOST_USER_PROTOCOL_F_BACKEND_REQ,
  VHOST_USER_PROTOCOL_F_CONFIG,
  VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD,
  VHOST_USER_PROTOCOL_F_RESET_DEVICE,
  VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS,
  VHOST_USER_PROTOCOL_F_STATUS,
);

/**
 * Device features that are offered: those of the NIC's queues, and what this back-end adds. Some front-ends hand them to
 * the guest as they are, so each comes with what it needs (virtio 1.2 §5.1.3.1): the control queue's features with the
 * control queue, and the configuration space's fields with CONFIG.
 */
export const FEATURES = QUEUE_FEATURES | bits(
  V.VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
  V.VIRTIO_NET_F_MTU,
  V.VIRTIO_NET_F_MAC,
  V.VIRTIO_NET_F_STATUS,
  V.VIRTIO_NET_F_CTRL_VQ,
  V.VIRTIO_NET_F_CTRL_RX,
  V.VIRTIO_NET_F_CTRL_VLAN,
  V.VIRTIO_NET_F_GUEST_ANNOUNCE,
  V.VIRTIO_NET_F_MQ,
  V.VIRTIO_NET_F_CTRL_MAC_ADDR,
  VHOST_F_LOG_ALL,
  VHOST_USER_F_PROTOCOL_FEATURES,
);

/**
 * The number of the control queue of a device with `pairs` queue pairs: it is behind the last one (virtio 1.2 §5.1.2).
 * QEMU and DPDK keep it to themselves and do not pass its feature on: then there is none. Cloud Hypervisor keeps it too
 * and does pass the feature on: then the ring never comes.
 */
export function controlIndexOf(features: bigint, pairs: number): number | undefined {
  if (!hasBit(features, V.VIRTIO_NET_F_CTRL_VQ)) return undefined;
  return hasBit(features, V.VIRTIO_NET_F_MQ) ? 2 * pairs : 2;
}

/** Entries of a ring. */
export const VRING_SIZE_MAX = 32768;

/** Throws unless a ring can be so large. A packed one may have any size (virtio 1.2 §2.8.10.1). */
export function checkRingSize(index: number, size: number, packed: boolean): void {
  const [min, sizes] = packed ? [1, "sizes are"] : [2, "sizes are powers of two,"];
  if (size >= min && size <= VRING_SIZE_MAX && (packed || (size & (size - 1)) === 0)) return;
  throw new ProtocolError(`size ${size} of vring ${index}: ${sizes} ${min}–${VRING_SIZE_MAX}`);
}

/** Throws if a ring cannot begin at `base`: a packed one's has two positions with their wrap counters. */
export function checkBase(index: number, base: number, packed: boolean): void {
  if (base > 0xffff && !packed) throw new ProtocolError(`base ${base} of vring ${index}: bases are 0–65535`);
}

/** Throws ProtocolError unless everything in `features` was offered. */
export function checkOffered(what: string, features: bigint, offered: bigint): void {
  const unknown = features & ~offered;
  if (unknown !== 0n) throw new ProtocolError(`${what} 0x${unknown.toString(16)} were not offered`);
}
