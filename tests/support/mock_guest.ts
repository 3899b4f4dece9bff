/**
 * A guest driver over a piece of memory: split rings, buffers, frames. The same one drives the engine over a plain
 * arena (unit, property and fuzz tests) and a real NIC over a memfd (hostile and integration tests), so what a hostile
 * guest does is written once.
 */
import { VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE } from "../../shared/layout/virtio.ts";

/** A descriptor as written to the table. */
export interface Descriptor {
  addr: bigint;
  len: number;
  flags?: number;
  next?: number;
}

/** The driver's side of one split virtqueue, every field of it within reach. */
export class SplitDriver {
  readonly view: DataView;
  readonly size: number;
  readonly desc: number;
  readonly avail: number;
  readonly used: number;
  /** Bytes that the rings take from `offset` on. */
  readonly bytes: number;
  availIdx = 0;
  lastUsed = 0;
  #nextFree = 0;

  constructor(view: DataView, offset: number, size: number) {
    this.view = view;
    this.size = size;
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
  }

  publish(idx = this.availIdx): void {
    this.view.setUint16(this.avail + 2, idx, true);
  }

  /** Writes a chain of buffers into free descriptors and offers it. Answers its head. */
  add(buffers: { addr: bigint; len: number; write?: boolean }[]): number {
    const head = this.#nextFree;
    buffers.forEach((buffer, i) => {
      const index = (head + i) % this.size;
      const last = i === buffers.length - 1;
      const flags = (buffer.write ? VIRTQ_DESC_F_WRITE : 0) | (last ? 0 : VIRTQ_DESC_F_NEXT);
      this.writeDescriptor(index, {
        addr: buffer.addr,
        len: buffer.len,
        flags,
        next: last ? 0 : (index + 1) % this.size,
      });
    });
    this.#nextFree = (head + buffers.length) % this.size;
    this.offer(head);
    return head;
  }

  /** The next used element that the driver has not seen. */
  popUsed(): { id: number; len: number } | undefined {
    if (this.view.getUint16(this.used + 2, true) === this.lastUsed) return undefined;
    const at = this.used + 4 + (this.lastUsed % this.size) * 8;
    this.lastUsed = (this.lastUsed + 1) & 0xffff;
    return { id: this.view.getUint32(at, true), len: this.view.getUint32(at + 4, true) };
  }

  get usedIdx(): number {
    return this.view.getUint16(this.used + 2, true);
  }

  set noInterrupt(on: boolean) {
    this.view.setUint16(this.avail, on ? 1 : 0, true);
  }
}

/** Writes one descriptor anywhere (indirect tables too). */
export function writeDescriptor(view: DataView, at: number, { addr, len, flags = 0, next = 0 }: Descriptor): void {
  view.setBigUint64(at, BigInt.asUintN(64, addr), true);
  view.setUint32(at + 8, len >>> 0, true);
  view.setUint16(at + 12, flags, true);
  view.setUint16(at + 14, next, true);
}

/** How a mock guest is laid out. */
export interface GuestOptions {
  /** Where its memory begins in the view, how long it is, and the IOVA of its first byte. */
  offset: number;
  bytes: number;
  iova: bigint;
  queueSize?: number;
  queuePairs?: number;
  bufferBytes?: number;
  hdrBytes?: number;
}

/** A guest with queue pairs, receive buffers posted on demand, and frames as byte arrays. */
export class MockGuest {
  readonly view: DataView;
  readonly options: Required<GuestOptions>;
  readonly queues: SplitDriver[];
  /** First byte that no ring uses: buffers, and scratch for tests. */
  readonly heap: number;
  #rxSlots = new Map<number, Map<number, number>>();

  constructor(view: DataView, options: GuestOptions) {
    this.view = view;
    this.options = { queueSize: 64, queuePairs: 1, bufferBytes: 2048, hdrBytes: 12, ...options };
    let at = options.offset;
    this.queues = Array.from({ length: this.options.queuePairs * 2 }, () => {
      const queue = new SplitDriver(view, at, this.options.queueSize);
      at = Math.ceil((at + queue.bytes) / 4096) * 4096;
      return queue;
    });
    this.heap = at;
  }

  rx(pair = 0): SplitDriver {
    return this.queues[pair * 2] as SplitDriver;
  }

  tx(pair = 0): SplitDriver {
    return this.queues[pair * 2 + 1] as SplitDriver;
  }

  /** The IOVA of view offset `at`. */
  iova(at: number): bigint {
    return this.options.iova + BigInt(at - this.options.offset);
  }

  #slot(queue: number, slot: number): number {
    const { queueSize, bufferBytes } = this.options;
    return this.heap + (queue * queueSize + (slot % queueSize)) * bufferBytes;
  }

  /** Posts `count` receive buffers. */
  fill(count: number, pair = 0, bufferBytes = this.options.bufferBytes): void {
    const queue = this.rx(pair);
    const slots = this.#rxSlots.get(pair) ?? new Map<number, number>();
    this.#rxSlots.set(pair, slots);
    for (let i = 0; i < count; i++) {
      const at = this.#slot(pair * 2, queue.availIdx);
      slots.set(queue.add([{ addr: this.iova(at), len: bufferBytes, write: true }]), at);
    }
    queue.publish();
  }

  /** Writes a frame behind an all-zero virtio-net header at view offset `at`. */
  writeFrame(at: number, frame: Uint8Array, header?: Uint8Array): number {
    const { hdrBytes } = this.options;
    const bytes = new Uint8Array(this.view.buffer, this.view.byteOffset);
    bytes.fill(0, at, at + hdrBytes);
    if (header) bytes.set(header, at);
    bytes.set(frame, at + hdrBytes);
    return hdrBytes + frame.byteLength;
  }

  /** Offers frames for transmission, each in one descriptor. Answers how many descriptors were used. */
  send(frames: readonly Uint8Array[], pair = 0): void {
    const queue = this.tx(pair);
    for (const frame of frames) {
      const at = this.#slot(pair * 2 + 1, queue.availIdx);
      const len = this.writeFrame(at, frame);
      queue.add([{ addr: this.iova(at), len }]);
    }
    queue.publish();
  }

  /** Takes back what has been sent; answers how many more frames there is room for. */
  room(pair = 0): number {
    const queue = this.tx(pair);
    while (queue.popUsed());
    return queue.size - this.unsent(pair);
  }

  /** Frames that wait to be sent still. */
  unsent(pair = 0): number {
    const queue = this.tx(pair);
    return (queue.availIdx - queue.usedIdx) & 0xffff;
  }

  /** Takes the frames that have come in (single-buffer ones), without their headers. */
  receive(pair = 0): Uint8Array[] {
    const queue = this.rx(pair);
    const slots = this.#rxSlots.get(pair);
    const frames: Uint8Array[] = [];
    for (let used = queue.popUsed(); used; used = queue.popUsed()) {
      const at = slots?.get(used.id);
      if (at === undefined) throw new Error(`used element names descriptor ${used.id}, which was not offered`);
      frames.push(this.bytes(at + this.options.hdrBytes, used.len - this.options.hdrBytes));
    }
    return frames;
  }

  /** A copy of guest memory. */
  bytes(at: number, length: number): Uint8Array {
    return new Uint8Array(this.view.buffer, this.view.byteOffset + at, length).slice();
  }
}

/** MAC text to bytes. */
export function macBytes(mac: string): number[] {
  return mac.split(":").map((byte) => parseInt(byte, 16));
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
  const head = [...macBytes(dst), ...macBytes(src)];
  for (const { tpid = 0x8100, vid, pcp = 0 } of tags) {
    const tci = (pcp << 13) | vid;
    head.push(tpid >> 8, tpid & 0xff, tci >> 8, tci & 0xff);
  }
  head.push(etherType >> 8, etherType & 0xff);
  const body = payload ?? Uint8Array.from({ length: Math.max(0, bytes - head.length) }, (_, i) => i & 0xff);
  return Uint8Array.from([...head, ...body]);
}

/** The broadcast address. */
export const BROADCAST = "ff:ff:ff:ff:ff:ff";
