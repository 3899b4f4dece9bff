/**
 * The guest's network interface: what the hypervisor has granted it, and its wishes for something else. The guest's own
 * VLAN tag is used only once the hypervisor has let it into that VLAN.
 */
import { GC_LINK, GC_VLAN } from "../../shared/layout/guest.ts";
import { ApiError, type GuestConfig, type LinkPatch } from "../../shared/api/mod.ts";
import type { Host } from "./host.ts";
import type { Hypervisor } from "./hypervisor.ts";

/** The interface. */
export class Interface {
  readonly #host: Host;
  /** None in a guest that stands alone, on somebody else's back-end. */
  hypervisor: Hypervisor | undefined;
  granted: Pick<GuestConfig, "promisc" | "multicast"> = { promisc: false, multicast: "all" };

  constructor(host: Host) {
    this.#host = host;
  }

  /** Puts in force what the hypervisor says. */
  apply(config: GuestConfig): void {
    const { mac, up, promisc, multicast } = config;
    this.granted = { promisc, multicast };
    if (this.#host.mac !== mac) this.#host.mac = mac;
    if ((this.#host.get(GC_LINK) === 1) !== up) {
      this.#host.set(GC_LINK, up ? 1 : 0);
      if (up) this.#host.announce();
    }
  }

  /** Asks for a change; throws the reason if it is refused, with nothing changed. */
  async wish(patch: LinkPatch): Promise<void> {
    if (this.hypervisor) await this.hypervisor.wish(patch);
    else if (patch.promisc !== undefined || patch.multicast !== undefined) {
      throw new ApiError(409, "this guest has no hypervisor that could grant it: start it with --hypervisor");
    } else if (patch.mac !== undefined) this.#host.mac = patch.mac;
    if (patch.vlan !== undefined && patch.vlan !== this.#host.get(GC_VLAN)) {
      this.#host.set(GC_VLAN, patch.vlan);
      this.#host.announce();
    }
  }
}
