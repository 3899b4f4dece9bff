/** The PF: settings, the NIC they are in force in, and what happens. Changes come one after the other. */
import {
  ApiError,
  type Filter,
  log,
  type NicEvent,
  type NicPatch,
  type NicState,
  type NicView,
  type PfEvent,
  type PfHandlers,
  type Vf,
  type VfPatch,
  type VfStats,
} from "../../shared/api/mod.ts";
import type { NicLink } from "./nic_link.ts";
import { patchNic, patchVf } from "./policy.ts";
import type { Settings, Store } from "./store.ts";

/** The PF's state and operations. */
export class Fabric implements PfHandlers {
  readonly #store: Store;
  readonly #nic: NicLink;
  readonly #runDir: string;
  readonly #listeners = new Set<(event: PfEvent) => void>();
  #settings: Settings;
  #work: Promise<unknown> = Promise.resolve();
  readonly #following: Promise<void>;

  constructor(store: Store, nic: NicLink, options: { runDir: string }) {
    this.#store = store;
    this.#nic = nic;
    this.#runDir = options.runDir;
    this.#settings = store.load();
    this.#following = nic.follow(
      () => this.#program(),
      (event) => this.#relay(event),
      (up) => this.#emit({ type: up ? "nic-up" : "nic-down" }),
    );
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
    const done = this.#work.then(() => this.#nic.program(this.#settings));
    this.#work = done.catch(() => {});
    return done;
  }

  /** Makes one change: in force in the NIC and on disk, or not at all. */
  #change(step: (before: Settings) => Settings): Promise<void> {
    const done = this.#work.then(async () => {
      const before = this.#settings;
      const next = step(before);
      try {
        await this.#store.save(next, () => this.#nic.program(next));
      } catch (error) {
        // The NIC may have taken what the disk then refused, or take late what timed out here.
        await this.#nic.program(before).catch(() => this.#nic.reconnect());
        throw error;
      }
      this.#settings = next;
    });
    this.#work = done.catch(() => {});
    return done;
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

  putMode(id: number, mode: "emulated" | "passthrough"): { mode: "passthrough" } {
    this.#known(id);
    if (mode === "passthrough") return { mode };
    throw new ApiError(
      409,
      `cannot put vf ${id} into emulated mode: this fabric has no emulated data path, only passthrough`,
      "mode",
    );
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
      mode: "passthrough",
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

  getMode(id: number): { mode: "passthrough" } {
    this.#known(id);
    return { mode: "passthrough" };
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
    await this.#following;
    await this.#work;
  }
}
