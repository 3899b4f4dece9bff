/**
 * A guest driver with packed rings (VIRTIO 1.2 §2.8), written against the specification and nothing else: one ring of
 * descriptors that both sides write, two wrap counters, event suppression. Every field is within reach, so a hostile
 * guest is the same one. It is strict with the device: what comes back must be what the device has got.
 *
 * Buffer ids are not the descriptors' positions (the driver chooses them, §2.8.13), and only a chain's last descriptor
 * has one (§2.8.6): the others hold an id that no buffer has.
 */
import {
  RING_EVENT_FLAGS_DESC,
  RING_EVENT_FLAGS_DISABLE,
  RING_EVENT_FLAGS_ENABLE,
  VIRTQ_DESC_BYTES,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
  VIRTQ_EVENT_ALIGN,
  VIRTQ_EVENT_BYTES,
  VIRTQ_EVENT_FLAGS,
  VIRTQ_EVENT_OFF_WRAP,
  VIRTQ_PACKED_DESC_F_AVAIL,
  VIRTQ_PACKED_DESC_F_USED,
  VIRTQ_PACKED_DESC_FLAGS,
  VIRTQ_PACKED_DESC_ID,
  VIRTQ_PACKED_DESC_LEN,
} from "../../shared/layout/virtio.ts";
import { type GuestOptions, VirtioGuest } from "./virtio_guest.ts";
import {
  DeviceLied,
  type DriverOptions,
  type Piece,
  type RawDescriptor,
  type Table,
  type UsedBuffer,
  type Virtqueue,
  writableBytes,
} from "./virtqueue.ts";

/** The id in descriptors that are not their chain's last one. */
const NO_ID = 0xffff;
const WRAP_BIT = 0x8000;

/** A place in a ring: a descriptor, and the wrap counter of whoever is there. */
export interface RingPosition {
  index: number;
  wrap: boolean;
}

/** A position as an event suppression area and one half of a base have it. */
function encodePosition({ index, wrap }: RingPosition): number {
  return index | (wrap ? WRAP_BIT : 0);
}

/** Both halves of a base as SET_VRING_BASE carries it: where the device reads next, and where it writes next. */
export function decodeBase(base: number): { avail: RingPosition; used: RingPosition } {
  const half = (bits: number) => ({ index: bits & (WRAP_BIT - 1), wrap: (bits & WRAP_BIT) !== 0 });
  return { avail: half(base & 0xffff), used: half(base >>> 16) };
}

/** A base with both halves at one place, as a device has it that has returned all that it has taken. */
export function baseAt(position: RingPosition): number {
  const half = encodePosition(position);
  return (half | (half << 16)) >>> 0;
}

/** A buffer that the device has. */
interface Flight {
  id: number;
  descriptors: number;
  writable: number;
}

/** The driver's side of one packed virtqueue. `avail` and `used` are its two event suppression areas. */
export class PackedDriver implements Virtqueue {
  readonly view: DataView;
  readonly size: number;
  readonly desc: number;
  readonly avail: number;
  readonly used: number;
  readonly bytes: number;
  readonly options: DriverOptions;
  /** Where the driver writes next, and where it looks for the next used descriptor. */
  next: RingPosition = { index: 0, wrap: true };
  nextUsed: RingPosition = { index: 0, wrap: true };
  #freeIds: number[] = [];
  #free: number;
  /** What the device has, in ring order, by id. */
  #flights = new Map<number, Flight>();
  #returned: UsedBuffer[] = [];
  /** Flags of first descriptors that `publish` writes. */
  #staged: { at: number; flags: number }[] = [];
  #unannounced = 0;

  constructor(view: DataView, offset: number, size: number, options: DriverOptions = {}) {
    this.view = view;
    this.size = size;
    this.options = options;
    this.desc = offset;
    this.avail = Math.ceil((offset + size * VIRTQ_DESC_BYTES) / VIRTQ_EVENT_ALIGN) * VIRTQ_EVENT_ALIGN;
    this.used = this.avail + VIRTQ_EVENT_BYTES;
    this.bytes = this.used + VIRTQ_EVENT_BYTES - offset;
    this.#free = size;
    this.#freeIds = allIds(size);
  }

  /** View offset of descriptor `index`. */
  at(index: number): number {
    return this.desc + index * VIRTQ_DESC_BYTES;
  }

  /** The place `count` descriptors behind `position`. */
  behind(position: RingPosition, count: number): RingPosition {
    const index = position.index + count;
    return index < this.size ? { index, wrap: position.wrap } : { index: index - this.size, wrap: !position.wrap };
  }

  /** Writes a descriptor with exactly these flags, whatever the wrap counters say. */
  writeDescriptor(index: number, { addr, len, flags = 0 }: RawDescriptor, id = 0): void {
    this.#write(index, addr, len, id);
    this.writeFlags(index, flags);
  }

  writeFlags(index: number, flags: number): void {
    this.view.setUint16(this.at(index) + VIRTQ_PACKED_DESC_FLAGS, flags, true);
  }

  #write(index: number, addr: bigint, len: number, id: number): void {
    this.view.setBigUint64(this.at(index), BigInt.asUintN(64, addr), true);
    this.view.setUint32(this.at(index) + VIRTQ_PACKED_DESC_LEN, len >>> 0, true);
    this.view.setUint16(this.at(index) + VIRTQ_PACKED_DESC_ID, id, true);
  }

  add(pieces: readonly Piece[], table?: Table): number {
    if (table) {
      pieces.forEach((piece, i) => writePackedEntry(this.view, table.at + i * VIRTQ_DESC_BYTES, piece));
      const len = pieces.length * VIRTQ_DESC_BYTES;
      return this.#offer([{ addr: table.iova, len, flags: VIRTQ_DESC_F_INDIRECT }], writableBytes(pieces));
    }
    const descriptors = pieces.map(({ addr, len, write }, i) => ({
      addr,
      len,
      flags: (write ? VIRTQ_DESC_F_WRITE : 0) | (i + 1 < pieces.length ? VIRTQ_DESC_F_NEXT : 0),
    }));
    return this.#offer(descriptors, writableBytes(pieces));
  }

  addRaw(descriptors: readonly RawDescriptor[]): number {
    return this.#offer(descriptors, 0);
  }

  /** Writes descriptors in ring order, the first one's flags last of all, when they are published (§2.8.6). */
  #offer(descriptors: readonly RawDescriptor[], writable: number): number {
    this.#harvest();
    const id = this.#freeIds.shift();
    if (id === undefined || descriptors.length > this.#free) {
      throw new Error(`no room for ${descriptors.length} descriptors: ${this.#free} of ${this.size} are free`);
    }
    descriptors.forEach(({ addr, len, flags = 0 }, i) => {
      this.#write(this.next.index, addr, len, i + 1 < descriptors.length ? NO_ID : id);
      const staged = { at: this.next.index, flags: flags | this.availableBits(this.next.wrap) };
      if (i === 0) this.#staged.push(staged);
      else this.writeFlags(staged.at, staged.flags);
      this.next = this.behind(this.next, 1);
    });
    this.#free -= descriptors.length;
    this.#unannounced += descriptors.length;
    this.#flights.set(id, { id, descriptors: descriptors.length, writable });
    return id;
  }

  /** Flag bits of an available descriptor: AVAIL is the driver's wrap counter, USED its inverse (§2.8.1). */
  availableBits(wrap: boolean): number {
    return wrap ? VIRTQ_PACKED_DESC_F_AVAIL : VIRTQ_PACKED_DESC_F_USED;
  }

  /** The device sees nothing of what was added before the flags of the very first descriptor are there. */
  publish(): void {
    for (const { at, flags } of this.#staged.reverse()) this.writeFlags(at, flags);
    this.#staged = [];
  }

  popUsed(): UsedBuffer | undefined {
    this.#harvest();
    const used = this.#returned.shift();
    if (used) this.#freeIds.push(used.id);
    return used;
  }

  /** Takes every used descriptor there is. */
  #harvest(): void {
    for (;;) {
      const at = this.at(this.nextUsed.index);
      const flags = this.view.getUint16(at + VIRTQ_PACKED_DESC_FLAGS, true);
      const isUsed = (flags & VIRTQ_PACKED_DESC_F_USED) !== 0;
      if (isUsed !== this.nextUsed.wrap || isUsed !== ((flags & VIRTQ_PACKED_DESC_F_AVAIL) !== 0)) return;
      const id = this.view.getUint16(at + VIRTQ_PACKED_DESC_ID, true);
      // The length counts where the device has written something (§2.8.5).
      const len = flags & VIRTQ_DESC_F_WRITE ? this.view.getUint32(at + VIRTQ_PACKED_DESC_LEN, true) : 0;
      if (!this.#flights.has(id)) {
        throw new DeviceLied(`the used descriptor ${this.nextUsed.index} returns buffer ${id}, which it has not got`);
      }
      // IN_ORDER: all buffers up to the one that is named have come back, those before it used whole (§2.8.9).
      for (const flight of this.options.inOrder ? [...this.#flights.values()] : [this.#flights.get(id) as Flight]) {
        this.#flights.delete(flight.id);
        this.#free += flight.descriptors;
        this.nextUsed = this.behind(this.nextUsed, flight.descriptors);
        this.#returned.push({ id: flight.id, len: flight.id === id ? len : flight.writable });
        if (flight.id === id) break;
      }
    }
  }

  get inFlight(): number {
    this.#harvest();
    return this.#flights.size;
  }

  get free(): number {
    this.#harvest();
    return Math.min(this.#free, this.#freeIds.length);
  }

  get base(): number {
    this.#harvest();
    return baseAt(this.nextUsed);
  }

  reset(): number {
    return this.moveTo({ index: 0, wrap: true });
  }

  /** Makes the ring one in which everything before `position` has been used; answers the base to start from. */
  moveTo(position: RingPosition): number {
    for (let index = 0; index < this.size; index++) {
      const wrap = index < position.index ? position.wrap : !position.wrap;
      const used = wrap ? VIRTQ_PACKED_DESC_F_AVAIL | VIRTQ_PACKED_DESC_F_USED : 0;
      this.writeDescriptor(index, { addr: 0n, len: 0, flags: used });
    }
    this.next = position;
    this.nextUsed = position;
    this.#free = this.size;
    this.#freeIds = allIds(this.size);
    this.#flights.clear();
    this.#returned = [];
    this.#staged = [];
    this.#unannounced = 0;
    return baseAt(position);
  }

  // Event suppression (§2.8.10) -------------------------------------------------------------------------------

  get noInterrupt(): boolean {
    return this.view.getUint16(this.avail + VIRTQ_EVENT_FLAGS, true) === RING_EVENT_FLAGS_DISABLE;
  }

  set noInterrupt(on: boolean) {
    this.view.setUint16(
      this.avail + VIRTQ_EVENT_FLAGS,
      on ? RING_EVENT_FLAGS_DISABLE : RING_EVENT_FLAGS_ENABLE,
      true,
    );
  }

  /** Asks for an interrupt when the descriptor at `position` is used (EVENT_IDX). */
  interruptAt(position: RingPosition): void {
    this.view.setUint16(this.avail + VIRTQ_EVENT_OFF_WRAP, encodePosition(position), true);
    this.view.setUint16(this.avail + VIRTQ_EVENT_FLAGS, RING_EVENT_FLAGS_DESC, true);
  }

  takeKick(): boolean {
    const count = this.#unannounced;
    this.#unannounced = 0;
    const flags = this.view.getUint16(this.used + VIRTQ_EVENT_FLAGS, true) & 3;
    if (flags !== RING_EVENT_FLAGS_DESC) return count > 0 && flags !== RING_EVENT_FLAGS_DISABLE;
    const wanted = this.view.getUint16(this.used + VIRTQ_EVENT_OFF_WRAP, true);
    // From the first descriptor that was published since: `next` is as far behind it.
    const { index, wrap } = this.next;
    const first = index >= count ? { index: index - count, wrap } : { index: index - count + this.size, wrap: !wrap };
    for (let i = 0; i < count; i++) if (encodePosition(this.behind(first, i)) === wanted) return true;
    return false;
  }
}

/** Ids in an order that is not the descriptors'. */
function allIds(size: number): number[] {
  return Array.from({ length: size }, (_, i) => size - 1 - i);
}

/** Writes an entry of an indirect table: WRITE is the only flag that one has (§2.8.7). */
export function writePackedEntry(view: DataView, at: number, { addr, len, write }: Piece, others = 0): void {
  view.setBigUint64(at, BigInt.asUintN(64, addr), true);
  view.setUint32(at + VIRTQ_PACKED_DESC_LEN, len >>> 0, true);
  view.setUint16(at + VIRTQ_PACKED_DESC_ID, NO_ID, true);
  view.setUint16(at + VIRTQ_PACKED_DESC_FLAGS, (write ? VIRTQ_DESC_F_WRITE : 0) | others, true);
}

/** Options of a guest with packed rings. */
export interface PackedGuestOptions extends GuestOptions {
  /** Where all its rings begin. */
  start?: RingPosition;
}

/** A guest with packed rings. */
export class PackedGuest extends VirtioGuest<PackedDriver> {
  constructor(view: DataView, { start, ...options }: PackedGuestOptions) {
    super(view, options, (offset, size, driver) => new PackedDriver(view, offset, size, driver));
    if (start) { for (const queue of this.queues) queue.moveTo(start); }
  }
}
