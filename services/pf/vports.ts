/** Guests without a VF: their ports on the software switch, their wishes, and the VFs that are allotted to them. */
import {
  ApiError,
  latencyView,
  type LinkPatch,
  socketPath,
  type VfMode,
  type VportPatch,
  type VportRequest,
  VPORTS_MAX,
  type VportView,
} from "../../shared/api/mod.ts";
import type { Events } from "./events.ts";
import type { GuestWishes } from "./guest_wishes.ts";
import type { Links } from "./links.ts";
import { mustGetNoCopies } from "./mirror_rules.ts";
import { addVport, allotVf, difference, findVport, mustMatch, patchVport, returnVf, withDerivedMac } from "./policy.ts";
import type { SettingsInForce } from "./settings_in_force.ts";
import type { Store } from "./store.ts";

/** What vports are made with. */
export interface VportParts {
  store: Store;
  settings: SettingsInForce;
  links: Links;
  events: Events;
  wishes: GuestWishes;
  runDir: string;
}

/** The vports. */
export class Vports {
  readonly #parts: VportParts;

  constructor(parts: VportParts) {
    this.#parts = parts;
  }

  async list(): Promise<VportView[]> {
    const { settings, links, runDir } = this.#parts;
    const states = await links.software.vports().catch(() => undefined);
    return settings.now.vports.map((vport) => {
      const state = states?.find(({ id }) => id === vport.id);
      const socket = socketPath(runDir, `vport${vport.id}`);
      return {
        ...{ ...vport, socket, attached: state?.attached ?? null, counters: state?.counters ?? null },
        latency: state ? latencyView(state.latency) : null,
      };
    });
  }

  async get(id: number): Promise<VportView> {
    findVport(this.#parts.settings.now, id);
    return (await this.list()).find((vport) => vport.id === id) as VportView;
  }

  async add(request: VportRequest): Promise<VportView> {
    const { store, settings } = this.#parts;
    const { id: wanted, ...patch } = request;
    let id = 0;
    await settings.change((before) => {
      const taken = new Set(before.vports.map((vport) => vport.id));
      id = wanted ?? Array.from({ length: VPORTS_MAX }, (_, i) => i).find((i) => !taken.has(i)) ?? -1;
      if (id < 0) throw new ApiError(409, `there are ${VPORTS_MAX} vports already: remove one first`, "id");
      const initial = store.initialVport(id);
      return addVport(before, initial, withDerivedMac(patch, initial.mac));
    });
    return await this.#changed(id, request);
  }

  async patch(id: number, patch: VportPatch, ifMatch?: string): Promise<VportView> {
    const { settings, store } = this.#parts;
    let changes: Record<string, unknown> = {};
    await settings.change((before) => {
      mustMatch(findVport(before, id), ifMatch);
      const next = patchVport(before, id, withDerivedMac(patch, store.initialVport(id).mac));
      changes = difference(findVport(before, id), findVport(next, id));
      return Object.keys(changes).length === 0 ? before : next;
    });
    return Object.keys(changes).length === 0 ? await this.get(id) : await this.#changed(id, changes);
  }

  /** Grants a guest's wish, or throws the reason why not. */
  async patchGuest(id: number, wish: LinkPatch, until = Infinity): Promise<VportView> {
    const { settings, wishes } = this.#parts;
    await wishes.grant({ vport: id }, { wish, until }, (grant) =>
      settings.change((before) => {
        const changes = grant(findVport(before, id));
        return Object.keys(changes).length === 0 ? before : patchVport(before, id, changes);
      }));
    return await this.get(id);
  }

  async remove(id: number): Promise<VportView> {
    const was = await this.get(id);
    await this.#parts.settings.change((before) => {
      const { vf } = findVport(before, id);
      mustGetNoCopies(before, id);
      if (vf === null) return { ...before, vports: before.vports.filter((vport) => vport.id !== id) };
      const remedy = `put its guest into emulated mode first (fabric vport mode ${id} emulated)`;
      throw new ApiError(409, `vport ${id} has vf ${vf}: ${remedy}`, "id", "vf-allotted");
    });
    this.#parts.events.emit({ type: "vport-changed", vport: id, changes: {} });
    return was;
  }

  async #changed(id: number, changes: Record<string, unknown>): Promise<VportView> {
    this.#parts.events.emit({ type: "vport-changed", vport: id, changes });
    return await this.get(id);
  }

  // VFs of vports' guests ------------------------------------------------------------------------------------

  /** Allots a free VF to a vport's guest: one that nobody drives, is about to drive, or is connected to. */
  async allotVf(id: number): Promise<VportView> {
    const { settings, links: { nic, software } } = this.#parts;
    await settings.change(async (before) => {
      const [state, ports] = await Promise.all([nic.state(), software.ports()]);
      const connected = new Set(ports.filter((port) => port.connected).map(({ port }) => port));
      const isFree = (vf: number) => {
        const pool = state.vfs[vf];
        return pool !== undefined && !pool.attached && !pool.held && !connected.has(vf);
      };
      const next = allotVf(before, id, isFree);
      const { vf } = findVport(next, id);
      if (vf !== null && next !== before) await nic.takeBack(vf);
      return next;
    });
    return await this.#changed(id, { vf: findVport(settings.now, id).vf });
  }

  /** Ends a vport's allotment. Whatever its guest says or does, nobody drives the VF when the next one gets it. */
  async returnVf(id: number): Promise<VportView> {
    const { settings, links: { nic } } = this.#parts;
    await settings.change(async (before) => {
      const { vf } = findVport(before, id);
      if (vf !== null) await nic.takeBack(vf);
      return returnVf(before, id);
    });
    return await this.#changed(id, { vf: findVport(settings.now, id).vf });
  }

  async getMode(id: number): Promise<VfMode> {
    findVport(this.#parts.settings.now, id);
    return await this.#parts.links.modes.get(`vports/${id}`);
  }
}
