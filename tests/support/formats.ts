/**
 * The ring formats that everything is tested over, as one table: how a guest of each is made, and how its queues are
 * described to the engine.
 */
import {
  FLAVOUR_ADVANCED,
  FLAVOUR_PACKED,
  FLAVOUR_SPLIT,
  Q_AVAIL_IOVA,
  Q_CALL_FD,
  Q_DESC_IOVA,
  Q_FLAGS,
  Q_FLAVOUR,
  Q_HDR_BYTES,
  Q_HEADER_BYTES,
  Q_INDEX,
  Q_KICK_FD,
  Q_OFFLOADS,
  Q_PACKET_BYTES,
  Q_POOL,
  Q_REGISTERS,
  Q_SIZE,
  Q_USED_IOVA,
  QUEUE_F_EVENT_IDX,
  QUEUE_F_IN_ORDER,
  QUEUE_STRIDE,
} from "../../shared/layout/nic.ts";
import { advancedOffloads } from "../../shared/engine/offloads.ts";
import { AdvancedGuest } from "./advanced_guest.ts";
import { MockGuest } from "./mock_guest.ts";
import { PackedGuest, type PackedGuestOptions } from "./packed_guest.ts";

/** A format of virtqueues. */
interface VirtqueueFormat {
  flavour: number;
  /** QUEUE_F_* that are the format's own. */
  flags: number;
  make(view: DataView, options: PackedGuestOptions): MockGuest | PackedGuest;
}

/** The formats of virtqueues. */
export const VIRTQUEUES = {
  "split": {
    flavour: FLAVOUR_SPLIT,
    flags: 0,
    make: (view, options) => new MockGuest(view, options),
  },
  "split in-order": {
    flavour: FLAVOUR_SPLIT,
    flags: QUEUE_F_IN_ORDER,
    make: (view, options) => new MockGuest(view, options),
  },
  "packed": {
    flavour: FLAVOUR_PACKED,
    flags: 0,
    make: (view, options) => new PackedGuest(view, options),
  },
  "packed in-order": {
    flavour: FLAVOUR_PACKED,
    flags: QUEUE_F_IN_ORDER,
    make: (view, options) => new PackedGuest(view, options),
  },
} satisfies Record<string, VirtqueueFormat>;

/** A format of virtqueues by name. */
export type VirtqueueName = keyof typeof VIRTQUEUES;
/** Any format by name. */
export type FormatName = VirtqueueName | "advanced";

/** Options of a driver that has negotiated `flags`. */
export function driverOptions(flags: number): { inOrder: boolean; eventIdx: boolean } {
  return { inOrder: (flags & QUEUE_F_IN_ORDER) !== 0, eventIdx: (flags & QUEUE_F_EVENT_IDX) !== 0 };
}

/** A queue of a guest, as the engine's tables have it. */
interface QueueEntry {
  /** Arena offset of the entry; the queue's pool and number. */
  at: number;
  pool: number;
  index: number;
}

function describe(view: DataView, { at, pool, index }: QueueEntry, size: number, flavour: number): void {
  new Uint8Array(view.buffer, view.byteOffset + at, QUEUE_STRIDE).fill(0);
  view.setUint32(at + Q_SIZE, size, true);
  view.setUint32(at + Q_FLAVOUR, flavour, true);
  view.setUint32(at + Q_POOL, pool, true);
  view.setUint32(at + Q_INDEX, index, true);
  // That its driver has a kick and a call; nobody waits for them.
  view.setInt32(at + Q_CALL_FD, 0, true);
  view.setInt32(at + Q_KICK_FD, 0, true);
}

/** Describes a virtqueue of `guest`; answers the position at which it is to start. */
export function describeVirtqueue(
  view: DataView,
  entry: QueueEntry,
  guest: MockGuest | PackedGuest,
  flags: number,
): number {
  const { at, index } = entry;
  const queue = guest.queues[index];
  if (!queue) throw new Error(`the guest has no queue ${index}`);
  describe(view, entry, queue.size, guest instanceof PackedGuest ? FLAVOUR_PACKED : FLAVOUR_SPLIT);
  view.setUint32(at + Q_FLAGS, flags, true);
  view.setUint32(at + Q_HDR_BYTES, guest.options.hdrBytes, true);
  view.setBigUint64(at + Q_DESC_IOVA, guest.iova(queue.desc), true);
  view.setBigUint64(at + Q_AVAIL_IOVA, guest.iova(queue.avail), true);
  view.setBigUint64(at + Q_USED_IOVA, guest.iova(queue.used), true);
  return queue.base;
}

/** Describes an advanced queue of `guest`; answers the position at which it is to start. */
export function describeAdvanced(view: DataView, entry: QueueEntry, guest: AdvancedGuest, headerBytes: number): number {
  const { at, index } = entry;
  const ring = guest.rings[index];
  if (!ring) throw new Error(`the guest has no queue ${index}`);
  describe(view, entry, ring.size, FLAVOUR_ADVANCED);
  view.setUint32(at + Q_REGISTERS, ring.registers, true);
  view.setUint32(at + Q_PACKET_BYTES, guest.packetBytes, true);
  view.setUint32(at + Q_HEADER_BYTES, headerBytes, true);
  view.setUint32(at + Q_HDR_BYTES, guest.options.hdrBytes, true);
  view.setUint16(at + Q_OFFLOADS, advancedOffloads(index, guest.options.hdrBytes !== 0), true);
  view.setBigUint64(at + Q_DESC_IOVA, guest.iova(ring.ring), true);
  return 0;
}
