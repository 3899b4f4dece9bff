/**
 * A packet buffer: a ring of the engine's own that takes a pool's frames while its driver has no room for them, as a
 * hardware NIC's packet buffer does; assembly/engine/hold.ts hands them on in order. A pool has one as
 * long as it has a receive queue, and a hold on a pool is one, while the pool's driver changes hands.
 */
import {
  BUFFERED_LIST,
  CTL,
  CTL_BUFFERED_COUNT,
  FLAVOUR_SPLIT,
  HOLD_BUFFER_BYTES,
  OFFLOADS_ALL,
  P_BUFFER,
  P_BUFFERED,
  P_OVERRUN,
  POOL_STRIDE,
  POOLS,
  Q_AVAIL,
  Q_CALL_FD,
  Q_CALL_PENDING,
  Q_DESC,
  Q_DIRTY,
  Q_FLAGS,
  Q_FLAVOUR,
  Q_GROUP,
  Q_HDR_BYTES,
  Q_KICK_FD,
  Q_LAST_AVAIL,
  Q_OFFLOADS,
  Q_POOL,
  Q_REGION_IOVA,
  Q_REGION_SIZE,
  Q_REGION_WINDOW,
  Q_RELEASED,
  Q_SIGNALLED,
  Q_SIZE,
  Q_STATE,
  Q_USED,
  Q_USED_IDX,
  QUEUE_F_HOLD,
  QUEUE_F_MRG_RXBUF,
  QUEUE_RUNNING,
  QUEUE_SIZE_MAX,
} from "../layout/nic.ts";
import {
  VIRTIO_NET_HDR_BYTES,
  VIRTQ_AVAIL_F_NO_INTERRUPT,
  VIRTQ_AVAIL_IDX,
  VIRTQ_AVAIL_RING,
  VIRTQ_DESC_BYTES,
  VIRTQ_DESC_F_WRITE,
  VIRTQ_USED_ELEM_BYTES,
  VIRTQ_USED_IDX,
  VIRTQ_USED_RING,
} from "../layout/virtio.ts";
import { type Arena, ArenaFullError, type Fd, type OwnWindow, WINDOW_BYTES } from "../os/mod.ts";
import { DeviceRefusal } from "../device/refusal.ts";
import type { Engine } from "./engine.ts";

/** Frames of up to 500 bytes that fit, if nothing else is said; longer ones take several buffers. */
export const PACKET_BUFFERS = 8192;
/** Room for one frame of 64 KiB. */
const BUFFERS_MIN = 256;
/** What all pools' buffers may have, together, of the arena: each pool as much as any other. */
const ALL_BUFFERS_BYTES = 256 * 1024 ** 2;

/** How many buffers a pool has, where it may have `bytesMax` and one of `pools` is its own; 0: none. */
export function buffersOf(bytesMax: number, pools: number): number {
  const most = Math.min(bytesMax, ALL_BUFFERS_BYTES / Math.max(1, pools)) / HOLD_BUFFER_BYTES;
  return most < BUFFERS_MIN ? 0 : 2 ** Math.floor(Math.log2(most));
}

/** Where things lie in the window of `count` buffers. */
function placesOf(count: number) {
  const [desc, page] = [0x1000, 0x1000];
  const avail = desc + count * VIRTQ_DESC_BYTES;
  const used = avail + Math.ceil((VIRTQ_AVAIL_RING + (count + 1) * 2) / page) * page;
  const buffers = used + Math.ceil((VIRTQ_USED_RING + count * VIRTQ_USED_ELEM_BYTES + 2) / page) * page;
  return { desc, avail, used, buffers, bytes: buffers + count * HOLD_BUFFER_BYTES };
}

/** What `count` buffers take of the arena. */
export function bufferWindowBytes(count: number): number {
  return Math.ceil(placesOf(count).bytes / WINDOW_BYTES) * WINDOW_BYTES;
}

/** What takes over a packet buffer of an engine that has ended: its memory, and what of the last batch is in force. */
export interface BufferTakeOver {
  file: Fd;
  /** Whether that engine ended while it was publishing a batch. */
  isCommitted: boolean;
  /** The buffer (offset in that engine's arena) that the batch was handed on from, and how far that got. */
  commit: { buffer: number; released: number };
}

/** One pool's packet buffer. */
export class PacketBuffer {
  readonly pool: number;
  /** The ring, as the engine's queue. */
  readonly queue: number;
  /** Its buffers. */
  readonly count: number;
  readonly #window: OwnWindow;
  readonly #arena: Arena;
  readonly #view: DataView;

  /** `count`: its buffers, a power of two. `before`: it goes on with another engine's. Throws DeviceRefusal `arena-full`. */
  constructor(arena: Arena, view: DataView, pool: number, count = PACKET_BUFFERS, before?: BufferTakeOver) {
    this.pool = pool;
    this.count = count;
    this.#arena = arena;
    this.#view = view;
    const places = placesOf(count);
    try {
      this.#window = arena.allocateOwn(places.bytes, "ringfabric-packet-buffer", before?.file);
    } catch (error) {
      if (!(error instanceof ArenaFullError)) throw error;
      throw new DeviceRefusal("arena-full", `no room for the pool's frames: ${error.message}`);
    }
    const at = this.#window.offset;
    this.queue = at;
    if (before) this.#takeOver(places.desc, before);
    view.setUint32(at + Q_DESC, at + places.desc, true);
    view.setUint32(at + Q_AVAIL, at + places.avail, true);
    view.setUint32(at + Q_USED, at + places.used, true);
    // Its buffers are addressed by their offset in the window, which is the one region that it ever sees.
    view.setUint32(at + Q_REGION_WINDOW, at, true);
    if (!before) this.#fill();
  }

  /** Describes an empty ring. */
  #fill(): void {
    const { pool, count } = this;
    const view = this.#view;
    const places = placesOf(count);
    const at = this.queue;
    view.setUint32(at + Q_STATE, QUEUE_RUNNING, true);
    view.setUint32(at + Q_FLAVOUR, FLAVOUR_SPLIT, true);
    view.setUint32(at + Q_SIZE, count, true);
    view.setUint32(at + Q_FLAGS, QUEUE_F_MRG_RXBUF | QUEUE_F_HOLD, true);
    view.setUint32(at + Q_HDR_BYTES, VIRTIO_NET_HDR_BYTES, true);
    view.setUint16(at + Q_OFFLOADS, OFFLOADS_ALL, true);
    view.setUint32(at + Q_POOL, pool, true);
    view.setInt32(at + Q_CALL_FD, -1, true);
    view.setInt32(at + Q_KICK_FD, -1, true);
    view.setBigUint64(at + Q_REGION_IOVA, 0n, true);
    view.setBigUint64(at + Q_REGION_SIZE, BigInt(this.#window.bytes), true);
    const avail = at + places.avail;
    for (let i = 0; i < count; i++) {
      const descriptor = at + places.desc + i * VIRTQ_DESC_BYTES;
      view.setBigUint64(descriptor, BigInt(places.buffers + i * HOLD_BUFFER_BYTES), true);
      view.setUint32(descriptor + 8, HOLD_BUFFER_BYTES, true);
      view.setUint16(descriptor + 12, VIRTQ_DESC_F_WRITE, true);
      view.setUint16(avail + VIRTQ_AVAIL_RING + i * 2, i, true);
    }
    view.setUint16(avail, VIRTQ_AVAIL_F_NO_INTERRUPT, true);
    view.setUint16(avail + VIRTQ_AVAIL_IDX, count, true);
  }

  /** Goes on where another engine's ring got to, as `adoptQueue` does with a guest's. */
  #takeOver(desc: number, { isCommitted, commit }: BufferTakeOver): void {
    const view = this.#view;
    const at = this.queue;
    const places = placesOf(this.count);
    const word = at + places.used + VIRTQ_USED_IDX;
    const taken = view.getUint32(at + Q_USED_IDX, true);
    const published = isCommitted && view.getUint32(at + Q_DIRTY, true) !== 0
      ? taken
      : (taken - ((taken - view.getUint16(word, true)) & 0xffff)) >>> 0;
    view.setUint16(word, published & 0xffff, true);
    for (const field of [Q_USED_IDX, Q_LAST_AVAIL, Q_SIGNALLED]) view.setUint32(at + field, published, true);
    for (const field of [Q_DIRTY, Q_GROUP, Q_CALL_PENDING]) view.setUint32(at + field, 0, true);
    if (isCommitted && view.getUint32(at + Q_DESC, true) === commit.buffer + desc) {
      view.setUint32(at + Q_RELEASED, commit.released, true);
    }
    const released = view.getUint32(at + Q_RELEASED, true);
    view.setUint16(at + places.avail + VIRTQ_AVAIL_IDX, (released + this.count) & 0xffff, true);
  }

  /** The file of its memory, for whoever stands by for this engine. It stays the buffer's. */
  get file(): Fd {
    return this.#window.file;
  }

  /** Bytes of the arena that it takes. */
  get windowBytes(): number {
    return this.#window.bytes;
  }

  /** Bytes of the buffers that hold frames. */
  get heldBytes(): number {
    const view = this.#view;
    const taken = view.getUint32(this.queue + Q_USED_IDX, true) - view.getUint32(this.queue + Q_RELEASED, true);
    return (taken >>> 0) * HOLD_BUFFER_BYTES;
  }

  /** Gives the memory back; the engine no longer knows the ring. */
  release(): void {
    this.#arena.releaseOwn(this.#window);
  }
}

/** What a pool's packet buffer needs of its engine. */
type BufferParts = Pick<Engine, "arena" | "view" | "wasm" | "between">;

/** A pool's packet buffer, if the arena has room for it. */
export class PoolBuffer {
  readonly #engine: BufferParts;
  readonly #pool: number;
  readonly #poolAt: number;
  #buffer: PacketBuffer | undefined;
  /** Told of a new one, before the first frame goes there. */
  onGiven: (buffer: PacketBuffer) => void = () => {};

  constructor(engine: BufferParts, pool: number) {
    this.#engine = engine;
    this.#pool = pool;
    this.#poolAt = POOLS + pool * POOL_STRIDE;
  }

  /** Whether there is one. */
  get isThere(): boolean {
    return this.#buffer !== undefined;
  }

  /** The packet buffer, for whoever stands by for this engine. */
  get there(): PacketBuffer | undefined {
    return this.#buffer;
  }

  /** Goes on with the packet buffer of an engine that has ended. The engine stands still. */
  takeOver(count: number, before: BufferTakeOver): void {
    const { arena, view } = this.#engine;
    this.#buffer = new PacketBuffer(arena, view, this.#pool, count, before);
    view.setUint32(this.#poolAt + P_BUFFER, this.#buffer.queue, true);
    if (this.#buffer.heldBytes === 0) return;
    const held = view.getUint32(CTL + CTL_BUFFERED_COUNT, true);
    view.setUint32(BUFFERED_LIST + held * 4, this.#pool, true);
    view.setUint32(CTL + CTL_BUFFERED_COUNT, held + 1, true);
    view.setUint32(this.#poolAt + P_BUFFERED, 1, true);
  }

  /** Whether there is none, and the pool's driver was overrun: there was no room for it before, and there may be now. */
  get isWanted(): boolean {
    return !this.#buffer && this.#engine.view.getUint32(this.#poolAt + P_OVERRUN, true) !== 0;
  }

  /** Bytes of the arena that it takes, and of its buffers that hold frames. */
  get windowBytes(): number {
    return this.#buffer?.windowBytes ?? 0;
  }

  get heldBytes(): number {
    return this.#buffer?.heldBytes ?? 0;
  }

  /**
   * Makes it, of `count` buffers, while the engine goes on: that stands still only to be told of it. Throws nothing: a pool
   * for which the arena has no room goes on to drop.
   */
  give(count = PACKET_BUFFERS): void {
    const { arena, view } = this.#engine;
    let made: PacketBuffer;
    try {
      made = new PacketBuffer(arena, view, this.#pool, count);
    } catch (error) {
      // One that cannot be had stays wanted: the engine says so once, however often the driver is overrun.
      if (error instanceof DeviceRefusal) return;
      throw error;
    }
    this.#buffer = made;
    this.onGiven(made);
    this.#engine.between(() => {
      view.setUint32(this.#poolAt + P_BUFFER, made.queue, true);
      view.setUint32(this.#poolAt + P_OVERRUN, 0, true);
    });
  }

  /** Drops what it holds: that came in a VLAN which the pool has left. The engine stands still. */
  discard(): void {
    if (this.#buffer) this.#engine.wasm.discardHeld(this.#buffer.queue, this.#pool);
  }

  /**
   * Takes it away: the pool has no receive queue any more. What it holds goes to the hold on the pool, if there is one, or
   * is dropped. The engine stands still.
   */
  take(): void {
    const { view, wasm } = this.#engine;
    view.setUint32(this.#poolAt + P_OVERRUN, 0, true);
    const buffer = this.#buffer;
    if (!buffer) return;
    wasm.releaseHeld(buffer.queue, this.#pool, QUEUE_SIZE_MAX, 1);
    view.setUint32(this.#poolAt + P_BUFFER, 0, true);
    this.#buffer = undefined;
    // Nobody looks at it any more; the engine need not stand still while it is unmapped.
    queueMicrotask(() => buffer.release());
  }
}
