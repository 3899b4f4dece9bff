/** The software switch: a guest without a VF has a pool of this service's engine and nothing else. */
import type { Tenant } from "../../shared/engine/mod.ts";
import type { Emulation } from "./emulation.ts";
import { LocalBackend } from "./local_backend.ts";
import type { PortContext } from "./port_context.ts";
import type { RingBackendEvents } from "./ring_backend.ts";

/** A guest on the software switch. */
export class SwitchBackend extends LocalBackend {
  readonly #pool: number;

  constructor(emulation: Emulation, context: PortContext, events: RingBackendEvents, pool: number) {
    super(emulation, context, events);
    this.#pool = pool;
  }

  protected override enter(): Tenant {
    return this.emulation.enterAt(this.#pool);
  }

  /** The switch knows it: the PF has set it there. */
  override settingsChanged(): void {}

  /** What came by the uplink before the guest's frames went elsewhere is to be with the guest first. */
  override async drain(): Promise<void> {
    await this.emulation.drainUplink();
  }
}
