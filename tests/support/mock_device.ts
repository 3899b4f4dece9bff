/**
 * A virtio device over a driver's memory: the other end of split and packed virtqueues, written from VIRTIO 1.2 §2.7
 * and §2.8 and knowing nothing of the driver. It checks what a driver has to keep to, completes in whatever order and
 * batches a test wants, and says when it asked for a kick and when it has been asked for an interrupt.
 */
import { assert, assertEquals } from "@std/assert";
import * as V from "../../shared/layout/virtio.ts";

/** A piece of a buffer. `at` is its place in the driver's memory. */
export interface Segment {
  at: number;
  bytes: number;
  write: boolean;
}

/** What the driver made available as one buffer. */
export interface Chain {
  id: number;
  /** Descriptors of the ring that it takes. */
  places: number;
  segments: Segment[];
}

/** A chain that the device is through with, and how many bytes it has written. */
export interface Used {
  chain: Chain;
  written: number;
}

/** Where a ring lies, and what was negotiated. */
export interface RingSetup {
  view: DataView;
  /** The place in `view` of a device address; throws if the device may not reach it. */
  translate(address: bigint, bytes: number): number;
  desc: bigint;
  driverArea: bigint;
  deviceArea: bigint;
  size: number;
  inOrder: boolean;
  eventIdx: boolean;
  indirect: boolean;
}

/** When the device wants a kick: at any, at none, or when the driver makes available the `n`th from the beginning. */
export type Wish = "always" | "never" | { at: number };

/** The device's side of one virtqueue. */
export abstract class DeviceRing {
  protected readonly setup: RingSetup;
  protected readonly view: DataView;
  readonly size: number;
  /** How many the driver has made available so far, in the unit in which this format counts events. */
  made = 0;
  /** The same of those used. */
  usedCount = 0;
  wish: Wish = "always";
  readonly #outstanding = new Set<number>();

  constructor(setup: RingSetup) {
    this.setup = setup;
    this.view = setup.view;
    this.size = setup.size;
  }

  /** Takes the next chain that is available. */
  take(): Chain | undefined {
    const chain = this.next();
    if (!chain) return undefined;
    assert(chain.id < this.size, `buffer ${chain.id} of a ring of ${this.size}`);
    assert(!this.#outstanding.has(chain.id), `buffer ${chain.id} is made available twice`);
    this.#outstanding.add(chain.id);
    return chain;
  }

  protected abstract next(): Chain | undefined;

  /** Uses chains, each by itself, or all together by one element for the last of them (IN_ORDER). */
  use(all: readonly Used[], asBatch: boolean): void {
    for (const { chain } of all) this.#outstanding.delete(chain.id);
    if (asBatch) assert(this.setup.inOrder, "batches are for IN_ORDER");
    if (asBatch) return this.put(all);
    for (const one of all) this.put([one]);
  }

  /** Writes one used element for `batch`. */
  protected abstract put(batch: readonly Used[]): void;

  /** Tells the driver what the device wishes for. */
  abstract ask(wish: Wish): void;

  /** Whether the driver that made available those from `before` on has to kick. */
  mustKick(before: number): boolean {
    if (this.made === before || this.wish === "never") return false;
    return this.wish === "always" || (this.wish.at >= before && this.wish.at < this.made);
  }

  /** Whether the driver wants to be interrupted for what was used from `before` on. */
  abstract wantsInterrupt(before: number): boolean;

  protected descriptor(at: number): { address: bigint; bytes: number; low: number; high: number } {
    return {
      address: this.view.getBigUint64(at, true),
      bytes: this.view.getUint32(at + 8, true),
      low: this.view.getUint16(at + 12, true),
      high: this.view.getUint16(at + 14, true),
    };
  }

  protected segment(address: bigint, bytes: number, flags: number): Segment {
    return { at: this.setup.translate(address, bytes), bytes, write: (flags & V.VIRTQ_DESC_F_WRITE) !== 0 };
  }

  /** Where an indirect table lies, and of how many descriptors it is. */
  protected table(address: bigint, bytes: number, flags: number): { at: number; count: number } {
    assert(this.setup.indirect, "an indirect table was not negotiated");
    assertEquals(flags & V.VIRTQ_DESC_F_NEXT, 0, "INDIRECT and NEXT exclude each other");
    assert(bytes > 0 && bytes % V.VIRTQ_DESC_BYTES === 0, `an indirect table of ${bytes} bytes`);
    return { at: this.setup.translate(address, bytes), count: bytes / V.VIRTQ_DESC_BYTES };
  }
}

/** A split virtqueue (§2.7). Events are counted in avail and used indices. */
export class SplitRing extends DeviceRing {
  readonly desc: number;
  readonly avail: number;
  readonly used: number;
  #table = 0;

  constructor(setup: RingSetup) {
    super(setup);
    this.desc = setup.translate(setup.desc, setup.size * V.VIRTQ_DESC_BYTES);
    this.avail = setup.translate(setup.driverArea, 6 + setup.size * 2);
    this.used = setup.translate(setup.deviceArea, 6 + setup.size * V.VIRTQ_USED_ELEM_BYTES);
    this.ask("always");
  }

  protected next(): Chain | undefined {
    const { view, avail, size, setup } = this;
    if (view.getUint16(avail + V.VIRTQ_AVAIL_IDX, true) === (this.made & 0xffff)) return undefined;
    const id = view.getUint16(avail + V.VIRTQ_AVAIL_RING + (this.made % size) * 2, true);
    this.made++;
    const segments: Segment[] = [];
    let index = id;
    let places = 0;
    for (let more = true; more; places++) {
      assert(index < size && places < size, "a chain leaves the table, or has no end");
      if (setup.inOrder) assertEquals(index, this.#table, "IN_ORDER: descriptors are used in the table's order");
      this.#table = (this.#table + 1) % size;
      const { address, bytes, low: flags, high } = this.descriptor(this.desc + index * V.VIRTQ_DESC_BYTES);
      if (flags & V.VIRTQ_DESC_F_INDIRECT) segments.push(...this.#indirect(this.table(address, bytes, flags)));
      else segments.push(this.segment(address, bytes, flags));
      more = (flags & V.VIRTQ_DESC_F_NEXT) !== 0;
      index = high;
    }
    return { id, places, segments };
  }

  #indirect({ at, count }: { at: number; count: number }): Segment[] {
    return Array.from({ length: count }, (_, i) => {
      const { address, bytes, low: flags, high } = this.descriptor(at + i * V.VIRTQ_DESC_BYTES);
      const last = i === count - 1;
      assertEquals(flags & V.VIRTQ_DESC_F_NEXT, last ? 0 : V.VIRTQ_DESC_F_NEXT);
      if (!last) assertEquals(high, i + 1, "indirect descriptors are linked in the table's order");
      return this.segment(address, bytes, flags);
    });
  }

  protected put(batch: readonly Used[]): void {
    const { chain, written } = batch.at(-1) as Used;
    const at = this.used + V.VIRTQ_USED_RING + (this.usedCount % this.size) * V.VIRTQ_USED_ELEM_BYTES;
    this.view.setUint32(at, chain.id, true);
    this.view.setUint32(at + 4, written, true);
    this.usedCount += batch.length;
    this.view.setUint16(this.used + V.VIRTQ_USED_IDX, this.usedCount & 0xffff, true);
  }

  ask(wish: Wish): void {
    if (this.setup.eventIdx) {
      // There is no "always" and "never": an index that comes next, or one that comes in a long time.
      const at = wish === "always" ? this.made : wish === "never" ? this.made + 0x8000 : wish.at;
      this.wish = { at };
      const event = this.used + V.VIRTQ_USED_RING + this.size * V.VIRTQ_USED_ELEM_BYTES;
      return this.view.setUint16(event, at & 0xffff, true);
    }
    this.wish = wish === "never" ? wish : "always";
    this.view.setUint16(this.used, wish === "never" ? V.VIRTQ_USED_F_NO_NOTIFY : 0, true);
  }

  wantsInterrupt(before: number): boolean {
    if (this.usedCount === before) return false;
    if (!this.setup.eventIdx) return (this.view.getUint16(this.avail, true) & V.VIRTQ_AVAIL_F_NO_INTERRUPT) === 0;
    const event = this.view.getUint16(this.avail + V.VIRTQ_AVAIL_RING + this.size * 2, true);
    return ((this.usedCount - event - 1) & 0xffff) < ((this.usedCount - before) & 0xffff);
  }
}

/** A packed virtqueue (§2.8). Events are counted in places of the ring, round after round. */
export class PackedRing extends DeviceRing {
  readonly desc: number;
  readonly driverArea: number;
  readonly deviceArea: number;

  constructor(setup: RingSetup) {
    super(setup);
    this.desc = setup.translate(setup.desc, setup.size * V.VIRTQ_DESC_BYTES);
    this.driverArea = setup.translate(setup.driverArea, V.VIRTQ_EVENT_BYTES);
    this.deviceArea = setup.translate(setup.deviceArea, V.VIRTQ_EVENT_BYTES);
    assertEquals([this.desc % 16, this.driverArea % 4, this.deviceArea % 4], [0, 0, 0], "alignment (§2.8.10.1)");
    this.ask("always");
  }

  /** The wrap counter at the `n`th place from the beginning: 1 in the first round. */
  #wrap(n: number): number {
    return (Math.floor(n / this.size) + 1) % 2;
  }

  #at(n: number): number {
    return this.desc + (n % this.size) * V.VIRTQ_DESC_BYTES;
  }

  #isAvailable(n: number): boolean {
    const { high: flags } = this.descriptor(this.#at(n));
    const [avail, used] = [flags & V.VIRTQ_PACKED_DESC_F_AVAIL, flags & V.VIRTQ_PACKED_DESC_F_USED];
    return (avail !== 0) !== (used !== 0) && (avail !== 0) === (this.#wrap(n) === 1);
  }

  protected next(): Chain | undefined {
    if (!this.#isAvailable(this.made)) return undefined;
    const segments: Segment[] = [];
    let id = 0;
    let places = 0;
    for (let more = true; more; places++) {
      assert(places < this.size, "a chain has no end");
      assert(this.#isAvailable(this.made + places), "half a chain is available");
      const { address, bytes, low, high: flags } = this.descriptor(this.#at(this.made + places));
      if (flags & V.VIRTQ_DESC_F_INDIRECT) segments.push(...this.#indirect(this.table(address, bytes, flags)));
      else segments.push(this.segment(address, bytes, flags));
      more = (flags & V.VIRTQ_DESC_F_NEXT) !== 0;
      // The id that counts is the last one's (§2.8.6).
      id = low;
    }
    this.made += places;
    return { id, places, segments };
  }

  #indirect({ at, count }: { at: number; count: number }): Segment[] {
    return Array.from({ length: count }, (_, i) => {
      const { address, bytes, high: flags } = this.descriptor(at + i * V.VIRTQ_DESC_BYTES);
      assertEquals(flags & ~V.VIRTQ_DESC_F_WRITE, 0, "no flag but WRITE in an indirect table (§2.8.7)");
      return this.segment(address, bytes, flags);
    });
  }

  protected put(batch: readonly Used[]): void {
    const { chain, written } = batch.at(-1) as Used;
    const at = this.#at(this.usedCount);
    const both = V.VIRTQ_PACKED_DESC_F_AVAIL | V.VIRTQ_PACKED_DESC_F_USED;
    const flags = (this.#wrap(this.usedCount) === 1 ? both : 0) | (written > 0 ? V.VIRTQ_DESC_F_WRITE : 0);
    this.view.setUint32(at + V.VIRTQ_PACKED_DESC_LEN, written, true);
    this.view.setUint16(at + V.VIRTQ_PACKED_DESC_ID, chain.id, true);
    this.view.setUint16(at + V.VIRTQ_PACKED_DESC_FLAGS, flags, true);
    this.usedCount += batch.reduce((sum, { chain }) => sum + chain.places, 0);
  }

  ask(wish: Wish): void {
    this.wish = wish;
    const flags = wish === "always" ? V.RING_EVENT_FLAGS_ENABLE : V.RING_EVENT_FLAGS_DISABLE;
    if (typeof wish === "string") {
      return this.view.setUint16(this.deviceArea + V.VIRTQ_EVENT_FLAGS, flags, true);
    }
    assert(this.setup.eventIdx, "descriptor events are for EVENT_IDX");
    this.view.setUint16(this.deviceArea, (wish.at % this.size) | (this.#wrap(wish.at) << 15), true);
    this.view.setUint16(this.deviceArea + V.VIRTQ_EVENT_FLAGS, V.RING_EVENT_FLAGS_DESC, true);
  }

  wantsInterrupt(before: number): boolean {
    if (this.usedCount === before) return false;
    const flags = this.view.getUint16(this.driverArea + V.VIRTQ_EVENT_FLAGS, true);
    if (flags !== V.RING_EVENT_FLAGS_DESC) {
      assert(flags <= V.RING_EVENT_FLAGS_DISABLE, `event flags ${flags} are reserved`);
      return flags === V.RING_EVENT_FLAGS_ENABLE;
    }
    assert(this.setup.eventIdx, "descriptor events are for EVENT_IDX");
    const event = this.view.getUint16(this.driverArea, true);
    const wanted = { place: event & 0x7fff, wrap: event >> 15 };
    for (let n = before; n < this.usedCount; n++) {
      if (n % this.size === wanted.place && this.#wrap(n) === wanted.wrap) return true;
    }
    return false;
  }
}
