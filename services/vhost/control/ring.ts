/**
 * A control queue's ring, whatever its format, as far as this service has to know it: requests come out one by one, and
 * go back with a byte of answer. The guest's memory is read and written by system calls, a few bytes at a time.
 */
import { VIRTQ_DESC_F_WRITE } from "../../../shared/layout/virtio.ts";

/** The guest's memory by its own addresses. */
export interface GuestMemory {
  read(guestAddress: bigint, bytes: number): Uint8Array<ArrayBuffer> | undefined;
  write(guestAddress: bigint, bytes: Uint8Array<ArrayBuffer>): boolean;
}

/** Where a ring lies, by guest addresses, and how it is served. */
export interface RingPlace {
  size: number;
  desc: bigint;
  avail: bigint;
  used: bigint;
  base: number;
  eventIdx: boolean;
  indirect: boolean;
}

/** A request of the guest. */
export interface ControlRequest {
  /** What is given back: a split chain's head, a packed chain's buffer id. */
  id: number;
  /** Slots of a packed ring that it takes. */
  descriptors: number;
  bytes: Uint8Array<ArrayBuffer>;
  /** Where its answer goes; none if the guest left no room for one. */
  answerAt: bigint | undefined;
}

/** One format's ring. */
export interface ControlRing {
  /** The next request; none if there is none. Throws RingFault if the guest broke the protocol. */
  take(): ControlRequest | undefined;
  /** Gives a request back, `written` bytes of answer in it; answers whether the guest wants an interrupt. */
  give(request: ControlRequest, written: number): boolean;
  /** Asks for a kick for the next request. */
  arm(): void;
  /** Where the ring goes on when a request has been given back. */
  behind(request: ControlRequest): number;
  /** Where the ring goes on, as SET_VRING_BASE says it. */
  readonly position: number;
}

/** The guest broke the ring's protocol: the queue stops with this reason. */
export class RingFault extends Error {
  override readonly name = "RingFault";
}

/** Bytes of a request that are looked at. No command needs more: 16 KiB hold 2,700 addresses. */
const REQUEST_BYTES_MAX = 16 * 1024;
/** Descriptors of a command. Linux takes three, four with MAC tables; each is a read of the guest's memory. */
const DESCRIPTORS_MAX = 64;

/** A descriptor as it was read, once. */
export interface Descriptor {
  address: bigint;
  length: number;
  flags: number;
  /** Split: the next index. Packed: the buffer id, which comes before the flags. */
  next: number;
}

/** Reads `bytes` bytes; throws RingFault if they are not in the guest's memory. */
export function readOf(memory: GuestMemory, address: bigint, bytes: number): DataView<ArrayBuffer> {
  const read = memory.read(address, bytes);
  if (!read) throw new RingFault(`0x${address.toString(16)} is not in the guest's memory`);
  return new DataView(read.buffer);
}

/** Writes; throws RingFault if it is not the guest's memory. */
export function writeOf(memory: GuestMemory, address: bigint, bytes: Uint8Array<ArrayBuffer>): void {
  if (!memory.write(address, bytes)) throw new RingFault(`0x${address.toString(16)} is not in the guest's memory`);
}

/** A little-endian u16. */
export function u16(value: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(new Uint16Array([value]).buffer);
}

/** Puts a chain's buffers together: those that the guest wrote, and the first byte that it may read. */
export class Chain {
  readonly #parts: Uint8Array<ArrayBuffer>[] = [];
  #room = REQUEST_BYTES_MAX;
  #descriptors = 0;
  #answerAt: bigint | undefined;
  readonly #memory: GuestMemory;

  constructor(memory: GuestMemory) {
    this.#memory = memory;
  }

  add({ address, length, flags }: Descriptor): void {
    if (++this.#descriptors > DESCRIPTORS_MAX) {
      throw new RingFault(`a command of more than ${DESCRIPTORS_MAX} descriptors`);
    }
    if (flags & VIRTQ_DESC_F_WRITE) {
      if (length > 0) this.#answerAt ??= address;
      return;
    }
    if (this.#answerAt !== undefined) throw new RingFault("a readable buffer behind a writable one");
    const part = new Uint8Array(readOf(this.#memory, address, Math.min(length, this.#room)).buffer);
    this.#room -= part.byteLength;
    this.#parts.push(part);
  }

  request(id: number, descriptors: number): ControlRequest {
    const bytes = new Uint8Array(REQUEST_BYTES_MAX - this.#room);
    let at = 0;
    for (const part of this.#parts) {
      bytes.set(part, at);
      at += part.byteLength;
    }
    return { id, descriptors, bytes, answerAt: this.#answerAt };
  }
}
