/** A hostile guest with advanced rings. */
import { ADV_TXD_DCMD_EOP, ADV_TXD_DCMD_RS, ADV_TXD_DCMD_TSE } from "../../shared/layout/advanced.ts";
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
    const asks = random.chance(3) ? this.#context() : 0n;
    pieces.forEach(({ addr, len }, i) => {
      const meta = txMeta(len & 0xffff, i + 1 === pieces.length ? ADV_TXD_DCMD_EOP | ADV_TXD_DCMD_RS : 0);
      const all = i === 0 ? meta | asks : meta;
      this.guest.tx().add(addr, this.errs() ? all ^ (1n << BigInt(random.below(64))) : all);
    });
    return pieces.length + (asks === 0n ? 0 : 1);
  }

  /** Adds a context descriptor that may fit the frame behind it; answers what that one's first descriptor asks for. */
  #context(): bigint {
    const { random } = this;
    const index = random.below(random.chance(8) ? 8 : 2);
    const lengths = random.pick([14, 18, random.below(128)]) << 9 | random.pick([20, 40, random.below(512)]);
    const type = 0x2020_0000 | random.pick([0x400, 0xc00, 0x800, 0, random.below(0x100000)]);
    const last = random.pick([0, 1, 40, 1460, 0xffff]) * 0x10000 + (random.pick([8, 20, 255]) << 8 | index << 4);
    this.guest.tx().add(BigInt(lengths), BigInt(last) << 32n | BigInt(type));
    const options = random.pick([0x100, 0x200, 0x300, 0]);
    return BigInt(index << 4 | options) << 32n | BigInt(random.chance(2) ? ADV_TXD_DCMD_TSE : 0);
  }

  reset(index: number): number {
    const ring = this.guest.rings[index] as AdvancedDriver;
    ring.tail = ring.clean = 0;
    ring.doorbell();
    return this.random.chance(8) ? this.random.below(ring.size + 1) : 0;
  }
}
