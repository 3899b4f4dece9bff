/**
 * Drivers whose descriptors are written once: a sender of one frame, again and again, and a receiver that gives buffers
 * back at once. They cost next to nothing, so that what is measured beside them is the host's part.
 */
import {
  VIRTIO_NET_HDR_BYTES,
  VIRTIO_NET_HDR_NUM_BUFFERS,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
} from "../../shared/layout/virtio.ts";
import { FEATURES, FrontEnd } from "../support/front_end.ts";
import { macBytes, type SplitDriver } from "../support/mock_guest.ts";
import { frameOf, type Sent } from "../support/offload_frames.ts";
import { headerBytes } from "../support/offload_world.ts";

/** The most that QEMU gives a ring; a frame of 64 KiB takes 33 receive buffers. */
export const QUEUE_SIZE = 1024;
export const BUFFER_BYTES = 2048;
const MEMORY_BYTES = 16 * 1024 ** 2;
const PAGE_BYTES = 4096;
/** Pieces of a frame that is longer than a page. */
const PIECES = 16;
const MSS = 1460;
const ETHERNET_BYTES = 14;
const IP_TCP_BYTES = 40;
const IP_UDP_BYTES = 28;
const FRAME_BYTES_MAX = 1514;

/** Connects a guest that has rings for one of the drivers below, or for both. */
export function connectPrepared(socket: string, features = FEATURES): Promise<FrontEnd> {
  return FrontEnd.connect(socket, { features, queueSize: QUEUE_SIZE, bytes: MEMORY_BYTES }).start();
}

/** A frame of `bytes` bytes, without FCS, as Linux sends it: UDP, or TCP to be cut if that is more than fits. */
export function preparedFrame(bytes: number, { from, to }: { from: string; to: string }): Sent {
  const isLong = bytes > FRAME_BYTES_MAX;
  const { frame, header } = frameOf({
    ...{ version: 4, isTcp: isLong, tags: [], ipOptions: 0, extensions: [], tcpOptions: 0, tcpFlags: 0x10 },
    ...{ sequence: 1, id: 1, dontFragment: true, seed: 1, isEcn: false },
    payloadBytes: bytes - ETHERNET_BYTES - (isLong ? IP_TCP_BYTES : IP_UDP_BYTES),
    gsoSize: isLong ? MSS : 0,
    hdrLen: isLong ? ETHERNET_BYTES + IP_TCP_BYTES : 0,
  });
  frame.set([...macBytes(to), ...macBytes(from)]);
  return { frame, header };
}

/** Whether the device wants kicks for a split ring. */
function wantsKicks({ view, used }: SplitDriver): boolean {
  return (view.getUint16(used, true) & 1) === 0;
}

/** Sends one frame, again and again. */
export class PreparedSender {
  readonly #front: FrontEnd;
  readonly #tx: SplitDriver;
  /** Frames that the ring has room for. */
  #slots = QUEUE_SIZE;
  #sentIdx = 0;
  #kickedIdx = 0;

  constructor(front: FrontEnd) {
    this.#front = front;
    this.#tx = front.guest.tx();
    this.#tx.noInterrupt = true;
  }

  /** Has every frame from now on be this one; `header`: what its virtio-net header says, if it says anything. */
  prepare(frame: Uint8Array, header?: Sent["header"]): void {
    const { guest } = this.#front;
    const length = VIRTIO_NET_HDR_BYTES + frame.length;
    const pieces = length > PAGE_BYTES ? PIECES : 1;
    const pieceBytes = Math.ceil(length / pieces);
    const stride = Math.ceil(length / BUFFER_BYTES) * BUFFER_BYTES;
    this.#slots = QUEUE_SIZE / pieces;
    for (let slot = 0; slot < QUEUE_SIZE; slot++) {
      const part = slot % pieces;
      const at = guest.heap + Math.floor(slot / pieces) * stride;
      if (part === 0) guest.writeFrame(at, frame, header && headerBytes(header));
      const isLast = part + 1 === pieces;
      this.#tx.writeDescriptor(slot, {
        addr: guest.iova(at + part * pieceBytes),
        len: Math.min(pieceBytes, length - part * pieceBytes),
        ...(isLast ? {} : { flags: VIRTQ_DESC_F_NEXT, next: slot + 1 }),
      });
      this.#tx.view.setUint16(this.#tx.avail + 4 + slot * 2, (slot % this.#slots) * pieces, true);
    }
  }

  /** Frames that can be sent now. */
  get free(): number {
    return this.#slots - ((this.#sentIdx - this.#tx.usedIdx) & 0xffff);
  }

  /** Sends `count` frames, at most `free`. */
  send(count: number): void {
    this.#sentIdx = (this.#sentIdx + count) & 0xffff;
    this.#tx.publish(this.#sentIdx);
    this.kickIfWanted();
  }

  /** To be called again and again: without a barrier, what is read now may be older than the index that was written. */
  kickIfWanted(): void {
    if (this.#kickedIdx === this.#sentIdx || !wantsKicks(this.#tx)) return;
    this.#kickedIdx = this.#sentIdx;
    this.#front.kick(1);
  }
}

/** Takes frames and gives their buffers back; wants an interrupt only when it has found nothing. */
export class PreparedReceiver {
  readonly #front: FrontEnd;
  readonly #rx: SplitDriver;
  #takenIdx = 0;
  /** Buffers that belong to the frame that has come last, and are still to come. */
  #rest = 0;

  constructor(front: FrontEnd) {
    this.#front = front;
    this.#rx = front.guest.rx();
    for (let slot = 0; slot < QUEUE_SIZE; slot++) {
      const addr = front.guest.iova(this.#bufferAt(slot));
      this.#rx.writeDescriptor(slot, { addr, len: BUFFER_BYTES, flags: VIRTQ_DESC_F_WRITE });
      this.#rx.offer(slot);
    }
    this.#rx.publish(QUEUE_SIZE);
    front.kick(0);
  }

  /** Behind the buffers of a sender with the same rings. */
  #bufferAt(slot: number): number {
    return this.#front.memory.view.byteLength - (QUEUE_SIZE - slot) * BUFFER_BYTES;
  }

  /** Takes what has come; answers how many frames began in it. `mayBeLong`: they may have several buffers. */
  take(mayBeLong: boolean): number {
    const rx = this.#rx;
    const came = (rx.usedIdx - this.#takenIdx) & 0xffff;
    if (rx.noInterrupt !== came > 0) rx.noInterrupt = came > 0;
    if (came === 0) return 0;
    const frames = mayBeLong ? this.#begunIn(came) : came;
    this.#takenIdx = (this.#takenIdx + came) & 0xffff;
    rx.publish((this.#takenIdx + QUEUE_SIZE) & 0xffff);
    if (wantsKicks(rx)) this.#front.kick(0);
    return frames;
  }

  #begunIn(buffers: number): number {
    let frames = 0;
    for (let i = 0; i < buffers; i++) {
      if (this.#rest === 0) {
        const at = this.#bufferAt((this.#takenIdx + i) % QUEUE_SIZE);
        this.#rest = this.#rx.view.getUint16(at + VIRTIO_NET_HDR_NUM_BUFFERS, true);
        frames++;
      }
      this.#rest--;
    }
    return frames;
  }
}
