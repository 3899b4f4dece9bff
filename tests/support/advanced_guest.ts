/**
 * A guest driver with advanced rings over a piece of memory, every field of it within reach. It has the face of
 * MockGuest, so the tests of the switch run over both kinds of rings; what a hostile guest does with its descriptors and
 * doorbells it does through here.
 */
import {
  ADV_DESC_BYTES,
  ADV_REG_HEAD,
  ADV_REG_INTERRUPT,
  ADV_REG_TAIL,
  ADV_REGISTER_STRIDE,
  ADV_RXD_STAT_DD,
  ADV_RXD_STAT_EOP,
  ADV_TXD_DCMD_DEXT,
  ADV_TXD_DCMD_EOP,
  ADV_TXD_DCMD_RS,
  ADV_TXD_DTYP_DATA,
} from "../../shared/layout/advanced.ts";
import { cutAt, type GuestOptions, type Received, type RingGuest, type Shape } from "./virtio_guest.ts";

/** A transmit descriptor's second half. */
export function txMeta(length: number, flags = ADV_TXD_DCMD_EOP | ADV_TXD_DCMD_RS): bigint {
  return BigInt((ADV_TXD_DTYP_DATA | ADV_TXD_DCMD_DEXT | flags | length) >>> 0);
}

/** What a frame's descriptors ask for: contexts that come before them, and bits of the first one's second half. */
export interface Asking {
  contexts: readonly [low: bigint, high: bigint][];
  /** DCMD bits, in all of its descriptors. */
  command: number;
  /** POPTS and IDX, in the first one. */
  status: number;
}

const NOTHING: Asking = { contexts: [], command: 0, status: 0 };

/** A frame that has come in, and the status and error bits of its last descriptor. */
export interface AdvancedReceived extends Received {
  status: number;
}

/** One advanced ring, driver's side. */
export class AdvancedDriver {
  readonly view: DataView;
  readonly size: number;
  /** View offset of the descriptors, and of the queue's registers in the register view. */
  readonly ring: number;
  readonly registers: number;
  readonly registerView: DataView;
  tail = 0;
  clean = 0;

  constructor(view: DataView, ring: number, size: number, registerView: DataView, registers: number) {
    this.view = view;
    this.ring = ring;
    this.size = size;
    this.registerView = registerView;
    this.registers = registers;
  }

  /** Writes both halves of a descriptor. */
  write(index: number, low: bigint, high: bigint): void {
    this.view.setBigUint64(this.ring + index * ADV_DESC_BYTES, BigInt.asUintN(64, low), true);
    this.view.setBigUint64(this.ring + index * ADV_DESC_BYTES + 8, BigInt.asUintN(64, high), true);
  }

  read(index: number): [bigint, bigint] {
    const at = this.ring + index * ADV_DESC_BYTES;
    return [this.view.getBigUint64(at, true), this.view.getBigUint64(at + 8, true)];
  }

  /** Adds a descriptor at the tail; the device sees it after `doorbell`. */
  add(low: bigint, high: bigint): void {
    this.write(this.tail, low, high);
    this.tail = (this.tail + 1) % this.size;
  }

  doorbell(tail = this.tail): void {
    this.registerView.setUint32(this.registers + ADV_REG_TAIL, tail, true);
  }

  get head(): number {
    return this.registerView.getUint32(this.registers + ADV_REG_HEAD, true);
  }

  set interrupt(on: boolean) {
    this.registerView.setUint32(this.registers + ADV_REG_INTERRUPT, on ? 1 : 0, true);
  }
}

/** A guest with queue pairs of advanced rings. */
export class AdvancedGuest implements RingGuest {
  readonly view: DataView;
  readonly options: Required<GuestOptions>;
  readonly rings: AdvancedDriver[];
  readonly heap: number;
  readonly packetBytes = 2048;

  constructor(view: DataView, registerView: DataView, registers: number, options: GuestOptions) {
    this.view = view;
    const defaults = { queueSize: 64, queuePairs: 1, bufferBytes: 2048, inOrder: false, eventIdx: false };
    this.options = { ...defaults, hdrBytes: 0, ...options };
    let at = options.offset;
    this.rings = Array.from({ length: this.options.queuePairs * 2 }, (_, index) => {
      const ring = at;
      at += Math.ceil(this.options.queueSize * ADV_DESC_BYTES / 4096) * 4096;
      return new AdvancedDriver(
        view,
        ring,
        this.options.queueSize,
        registerView,
        registers + index * ADV_REGISTER_STRIDE,
      );
    });
    this.heap = at;
  }

  rx(pair = 0): AdvancedDriver {
    return this.rings[pair * 2] as AdvancedDriver;
  }

  tx(pair = 0): AdvancedDriver {
    return this.rings[pair * 2 + 1] as AdvancedDriver;
  }

  iova(at: number): bigint {
    return this.options.iova + BigInt(at - this.options.offset);
  }

  #slot(ring: number, slot: number): number {
    return this.heap + (ring * this.options.queueSize + slot) * this.options.bufferBytes;
  }

  /** Posts `count` receive buffers. */
  fill(count: number, pair = 0): void {
    const ring = this.rx(pair);
    for (let i = 0; i < count; i++) ring.add(this.iova(this.#slot(pair * 2, ring.tail)), 0n);
    ring.doorbell();
  }

  /** A receive buffer has one piece: the sizes say nothing here. */
  post(_sizes: readonly number[], { pair = 0 }: Shape = {}): void {
    this.fill(1, pair);
  }

  posted(pair = 0): number {
    const ring = this.rx(pair);
    return (ring.tail - ring.head + ring.size) % ring.size;
  }

  writeFrame(at: number, frame: Uint8Array): number {
    new Uint8Array(this.view.buffer, this.view.byteOffset).set(frame, at);
    return frame.byteLength;
  }

  /** Offers frames for transmission, each in as many descriptors as it needs. */
  send(frames: readonly Uint8Array[], pair = 0): void {
    for (const frame of frames) this.#transmit(frame, [], { pair });
    this.tx(pair).doorbell();
  }

  sendPieces(frame: Uint8Array, cuts: readonly number[], shape: Shape = {}, asking = NOTHING): void {
    this.#transmit(frame, cuts, shape, asking);
    this.tx(shape.pair).doorbell();
  }

  #transmit(frame: Uint8Array, cuts: readonly number[], { pair = 0, header }: Shape, asking = NOTHING): void {
    const ring = this.tx(pair);
    const { bufferBytes, hdrBytes } = this.options;
    const bytes = new Uint8Array(hdrBytes + frame.length);
    bytes.set(header ?? []);
    bytes.set(frame, hdrBytes);
    // A descriptor's bytes lie in its slot: whatever is cut, a slot is the longest piece.
    const slots = Array.from({ length: Math.floor(bytes.length / bufferBytes) }, (_, i) => (i + 1) * bufferBytes);
    // The header lies in one piece with the frame's first byte.
    const parts = cutAt(bytes.length, [...cuts.filter((cut) => cut > hdrBytes), ...slots]);
    for (const [low, high] of asking.contexts) ring.add(low, high);
    parts.forEach(({ at, len }, i) => {
      const slot = this.#slot(pair * 2 + 1, ring.tail);
      this.writeFrame(slot, bytes.subarray(at, at + len));
      const end = i + 1 === parts.length ? ADV_TXD_DCMD_EOP | ADV_TXD_DCMD_RS : 0;
      const status = i === 0 ? BigInt(asking.status) << 32n : 0n;
      ring.add(this.iova(slot), txMeta(len, end | asking.command) | status);
    });
  }

  /** How many more frames there is room for. */
  room(pair = 0): number {
    return this.options.queueSize - 1 - this.unsent(pair);
  }

  /** Frames that wait to be sent still. */
  unsent(pair = 0): number {
    const ring = this.tx(pair);
    return (ring.tail - ring.head + ring.size) % ring.size;
  }

  receive(pair = 0): Uint8Array[] {
    return this.receiveWhole(pair).map(({ frame }) => frame);
  }

  /** Takes the frames that have come in, with their headers and what the device says of them. */
  receiveWhole(pair = 0): AdvancedReceived[] {
    const ring = this.rx(pair);
    const { hdrBytes } = this.options;
    const frames: AdvancedReceived[] = [];
    let parts: number[] = [];
    while (ring.clean !== ring.tail) {
      const [, high] = ring.read(ring.clean);
      const status = Number(high & 0xffffffffn);
      if ((status & ADV_RXD_STAT_DD) === 0) break;
      parts.push(...this.bytes(this.#slot(pair * 2, ring.clean), Number((high >> 32n) & 0xffffn)));
      ring.clean = (ring.clean + 1) % ring.size;
      if ((status & ADV_RXD_STAT_EOP) === 0) continue;
      const bytes = Uint8Array.from(parts);
      frames.push({ header: bytes.slice(0, hdrBytes), frame: bytes.slice(hdrBytes), status });
      parts = [];
    }
    return frames;
  }

  bytes(at: number, length: number): Uint8Array {
    return new Uint8Array(this.view.buffer, this.view.byteOffset + at, length).slice();
  }
}
