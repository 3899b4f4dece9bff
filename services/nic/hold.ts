/**
 * The hold on a pool, as the control thread sees it: a ring of the NIC's own with buffers, to which the switch delivers
 * while the pool's driver changes hands (assembly/engine/hold.ts empties it). It has room for as much as a hardware NIC's
 * packet buffer, so a change of hands that takes milliseconds loses nothing.
 */
import {
  FLAVOUR_SPLIT,
  OFFLOADS_ALL,
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
} from "../../shared/layout/nic.ts";
import {
  VIRTIO_NET_HDR_BYTES,
  VIRTQ_AVAIL_F_NO_INTERRUPT,
  VIRTQ_AVAIL_IDX,
  VIRTQ_AVAIL_RING,
  VIRTQ_DESC_BYTES,
  VIRTQ_DESC_F_WRITE,
} from "../../shared/layout/virtio.ts";
import { type Arena, ArenaFullError, type Window } from "../../shared/os/mod.ts";
import { DeviceRefusal } from "../../shared/device/mod.ts";

/**
 * Frames of up to 500 bytes that fit; longer ones take several buffers. Holds live in the arena beside the guests'
 * memory, and many VFs may change hands at once: 4 MiB of frames are a mode change's worth at full speed.
 */
export const HOLD_BUFFERS = 8192;
const BUFFER_BYTES = 512;

// Where things lie in the window.
const DESC = 0x1000;
const AVAIL = 0x21000;
const USED = 0x26000;
const POOL_OF_BUFFERS = 0x40000;

/** One pool's hold. */
export class Hold {
  readonly pool: number;
  /** By which a lease says with which hold it came. */
  readonly id = crypto.randomUUID();
  /** The right to attach to the VF while it is held; used up by the first who shows it, gone with the hold. */
  token: string | undefined;
  /** The ring, as the engine's queue. */
  readonly queue: number;
  readonly #window: Window;
  readonly #arena: Arena;
  /** Resolves when what it holds has been handed on; `undefined` until somebody ends the hold. */
  released: Promise<void> | undefined;
  /** Nothing is in it any more, and its memory is not its own. */
  closed = false;
  timer: ReturnType<typeof setTimeout> | undefined;

  constructor(arena: Arena, view: DataView, pool: number, token: string | undefined) {
    this.pool = pool;
    this.token = token;
    this.#arena = arena;
    try {
      this.#window = arena.allocate(POOL_OF_BUFFERS + HOLD_BUFFERS * BUFFER_BYTES);
    } catch (error) {
      if (!(error instanceof ArenaFullError)) throw error;
      throw new DeviceRefusal("arena-full", `cannot hold the pool's frames: ${error.message}`);
    }
    const at = this.#window.offset;
    this.queue = at;
    view.setUint32(at + Q_STATE, QUEUE_RUNNING, true);
    view.setUint32(at + Q_FLAVOUR, FLAVOUR_SPLIT, true);
    view.setUint32(at + Q_SIZE, HOLD_BUFFERS, true);
    view.setUint32(at + Q_FLAGS, QUEUE_F_MRG_RXBUF | QUEUE_F_HOLD, true);
    view.setUint32(at + Q_HDR_BYTES, VIRTIO_NET_HDR_BYTES, true);
    view.setUint32(at + Q_OFFLOADS, OFFLOADS_ALL, true);
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
    for (let i = 0; i < HOLD_BUFFERS; i++) {
      const descriptor = at + DESC + i * VIRTQ_DESC_BYTES;
      view.setBigUint64(descriptor, BigInt(POOL_OF_BUFFERS + i * BUFFER_BYTES), true);
      view.setUint32(descriptor + 8, BUFFER_BYTES, true);
      view.setUint16(descriptor + 12, VIRTQ_DESC_F_WRITE, true);
      view.setUint16(at + AVAIL + VIRTQ_AVAIL_RING + i * 2, i, true);
    }
    view.setUint16(at + AVAIL, VIRTQ_AVAIL_F_NO_INTERRUPT, true);
    view.setUint16(at + AVAIL + VIRTQ_AVAIL_IDX, HOLD_BUFFERS, true);
  }

  /** Gives the memory back; the engine no longer knows the ring. */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.token = undefined;
    clearTimeout(this.timer);
    this.#arena.release(this.#window);
  }
}
