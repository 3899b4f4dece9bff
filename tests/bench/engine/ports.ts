/**
 * Rings that cost the benchmark nothing to refill. The mock guests write each frame anew, which takes longer than the
 * engine takes to move it; here all descriptors are written once, and a refill offers them again.
 */
import type { AdvancedGuest } from "../../support/advanced_guest.ts";
import type { MockGuest } from "../../support/mock_guest.ts";

/** One ring of a guest. */
export interface Port {
  /** Gives the engine every descriptor that it has handed back. */
  refill(): void;
  /** Whether the engine has taken all that was offered. */
  drained(): boolean;
}

/** Where a ring's buffers lie: `slots` of them, `strideBytes` apart, used again and again by a ring with more. */
export interface Buffers {
  strideBytes: number;
  slots: number;
  /** Every other buffer lies this much further on, in another region of the guest's memory. */
  alternateBytes?: number;
}

/** Offset of buffer `slot` of ring number `ring`. */
export function place(heap: number, { strideBytes, slots, alternateBytes = 0 }: Buffers, slot: number): number {
  return heap + (slot % slots) * strideBytes + (slot % 2) * alternateBytes;
}

/** What a ring of virtqueues does at a refill: all heads are in the avail ring, in order, so only its index goes on. */
function splitPort(ring: MockGuest["queues"][number]): Port {
  let offered = ring.availIdx;
  ring.noInterrupt = true;
  return {
    refill() {
      offered = (ring.usedIdx + ring.size) & 0xffff;
      ring.publish(offered);
    },
    drained: () => ring.usedIdx === offered,
  };
}

/** A transmit virtqueue whose descriptors hold `frames` in turn. */
export function splitTx(guest: MockGuest, frames: readonly Uint8Array[], buffers: Buffers, pair = 0): Port {
  const ring = guest.tx(pair);
  for (let slot = 0; slot < ring.size; slot++) {
    const at = place(guest.heap, buffers, slot);
    const len = guest.writeFrame(at, frames[slot % frames.length] ?? new Uint8Array());
    ring.writeDescriptor(slot, { addr: guest.iova(at), len });
    ring.offer(slot);
  }
  return splitPort(ring);
}

/** A receive virtqueue, each descriptor a buffer of its own. */
export function splitRx(guest: MockGuest, buffers: Buffers, pair = 0): Port {
  const ring = guest.rx(pair);
  const VIRTQ_DESC_F_WRITE = 2;
  for (let slot = 0; slot < ring.size; slot++) {
    const addr = guest.iova(place(guest.heap, buffers, slot));
    ring.writeDescriptor(slot, { addr, len: Math.min(buffers.strideBytes, 4096), flags: VIRTQ_DESC_F_WRITE });
    ring.offer(slot);
  }
  return splitPort(ring);
}

/** An advanced ring at a refill: the engine has written into the descriptors, so all are written again, in one copy. */
function advancedPort(guest: AdvancedGuest, ring: AdvancedGuest["rings"][number]): Port {
  const DESC_BYTES = 16;
  const table = new Uint8Array(guest.view.buffer, guest.view.byteOffset + ring.ring, ring.size * DESC_BYTES);
  const fresh = table.slice();
  ring.interrupt = false;
  return {
    refill() {
      table.set(fresh);
      ring.doorbell((ring.head + ring.size - 1) % ring.size);
      ring.tail = (ring.head + ring.size - 1) % ring.size;
    },
    drained: () => ring.head === ring.tail,
  };
}

/** A transmit ring of the 82599's format. */
export function advancedTx(
  guest: AdvancedGuest,
  frames: readonly Uint8Array[],
  buffers: Buffers,
  txMeta: (length: number) => bigint,
): Port {
  const ring = guest.tx();
  for (let slot = 0; slot < ring.size; slot++) {
    const at = place(guest.heap, buffers, slot);
    const length = guest.writeFrame(at, frames[slot % frames.length] ?? new Uint8Array());
    ring.write(slot, guest.iova(at), txMeta(length));
  }
  return advancedPort(guest, ring);
}

/** A receive ring of the 82599's format. */
export function advancedRx(guest: AdvancedGuest, buffers: Buffers): Port {
  const ring = guest.rx();
  for (let slot = 0; slot < ring.size; slot++) ring.write(slot, guest.iova(place(guest.heap, buffers, slot)), 0n);
  return advancedPort(guest, ring);
}
