/**
 * The software switch of guests without a VF: the same engine as the NIC's, with the same policy for each port, and the
 * PF's pool of the NIC as its uplink (NPA's picture). Which vports there are is the PF's to say.
 */
import type { VfLink } from "../../shared/device/mod.ts";
import { createMemfd, type Fd, fileStatus, monotonicNs, readMemoryFile, writeMemoryFile } from "../../shared/os/mod.ts";
import { Captures, latencyOf, Pools } from "../../shared/engine/mod.ts";
import { coalesceOf, isLinkUp, SwitchProgramme, type VportState } from "../../shared/api/mod.ts";
import type { Emulation, UplinkOptions } from "./emulation.ts";
import { fdsOf, type Parts, type Replica, type Replicated, valueOf, type VhostFollower } from "./standby/mod.ts";

const AGE_PERIOD_MS = 30_000;

/** The switch's ports and their policy. */
export class SoftwareSwitch {
  readonly #emulation: Emulation;
  readonly #uplink: UplinkOptions;
  readonly #pools: Pools;
  readonly captures: Captures;
  readonly #ager: ReturnType<typeof setInterval>;
  #programme: SwitchProgramme | undefined;
  /** The programme as JSON, which may be larger than a message. */
  #programmeFile: Fd | undefined;
  readonly #object: Replicated;
  /** Told which vports there are. */
  onChange: (ids: number[]) => Promise<void> = () => Promise.resolve();

  /** Told what a vport's guest sees of it. */
  onLink: (id: number, link: VfLink) => void = () => {};

  /** `uplink`: where the NIC is, whose PF's pool the switch drives. */
  constructor(emulation: Emulation, uplink: UplinkOptions, replica: Replica) {
    this.#emulation = emulation;
    this.#uplink = uplink;
    this.#pools = new Pools(emulation.engine);
    this.captures = new Captures(emulation.engine);
    this.#object = replica.keep("switch", () => this.#parts);
    emulation.onUplink = () => this.#object.tell();
    this.#ager = setInterval(() => this.#pools.age(monotonicNs()), AGE_PERIOD_MS);
  }

  /** Which vports there are. */
  get ids(): number[] {
    return (this.#programme?.vports ?? []).map(({ id }) => id);
  }

  /** Puts the PF's programme in force. */
  async apply(programme: SwitchProgramme): Promise<void> {
    const byId = this.#program(programme);
    this.#keepProgramme(programme);
    await this.#emulation.useUplink(programme.drivesPf ? this.#uplink : undefined);
    await this.onChange([...byId.keys()]);
  }

  // Standing by ----------------------------------------------------------------------------------------------

  #keepProgramme(programme: SwitchProgramme): void {
    const text = new TextEncoder().encode(JSON.stringify(programme));
    this.#programmeFile?.close();
    this.#programmeFile = createMemfd("ringfabric-switch", text.byteLength);
    writeMemoryFile(this.#programmeFile.number, 0, text);
    this.#object.tell();
  }

  /** What whoever stands by has of it. */
  get #parts(): Parts {
    const file = this.#programmeFile;
    const uplink = this.#emulation.uplinkKept;
    const bytes = file ? Number(fileStatus(file.number).bytes) : 0;
    return { ...(file ? { programme: { value: { bytes }, fds: [file] } } : {}), ...(uplink ? { uplink } : {}) };
  }

  /** Knows what the switch of a process had that has ended, before the engine is taken over. */
  adopt(follower: Pick<VhostFollower, "objects">): void {
    for (const [, object] of follower.objects("switch")) {
      const uplink = object.get("uplink");
      if (uplink) this.#emulation.adoptUplink(this.#uplink, uplink);
      const [file] = fdsOf(object, "programme");
      if (!file) continue;
      const text = new Uint8Array(valueOf<{ bytes: number }>(object, "programme").bytes);
      this.#programmeFile = file;
      if (!readMemoryFile(file.number, 0, text)) throw new Error("the switch's programme is too short");
      this.#program(SwitchProgramme.parse(JSON.parse(new TextDecoder().decode(text))));
    }
  }

  /** Goes on with the policy, in a pause of the engine that is being taken over. */
  takeOver(wasChanging: boolean): void {
    this.#pools.takeOver(wasChanging);
    this.captures.takeOver();
  }

  /** Has the engine's policy as it is programmed; answers the vports by number. */
  #program(programme: SwitchProgramme): Map<number, SwitchProgramme["vports"][number]> {
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
    return byId;
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
    this.#object.end();
    this.#programmeFile?.close();
    this.captures.close();
    clearInterval(this.#ager);
  }
}
