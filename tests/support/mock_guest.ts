/**
 * A guest driver over a piece of memory: split rings, buffers, frames. The same one drives the engine over a plain
 * arena (unit, property and fuzz tests) and a real NIC over a memfd (hostile and integration tests), so what a hostile
 * guest does is written once.
 */
import { VIRTQ_DESC_F_INDIRECT, VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE } from "../../shared/layout/virtio.ts";
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

export type { GuestOptions };

/** A descriptor as written to the table. */
export interface Descriptor extends RawDescriptor {
  next?: number;
}

/** A chain that the device has, as the driver remembers it. */
interface Chain {
  head: number;
  descriptors: number;
  writable: number;
}

/** The driver's side of one split virtqueue, every field of it within reach. */
export class SplitDriver implements Virtqueue {
  readonly view: DataView;
  readonly size: number;
  readonly desc: number;
  readonly avail: number;
  readonly used: number;
  readonly bytes: number;
  readonly options: DriverOptions;
  availIdx = 0;
  lastUsed = 0;
  #nextFree = 0;
  #kickedAt = 0;
  /** What `add` has made of the descriptors, by head; how many of them the device has. */
  #made = new Map<number, Chain>();
  #taken = 0;
  /** IN_ORDER: what the device has, in the order in which it was offered. */
  #offered: Chain[] = [];
  /** Buffers that were returned by one used element and are still to be popped. */
  #batch: UsedBuffer[] = [];

  constructor(view: DataView, offset: number, size: number, options: DriverOptions = {}) {
    this.view = view;
    this.size = size;
    this.options = options;
    this.desc = offset;
    this.avail = offset + 16 * size;
    this.used = Math.ceil((this.avail + 6 + 2 * size) / 64) * 64;
    this.bytes = this.used + 6 + 8 * size - offset;
  }

  writeDescriptor(index: number, { addr, len, flags = 0, next = 0 }: Descriptor): void {
    writeDescriptor(this.view, this.desc + index * 16, { addr, len, flags, next });
  }

  /** Puts `head` into the avail ring; the device sees it after `publish`. */
  offer(head: number): void {
    this.view.setUint16(this.avail + 4 + (this.availIdx % this.size) * 2, head, true);
    this.availIdx = (this.availIdx + 1) & 0xffff;
    const chain = this.#made.get(head) ?? { head, descriptors: 1, writable: 0 };
    this.#taken += chain.descriptors;
    if (this.options.inOrder) this.#offered.push(chain);
  }

  publish(idx = this.availIdx): void {
    this.view.setUint16(this.avail + 2, idx, true);
  }

  add(pieces: readonly Piece[], table?: Table): number {
    const writable = writableBytes(pieces);
    const chain = pieces.map(({ addr, len, write }, i) => ({
      addr,
      len,
      flags: (write ? VIRTQ_DESC_F_WRITE : 0) | (i + 1 < pieces.length ? VIRTQ_DESC_F_NEXT : 0),
    }));
    if (!table) return this.#chain(chain, writable);
    chain.forEach((one, i) => {
      writeDescriptor(this.view, table.at + i * 16, { ...one, next: i + 1 < chain.length ? i + 1 : 0 });
    });
    return this.#chain([{ addr: table.iova, len: chain.length * 16, flags: VIRTQ_DESC_F_INDIRECT }], writable);
  }

  addRaw(descriptors: readonly RawDescriptor[]): number {
    return this.#chain(descriptors, 0);
  }

  /** Writes descriptors that follow each other and offers them. IN_ORDER drivers use descriptors in ring order too. */
  #chain(descriptors: readonly RawDescriptor[], writable: number): number {
    const head = this.#nextFree;
    descriptors.forEach(({ addr, len, flags = 0 }, i) => {
      const index = (head + i) % this.size;
      this.writeDescriptor(index, { addr, len, flags, next: flags & VIRTQ_DESC_F_NEXT ? (index + 1) % this.size : 0 });
    });
    this.#nextFree = (head + descriptors.length) % this.size;
    this.#made.set(head, { head, descriptors: descriptors.length, writable });
    this.offer(head);
    return head;
  }

  popUsed(): UsedBuffer | undefined {
    if (this.#batch.length > 0) return this.#batch.shift();
    const returned = (this.usedIdx - this.lastUsed) & 0xffff;
    if (returned === 0) return undefined;
    const at = this.used + 4 + (this.lastUsed % this.size) * 8;
    const last = { id: this.view.getUint32(at, true), len: this.view.getUint32(at + 4, true) };
    if (!this.options.inOrder) {
      this.lastUsed = (this.lastUsed + 1) & 0xffff;
      this.#taken -= this.#made.get(last.id)?.descriptors ?? 1;
      return last;
    }
    // One element stands for all buffers up to the one that it names; those before it have been used whole (2.7.9).
    const count = this.#offered.findIndex(({ head }) => head === last.id) + 1;
    if (count === 0) throw new DeviceLied(`the used element names descriptor ${last.id}, which the device has not got`);
    if (count > returned) throw new DeviceLied(`a batch of ${count} buffers, and the used index moved by ${returned}`);
    this.lastUsed = (this.lastUsed + count) & 0xffff;
    const batch = this.#offered.splice(0, count);
    this.#taken -= batch.reduce((sum, { descriptors }) => sum + descriptors, 0);
    this.#batch = [...batch.slice(0, -1).map(({ head, writable }) => ({ id: head, len: writable })), last];
    return this.#batch.shift();
  }

  get usedIdx(): number {
    return this.view.getUint16(this.used + 2, true);
  }

  get inFlight(): number {
    return (this.availIdx - this.usedIdx) & 0xffff;
  }

  get free(): number {
    return Math.max(0, this.size - this.#taken);
  }

  get base(): number {
    return this.usedIdx;
  }

  reset(): number {
    this.availIdx = this.lastUsed = this.usedIdx;
    this.#offered = [];
    this.#batch = [];
    this.#taken = 0;
    this.publish();
    return this.usedIdx;
  }

  get noInterrupt(): boolean {
    return this.view.getUint16(this.avail, true) !== 0;
  }

  set noInterrupt(on: boolean) {
    this.view.setUint16(this.avail, on ? 1 : 0, true);
  }

  takeKick(): boolean {
    const [from, to] = [this.#kickedAt, this.availIdx];
    this.#kickedAt = to;
    if (!this.options.eventIdx) return from !== to && (this.view.getUint16(this.used, true) & 1) === 0;
    const event = this.view.getUint16(this.used + 4 + 8 * this.size, true);
    return ((to - event - 1) & 0xffff) < ((to - from) & 0xffff);
  }
}

/** Writes one descriptor anywhere (indirect tables too). */
export function writeDescriptor(view: DataView, at: number, { addr, len, flags = 0, next = 0 }: Descriptor): void {
  view.setBigUint64(at, BigInt.asUintN(64, addr), true);
  view.setUint32(at + 8, len >>> 0, true);
  view.setUint16(at + 12, flags, true);
  view.setUint16(at + 14, next, true);
}

/** A guest with split rings. */
export class MockGuest extends VirtioGuest<SplitDriver> {
  constructor(view: DataView, options: GuestOptions) {
    super(view, options, (offset, size, driver) => new SplitDriver(view, offset, size, driver));
  }
}

/** MAC text to bytes. */
export function macBytes(mac: string): number[] {
  return mac.split(":").map((byte) => parseInt(byte, 16));
}

/** Addresses that frames have had, as bytes: a test sends thousands between a few. */
const addresses = new Map<string, number[]>();

function addressBytes(mac: string): number[] {
  const known = addresses.get(mac);
  if (known) return known;
  const bytes = macBytes(mac);
  addresses.set(mac, bytes);
  return bytes;
}

/** How a test frame is made. */
export interface FrameOptions {
  dst: string;
  src: string;
  bytes?: number;
  /** Tags, outermost first. */
  tags?: { tpid?: number; vid: number; pcp?: number }[];
  etherType?: number;
  payload?: Uint8Array;
}

/** An Ethernet frame. The payload counts up unless it is given. */
export function frame({ dst, src, bytes = 64, tags = [], etherType = 0x88b5, payload }: FrameOptions): Uint8Array {
  const head = [...addressBytes(dst), ...addressBytes(src)];
  for (const { tpid = 0x8100, vid, pcp = 0 } of tags) {
    const tci = (pcp << 13) | vid;
    head.push(tpid >> 8, tpid & 0xff, tci >> 8, tci & 0xff);
  }
  head.push(etherType >> 8, etherType & 0xff);
  const made = new Uint8Array(head.length + (payload?.length ?? Math.max(0, bytes - head.length)));
  made.set(head);
  if (payload) made.set(payload, head.length);
  else for (let i = head.length; i < made.length; i++) made[i] = (i - head.length) & 0xff;
  return made;
}

/** The broadcast address. */
export const BROADCAST = "ff:ff:ff:ff:ff:ff";
