/** The PF: what its API asks is done here, with the settings in force, and told to whoever listens. */
import {
  ApiError,
  type CapturedPort,
  type CaptureQuery,
  type FabricStats,
  type Filter,
  type LinkPatch,
  type LiveWish,
  log,
  type ModeEvent,
  type ModeRequest,
  type NicPatch,
  type NicState,
  type NicView,
  type Operation,
  Operations,
  type PfHandlers,
  type PoolName,
  type Role,
  type Run,
  type UpgradedService,
  type UplinkSpec,
  type UplinkView,
  type Vf,
  type VfMode,
  type VfPatch,
  type VfStats,
  type VhostState,
  type VportPatch,
  type VportRequest,
  type VportView,
} from "../../shared/api/mod.ts";
import { CapturePlaces, type CapturesTold } from "./capture_places.ts";
import { openCapture } from "./captures.ts";
import { type EventListener, Events } from "./events.ts";
import { type Links, upgradeOf } from "./links.ts";
import { Live } from "./live.ts";
import { PausedAddresses } from "./paused_addresses.ts";
import { difference, findVf, findVport, mustBeOwn, mustMatch, patchNic, patchVf, withDerivedMac } from "./policy.ts";
import { SettingsInForce } from "./settings_in_force.ts";
import type { Settings, Store } from "./store.ts";
import { mustBeUnbound } from "./uplink_rules.ts";
import { Uplinks } from "./uplinks.ts";
import { nicView, type Seen, statsOf, vfView } from "./views.ts";
import { Vports } from "./vports.ts";
import { answerWish, GuestWishes } from "./guest_wishes.ts";

/** The PF's state and operations. */
export class Fabric implements PfHandlers {
  readonly pausedAddresses: PausedAddresses;
  readonly #store: Store;
  readonly #links: Links;
  readonly #runDir: string;
  readonly #events = new Events();
  readonly #settings: SettingsInForce;
  readonly #vports: Vports;
  readonly #uplinks: Uplinks;
  readonly #wishes: GuestWishes;
  readonly #operations = new Operations();
  readonly #capturePlaces = new CapturePlaces();
  readonly #live: Live;
  readonly #following: Promise<void>;

  constructor(store: Store, links: Links, { runDir }: { runDir: string }) {
    this.#store = store;
    this.#links = links;
    this.#runDir = runDir;
    const settings = this.#settings = new SettingsInForce(store, links, this.#events);
    this.pausedAddresses = new PausedAddresses(settings, this.#events);
    this.#wishes = new GuestWishes(this.#events, (mac) => store.derivedOwner(mac));
    this.#vports = new Vports({ store, settings, links, events: this.#events, wishes: this.#wishes, runDir });
    this.#uplinks = new Uplinks({ settings, links, events: this.#events });
    this.#live = new Live({ settings, links, events: this.#events, runDir });
    this.#following = links.modeEvents.follow(() => Promise.resolve(), (event) => this.#onMode(event), () => {});
    settings.onWish = (event) => void answerWish(event, this, links.software);
  }

  /** Why it cannot put policy in force; `undefined` if it can. */
  get unreadiness(): string | undefined {
    const { connected, trouble } = this.#links.nic;
    return connected ? undefined : trouble ?? "it has not found the NIC yet";
  }

  /** The link that ports with linkState auto have. */
  get carrier(): "up" | "down" {
    return this.#settings.carrier;
  }

  get settings(): Settings {
    return this.#settings.now;
  }

  subscribe(listener: EventListener, lastId?: string): () => void {
    return this.#events.subscribe(listener, lastId);
  }

  live(wish: LiveWish): (send: (frame: string) => void) => () => void {
    if (wish.vf !== undefined) findVf(this.settings, wish.vf);
    return (send) => this.#live.subscribe(wish, send);
  }

  /** The NIC's state; `undefined` while it is away, so that policy can be read all the same. */
  async nicState(): Promise<NicState | undefined> {
    return await this.#links.nic.state().catch(() => undefined);
  }

  /** Which process of the vhost service serves front-ends; none while it does not answer. */
  vhostState(): Promise<VhostState | undefined> {
    return this.#links.software.state().catch(() => undefined);
  }

  upgradeService({ service }: { service: UpgradedService }): ReturnType<PfHandlers["upgradeService"]> {
    return upgradeOf(this.#links, service, this.#operations);
  }

  async #look(): Promise<Seen> {
    const [state, vhost] = await Promise.all([this.nicState(), this.vhostState()]);
    const isEmulating = state?.vfs.some(({ mode }) => mode === "emulated") ?? false;
    const ports = isEmulating ? await this.#links.software.ports().catch(() => []) : [];
    return { state, ports, vhost, outcome: (pool) => this.#settings.uplinks.outcome(pool) };
  }

  // VFs ------------------------------------------------------------------------------------------------------

  async listVfs(): Promise<Vf[]> {
    const seen = await this.#look();
    return this.settings.vfs.map((_, id) => vfView(this.settings, id, seen, this.#runDir));
  }

  async getVf(id: number): Promise<Vf> {
    const seen = await this.#look();
    findVf(this.settings, id);
    return vfView(this.settings, id, seen, this.#runDir);
  }

  async changeVf(id: number, patch: VfPatch, ifMatch?: string, by?: Role): Promise<void> {
    findVf(this.settings, id);
    const derived = this.#store.initialPolicy(id).mac;
    let changes: Record<string, unknown> = {};
    await this.#settings.change((before) => {
      mustMatch(findVf(before, id), ifMatch);
      mustBeOwn(by, findVf(before, id), patch);
      const next = patchVf(before, id, withDerivedMac(patch, derived));
      changes = difference(findVf(before, id), findVf(next, id));
      return Object.keys(changes).length === 0 ? before : next;
    });
    if (Object.keys(changes).length === 0) return;
    log("info", "pf", `vf ${id}: ${JSON.stringify(changes)}`);
    this.#events.emit({ type: "vf-changed", vf: id, changes });
  }

  /** Grants a guest's wish, or throws the reason why not. */
  async patchGuest(id: number, wish: LinkPatch, until = Infinity): Promise<Vf> {
    await this.#wishes.grant({ vf: id }, { wish, until }, (grant) =>
      this.#settings.change((before) => {
        const changes = grant(findVf(before, id));
        return Object.keys(changes).length === 0 ? before : patchVf(before, id, changes);
      }));
    return await this.getVf(id);
  }

  async getStats(id: number): Promise<VfStats> {
    findVf(this.settings, id);
    const state = await this.#links.nic.state();
    return statsOf(id, state.vfs[id]);
  }

  async listStats(): Promise<FabricStats> {
    const [{ vfs, pf, uplink }, vports] = await Promise.all([this.#links.nic.state(), this.#vports.list()]);
    return {
      vfs: this.settings.vfs.map((_, id) => statsOf(id, vfs[id])),
      vports: vports.map(({ id, counters, latency }) => statsOf(id, { counters, latency })),
      pf: pf.counters,
      uplink: uplink.counters,
    };
  }

  async getMode(id: number): Promise<VfMode> {
    findVf(this.settings, id);
    // Whoever asks about an allotted VF is told of the guest that it is allotted to.
    const holder = this.settings.vports.find(({ vf }) => vf === id);
    return await this.#links.modes.get(holder ? `vports/${holder.id}` : `vfs/${id}`);
  }

  putMode(id: number, request: ModeRequest): Run {
    findVf(this.settings, id);
    const holder = this.settings.vports.find(({ vf }) => vf === id);
    if (holder) {
      const detail = `vf ${id} is allotted to the guest of vport ${holder.id}: change the vport's mode instead`;
      throw new ApiError(409, detail, "id", "vf-allotted");
    }
    mustBeUnbound(this.settings, id);
    const act = (run: Run) => this.#links.modes.put(`vfs/${id}`, request, run);
    return this.#operations.start(`vf ${id} to ${request.mode}`, act);
  }

  /** A mode has changed, by whomever: through this API, by the vf service's own, or since a plugin has failed. */
  #onMode({ port, type, mode, ...why }: ModeEvent): void {
    const whose = typeof port === "number" ? { vf: port } : { vport: Number(port.slice("vport".length)) };
    if (type === "mode-failed") this.#events.emit({ type, ...whose, mode, ...why });
    else if (mode !== null) this.#events.emit({ type, ...whose, mode, ...why });
  }

  // The NIC --------------------------------------------------------------------------------------------------

  async getNic(): Promise<NicView> {
    return nicView(this.settings, this.carrier, await this.#look(), this.#runDir);
  }

  async patchNic(patch: NicPatch): Promise<NicView> {
    await this.#settings.change((before) => patchNic(before, patch, (vf) => this.#store.initialPolicy(vf)));
    log("info", "pf", `nic: ${JSON.stringify(patch)}`);
    this.#events.emit({ type: "nic-changed", changes: patch });
    return await this.getNic();
  }

  getUplink(pool: PoolName): Promise<UplinkView> {
    return this.#uplinks.get(pool);
  }

  putUplink(pool: PoolName, spec: UplinkSpec): Promise<UplinkView> {
    return this.#uplinks.put(pool, spec);
  }

  async listFilters(): Promise<Filter[]> {
    return await this.#links.nic.filters();
  }

  /** Opens a capture; the answer goes on while it is read. */
  capture(port: CapturedPort, query: CaptureQuery, by?: Role): Promise<Response> {
    return openCapture({ settings: this.settings, links: this.#links, places: this.#capturePlaces }, port, query, by);
  }

  get capturesTold(): CapturesTold {
    return this.#capturePlaces.told;
  }

  // Vports ---------------------------------------------------------------------------------------------------

  listVports(): Promise<VportView[]> {
    return this.#vports.list();
  }

  getVport(id: number): Promise<VportView> {
    return this.#vports.get(id);
  }

  postVport(request: VportRequest): Promise<VportView> {
    return this.#vports.add(request);
  }

  patchVport(id: number, patch: VportPatch, ifMatch?: string): Promise<VportView> {
    return this.#vports.patch(id, patch, ifMatch);
  }

  patchVportGuest(id: number, wish: LinkPatch, until?: number): Promise<VportView> {
    return this.#vports.patchGuest(id, wish, until);
  }

  deleteVport(id: number): Promise<VportView> {
    return this.#vports.remove(id);
  }

  allotVf(id: number): Promise<VportView> {
    return this.#vports.allotVf(id);
  }

  returnVf(id: number): Promise<VportView> {
    return this.#vports.returnVf(id);
  }

  getVportMode(id: number): Promise<VfMode> {
    return this.#vports.getMode(id);
  }

  putVportMode(id: number, request: ModeRequest): Run {
    findVport(this.settings, id);
    const act = (run: Run) => this.#links.modes.put(`vports/${id}`, request, run);
    return this.#operations.start(`vport ${id} to ${request.mode}`, act);
  }

  // Operations -----------------------------------------------------------------------------------------------

  listOperations(): Operation[] {
    return this.#operations.list;
  }

  getOperation(id: string): Operation {
    return this.#operations.get(id);
  }

  async close(): Promise<void> {
    this.#live.close();
    this.#capturePlaces.close();
    this.#links.modeEvents.close();
    await Promise.all([this.#settings.close(), this.#following]);
  }
}
