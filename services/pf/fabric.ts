/** The PF: settings, the NIC they are in force in, and what happens. Changes come one after the other. */
import {
  ApiError,
  type Filter,
  type LinkPatch,
  log,
  type ModeRequest,
  type NicEvent,
  type NicPatch,
  type NicState,
  type NicView,
  type PfEvent,
  type PfHandlers,
  type PortPolicy,
  type Programme,
  receivedMulticast,
  type SwitchProgramme,
  type Vf,
  type VfMode,
  type VfPatch,
  type VfStats,
  type VportPatch,
  type VportRequest,
  VPORTS_MAX,
  type VportView,
} from "../../shared/api/mod.ts";
import { Turns } from "../../shared/async/mod.ts";
import type { ModeLink, NicLink, SwitchLink } from "./nic_link.ts";
import { addVport, allotVf, findVport, grant, patchNic, patchVf, patchVport, returnVf } from "./policy.ts";
import type { Settings, Store } from "./store.ts";

/** The PF's state and operations. */
export class Fabric implements PfHandlers {
  readonly #store: Store;
  readonly #nic: NicLink;
  readonly #runDir: string;
  readonly #listeners = new Set<(event: PfEvent) => void>();
  #settings: Settings;
  readonly #turns = new Turns();
  readonly #switch: SwitchLink;
  readonly #modes: ModeLink;
  readonly #following: Promise<unknown>;

  constructor(
    store: Store,
    links: { nic: NicLink; software: SwitchLink; modes: ModeLink },
    options: { runDir: string },
  ) {
    this.#store = store;
    this.#nic = links.nic;
    this.#switch = links.software;
    this.#modes = links.modes;
    this.#runDir = options.runDir;
    this.#settings = store.load();
    this.#following = Promise.all([
      this.#nic.follow(
        () => this.#program(),
        (event) => this.#relay(event),
        (up) => this.#emit({ type: up ? "nic-up" : "nic-down" }),
      ),
      this.#switch.follow(() => this.#programSwitch(), () => {}, () => {}),
    ]);
  }

  get ready(): boolean {
    return this.#nic.connected;
  }

  get settings(): Settings {
    return this.#settings;
  }

  // Events ---------------------------------------------------------------------------------------------------

  subscribe(listener: (event: PfEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #emit(event: PfEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  #relay(event: NicEvent): void {
    const { pool, type } = event;
    if (type === "attached") this.#emit({ type, vf: pool });
    else if (type === "detached") this.#emit({ type, vf: pool, reason: event.reason });
    else this.#emit({ type, vf: pool, index: event.index, reason: event.reason });
  }

  // Changes --------------------------------------------------------------------------------------------------

  /** Programmes the NIC with what is in force, in turn with the changes. */
  #program(): Promise<void> {
    return this.#turns.take(() => this.#nic.program(nicProgramme(this.#settings)));
  }

  /** Programmes the software switch, in turn with the changes. */
  #programSwitch(): Promise<void> {
    return this.#turns.take(() => this.#switch.program(switchProgramme(this.#settings)));
  }

  /** Has settings in force in the NIC and, as far as they concern it, in the software switch. */
  async #apply(next: Settings, before: Settings): Promise<void> {
    await this.#nic.program(nicProgramme(next));
    if (concernsSwitch(next, before)) await this.#switch.program(switchProgramme(next));
  }

  /** Makes one change: in force in the NIC and on disk, or not at all. */
  #change(step: (before: Settings) => Settings | Promise<Settings>): Promise<void> {
    return this.#turns.take(async () => {
      const before = this.#settings;
      const next = await step(before);
      try {
        await this.#store.save(next, () => this.#apply(next, before));
      } catch (error) {
        // The NIC may have taken what the disk then refused, or take late what timed out here.
        await this.#nic.program(nicProgramme(before)).catch(() => this.#nic.reconnect());
        if (concernsSwitch(next, before)) this.#switch.reconnect();
        throw error;
      }
      this.#settings = next;
    });
  }

  async patchVf(id: number, patch: VfPatch): Promise<Vf> {
    await this.#change((before) => patchVf(before, id, patch));
    log("info", "pf", `vf ${id}: ${JSON.stringify(patch)}`);
    this.#emit({ type: "vf-changed", vf: id, changes: patch });
    return await this.getVf(id);
  }

  async patchNic(patch: NicPatch): Promise<NicView> {
    await this.#change((before) => patchNic(before, patch, (vf) => this.#store.initialPolicy(vf)));
    log("info", "pf", `nic: ${JSON.stringify(patch)}`);
    this.#emit({ type: "nic-changed", changes: patch });
    return await this.getNic();
  }

  async putMode(id: number, request: ModeRequest): Promise<VfMode> {
    this.#known(id);
    const mode = await this.#modes.put(`vfs/${id}`, request);
    this.#emit({ type: "mode-changed", vf: id, mode: mode.mode, ...(mode.plugin ? { plugin: mode.plugin } : {}) });
    return mode;
  }

  /** Grants a guest's wish, or throws the reason why not. */
  async patchGuest(id: number, wish: LinkPatch): Promise<Vf> {
    this.#known(id);
    let changes = {};
    await this.#change((before) => {
      changes = this.#grant(`vf ${id}`, before.vfs[id] as Settings["vfs"][number], wish);
      return patchVf(before, id, changes);
    });
    log("info", "pf", `vf ${id}: its guest has asked for ${JSON.stringify(wish)}`);
    this.#emit({ type: "vf-changed", vf: id, changes });
    return await this.getVf(id);
  }

  // Vports ---------------------------------------------------------------------------------------------------

  async listVports(): Promise<VportView[]> {
    const states = await this.#switch.vports().catch(() => []);
    return this.#settings.vports.map((vport) => {
      const state = states.find(({ id }) => id === vport.id);
      const socket = `${this.#runDir}/vport${vport.id}.sock`;
      return { ...vport, socket, attached: state?.attached ?? false, counters: state?.counters ?? {} };
    });
  }

  async getVport(id: number): Promise<VportView> {
    findVport(this.#settings, id);
    return (await this.listVports()).find((vport) => vport.id === id) as VportView;
  }

  async postVport(request: VportRequest): Promise<VportView> {
    const { id: wanted, ...patch } = request;
    let id = 0;
    await this.#change((before) => {
      const taken = new Set(before.vports.map((vport) => vport.id));
      id = wanted ?? Array.from({ length: VPORTS_MAX }, (_, i) => i).find((i) => !taken.has(i)) ?? -1;
      if (id < 0) throw new ApiError(409, `there are ${VPORTS_MAX} vports already: remove one first`, "id");
      return addVport(before, this.#store.initialVport(id), patch);
    });
    this.#emit({ type: "vport-changed", vport: id, changes: request });
    return await this.getVport(id);
  }

  async patchVport(id: number, patch: VportPatch): Promise<VportView> {
    await this.#change((before) => patchVport(before, id, patch));
    this.#emit({ type: "vport-changed", vport: id, changes: patch });
    return await this.getVport(id);
  }

  async patchVportGuest(id: number, wish: LinkPatch): Promise<VportView> {
    let changes = {};
    await this.#change((before) => {
      changes = this.#grant(`vport ${id}`, findVport(before, id), wish);
      return patchVport(before, id, changes);
    });
    log("info", "pf", `vport ${id}: its guest has asked for ${JSON.stringify(wish)}`);
    this.#emit({ type: "vport-changed", vport: id, changes });
    return await this.getVport(id);
  }

  /** A guest's wish; the addresses with which other VFs and vports begin are theirs, though they may not be there yet. */
  #grant(who: string, policy: PortPolicy, wish: LinkPatch): VportPatch {
    const owner = wish.mac === undefined ? undefined : this.#store.derivedOwner(wish.mac);
    if (owner !== undefined && owner !== who && wish.mac !== policy.mac) {
      throw new ApiError(
        409,
        `${who} may not have the address ${wish.mac}: it is kept for ${owner}`,
        "mac",
        "mac-fixed",
      );
    }
    return grant(who, policy, wish);
  }

  /** Allots a free VF to a vport's guest: one that nobody drives, is about to drive, or is connected to. */
  async allotVf(id: number): Promise<VportView> {
    await this.#change(async (before) => {
      const [state, ports] = await Promise.all([this.#nic.state(), this.#switch.ports()]);
      const connected = new Set(ports.filter((port) => port.connected).map(({ port }) => port));
      const isFree = (vf: number) => {
        const pool = state.vfs[vf];
        return pool !== undefined && !pool.attached && !pool.held && !connected.has(vf);
      };
      const next = allotVf(before, id, isFree);
      const { vf } = findVport(next, id);
      if (vf !== null && next !== before) await this.#nic.takeBack(vf);
      return next;
    });
    return await this.#vfMoved(id);
  }

  /** Ends a vport's allotment. Whatever its guest says or does, nobody drives the VF when the next one gets it. */
  async returnVf(id: number): Promise<VportView> {
    await this.#change(async (before) => {
      const { vf } = findVport(before, id);
      if (vf !== null) await this.#nic.takeBack(vf);
      return returnVf(before, id);
    });
    return await this.#vfMoved(id);
  }

  async #vfMoved(id: number): Promise<VportView> {
    const vport = await this.getVport(id);
    this.#emit({ type: "vport-changed", vport: id, changes: { vf: vport.vf } });
    return vport;
  }

  async getVportMode(id: number): Promise<VfMode> {
    findVport(this.#settings, id);
    return await this.#modes.get(`vports/${id}`);
  }

  async putVportMode(id: number, request: ModeRequest): Promise<VfMode> {
    findVport(this.#settings, id);
    return await this.#modes.put(`vports/${id}`, request);
  }

  async deleteVport(id: number): Promise<VportView> {
    const was = await this.getVport(id);
    await this.#change((before) => {
      const { vf } = findVport(before, id);
      if (vf === null) return { ...before, vports: before.vports.filter((vport) => vport.id !== id) };
      const remedy = `put its guest into emulated mode first (fabric vport mode ${id} emulated)`;
      throw new ApiError(409, `vport ${id} has vf ${vf}: ${remedy}`, "id", "vf-allotted");
    });
    this.#emit({ type: "vport-changed", vport: id, changes: {} });
    return was;
  }

  // Views ----------------------------------------------------------------------------------------------------

  #known(id: number): void {
    if (id < this.#settings.vfs.length) return;
    const range = this.#settings.vfs.length === 0 ? "there are none" : `VFs are 0–${this.#settings.vfs.length - 1}`;
    throw new ApiError(404, `there is no vf ${id}: ${range}`, "id");
  }

  #view(id: number, state: NicState | undefined): Vf {
    const pool = state?.vfs[id];
    const policy = this.#settings.vfs[id];
    if (!policy) throw new ApiError(404, `there is no vf ${id}`, "id");
    return {
      id,
      ...policy,
      vport: this.#settings.vports.find(({ vf }) => vf === id)?.id ?? null,
      mode: pool?.mode ?? "passthrough",
      ...(pool?.plugin === undefined ? {} : { plugin: pool.plugin }),
      socket: `${this.#runDir}/vf${id}.sock`,
      attached: pool?.attached ?? false,
      ...(pool?.owner === undefined ? {} : { owner: pool.owner }),
      memory: pool?.memory ?? { bytes: 0, regions: 0, sealed: true },
      queues: pool?.queues ?? [],
      ...(pool?.lastDetach === undefined ? {} : { lastDetach: pool.lastDetach }),
      learnedMacs: pool?.learnedMacs ?? 0,
    };
  }

  /** The NIC's state; `undefined` while it is away, so that policy can be read all the same. */
  async nicState(): Promise<NicState | undefined> {
    return await this.#nic.state().catch(() => undefined);
  }

  async listVfs(): Promise<Vf[]> {
    const state = await this.nicState();
    return this.#settings.vfs.map((_, id) => this.#view(id, state));
  }

  async getVf(id: number): Promise<Vf> {
    this.#known(id);
    return this.#view(id, await this.nicState());
  }

  async getStats(id: number): Promise<VfStats> {
    this.#known(id);
    const state = await this.#nic.state();
    return { id, counters: state.vfs[id]?.counters ?? {} };
  }

  async getMode(id: number): Promise<VfMode> {
    this.#known(id);
    return await this.#modes.get(`vfs/${id}`);
  }

  async getNic(): Promise<NicView> {
    const state = await this.nicState();
    return {
      numVfs: this.#settings.vfs.length,
      switchMode: this.#settings.switchMode,
      link: this.#settings.link,
      pfMac: this.#settings.pfMac,
      reachable: state !== undefined,
      uplink: {
        socket: `${this.#runDir}/uplink.sock`,
        attached: state?.uplink.attached ?? false,
        counters: state?.uplink.counters ?? {},
      },
      ...(state ? { engine: state.engine } : {}),
    };
  }

  async listFilters(): Promise<Filter[]> {
    return await this.#nic.filters();
  }

  async close(): Promise<void> {
    this.#nic.close();
    this.#switch.close();
    await this.#following;
    await this.#turns.settled;
  }
}

/** A policy as the NIC and the switch have it in force: of multicast, what the PF allows and the guest wants. */
function inForce<P extends PortPolicy>(policy: P): P {
  return { ...policy, multicast: receivedMulticast(policy) };
}

/**
 * What of the settings the NIC has to know. A VF that is allotted to a vport's guest has the vport's policy; until the
 * guest drives it, what comes for it goes where the guest still is: to the switch behind the PF's pool.
 */
function nicProgramme({ switchMode, link, pfMac, vfs, vports }: Settings): Programme {
  const effective = vfs.map((own, vf) => {
    const { id: _id, vf: allotted, ...policy } = vports.find((vport) => vport.vf === vf) ?? { id: 0, vf: null, ...own };
    return allotted === null
      ? { ...inForce(own), fallback: "none" as const }
      : { ...own, ...inForce(policy), fallback: "pf" as const };
  });
  const onSwitch = vports.filter(({ vf }) => vf === null);
  return {
    ...{ switchMode, link, pfMac, vfs: effective },
    vports: onSwitch.map(({ mac, vlan, vlanProto }) => ({ mac, vlan, vlanProto })),
  };
}

/** Whether a change is the software switch's too. Without vports it has nothing to know, and need not even be there. */
function concernsSwitch(next: Settings, before: Settings): boolean {
  if (next.vports !== before.vports) return true;
  return next.vports.length > 0 && (next.link !== before.link || next.switchMode !== before.switchMode);
}

/** What of them the software switch has to know. */
function switchProgramme({ switchMode, link, vports }: Settings): SwitchProgramme {
  return { switchMode, link, vports: vports.map(inForce) };
}
