/** A control queue with a packed ring (virtio 1.2 §2.8). */
import {
  RING_EVENT_FLAGS_DISABLE,
  RING_EVENT_FLAGS_ENABLE,
  VIRTQ_DESC_BYTES,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
  VIRTQ_EVENT_FLAGS,
  VIRTQ_PACKED_DESC_F_AVAIL,
  VIRTQ_PACKED_DESC_F_USED,
  VIRTQ_PACKED_DESC_FLAGS,
} from "../../../shared/layout/virtio.ts";
import {
  Chain,
  type ControlRequest,
  type ControlRing,
  type Descriptor,
  type GuestMemory,
  readOf,
  RingFault,
  type RingPlace,
  u16,
  writeOf,
} from "./ring.ts";

const WRAP = 0x8000;

/** A packed ring. It goes on where used descriptors do: requests are served in order. */
export class PackedControlRing implements ControlRing {
  readonly #memory: GuestMemory;
  readonly #place: RingPlace;
  #slot: number;
  #wrap: boolean;

  constructor(memory: GuestMemory, place: RingPlace) {
    this.#memory = memory;
    this.#place = place;
    // DPDK's front-end leaves the upper half out (see the engine's queue/start.ts).
    const half = place.base >>> 16 === 0 && (place.base & WRAP) !== 0 ? place.base & 0xffff : place.base >>> 16;
    this.#slot = half & ~WRAP;
    this.#wrap = (half & WRAP) !== 0;
    if (this.#slot >= place.size) {
      throw new RingFault(`its base is slot ${this.#slot}, and the queue has ${place.size}`);
    }
  }

  get position(): number {
    return positionOf(this.#slot, this.#wrap);
  }

  behind({ descriptors }: ControlRequest): number {
    const slot = this.#slot + descriptors;
    const { size } = this.#place;
    return slot < size ? positionOf(slot, this.#wrap) : positionOf(slot - size, !this.#wrap);
  }

  #at(slot: number): bigint {
    return this.#place.desc + BigInt(slot * VIRTQ_DESC_BYTES);
  }

  /** Whether the driver has made the descriptor at `slot` available, in the lap with `wrap`. */
  #isAvailable(slot: number, wrap: boolean): boolean {
    const flags = readOf(this.#memory, this.#at(slot) + BigInt(VIRTQ_PACKED_DESC_FLAGS), 2).getUint16(0, true);
    return ((flags & VIRTQ_PACKED_DESC_F_AVAIL) !== 0) === wrap && ((flags & VIRTQ_PACKED_DESC_F_USED) !== 0) !== wrap;
  }

  take(): ControlRequest | undefined {
    const { size, indirect } = this.#place;
    let [slot, wrap] = [this.#slot, this.#wrap];
    // The flags are looked at before the rest: they are written last.
    if (!this.#isAvailable(slot, wrap)) return undefined;
    const chain = new Chain(this.#memory);
    for (let walked = 1; walked <= size; walked++) {
      if (!this.#isAvailable(slot, wrap)) throw new RingFault(`a chain whose descriptor ${slot} is not available`);
      const descriptor = packedDescriptor(this.#memory, this.#at(slot));
      const isLast = (descriptor.flags & VIRTQ_DESC_F_NEXT) === 0;
      if (descriptor.flags & VIRTQ_DESC_F_INDIRECT) {
        if (!indirect || !isLast || walked > 1) throw new RingFault("an indirect table that cannot be");
        this.#table(chain, descriptor);
      } else chain.add(descriptor);
      if (isLast) return chain.request(descriptor.next, walked);
      slot = (slot + 1) % size;
      if (slot === 0) wrap = !wrap;
    }
    throw new RingFault("a chain longer than the queue");
  }

  #table(chain: Chain, { address, length }: Descriptor): void {
    const entries = length / VIRTQ_DESC_BYTES;
    if (!Number.isInteger(entries) || entries === 0 || entries > this.#place.size) {
      throw new RingFault(`an indirect table of ${length} bytes`);
    }
    for (let i = 0; i < entries; i++) chain.add(packedDescriptor(this.#memory, address + BigInt(i * VIRTQ_DESC_BYTES)));
  }

  give({ id, descriptors }: ControlRequest, written: number): boolean {
    const { size, avail } = this.#place;
    const at = this.#at(this.#slot);
    const head = new DataView(new ArrayBuffer(6));
    head.setUint32(0, written, true);
    head.setUint16(4, id, true);
    writeOf(this.#memory, at + 8n, new Uint8Array(head.buffer));
    const owner = this.#wrap ? VIRTQ_PACKED_DESC_F_AVAIL | VIRTQ_PACKED_DESC_F_USED : 0;
    // The flags last: with them the driver sees the rest.
    const flags = u16(owner | (written > 0 ? VIRTQ_DESC_F_WRITE : 0));
    writeOf(this.#memory, at + BigInt(VIRTQ_PACKED_DESC_FLAGS), flags);
    this.#slot += descriptors;
    if (this.#slot >= size) {
      this.#slot -= size;
      this.#wrap = !this.#wrap;
    }
    // A driver that names a descriptor is interrupted at each: an interrupt too many is lawful (§2.8.10).
    const event = readOf(this.#memory, avail + BigInt(VIRTQ_EVENT_FLAGS), 2).getUint16(0, true);
    return (event & 3) !== RING_EVENT_FLAGS_DISABLE;
  }

  arm(): void {
    writeOf(this.#memory, this.#place.used + BigInt(VIRTQ_EVENT_FLAGS), u16(RING_EVENT_FLAGS_ENABLE));
  }
}

function positionOf(slot: number, wrap: boolean): number {
  const half = slot | (wrap ? WRAP : 0);
  return (half | (half << 16)) >>> 0;
}

/** Whether the request at `position` of the ring at `desc` has been given back. */
export function isGiven(memory: Pick<GuestMemory, "read">, desc: bigint, position: number): boolean {
  const at = desc + BigInt((position & ~WRAP & 0xffff) * VIRTQ_DESC_BYTES + VIRTQ_PACKED_DESC_FLAGS);
  const bytes = memory.read(at, 2);
  if (!bytes) return false;
  const flags = new DataView(bytes.buffer).getUint16(0, true);
  const wrap = (position & WRAP) !== 0;
  return ((flags & VIRTQ_PACKED_DESC_F_AVAIL) !== 0) === wrap && ((flags & VIRTQ_PACKED_DESC_F_USED) !== 0) === wrap;
}

function packedDescriptor(memory: GuestMemory, at: bigint): Descriptor {
  const view = readOf(memory, at, VIRTQ_DESC_BYTES);
  return {
    address: view.getBigUint64(0, true),
    length: view.getUint32(8, true),
    next: view.getUint16(12, true),
    flags: view.getUint16(14, true),
  };
}
