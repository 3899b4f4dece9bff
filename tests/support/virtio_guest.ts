/**
 * A guest with virtqueues over a piece of memory, whatever their format: queue pairs, receive buffers of any shape, and
 * frames as byte arrays. MockGuest has split rings, PackedGuest packed ones; AdvancedGuest has the same face.
 */
import { VIRTIO_NET_HDR_BYTES } from "../../shared/layout/virtio.ts";
import type { DriverOptions, Piece, Table, UsedBuffer, Virtqueue } from "./virtqueue.ts";

/** Entries that a slot's indirect table may have. */
const TABLE_ENTRIES = 16;
const NUM_BUFFERS = 10;

/** How a mock guest is laid out. */
export interface GuestOptions extends DriverOptions {
  /** Where its memory begins in the view, how long it is, and the IOVA of its first byte. */
  offset: number;
  bytes: number;
  iova: bigint;
  queueSize?: number;
  queuePairs?: number;
  bufferBytes?: number;
  hdrBytes?: number;
}

/** How a frame is sent or a buffer is posted. */
export interface Shape {
  pair?: number;
  /** By way of an indirect table. */
  indirect?: boolean;
  /** What its virtio-net header says, if it says anything. */
  header?: Uint8Array;
}

/** A frame that has come in, and the virtio-net header in front of it. */
export interface Received {
  header: Uint8Array;
  frame: Uint8Array;
}

/** What every guest of the tests can do, whatever its rings. */
export interface RingGuest {
  readonly view: DataView;
  readonly options: Required<GuestOptions>;
  /** First byte that no ring uses: buffers, and scratch for tests. */
  readonly heap: number;
  /** The IOVA of view offset `at`. */
  iova(at: number): bigint;
  /** A copy of guest memory. */
  bytes(at: number, length: number): Uint8Array;
  /** Writes a frame at view offset `at`, with whatever header its rings want. Answers how many bytes that are. */
  writeFrame(at: number, frame: Uint8Array, header?: Uint8Array): number;
  /** Posts `count` receive buffers. */
  fill(count: number, pair?: number, bufferBytes?: number): void;
  /** Posts one receive buffer in pieces of these sizes, if its rings have such. */
  post(sizes: readonly number[], shape?: Shape): void;
  /** Receive buffers that the device has still. */
  posted(pair?: number): number;
  /** Offers frames for transmission, each in one descriptor if it fits. */
  send(frames: readonly Uint8Array[], pair?: number): void;
  /** Offers a frame whose bytes are cut at `cuts` (of the header and the frame together). */
  sendPieces(frame: Uint8Array, cuts: readonly number[], shape?: Shape): void;
  /** Takes back what has been sent; answers for how many more descriptors there is room. */
  room(pair?: number): number;
  /** Frames that wait to be sent still. */
  unsent(pair?: number): number;
  /** Takes the frames that have come in, without their headers. */
  receive(pair?: number): Uint8Array[];
}

/** Cuts `length` bytes in pieces, at offsets that lie within. */
export function cutAt(length: number, cuts: readonly number[]): { at: number; len: number }[] {
  if (cuts.length === 0) return [{ at: 0, len: length }];
  const inside = new Set(cuts.filter((cut) => cut > 0 && cut < length));
  const edges = [0, ...[...inside].sort((a, b) => a - b), length];
  return edges.slice(1).map((end, i) => ({ at: edges[i] ?? 0, len: end - (edges[i] ?? 0) }));
}

/** A guest with queue pairs of virtqueues. */
export class VirtioGuest<Q extends Virtqueue> implements RingGuest {
  readonly view: DataView;
  readonly options: Required<GuestOptions>;
  readonly queues: Q[];
  readonly heap: number;
  /** By queue: the next slot of buffer memory, and where the buffers lie that the device has. */
  readonly #next: number[];
  readonly #posted: Map<number, { at: number; len: number }[]>[];
  /** What `view` looks at, as bytes. */
  readonly #memory: Uint8Array;

  constructor(
    view: DataView,
    options: GuestOptions,
    makeQueue: (offset: number, size: number, driver: DriverOptions) => Q,
  ) {
    this.view = view;
    this.#memory = new Uint8Array(view.buffer, view.byteOffset);
    const defaults = { queueSize: 64, queuePairs: 1, bufferBytes: 2048, hdrBytes: VIRTIO_NET_HDR_BYTES };
    this.options = { ...defaults, inOrder: false, eventIdx: false, ...options };
    let at = options.offset;
    this.queues = Array.from({ length: this.options.queuePairs * 2 }, () => {
      const queue = makeQueue(at, this.options.queueSize, this.options);
      at = Math.ceil((at + queue.bytes) / 4096) * 4096;
      return queue;
    });
    this.heap = at;
    this.#next = this.queues.map(() => 0);
    this.#posted = this.queues.map(() => new Map());
  }

  rx(pair = 0): Q {
    return this.queues[pair * 2] as Q;
  }

  tx(pair = 0): Q {
    return this.queues[pair * 2 + 1] as Q;
  }

  iova(at: number): bigint {
    return this.options.iova + BigInt(at - this.options.offset);
  }

  bytes(at: number, length: number): Uint8Array {
    return this.#memory.slice(at, at + length);
  }

  /** Memory for the next buffer of a queue: it comes round when the ring has. Behind all slots lie their tables. */
  #slot(queue: number): { at: number; table: Table } {
    const { queueSize, bufferBytes } = this.options;
    const slot = queue * queueSize + (this.#next[queue] ?? 0) % queueSize;
    this.#next[queue] = (this.#next[queue] ?? 0) + 1;
    const table = this.heap + this.queues.length * queueSize * bufferBytes + slot * TABLE_ENTRIES * 16;
    return { at: this.heap + slot * bufferBytes, table: { at: table, iova: this.iova(table) } };
  }

  fill(count: number, pair = 0, bufferBytes = this.options.bufferBytes): void {
    for (let i = 0; i < count; i++) this.#add(pair * 2, [bufferBytes]);
    this.rx(pair).publish();
  }

  post(sizes: readonly number[], { pair = 0, indirect = false }: Shape = {}): void {
    this.#add(pair * 2, sizes, indirect);
    this.rx(pair).publish();
  }

  #add(index: number, sizes: readonly number[], indirect = false): void {
    const slot = this.#slot(index);
    let at = slot.at;
    const parts = sizes.map((len) => ({ at: (at += len) - len, len }));
    const id = this.#offer(index, parts, true, indirect ? slot.table : undefined);
    this.#posted[index]?.set(id, parts);
  }

  #offer(index: number, parts: { at: number; len: number }[], write: boolean, table?: Table): number {
    const pieces: Piece[] = parts.map(({ at, len }) => ({ addr: this.iova(at), len, write }));
    return (this.queues[index] as Q).add(pieces, table);
  }

  posted(pair = 0): number {
    return this.rx(pair).inFlight;
  }

  writeFrame(at: number, frame: Uint8Array, header?: Uint8Array): number {
    const { hdrBytes } = this.options;
    this.#memory.fill(0, at, at + hdrBytes);
    if (header) this.#memory.set(header, at);
    this.#memory.set(frame, at + hdrBytes);
    return hdrBytes + frame.byteLength;
  }

  send(frames: readonly Uint8Array[], pair = 0): void {
    for (const frame of frames) this.#transmit(frame, [], { pair });
    this.tx(pair).publish();
  }

  sendPieces(frame: Uint8Array, cuts: readonly number[], shape: Shape = {}): void {
    this.#transmit(frame, cuts, shape);
    this.tx(shape.pair).publish();
  }

  #transmit(frame: Uint8Array, cuts: readonly number[], { pair = 0, indirect = false, header }: Shape): void {
    while (this.tx(pair).popUsed());
    const { at, table } = this.#slot(pair * 2 + 1);
    const length = this.writeFrame(at, frame, header);
    const parts = cutAt(length, cuts).map((part) => ({ at: at + part.at, len: part.len }));
    this.#offer(pair * 2 + 1, parts, false, indirect ? table : undefined);
  }

  room(pair = 0): number {
    while (this.tx(pair).popUsed());
    return this.tx(pair).free;
  }

  unsent(pair = 0): number {
    return this.tx(pair).inFlight;
  }

  receive(pair = 0): Uint8Array[] {
    return this.receiveWhole(pair).map(({ frame }) => frame);
  }

  /** Takes the frames that have come in, with their headers. */
  receiveWhole(pair = 0): Received[] {
    const frames: Received[] = [];
    for (let used = this.rx(pair).popUsed(); used; used = this.rx(pair).popUsed()) {
      let data = this.#read(pair, used);
      for (let more = this.#numBuffers(data) - 1; more > 0; more--) {
        const next = this.rx(pair).popUsed();
        if (!next) throw new Error(`num_buffers promises ${more} buffers more than were returned`);
        data = joined(data, this.#read(pair, next));
      }
      const { hdrBytes } = this.options;
      frames.push({ header: data.slice(0, hdrBytes), frame: data.slice(hdrBytes) });
    }
    return frames;
  }

  /** Buffers that the frame fills whose first one holds `data`: a device without MRG_RXBUF says 1 (5.1.6.4). */
  #numBuffers(data: Uint8Array): number {
    if (this.options.hdrBytes < VIRTIO_NET_HDR_BYTES) return 1;
    return (data[NUM_BUFFERS] ?? 0) + (data[NUM_BUFFERS + 1] ?? 0) * 256;
  }

  /** What the device has written into a buffer. */
  #read(pair: number, { id, len }: UsedBuffer): Uint8Array {
    const parts = this.#posted[pair * 2]?.get(id);
    if (!parts) throw new Error(`used element names descriptor ${id}, which was not offered`);
    this.#posted[pair * 2]?.delete(id);
    const [first = { at: 0, len: 0 }, ...others] = parts;
    let data = this.bytes(first.at, Math.min(len, first.len));
    let left = len - data.length;
    for (const part of others) {
      const more = this.bytes(part.at, Math.min(left, part.len));
      data = joined(data, more);
      left -= more.length;
    }
    if (left > 0) throw new Error(`the device says that it has written ${len} bytes: its buffer is shorter`);
    return data;
  }
}

function joined(a: Uint8Array, b: Uint8Array): Uint8Array<ArrayBuffer> {
  const both = new Uint8Array(a.length + b.length);
  both.set(a);
  both.set(b, a.length);
  return both;
}
