/** A hostile guest with split rings. */
import { VIRTQ_DESC_F_INDIRECT } from "../../shared/layout/virtio.ts";
import type { RigGuest } from "../support/engine_rig.ts";
import { type SplitDriver, writeDescriptor } from "../support/mock_guest.ts";
import type { RawDescriptor } from "../support/virtqueue.ts";
import { Hostile } from "./hostile.ts";

/** It links, offers and publishes whatever comes to its mind. */
export class HostileSplit extends Hostile<RigGuest> {
  act(): number {
    const { random, guest } = this;
    const index = random.below(guest.queues.length);
    const queue = guest.queues[index] as SplitDriver;
    const write = index % 2 === 0;
    switch (random.below(10)) {
      case 0:
        queue.writeDescriptor(random.below(queue.size), { ...this.#any(queue), next: this.#next(queue) });
        return 0;
      case 1:
        queue.offer(random.chance(4) ? random.u16() : random.below(queue.size));
        queue.publish();
        return 1;
      case 2:
        queue.publish(random.chance(3) ? random.u16() : queue.availIdx);
        return 0;
      case 3:
      case 4:
        return this.#table(queue, write);
      case 5:
        this.rewriteFrame();
        return 0;
      case 6:
        // The event index behind the avail ring.
        guest.view.setUint16(queue.avail + queue.size * 2 + 4, random.u16(), true);
        return 0;
      case 7:
        this.scribble();
        return 0;
      default: {
        let offered = 0;
        for (let i = this.burst(); i > 0; i--) {
          const chain = this.chain(write ? this.roomPieces() : this.pieces(), write);
          offered += this.#lay(queue, chain);
        }
        queue.publish();
        return offered;
      }
    }
  }

  #any({ size }: SplitDriver): RawDescriptor {
    const { random } = this;
    return {
      addr: this.address(),
      len: random.chance(2) ? random.u32() : random.below(size * 16),
      flags: random.chance(4) ? random.u16() : random.below(8),
    };
  }

  #next({ size }: SplitDriver): number {
    return this.random.chance(2) ? this.random.below(size) : this.random.u16();
  }

  /** A chain in descriptors that follow each other, wherever that begins; offered. */
  #lay(queue: SplitDriver, chain: readonly RawDescriptor[]): number {
    const head = this.random.below(queue.size);
    chain.forEach((one, i) => {
      const next = (head + i + 1) % queue.size;
      queue.writeDescriptor((head + i) % queue.size, {
        ...one,
        next: this.errs() ? this.#next(queue) : next,
      });
    });
    queue.offer(head);
    return chain.length;
  }

  #table(queue: SplitDriver, write: boolean): number {
    const { random, guest } = this;
    const at = this.scratch();
    const chain = this.errs()
      ? Array.from({ length: 1 + random.below(8) }, () => this.#any(queue))
      : this.chain(write ? this.roomPieces() : this.pieces(), write);
    chain.forEach((one, i) => {
      writeDescriptor(guest.view, at + i * 16, { ...one, next: this.errs() ? random.u16() : i + 1 });
    });
    const len = chain.length * 16 + (this.errs() ? random.below(20) : 0);
    this.#lay(queue, [{
      addr: guest.iova(at),
      len,
      flags: this.errs() ? random.below(8) : VIRTQ_DESC_F_INDIRECT,
    }]);
    queue.publish();
    return chain.length + 1;
  }

  reset(index: number): number {
    const queue = this.guest.queues[index] as SplitDriver;
    // Wherever its own indices stand.
    queue.availIdx = queue.view.getUint16(queue.avail + 2, true);
    return this.random.chance(8) ? this.random.u16() : queue.availIdx;
  }
}
