/**
 * From the PF's programme to the tables the engine reads: pool policy, VLAN membership, address filters. What a
 * programme changes is worked out and checked while the engine runs; then the engine stands still while those bytes are
 * copied and those entries set. So a pause is as long as the change, not as the programme, and counters, token buckets
 * and learned addresses of the other VFs stay.
 */
import * as L from "../layout/nic.ts";
import { type CounterName, COUNTERS, ENGINE_TIMES } from "../layout/counter_names.ts";
import type { Latency } from "../api/latency.ts";
import type { Filter } from "../api/nic.ts";
import { COALESCE_ADAPTIVE, vlanKey } from "../api/policy.ts";
import { listFilters } from "./filter_list.ts";
import { changeFilters, type FilterExports, type FilterPlan, type FilterSet, planFilters } from "./filter_plan.ts";
import {
  coalescePatch,
  macBytes,
  mirrorPatches,
  numbers,
  pfPatches,
  poolPatches,
  uplinkPatches,
} from "./policy_image.ts";
import type { Patch, PoolPolicy, PoolProgramme } from "./programme.ts";
import { sharePatches } from "./shares.ts";

/** What of the engine the pools need: its memory, its filter functions, and a moment in which it stands still. */
export interface EngineAccess {
  readonly view: DataView;
  readonly arena: { readonly buffer: SharedArrayBuffer };
  readonly wasm: FilterExports;
  between<T>(change: () => T): T;
}

/** A change, ready to be made. */
interface Plan {
  patches: Patch[];
  filters: FilterPlan;
  /** Pools that may not keep all they have learned. */
  losers: number[];
}

/** Pools' policy in the engine's memory. */
export class Pools {
  readonly #engine: EngineAccess;
  readonly #view: DataView;
  readonly #bytes: Uint8Array;
  #programme: PoolProgramme | undefined;
  #filters: FilterSet = new Map();

  /** Lays out an engine that nobody has programmed. `seed`: the secret of the filter table's hash. */
  constructor(engine: EngineAccess, seed: bigint = randomSeed()) {
    this.#engine = engine;
    this.#view = engine.view;
    this.#bytes = new Uint8Array(engine.arena.buffer);
    engine.between(() => {
      this.#view.setBigUint64(L.CTL + L.CTL_FILTER_SEED, seed, true);
      engine.wasm.clearFilters();
      this.#write(firstPatches());
    });
  }

  /** What is in force, `undefined` before the PF has spoken. */
  get programme(): PoolProgramme | undefined {
    return this.#programme;
  }

  get vfCount(): number {
    return this.#programme?.vfs.length ?? 0;
  }

  /**
   * Puts a programme in force, in one step between two bursts. Throws DeviceRefusal if it cannot be; whenever this
   * throws, the programme before is in force, whole.
   */
  apply(next: PoolProgramme): void {
    const before = this.#filters;
    const { patches, filters, losers } = this.#plan(next);
    if (patches.length > 0 || filters.add.length > 0 || filters.remove.length > 0) {
      this.#engine.between(() => {
        changeFilters(filters, before, this.#engine.wasm);
        this.#write(patches);
        if (losers.some((pool) => this.learned(pool) > 0)) this.#engine.wasm.ageFilters();
      });
    }
    this.#filters = filters.next;
    this.#programme = next;
  }

  /**
   * Goes on with the tables of an engine that has ended, whose programme is the one in force here. The engine stands
   * still. `wasChanging`: it ended while they were being changed, so they are written anew; what was learned is learned
   * again.
   */
  takeOver(wasChanging: boolean): void {
    const programme = this.#programme;
    if (wasChanging) {
      this.#engine.wasm.clearFilters();
      this.#write(firstPatches());
      this.#programme = undefined;
    }
    // The table has a seed of its own, so that an entry's place is another one.
    this.#filters = new Map();
    if (!programme) return;
    if (wasChanging) this.apply(programme);
    else this.#filters = planFilters(this.#filters, programme, this.#engine.wasm).next;
  }

  #plan(next: PoolProgramme): Plan {
    const before = this.#programme;
    const nowNs = this.#view.getFloat64(L.CTL + L.CTL_NOW_NS, true);
    const patches: Patch[] = [];
    const losers: number[] = [];
    for (let vf = 0; vf < Math.max(this.vfCount, next.vfs.length); vf++) {
      const [old, policy] = [before?.vfs[vf], next.vfs[vf]];
      const from = { policy: old, link: before?.link ?? next.link };
      patches.push(...poolPatches(vf, from, { policy, link: next.link }, nowNs));
      if (old?.trust && !keepsLearned(old, policy)) losers.push(vf);
    }
    patches.push(...sharePatches(before?.vfs ?? [], next.vfs), ...nicPatches(before, next));
    return { patches, filters: planFilters(this.#filters, next, this.#engine.wasm), losers };
  }

  #write(patches: readonly Patch[]): void {
    for (const { at, bytes } of patches) this.#bytes.set(bytes, at);
  }

  /** Has the engine forget learned addresses that nobody has used for a while, if there are any. */
  age(nowNs: number): void {
    if (this.#view.getUint32(L.CTL + L.CTL_LEARNED_COUNT, true) === 0) return;
    this.#engine.between(() => {
      // A worker that sleeps has not looked at the clock.
      this.#view.setFloat64(L.CTL + L.CTL_NOW_NS, nowNs, true);
      this.#engine.wasm.ageFilters();
    });
  }

  /** The filter table as the API shows it. */
  filters(): Filter[] {
    return listFilters(this.#view, Math.floor(this.#view.getFloat64(L.CTL + L.CTL_NOW_NS, true) / 1e9));
  }

  #at(pool: number): number {
    return L.POOLS + pool * L.POOL_STRIDE;
  }

  /** Learned addresses of a pool. */
  learned(pool: number): number {
    return this.#view.getUint32(this.#at(pool) + L.P_LEARNED, true);
  }

  /** One counter of a pool. */
  counter(pool: number, name: CounterName): number {
    const i = COUNTERS.findIndex(([counter]) => counter === name);
    return Number(this.#view.getBigUint64(this.#at(pool) + L.P_COUNTERS + i * 8, true));
  }

  /** The counters of a pool by name, and its times in nanoseconds. */
  counters(pool: number): Record<string, number> {
    const at = this.#at(pool);
    const count = (i: number) => Number(this.#view.getBigUint64(at + L.P_COUNTERS + i * 8, true));
    return Object.fromEntries([
      ...COUNTERS.map(([name], i) => [name, count(i)]),
      ...ENGINE_TIMES.map(([name, , offset]) => [name, Math.round(this.#view.getFloat64(at + offset, true))]),
    ]);
  }
}

/** What there is before any programme. */
function firstPatches(): Patch[] {
  return [...pfPatches(), ...uplinkPatches(undefined, {}), coalescePatch(L.POOL_UPLINK, COALESCE_ADAPTIVE)];
}

/** How long a pool's frames waited in their rings, as far as was sampled. */
export function latencyOf(view: DataView, pool: number): Latency {
  const at = L.POOLS + pool * L.POOL_STRIDE;
  return {
    counts: Array.from(
      { length: L.LATENCY_BUCKETS },
      (_, i) => Number(view.getBigUint64(at + L.P_LATENCY + i * 8, true)),
    ),
    sumNs: Math.round(view.getFloat64(at + L.P_LATENCY_SUM, true)),
  };
}

function randomSeed(): bigint {
  return crypto.getRandomValues(new BigUint64Array(1))[0] ?? 0n;
}

/** Whether a trusted pool stays a member of all VLANs in which it can have learned addresses. */
function keepsLearned(old: PoolPolicy, policy: PoolPolicy | undefined): boolean {
  return policy?.trust === true && vlanKey(policy) === vlanKey(old) && policy.nativeVlan === old.nativeVlan;
}

/** What is the whole NIC's. */
function nicPatches(before: PoolProgramme | undefined, next: PoolProgramme): Patch[] {
  const patches: Patch[] = uplinkPatches(before ?? {}, next);
  patches.push(...mirrorPatches(L.POOL_PF, before?.pfMirror, next.pfMirror));
  const words: [number, (programme: PoolProgramme) => number][] = [
    [L.CTL_VF_COUNT, ({ vfs }) => vfs.length],
    [L.CTL_PROMISC_COUNT, ({ vfs }) => vfs.filter((vf) => vf?.promisc && vf.trust).length],
    [L.CTL_SWITCH_MODE, ({ switchMode }) => switchMode === "vepa" ? L.SWITCH_VEPA : L.SWITCH_VEB],
  ];
  for (const [offset, value] of words) {
    const word = value(next);
    if (!before || value(before) !== word) patches.push({ at: L.CTL + offset, bytes: numbers(word) });
  }
  if (next.pfMac !== undefined && before?.pfMac !== next.pfMac) {
    patches.push({ at: L.POOLS + L.POOL_PF * L.POOL_STRIDE + L.P_MAC, bytes: macBytes(next.pfMac) });
  }
  return patches;
}
