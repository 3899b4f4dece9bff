/**
 * From the PF's programme to the tables the engine reads: pool policy, VLAN membership, address filters. Only what
 * changed is rewritten, so counters, token buckets and learned addresses of the other VFs stay.
 */
import {
  CTL,
  CTL_NOW_NS,
  CTL_PROMISC_COUNT,
  CTL_SWITCH_MODE,
  CTL_VF_COUNT,
  FILTER_COUNT,
  FILTER_F_LEARNED,
  FILTER_FLAGS,
  FILTER_KEY,
  FILTER_POOL,
  FILTER_SEEN_SECONDS,
  FILTER_STRIDE,
  FILTERS,
  MULTICAST_TABLE_STRIDE,
  MULTICAST_TABLES,
  P_BURST,
  P_COUNTERS,
  P_FLAGS,
  P_LEARNED,
  P_MAC,
  P_QOS,
  P_QUANTUM,
  P_RATE,
  P_TOKENS,
  P_TOKENS_AT_NS,
  P_VLAN,
  POOL_F_ENABLED,
  POOL_F_FALLBACK_PF,
  POOL_F_FALLBACK_UPLINK,
  POOL_F_LEARN,
  POOL_F_LINK_UP,
  POOL_F_MULTICAST_FILTER,
  POOL_F_PROMISC,
  POOL_F_SPOOF_CHECK,
  POOL_F_TRUNK_ALL,
  POOL_F_TRUST,
  POOL_F_UPLINK,
  POOL_PF,
  POOL_STRIDE,
  POOL_UPLINK,
  POOLS,
  SWITCH_VEB,
  SWITCH_VEPA,
  VF_MAX,
  VLAN_ANY,
  VLAN_BITMAP_STRIDE,
  VLAN_BITMAPS,
  VLAN_KEY_AD,
} from "../layout/nic.ts";
import { COUNTERS } from "../layout/counter_names.ts";
import type { Filter, Programme } from "../api/nic.ts";
import { type PortPolicy, vlanKey } from "../api/vf.ts";

/** How long a rate-limited pool may burst: long enough for the worker's millisecond of sleep. */
const BURST_SECONDS = 0.004;
const BURST_BYTES_MIN = 3036;
/**
 * A pass's credit for the VF with the largest minimum rate, in units of cost (assembly/engine/schedule/share.ts); the
 * others get their proportion.
 */
const QUANTUM = 4608;
const QUANTUM_MIN = 19;

/** MAC text to the number a little-endian load of a frame gives. */
export function macToNumber(mac: string): bigint {
  return mac.split(":").reduceRight((n, byte) => (n << 8n) | BigInt(parseInt(byte, 16)), 0n);
}

/** The inverse of `macToNumber`. */
export function macFromNumber(n: bigint): string {
  return Array.from({ length: 6 }, (_, i) => Number((n >> BigInt(8 * i)) & 0xffn).toString(16).padStart(2, "0")).join(
    ":",
  );
}

/** A pool as the API names it. */
export function poolName(pool: number): Filter["pool"] {
  return pool === POOL_PF ? "pf" : pool === POOL_UPLINK ? "uplink" : pool;
}

/** A programme as an engine takes it: pools without a policy are off; a switch that is no NIC has no PF. */
export interface PoolProgramme extends Pick<Programme, "switchMode" | "link" | "vports"> {
  pfMac?: string;
  vfs: (PoolPolicy | undefined)[];
}

/** A pool's policy, and where its frames go while nobody drives its queues. */
export type PoolPolicy = PortPolicy & { fallback?: "none" | "pf" | "uplink" };

/** The filter functions of a switching engine. */
export interface FilterExports {
  clearFilters(): void;
  insertFilter(mac: bigint, vlan: number, pool: number, flags: number): number;
  removeFiltersOf(pool: number, onlyLearned: number): void;
}

/** What of the engine the pools need: its memory, its filter functions, and a moment in which it stands still. */
export interface EngineAccess {
  readonly view: DataView;
  readonly arena: { readonly buffer: SharedArrayBuffer };
  readonly wasm: FilterExports;
  between<T>(change: () => T): T;
}

/** Pools' policy in the engine's memory. */
export class Pools {
  readonly #engine: EngineAccess;
  readonly #view: DataView;
  #programme: PoolProgramme | undefined;

  constructor(engine: EngineAccess) {
    this.#engine = engine;
    this.#view = engine.view;
    const trunk = POOL_F_ENABLED | POOL_F_LINK_UP | POOL_F_TRUNK_ALL;
    engine.between(() => {
      for (const pool of [POOL_PF, POOL_UPLINK]) this.#setVlans(pool, "all");
      this.#view.setUint32(this.#at(POOL_PF) + P_FLAGS, trunk | POOL_F_LEARN | POOL_F_TRUST, true);
      this.#view.setUint32(this.#at(POOL_UPLINK) + P_FLAGS, trunk | POOL_F_UPLINK, true);
    });
  }

  /** What is in force, `undefined` before the PF has spoken. */
  get programme(): PoolProgramme | undefined {
    return this.#programme;
  }

  get vfCount(): number {
    return this.#programme?.vfs.length ?? 0;
  }

  #at(pool: number): number {
    return POOLS + pool * POOL_STRIDE;
  }

  /** Puts a programme in force, in one step between two bursts. */
  apply(next: PoolProgramme): void {
    const before = this.#programme;
    // If this throws half-way, the next programme is written from scratch.
    this.#programme = undefined;
    this.#engine.between(() => {
      if (!before) this.#clear();
      const removed = before?.vfs.slice(next.vfs.length) ?? [];
      removed.forEach((_, i) => this.#disable(next.vfs.length + i));
      const changed = next.vfs.flatMap((policy, vf) => {
        const same = JSON.stringify(before?.vfs[vf]) === JSON.stringify(policy);
        return same && before?.link === next.link ? [] : [vf];
      });
      // All old filters go before any new one comes, so that two VFs may exchange addresses.
      const moved = changed.filter((vf) => filterKey(before?.vfs[vf]) !== filterKey(next.vfs[vf]));
      for (const vf of moved) this.#engine.wasm.removeFiltersOf(vf, 0);
      for (const vf of moved) {
        const policy = next.vfs[vf];
        if (policy) this.#addFilter(vf, policy);
      }
      for (const vf of changed) {
        const policy = next.vfs[vf];
        if (policy) this.#writePolicy(vf, policy, next.link);
        else this.#disable(vf);
      }
      if (before?.pfMac !== next.pfMac || JSON.stringify(before?.vports) !== JSON.stringify(next.vports)) {
        this.#writePf(next);
      }
      this.#writeShares(next.vfs);
      this.#view.setUint32(CTL + CTL_VF_COUNT, next.vfs.length, true);
      this.#view.setUint32(CTL + CTL_PROMISC_COUNT, next.vfs.filter((vf) => vf?.promisc && vf.trust).length, true);
      this.#view.setUint32(CTL + CTL_SWITCH_MODE, next.switchMode === "vepa" ? SWITCH_VEPA : SWITCH_VEB, true);
    });
    this.#programme = next;
  }

  /** The PF's own address, and those of the guests on the switch behind its pool. */
  #writePf({ pfMac, vports }: PoolProgramme): void {
    this.#engine.wasm.removeFiltersOf(POOL_PF, 0);
    if (pfMac === undefined) return;
    this.#insert(pfMac, VLAN_ANY, POOL_PF, "the PF");
    this.#view.setBigUint64(this.#at(POOL_PF) + P_MAC, macToNumber(pfMac), true);
    for (const vport of vports) {
      this.#insert(vport.mac, vport.vlan === 0 ? VLAN_ANY : vlanKey(vport), POOL_PF, "a vport");
    }
  }

  /** Nothing is known of what is in force: no VF has an address, none is enabled. */
  #clear(): void {
    this.#engine.wasm.clearFilters();
    for (let vf = 0; vf < VF_MAX; vf++) this.#view.setUint32(this.#at(vf) + P_FLAGS, 0, true);
  }

  #disable(vf: number): void {
    this.#engine.wasm.removeFiltersOf(vf, 0);
    this.#view.setUint32(this.#at(vf) + P_FLAGS, 0, true);
    this.#setVlans(vf, []);
  }

  #addFilter(vf: number, policy: PortPolicy): void {
    const key = policy.vlan === 0 ? VLAN_ANY : vlanKey(policy);
    this.#insert(policy.mac, key, vf, `vf ${vf}`);
  }

  #insert(mac: string, key: number, pool: number, who: string): void {
    if (this.#engine.wasm.insertFilter(macToNumber(mac), key, pool, 0)) return;
    throw new Error(`Cannot add ${mac} of ${who} to the filter table: it is full`);
  }

  #writePolicy(vf: number, policy: PoolPolicy, link: Programme["link"]): void {
    const at = this.#at(vf);
    const linkUp = policy.linkState === "enable" || (policy.linkState === "auto" && link === "up");
    const flags = POOL_F_ENABLED |
      (policy.spoofCheck ? POOL_F_SPOOF_CHECK : 0) |
      (policy.trust ? POOL_F_TRUST : 0) |
      (policy.promisc && policy.trust ? POOL_F_PROMISC : 0) |
      (linkUp ? POOL_F_LINK_UP : 0) |
      (policy.fallback === "pf" ? POOL_F_FALLBACK_PF : 0) |
      (policy.fallback === "uplink" ? POOL_F_FALLBACK_UPLINK : 0) |
      (policy.multicast === "all" ? 0 : POOL_F_MULTICAST_FILTER);
    this.#writeMulticast(vf, policy.multicast);
    this.#view.setUint32(at + P_FLAGS, flags, true);
    this.#view.setUint32(at + P_VLAN, vlanKey(policy), true);
    this.#view.setUint32(at + P_QOS, policy.qos, true);
    this.#view.setBigUint64(at + P_MAC, macToNumber(policy.mac), true);
    if (policy.vlan !== 0) this.#setVlans(vf, [vlanKey(policy)]);
    else if (policy.trust) this.#setVlans(vf, "all");
    else this.#setVlans(vf, [0, ...policy.trunk.flatMap((vid) => [vid, vid | VLAN_KEY_AD])]);
    if (!policy.trust) this.#engine.wasm.removeFiltersOf(vf, 1);

    const bytesPerNs = policy.maxTxRate / 8000;
    if (this.#view.getFloat64(at + P_RATE, true) === bytesPerNs) return;
    const burst = Math.max(BURST_BYTES_MIN, bytesPerNs * BURST_SECONDS * 1e9);
    this.#view.setFloat64(at + P_RATE, bytesPerNs, true);
    this.#view.setFloat64(at + P_BURST, burst, true);
    this.#view.setFloat64(at + P_TOKENS, burst, true);
    this.#view.setFloat64(at + P_TOKENS_AT_NS, this.#view.getFloat64(CTL + CTL_NOW_NS, true), true);
  }

  /** The multicast table: a bit for each value of twelve bits of the address (82599 datasheet §8.2.3.7.7, MO 00). */
  #writeMulticast(vf: number, wanted: PortPolicy["multicast"]): void {
    const at = MULTICAST_TABLES + vf * MULTICAST_TABLE_STRIDE;
    const table = new Uint8Array(this.#engine.arena.buffer, at, MULTICAST_TABLE_STRIDE);
    table.fill(0);
    if (typeof wanted === "string") return;
    for (const mac of wanted) {
      const bit = Number(macToNumber(mac) >> 36n);
      table[bit >> 3] = (table[bit >> 3] ?? 0) | (1 << (bit & 7));
    }
  }

  /** Minimum rates as shares of a pass, in proportion to the largest (the bw_share of hardware schedulers). */
  #writeShares(vfs: PoolProgramme["vfs"]): void {
    const largest = Math.max(0, ...vfs.map((vf) => vf?.minTxRate ?? 0));
    vfs.forEach((policy, vf) => {
      const share = largest === 0 ? 0 : (policy?.minTxRate ?? 0) / largest;
      const quantum = largest === 0 ? 0 : Math.max(QUANTUM_MIN, Math.round(QUANTUM * share));
      this.#view.setUint32(this.#at(vf) + P_QUANTUM, quantum, true);
    });
  }

  #setVlans(pool: number, keys: readonly number[] | "all"): void {
    const bitmap = new Uint8Array(
      this.#engine.arena.buffer,
      VLAN_BITMAPS + pool * VLAN_BITMAP_STRIDE,
      VLAN_BITMAP_STRIDE,
    );
    bitmap.fill(keys === "all" ? 0xff : 0);
    if (keys === "all") return;
    for (const key of keys) bitmap[key >> 3] = (bitmap[key >> 3] ?? 0) | (1 << (key & 7));
  }

  /** The filter table as the API shows it. */
  filters(): Filter[] {
    const nowSeconds = Math.floor(this.#view.getFloat64(CTL + CTL_NOW_NS, true) / 1e9);
    const found: Filter[] = [];
    for (let at = FILTERS; at < FILTERS + FILTER_COUNT * FILTER_STRIDE; at += FILTER_STRIDE) {
      const key = this.#view.getBigUint64(at + FILTER_KEY, true);
      if (key === 0n) continue;
      const vlan = Number((key >> 48n) & 0x1fffn);
      const learned = (this.#view.getUint16(at + FILTER_FLAGS, true) & FILTER_F_LEARNED) !== 0;
      found.push({
        mac: macFromNumber(key),
        vlan: vlan === VLAN_ANY ? "any" : vlan & 0xfff,
        proto: vlan !== VLAN_ANY && vlan & VLAN_KEY_AD ? "802.1ad" : "802.1Q",
        pool: poolName(this.#view.getUint16(at + FILTER_POOL, true)),
        source: learned ? "learned" : "static",
        ageSeconds: learned ? Math.max(0, nowSeconds - this.#view.getUint32(at + FILTER_SEEN_SECONDS, true)) : 0,
      });
    }
    return found.sort((a, b) => a.mac < b.mac ? -1 : 1);
  }

  /** Learned addresses of a pool. */
  learned(pool: number): number {
    return this.#view.getUint32(this.#at(pool) + P_LEARNED, true);
  }

  /** The counters of a pool by name. */
  counters(pool: number): Record<string, number> {
    const at = this.#at(pool) + P_COUNTERS;
    return Object.fromEntries(COUNTERS.map(([name], i) => [name, Number(this.#view.getBigUint64(at + i * 8, true))]));
  }
}

/** What of a policy its filter entry depends on. */
function filterKey(policy: PortPolicy | undefined): string {
  return policy ? `${policy.mac} ${vlanKey(policy)}` : "";
}
