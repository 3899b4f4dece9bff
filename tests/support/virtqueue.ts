/**
 * What a test's guest does with a virtqueue, whatever its format: the words that drivers of split and packed rings
 * share. Buffers are made of pieces; the device returns each buffer once, by the id that the driver gave it.
 */

/** One piece of a buffer: device-writable if `write`. */
export interface Piece {
  addr: bigint;
  len: number;
  write?: boolean;
}

/** Where an indirect table is written, as the driver and as the device see it. */
export interface Table {
  at: number;
  iova: bigint;
}

/** A descriptor with whatever flags a test wants to have in it. */
export interface RawDescriptor {
  addr: bigint;
  len: number;
  flags?: number;
}

/** A buffer that the device has returned, and how many bytes it says it has written. */
export interface UsedBuffer {
  id: number;
  len: number;
}

/** How a driver works. */
export interface DriverOptions {
  /** VIRTIO_F_IN_ORDER: one used element may stand for several buffers. */
  inOrder?: boolean;
  /** VIRTIO_RING_F_EVENT_IDX: kicks and interrupts may be asked for at a position. */
  eventIdx?: boolean;
}

/** The driver's side of one virtqueue. Offsets are offsets in the view. */
export interface Virtqueue {
  readonly view: DataView;
  readonly size: number;
  /** The three areas: descriptors; what the driver writes beside them; what the device writes beside them. */
  readonly desc: number;
  readonly avail: number;
  readonly used: number;
  /** Bytes that the areas take from `desc` on. */
  readonly bytes: number;
  /** Adds a buffer, which the device sees after `publish`. With `table` it is an indirect one. */
  add(pieces: readonly Piece[], table?: Table): number;
  /** Adds descriptors with exactly these flags as one buffer, right or wrong. */
  addRaw(descriptors: readonly RawDescriptor[]): number;
  publish(): void;
  /** The next buffer that the device has returned. Throws if it returns what it has not got. */
  popUsed(): UsedBuffer | undefined;
  /** Buffers that the device has not returned yet. */
  readonly inFlight: number;
  /** Descriptors that are free: those of returned buffers are once they have been popped. */
  readonly free: number;
  /** Where the device goes on, as vhost-user's SET_VRING_BASE says it; it has returned all that it has taken. */
  readonly base: number;
  /** Forgets everything that was offered; answers the base from which the device is to start. */
  reset(): number;
  /** Whether the driver wants no interrupts. */
  noInterrupt: boolean;
  /** Whether the device wants to be told of what was published since this was asked last. */
  takeKick(): boolean;
}

/** The device returned what it has not got. */
export class DeviceLied extends Error {
  override readonly name = "DeviceLied";
}

/** Bytes of a buffer that the device may write. */
export function writableBytes(pieces: readonly Piece[]): number {
  return pieces.reduce((sum, { len, write }) => sum + (write ? len : 0), 0);
}
