/**
 * The software switch of guests without a VF: the same engine as the NIC's, with the same policy for each port, and the
 * PF's pool of the NIC as its uplink (NPA's picture). Which vports there are is the PF's to say.
 */
import type { VfLink } from "../../shared/device/mod.ts";
import { monotonicNs } from "../../shared/os/mod.ts";
import { Captures, latencyOf, Pools } from "../../shared/engine/mod.ts";
import { coalesceOf, isLinkUp, type SwitchProgramme, type VportState } from "../../shared/api/mod.ts";
import type { Emulation, UplinkOptions } from "./emulation.ts";

const AGE_PERIOD_MS = 30_000;

/** The switch's ports and their policy. */
export class SoftwareSwitch {
  readonly #emulation: Emulation;
  readonly #uplink: UplinkOptions;
  readonly #pools: Pools;
  readonly captures: Captures;
  readonly #ager: ReturnType<typeof setInterval>;
  #programme: SwitchProgramme | undefined;
  /** Told which vports there are. */
  onChange: (ids: number[]) => Promise<void> = () => Promise.resolve();

  /** Told what a vport's guest sees of it. */
  onLink: (id: number, link: VfLink) => void = () => {};

  /** `uplink`: where the NIC is, whose PF's pool the switch drives. */
  constructor(emulation: Emulation, uplink: UplinkOptions) {
    this.#emulation = emulation;
    this.#uplink = uplink;
    this.#pools = new Pools(emulation.engine);
    this.captures = new Captures(emulation.engine);
    this.#ager = setInterval(() => this.#pools.age(monotonicNs()), AGE_PERIOD_MS);
  }

  /** Which vports there are. */
  get ids(): number[] {
    return (this.#programme?.vports ?? []).map(({ id }) => id);
  }

  /** Puts the PF's programme in force. */
  async apply(programme: SwitchProgramme): Promise<void> {
    const byId = new Map(programme.vports.map((vport) => [vport.id, vport]));
    const count = Math.max(-1, ...byId.keys()) + 1;
    this.#pools.apply({
      switchMode: programme.switchMode,
      link: programme.link,
      vfs: Array.from({ length: count }, (_, id) => {
        const vport = byId.get(id);
        // A guest that has gone over to a VF is found by way of the NIC.
        return vport && { ...vport, fallback: vport.vf === null ? "none" : "uplink" };
      }),
      vports: [],
    });
    this.#programme = programme;
    for (const { id, mac, linkState, mtu, queuePairs, ...policy } of byId.values()) {
      const up = isLinkUp(linkState, programme.link);
      this.onLink(id, { mac, mtu, queuePairs, up, coalesce: coalesceOf(policy) });
    }
    await this.#emulation.useUplink(programme.drivesPf ? this.#uplink : undefined);
    await this.onChange([...byId.keys()]);
  }

  get states(): VportState[] {
    return this.ids.map((id) => ({
      id,
      attached: this.#emulation.tenants.has(id),
      counters: this.#pools.counters(id),
      latency: latencyOf(this.#emulation.engine.view, id),
    }));
  }

  close(): void {
    this.captures.close();
    clearInterval(this.#ager);
  }
}
