/** A queue's entry in the engine's tables, as its driver describes it. */
import * as L from "../layout/nic.ts";
import {
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_VERSION_1,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_HDR_BYTES,
  VIRTIO_NET_HDR_LEGACY_BYTES,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from "../layout/virtio.ts";
import type { Fd } from "../os/mod.ts";
import { advancedOffloads, offloadsOf } from "./offloads.ts";
import { has, type StartRequest } from "./queue_request.ts";

const FLAVOURS = { split: L.FLAVOUR_SPLIT, packed: L.FLAVOUR_PACKED, advanced: L.FLAVOUR_ADVANCED };

/**
 * Writes the entry at `at` anew, without its descriptors. `registers`: its place in the pool's register page, 0 if the
 * pool has none; a packed queue keeps its position there, or else in its device area. `areDeferred`: whether its interrupts
 * may be; `isLogged`: whether what is written for it is noted in the pool's dirty log.
 */
export function writeQueue(
  view: DataView,
  at: number,
  { pool, registers, areDeferred, isLogged }: {
    pool: number;
    registers: number;
    areDeferred: boolean;
    isLogged: boolean;
  },
  request: StartRequest,
): void {
  const { index, flavour, size, features } = request;
  new Uint8Array(view.buffer, view.byteOffset + at, L.QUEUE_STRIDE).fill(0);
  view.setUint32(at + L.Q_FLAVOUR, FLAVOURS[flavour], true);
  view.setUint32(at + L.Q_SIZE, size, true);
  view.setUint32(at + L.Q_POOL, pool, true);
  view.setUint32(at + L.Q_INDEX, index, true);
  view.setBigUint64(at + L.Q_DESC_IOVA, request.desc, true);
  view.setBigUint64(at + L.Q_AVAIL_IOVA, request.avail, true);
  view.setBigUint64(at + L.Q_USED_IOVA, request.used, true);
  if (flavour === "advanced") writeAdvanced(view, at, request);
  else writeVirtqueue(view, at, pool, request);
  view.setUint32(at + L.Q_REGISTERS, flavour === "split" ? 0 : registers, true);
  const keeps = flavour === "packed" && registers === 0 ? L.QUEUE_F_KEEP_POSITION : 0;
  const direct = flavour === "advanced" && request.direct ? L.QUEUE_F_DIRECT : 0;
  const undeferred = areDeferred ? 0 : L.QUEUE_F_UNDEFERRED;
  const logged = isLogged ? L.QUEUE_F_LOG : 0;
  view.setUint32(at + L.Q_FLAGS, flagsOf(features) | keeps | direct | undeferred | logged, true);
}

function flagsOf(features: bigint): number {
  return (has(features, VIRTIO_RING_F_EVENT_IDX) ? L.QUEUE_F_EVENT_IDX : 0) |
    (has(features, VIRTIO_RING_F_INDIRECT_DESC) ? L.QUEUE_F_INDIRECT : 0) |
    (has(features, VIRTIO_NET_F_MRG_RXBUF) ? L.QUEUE_F_MRG_RXBUF : 0) |
    (has(features, VIRTIO_F_IN_ORDER) ? L.QUEUE_F_IN_ORDER : 0);
}

function writeVirtqueue(view: DataView, at: number, pool: number, { index, features, inflight }: StartRequest): void {
  const longHeader = has(features, VIRTIO_F_VERSION_1) || has(features, VIRTIO_NET_F_MRG_RXBUF);
  view.setUint32(at + L.Q_HDR_BYTES, longHeader ? VIRTIO_NET_HDR_BYTES : VIRTIO_NET_HDR_LEGACY_BYTES, true);
  view.setBigUint64(at + L.Q_INFLIGHT_IOVA, inflight ?? 0n, true);
  writeOffloads(view, at, { pool, index, features });
}

function writeAdvanced(view: DataView, at: number, request: StartRequest): void {
  const { index, packetBytes, headerBytes, virtioHeader, direct, features } = request;
  view.setUint32(at + L.Q_PACKET_BYTES, packetBytes, true);
  view.setUint32(at + L.Q_HEADER_BYTES, headerBytes, true);
  view.setUint32(at + L.Q_HDR_BYTES, virtioHeader || direct ? VIRTIO_NET_HDR_BYTES : 0, true);
  // Behind a direct queue there is a guest's virtqueue.
  view.setUint16(at + L.Q_OFFLOADS, direct ? offloadsOf(features, index) : advancedOffloads(index, virtioHeader), true);
}

/** Writes what a virtqueue's driver may leave to be finished, or accepts so. The kernel behind an uplink is believed. */
export function writeOffloads(
  view: DataView,
  at: number,
  { pool, index, features }: { pool: number; index: number; features: bigint },
): void {
  const offloads = offloadsOf(features, index);
  const believed = pool === L.POOL_UPLINK && offloads !== 0 ? L.OFFLOAD_F_VALID : 0;
  view.setUint16(at + L.Q_OFFLOADS, offloads | believed, true);
}

/**
 * Whether the kicks of queue `index` of `pool` are listened to: of one that sends, and of the uplink's, whose driver has room
 * again for what others wait to send.
 */
export function isHeard(pool: number, index: number): boolean {
  return index % 2 === 1 || pool === L.POOL_UPLINK;
}

/** Writes which descriptors the queue at `at` is kicked by, and calls its driver by. */
export function writeDescriptors(view: DataView, at: number, kick: Fd | undefined, call: Fd | undefined): void {
  view.setInt32(at + L.Q_KICK_FD, kick?.number ?? -1, true);
  writeCall(view, at, call);
}

/** Writes the call descriptor of the queue at `at`. */
export function writeCall(view: DataView, at: number, call: Fd | undefined): void {
  view.setInt32(at + L.Q_CALL_FD, call?.number ?? -1, true);
  view.setUint32(at + L.Q_CALL_KIND, call?.kind === "socket" ? L.CALL_SOCKET : L.CALL_EVENTFD, true);
}

/**
 * Has the worker raise one interrupt for the queue at `at`: what was added before a ring or its descriptor was handed
 * over may have gone unannounced.
 */
export function raiseOnce(view: DataView, at: number): void {
  if (view.getInt32(at + L.Q_CALL_FD, true) < 0 || view.getUint32(at + L.Q_CALL_PENDING, true)) return;
  const count = view.getUint32(L.CTL + L.CTL_CALL_COUNT, true);
  view.setUint32(L.CALL_LIST + count * 4, at, true);
  view.setUint32(L.CTL + L.CTL_CALL_COUNT, count + 1, true);
  view.setUint32(at + L.Q_CALL_PENDING, 1, true);
}
