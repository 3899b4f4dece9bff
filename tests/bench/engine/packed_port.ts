/**
 * A packed ring (VIRTIO 1.2 §2.8) that costs the benchmark little to refill: what all its descriptors are in either lap
 * is written once, and copied over those that have come back. A descriptor's id is its place, so a used one says how far
 * the device has come, also if it stands for a whole batch (IN_ORDER).
 */
import { type Buffers, place, type Port } from "./ports.ts";

const DESC_BYTES = 16;
const LEN = 8;
const ID = 12;
const FLAGS = 14;
const VIRTQ_DESC_F_WRITE = 2;
const AVAIL = 1 << 7;
const USED = 1 << 15;

/** What the port needs of a ring's driver. */
export interface PackedRing {
  readonly view: DataView;
  /** View offset of the descriptors. */
  readonly desc: number;
  readonly size: number;
  noInterrupt: boolean;
}

/** And of a guest. */
export interface PackedGuest {
  readonly view: DataView;
  readonly heap: number;
  iova(at: number): bigint;
  writeFrame(at: number, frame: Uint8Array): number;
  rx(pair?: number): PackedRing;
  tx(pair?: number): PackedRing;
}

/** All descriptors of a ring as the driver makes them available in one lap. */
function lap(ring: PackedRing, wrap: boolean, flags: number, buffer: (slot: number) => [bigint, number]): Uint8Array {
  const table = new DataView(new ArrayBuffer(ring.size * DESC_BYTES));
  for (let slot = 0; slot < ring.size; slot++) {
    const [addr, len] = buffer(slot);
    table.setBigUint64(slot * DESC_BYTES, addr, true);
    table.setUint32(slot * DESC_BYTES + LEN, len, true);
    table.setUint16(slot * DESC_BYTES + ID, slot, true);
    table.setUint16(slot * DESC_BYTES + FLAGS, flags | (wrap ? AVAIL : USED), true);
  }
  return new Uint8Array(table.buffer);
}

/** The port of a ring whose descriptors hold these buffers. */
export function packedPort(ring: PackedRing, flags: number, buffer: (slot: number) => [bigint, number]): Port {
  const { view, size } = ring;
  const table = new Uint8Array(view.buffer, view.byteOffset + ring.desc, size * DESC_BYTES);
  const laps = { odd: lap(ring, true, flags, buffer), even: lap(ring, false, flags, buffer) };
  // Places counted from the beginning: a lap is odd while the wrap counter is 1, as it is in the first one.
  let [offered, returned] = [0, 0];
  const isOdd = (place: number) => Math.floor(place / size) % 2 === 0;
  const harvest = () => {
    while (returned < offered) {
      const at = ring.desc + (returned % size) * DESC_BYTES;
      const bits = view.getUint16(at + FLAGS, true) & (AVAIL | USED);
      if (bits !== (isOdd(returned) ? AVAIL | USED : 0)) return;
      returned += (view.getUint16(at + ID, true) - returned % size + size) % size + 1;
    }
  };
  ring.noInterrupt = true;
  return {
    refill() {
      harvest();
      while (offered < returned + size) {
        const from = offered % size;
        const count = Math.min(size - from, returned + size - offered);
        const source = isOdd(offered) ? laps.odd : laps.even;
        table.set(source.subarray(from * DESC_BYTES, (from + count) * DESC_BYTES), from * DESC_BYTES);
        offered += count;
      }
    },
    drained() {
      harvest();
      return returned === offered;
    },
  };
}

/** A transmit ring whose descriptors hold `frames` in turn. */
export function packedTx(guest: PackedGuest, frames: readonly Uint8Array[], buffers: Buffers, pair = 0): Port {
  return packedPort(guest.tx(pair), 0, (slot) => {
    const at = place(guest.heap, buffers, slot);
    return [guest.iova(at), guest.writeFrame(at, frames[slot % frames.length] ?? new Uint8Array())];
  });
}

/** A receive ring, each descriptor a buffer of its own. */
export function packedRx(guest: PackedGuest, buffers: Buffers, pair = 0): Port {
  return packedPort(
    guest.rx(pair),
    VIRTQ_DESC_F_WRITE,
    (slot) => [guest.iova(place(guest.heap, buffers, slot)), Math.min(buffers.strideBytes, 4096)],
  );
}
