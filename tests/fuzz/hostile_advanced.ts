/** A hostile guest with advanced rings. */
import { ADV_TXD_DCMD_EOP, ADV_TXD_DCMD_RS } from "../../shared/layout/advanced.ts";
import { type AdvancedDriver, txMeta } from "../support/advanced_guest.ts";
import type { AdvancedRigGuest } from "../support/engine_rig.ts";
import { Hostile } from "./hostile.ts";

/** It writes to its descriptors and its registers whatever comes to its mind. */
export class HostileAdvanced extends Hostile<AdvancedRigGuest> {
  act(): number {
    const { random, guest } = this;
    const ring = guest.rings[random.below(guest.rings.length)] as AdvancedDriver;
    switch (random.below(8)) {
      case 0:
        ring.write(random.below(ring.size), this.address(), this.#any());
        return 0;
      case 1:
        ring.doorbell(random.chance(3) ? random.u32() : random.below(ring.size + 1));
        return 1;
      case 2: {
        const count = this.burst();
        for (let i = 0; i < count; i++) {
          guest.rx().add(this.address(), random.chance(2) ? 0n : this.address());
        }
        guest.rx().doorbell();
        return count;
      }
      case 3:
        // Anything in the registers, the device's own among them.
        ring.registerView.setUint32(
          ring.registers + random.below(32) * 4,
          random.chance(2) ? random.below(70) : random.u32(),
          true,
        );
        return 0;
      case 4:
        this.scribble();
        return 0;
      case 5:
        this.rewriteFrame();
        return 0;
      default: {
        let offered = 0;
        for (let i = this.burst(); i > 0; i--) offered += this.#frame();
        guest.tx().doorbell();
        return offered;
      }
    }
  }

  #any(): bigint {
    return this.random.chance(3) ? this.random.u64() : BigInt(this.random.u32());
  }

  /** A frame of some descriptors, one of which may be bent. */
  #frame(): number {
    const { random } = this;
    const pieces = this.pieces();
    pieces.forEach(({ addr, len }, i) => {
      const meta = txMeta(len & 0xffff, i + 1 === pieces.length ? ADV_TXD_DCMD_EOP | ADV_TXD_DCMD_RS : 0);
      this.guest.tx().add(addr, this.errs() ? meta ^ (1n << BigInt(random.below(64))) : meta);
    });
    return pieces.length;
  }

  reset(index: number): number {
    const ring = this.guest.rings[index] as AdvancedDriver;
    ring.tail = ring.clean = 0;
    ring.doorbell();
    return this.random.chance(8) ? this.random.below(ring.size + 1) : 0;
  }
}
