/** What drivers may ask of a queue: its features, sizes and descriptors, checked before anything starts. */
import { QUEUE_SIZE_MAX } from "../layout/nic.ts";
import {
  VIRTIO_F_ANY_LAYOUT,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from "../layout/virtio.ts";
import {
  ADV_HEADER_BYTES_MAX,
  ADV_PACKET_BYTES_MAX,
  ADV_PACKET_BYTES_MIN,
  ADV_QUEUE_SIZE_MAX,
  ADV_QUEUE_SIZE_MIN,
} from "../layout/advanced.ts";
import type { Request } from "../device/mod.ts";
import { DeviceRefusal } from "../device/refusal.ts";
import type { Fd } from "../os/mod.ts";
import { OFFLOAD_FEATURES } from "./offloads.ts";

/** Features a virtqueue of this NIC can do; the vhost service adds what the protocol needs. */
export const QUEUE_FEATURES = OFFLOAD_FEATURES |
  (1n << BigInt(VIRTIO_F_VERSION_1)) |
  (1n << BigInt(VIRTIO_NET_F_MRG_RXBUF)) |
  (1n << BigInt(VIRTIO_RING_F_INDIRECT_DESC)) |
  (1n << BigInt(VIRTIO_RING_F_EVENT_IDX)) |
  (1n << BigInt(VIRTIO_F_RING_PACKED)) |
  (1n << BigInt(VIRTIO_F_IN_ORDER)) |
  (1n << BigInt(VIRTIO_F_ANY_LAYOUT));

/** What a queue's driver asks for at its start. */
export type StartRequest = Extract<Request, { op: "queueStart" }> & {
  /** A packed queue's position that was kept for it, in force if the ring bears it out; else `base` is. */
  kept?: number;
};

/** Whether a feature bit is set. */
export function has(features: bigint, bit: number): boolean {
  return (features >> BigInt(bit) & 1n) === 1n;
}

/** Sizes of a ring: a packed one may have any (virtio 1.2 §2.8.10.1). */
const SIZES = {
  split: [2, QUEUE_SIZE_MAX],
  packed: [1, QUEUE_SIZE_MAX],
  advanced: [ADV_QUEUE_SIZE_MIN, ADV_QUEUE_SIZE_MAX],
} as const;

/** Throws unless the request's sizes are ones that its flavour has. */
export function checkSize({ index, size, flavour, packetBytes, headerBytes }: StartRequest): void {
  const [min, max] = SIZES[flavour];
  if (size < min || size > max || (flavour !== "packed" && (size & (size - 1)) !== 0)) {
    const sizes = flavour === "packed" ? "sizes are" : "sizes are powers of two,";
    throw new DeviceRefusal("bad-size", `queue ${index} of size ${size}: ${sizes} ${min}–${max}`);
  }
  if (flavour !== "advanced") return;
  if (packetBytes % 1024 !== 0 || packetBytes < ADV_PACKET_BYTES_MIN || packetBytes > ADV_PACKET_BYTES_MAX) {
    const range = `${ADV_PACKET_BYTES_MIN}–${ADV_PACKET_BYTES_MAX}`;
    throw new DeviceRefusal("bad-size", `queue ${index}: packet buffers of ${packetBytes} bytes: KiB, ${range}`);
  }
  if (headerBytes % 64 !== 0 || headerBytes > ADV_HEADER_BYTES_MAX) {
    throw new DeviceRefusal(
      "bad-size",
      `queue ${index}: header buffers of ${headerBytes} bytes: multiples of 64, up to ${ADV_HEADER_BYTES_MAX}`,
    );
  }
}

/** Throws unless the engine can wait for `kick` and raise `call` without being held by whoever has them too. */
export function checkDescriptors(index: number, kick: Fd | undefined, call: Fd | undefined): void {
  if (kick && kick.kind !== "eventfd") {
    throw new DeviceRefusal(
      "bad-fd",
      `queue ${index}: its kick is not an eventfd. It must be one: kicks are never read, and anything else fills up`,
    );
  }
  if (call && call.kind !== "eventfd" && call.kind !== "socket") {
    throw new DeviceRefusal("bad-fd", `queue ${index}: its call is not an eventfd, nor a Unix socket`);
  }
}
