/** A hostile guest with packed rings. */
import {
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_EVENT_FLAGS,
  VIRTQ_EVENT_OFF_WRAP,
  VIRTQ_PACKED_DESC_F_AVAIL,
  VIRTQ_PACKED_DESC_F_USED,
  VIRTQ_PACKED_DESC_FLAGS,
} from "../../shared/layout/virtio.ts";
import type { PackedRigGuest } from "../support/engine_rig.ts";
import { baseAt, type PackedDriver, writePackedEntry } from "../support/packed_guest.ts";
import type { RawDescriptor } from "../support/virtqueue.ts";
import { Hostile } from "./hostile.ts";

const BOTH = VIRTQ_PACKED_DESC_F_AVAIL | VIRTQ_PACKED_DESC_F_USED;

/** It believes in its place in the ring, and in nothing else. */
export class HostilePacked extends Hostile<PackedRigGuest> {
  act(): number {
    const { random, guest } = this;
    const index = random.below(guest.queues.length);
    const ring = guest.queues[index] as PackedDriver;
    const write = index % 2 === 0;
    switch (random.below(12)) {
      case 0:
        ring.writeDescriptor(random.below(ring.size), this.#any(ring), random.u16());
        return 1;
      case 1:
        return this.#flip(ring);
      case 2:
      case 3:
        return this.#table(ring, write);
      case 4:
        this.rewriteFrame();
        return 0;
      case 5:
        guest.view.setUint16(ring.avail + VIRTQ_EVENT_OFF_WRAP, random.u16(), true);
        guest.view.setUint16(ring.avail + VIRTQ_EVENT_FLAGS, random.chance(4) ? random.u16() : random.below(4), true);
        return 0;
      case 6:
        this.scribble();
        return 0;
      case 7:
        // Its place moves, or its lap: everything that follows is out of step until it finds its way back.
        if (random.chance(8)) ring.next = { index: random.below(ring.size), wrap: random.chance(2) };
        return 0;
      case 8: {
        if (!random.chance(8)) return 0;
        const one = { ...this.#any(ring), flags: VIRTQ_DESC_F_NEXT | (write ? 2 : 0) };
        return this.#lay(ring, Array.from({ length: ring.size }, () => one));
      }
      default: {
        let offered = 0;
        for (let i = this.burst(); i > 0; i--) {
          offered += this.#lay(ring, this.chain(write ? this.roomPieces() : this.pieces(), write));
        }
        return offered;
      }
    }
  }

  #any({ size }: PackedDriver): RawDescriptor {
    const { random } = this;
    return {
      addr: this.address(),
      len: random.chance(2) ? random.u32() : random.below(size * 16),
      flags: random.chance(4) ? random.u16() : random.below(8) | random.pick([0x80, 0x8000, BOTH, 0]),
    };
  }

  /** Turns bits of descriptors around the place where it is, or anywhere. */
  #flip(ring: PackedDriver): number {
    const { random } = this;
    for (let i = random.below(4); i >= 0; i--) {
      const index = random.chance(2) ? random.below(ring.size) : (ring.next.index + random.below(4)) % ring.size;
      const at = ring.at(index) + VIRTQ_PACKED_DESC_FLAGS;
      const bits = random.pick([0x80, 0x8000, BOTH, VIRTQ_DESC_F_NEXT, 1 << random.below(16)]);
      ring.view.setUint16(at, ring.view.getUint16(at, true) ^ bits, true);
    }
    return 1;
  }

  /** A chain from its place on, the first flags last; one of the others may be of another lap, or not there. */
  #lay(ring: PackedDriver, chain: readonly RawDescriptor[]): number {
    const { random } = this;
    const id = random.chance(4) ? random.u16() : random.below(ring.size);
    const first = ring.next;
    let firstFlags = 0;
    chain.forEach((one, i) => {
      const bits = this.errs() ? random.pick([0, 0x80, 0x8000, BOTH]) : ring.availableBits(ring.next.wrap);
      const flags = (one.flags ?? 0) | bits;
      if (i === 0) firstFlags = flags;
      ring.writeDescriptor(ring.next.index, { ...one, flags: i === 0 ? 0 : flags }, id);
      ring.next = ring.behind(ring.next, 1);
    });
    ring.writeFlags(first.index, firstFlags);
    return chain.length;
  }

  #table(ring: PackedDriver, write: boolean): number {
    const { random, guest } = this;
    const at = this.scratch();
    const pieces = write ? this.roomPieces() : this.pieces();
    pieces.forEach((piece, i) => {
      const others = random.chance(8) ? random.u16() : 0;
      writePackedEntry(guest.view, at + i * 16, { ...piece, write: write !== this.errs() }, others);
    });
    const len = pieces.length * 16 + (this.errs() ? random.below(20) : 0);
    const flags = this.errs() ? random.below(8) : VIRTQ_DESC_F_INDIRECT;
    return pieces.length + this.#lay(ring, [{ addr: guest.iova(at), len, flags }]);
  }

  reset(index: number): number {
    const { random } = this;
    const ring = this.guest.queues[index] as PackedDriver;
    const place = { index: random.below(ring.size), wrap: random.chance(2) };
    if (!random.chance(4)) return ring.moveTo(place);
    // The ring as it is, whatever that means; or a position that there is not.
    ring.next = place;
    return random.chance(4) ? random.u32() : baseAt(place);
  }
}
