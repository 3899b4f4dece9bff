/** What this back-end offers, and what a front-end has to have negotiated before it may send a request. */
import {
  type Message,
  ProtocolError,
  VHOST_USER_F_PROTOCOL_FEATURES,
  VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS,
  VHOST_USER_PROTOCOL_F_MQ,
  VHOST_USER_PROTOCOL_F_REPLY_ACK,
  VHOST_USER_PROTOCOL_F_RESET_DEVICE,
  VHOST_USER_PROTOCOL_F_STATUS,
} from "../../shared/vhost_user/mod.ts";
import { VIRTIO_NET_F_GUEST_ANNOUNCE, VIRTIO_NET_F_MQ } from "../../shared/layout/virtio.ts";
import { QUEUE_FEATURES } from "../../shared/engine/mod.ts";

/** Queue pairs of one device. */
export const QUEUE_PAIRS_MAX = 16;

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
  VHOST_USER_PROTOCOL_F_REPLY_ACK,
  VHOST_USER_PROTOCOL_F_RESET_DEVICE,
  VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS,
  VHOST_USER_PROTOCOL_F_STATUS,
);

/** Device features that are offered: those of the NIC's queues, and what this back-end adds. */
export const FEATURES = QUEUE_FEATURES |
  bits(VIRTIO_NET_F_MQ, VIRTIO_NET_F_GUEST_ANNOUNCE, VHOST_USER_F_PROTOCOL_FEATURES);

/** Requests that have an answer of their own; the others are acknowledged if the front-end asks for it. */
export const ANSWERED: ReadonlySet<Message["name"]> = new Set([
  "VHOST_USER_GET_FEATURES",
  "VHOST_USER_GET_PROTOCOL_FEATURES",
  "VHOST_USER_GET_QUEUE_NUM",
  "VHOST_USER_GET_VRING_BASE",
  "VHOST_USER_GET_MAX_MEM_SLOTS",
  "VHOST_USER_GET_STATUS",
]);

/** Requests that a front-end may only send once it has negotiated their protocol feature. */
export const NEEDS: Partial<Record<Message["name"], number>> = {
  VHOST_USER_GET_QUEUE_NUM: VHOST_USER_PROTOCOL_F_MQ,
  VHOST_USER_RESET_DEVICE: VHOST_USER_PROTOCOL_F_RESET_DEVICE,
  VHOST_USER_GET_MAX_MEM_SLOTS: VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS,
  VHOST_USER_ADD_MEM_REG: VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS,
  VHOST_USER_REM_MEM_REG: VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS,
  VHOST_USER_SET_STATUS: VHOST_USER_PROTOCOL_F_STATUS,
  VHOST_USER_GET_STATUS: VHOST_USER_PROTOCOL_F_STATUS,
};

const VRING_SIZE_MAX = 32768;

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
