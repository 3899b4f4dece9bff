/** A control queue with a split ring (virtio 1.2 §2.7). */
import {
  VIRTQ_AVAIL_F_NO_INTERRUPT,
  VIRTQ_AVAIL_IDX,
  VIRTQ_AVAIL_RING,
  VIRTQ_DESC_BYTES,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_USED_ELEM_BYTES,
  VIRTQ_USED_IDX,
  VIRTQ_USED_RING,
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

/** A split ring. It goes on at its used index, which is right whatever the base says: requests are served in order. */
export class SplitControlRing implements ControlRing {
  readonly #memory: GuestMemory;
  readonly #place: RingPlace;
  #position: number;

  constructor(memory: GuestMemory, place: RingPlace) {
    this.#memory = memory;
    this.#place = place;
    this.#position = this.#u16(place.used + BigInt(VIRTQ_USED_IDX));
  }

  get position(): number {
    return this.#position;
  }

  behind(): number {
    return (this.#position + 1) & 0xffff;
  }

  #u16(address: bigint): number {
    return readOf(this.#memory, address, 2).getUint16(0, true);
  }

  take(): ControlRequest | undefined {
    const { size, avail } = this.#place;
    const there = (this.#u16(avail + BigInt(VIRTQ_AVAIL_IDX)) - this.#position) & 0xffff;
    if (there > size) throw new RingFault(`its avail index jumped by ${there}, and the queue has ${size}`);
    if (there === 0) return undefined;
    return this.#chain(this.#u16(avail + BigInt(VIRTQ_AVAIL_RING + 2 * (this.#position % size))));
  }

  #chain(head: number): ControlRequest {
    const { size, desc, indirect } = this.#place;
    const chain = new Chain(this.#memory);
    let [table, entries, index] = [desc, size, head];
    for (let walked = 0; walked <= size; walked++) {
      if (index >= entries) throw new RingFault(`descriptor ${index}, and there are ${entries}`);
      const descriptor = splitDescriptor(this.#memory, table, index);
      if (descriptor.flags & VIRTQ_DESC_F_INDIRECT) {
        const { address, length, flags } = descriptor;
        const isGood = indirect && table === desc && (flags & VIRTQ_DESC_F_NEXT) === 0 && length > 0 &&
          length % VIRTQ_DESC_BYTES === 0;
        if (!isGood) throw new RingFault("an indirect table that cannot be");
        [table, entries, index] = [address, length / VIRTQ_DESC_BYTES, 0];
        continue;
      }
      chain.add(descriptor);
      if ((descriptor.flags & VIRTQ_DESC_F_NEXT) === 0) return chain.request(head, 1);
      index = descriptor.next;
    }
    throw new RingFault("a chain longer than the queue");
  }

  give({ id }: ControlRequest, written: number): boolean {
    const { size, avail, used, eventIdx } = this.#place;
    const element = new Uint8Array(new Uint32Array([id, written]).buffer);
    writeOf(this.#memory, used + BigInt(VIRTQ_USED_RING + VIRTQ_USED_ELEM_BYTES * (this.#position % size)), element);
    const before = this.#position;
    this.#position = (before + 1) & 0xffff;
    writeOf(this.#memory, used + BigInt(VIRTQ_USED_IDX), u16(this.#position));
    if (eventIdx) return this.#u16(avail + BigInt(VIRTQ_AVAIL_RING + 2 * size)) === before;
    return (this.#u16(avail) & VIRTQ_AVAIL_F_NO_INTERRUPT) === 0;
  }

  arm(): void {
    const { size, used, eventIdx } = this.#place;
    const at = used + BigInt(VIRTQ_USED_RING + VIRTQ_USED_ELEM_BYTES * size);
    if (eventIdx) writeOf(this.#memory, at, u16(this.#position));
    else writeOf(this.#memory, used, u16(0));
  }
}

/** A split ring's descriptor, or an entry of its indirect table. */
function splitDescriptor(memory: GuestMemory, table: bigint, index: number): Descriptor {
  const view = readOf(memory, table + BigInt(index * VIRTQ_DESC_BYTES), VIRTQ_DESC_BYTES);
  return {
    address: view.getBigUint64(0, true),
    length: view.getUint32(8, true),
    flags: view.getUint16(12, true),
    next: view.getUint16(14, true),
  };
}
