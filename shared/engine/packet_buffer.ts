/**
 * A packet buffer: a ring of the engine's own that takes a pool's frames while its driver has no room for them, as a
 * hardware NIC's packet buffer does; assembly/engine/hold.ts hands them on in order. A pool gets one when its receiver
 * is overrun for the first time, and a hold on a pool is one, while the pool's driver changes hands.
 */
import {
  FLAVOUR_SPLIT,
  OFFLOADS_ALL,
  P_BUFFER,
  P_OVERRUN,
  POOL_STRIDE,
  POOLS,
  Q_AVAIL,
  Q_CALL_FD,
  Q_DESC,
  Q_FLAGS,
  Q_FLAVOUR,
  Q_HDR_BYTES,
  Q_KICK_FD,
  Q_OFFLOADS,
  Q_POOL,
  Q_REGION_IOVA,
  Q_REGION_SIZE,
  Q_REGION_WINDOW,
  Q_SIZE,
  Q_STATE,
  Q_USED,
  QUEUE_F_HOLD,
  QUEUE_F_MRG_RXBUF,
  QUEUE_RUNNING,
} from "../layout/nic.ts";
import {
  VIRTIO_NET_HDR_BYTES,
  VIRTQ_AVAIL_F_NO_INTERRUPT,
  VIRTQ_AVAIL_IDX,
  VIRTQ_AVAIL_RING,
  VIRTQ_DESC_BYTES,
  VIRTQ_DESC_F_WRITE,
} from "../layout/virtio.ts";
import { type Arena, ArenaFullError, type Window } from "../os/mod.ts";
import { DeviceRefusal } from "../device/mod.ts";
import type { Engine } from "./engine.ts";

/**
 * Frames of up to 500 bytes that fit; longer ones take several buffers. 4 MiB of frames are a mode change's worth at full
 * speed, and what a TCP connection has on its way to a guest that does not run for a moment.
 */
export const PACKET_BUFFERS = 8192;
const BUFFER_BYTES = 512;

// Where things lie in the window.
const DESC = 0x1000;
const AVAIL = 0x21000;
const USED = 0x26000;
const POOL_OF_BUFFERS = 0x40000;

/** One pool's packet buffer. */
export class PacketBuffer {
  readonly pool: number;
  /** The ring, as the engine's queue. */
  readonly queue: number;
  readonly #window: Window;
  readonly #arena: Arena;

  /** Throws DeviceRefusal `arena-full`. */
  constructor(arena: Arena, view: DataView, pool: number) {
    this.pool = pool;
    this.#arena = arena;
    try {
      this.#window = arena.allocate(POOL_OF_BUFFERS + PACKET_BUFFERS * BUFFER_BYTES);
    } catch (error) {
      if (!(error instanceof ArenaFullError)) throw error;
      throw new DeviceRefusal("arena-full", `no room for the pool's frames: ${error.message}`);
    }
    const at = this.#window.offset;
    this.queue = at;
    view.setUint32(at + Q_STATE, QUEUE_RUNNING, true);
    view.setUint32(at + Q_FLAVOUR, FLAVOUR_SPLIT, true);
    view.setUint32(at + Q_SIZE, PACKET_BUFFERS, true);
    view.setUint32(at + Q_FLAGS, QUEUE_F_MRG_RXBUF | QUEUE_F_HOLD, true);
    view.setUint32(at + Q_HDR_BYTES, VIRTIO_NET_HDR_BYTES, true);
    view.setUint16(at + Q_OFFLOADS, OFFLOADS_ALL, true);
    view.setUint32(at + Q_POOL, pool, true);
    view.setUint32(at + Q_DESC, at + DESC, true);
    view.setUint32(at + Q_AVAIL, at + AVAIL, true);
    view.setUint32(at + Q_USED, at + USED, true);
    view.setInt32(at + Q_CALL_FD, -1, true);
    view.setInt32(at + Q_KICK_FD, -1, true);
    // Its buffers are addressed by their offset in the window, which is the one region that it ever sees.
    view.setBigUint64(at + Q_REGION_IOVA, 0n, true);
    view.setBigUint64(at + Q_REGION_SIZE, BigInt(this.#window.bytes), true);
    view.setUint32(at + Q_REGION_WINDOW, at, true);
    for (let i = 0; i < PACKET_BUFFERS; i++) {
      const descriptor = at + DESC + i * VIRTQ_DESC_BYTES;
      view.setBigUint64(descriptor, BigInt(POOL_OF_BUFFERS + i * BUFFER_BYTES), true);
      view.setUint32(descriptor + 8, BUFFER_BYTES, true);
      view.setUint16(descriptor + 12, VIRTQ_DESC_F_WRITE, true);
      view.setUint16(at + AVAIL + VIRTQ_AVAIL_RING + i * 2, i, true);
    }
    view.setUint16(at + AVAIL, VIRTQ_AVAIL_F_NO_INTERRUPT, true);
    view.setUint16(at + AVAIL + VIRTQ_AVAIL_IDX, PACKET_BUFFERS, true);
  }

  /** Gives the memory back; the engine no longer knows the ring. */
  release(): void {
    this.#arena.release(this.#window);
  }
}

/** A pool's packet buffer, once its driver has been overrun. */
export class PoolBuffer {
  readonly #engine: Pick<Engine, "arena" | "view" | "wasm">;
  readonly #pool: number;
  readonly #poolAt: number;
  #buffer: PacketBuffer | undefined;

  constructor(engine: Pick<Engine, "arena" | "view" | "wasm">, pool: number) {
    this.#engine = engine;
    this.#pool = pool;
    this.#poolAt = POOLS + pool * POOL_STRIDE;
  }

  /** Whether there is one. */
  get isThere(): boolean {
    return this.#buffer !== undefined;
  }

  /** Whether the pool's driver was overrun, and there is none. */
  get isWanted(): boolean {
    return !this.#buffer && this.#engine.view.getUint32(this.#poolAt + P_OVERRUN, true) !== 0;
  }

  /** Makes it. The engine stands still. Throws nothing: a pool for which the arena has no room goes on to drop. */
  give(): void {
    const { arena, view } = this.#engine;
    try {
      this.#buffer = new PacketBuffer(arena, view, this.#pool);
      view.setUint32(this.#poolAt + P_BUFFER, this.#buffer.queue, true);
    } catch (error) {
      if (!(error instanceof DeviceRefusal)) throw error;
    }
    view.setUint32(this.#poolAt + P_OVERRUN, 0, true);
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
    wasm.releaseHeld(buffer.queue, this.#pool, PACKET_BUFFERS, 1);
    view.setUint32(this.#poolAt + P_BUFFER, 0, true);
    this.#buffer = undefined;
    // Nobody looks at it any more; the engine need not stand still while it is unmapped.
    queueMicrotask(() => buffer.release());
  }
}
