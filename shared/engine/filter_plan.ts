/**
 * Which entries of the filter table a programme sets, and what has to change for it. All of it is known, and checked,
 * before the engine stands still: two ports that would receive the same frames, and entries that would not all find
 * room, are refused while the old programme is in force.
 */
import { FILTER_COUNT, FILTER_PROBES_MAX, POOL_PF, VF_MAX, VLAN_ANY } from "../layout/nic.ts";
import { addressesOfPort, vlanKey } from "../api/policy.ts";
import { DeviceRefusal } from "../device/refusal.ts";
import { macToNumber, poolName } from "./names.ts";
import type { PoolProgramme } from "./programme.ts";

/** The filter functions of a switching engine. */
export interface FilterExports {
  clearFilters(): void;
  filterHome(mac: bigint, vlan: number): number;
  insertFilter(mac: bigint, vlan: number, pool: number): number;
  removeFilter(mac: bigint, vlan: number): void;
  ageFilters(): void;
}

/** One entry that the PF sets. */
interface FilterEntry {
  mac: bigint;
  vlan: number;
  pool: number;
  /** The slot at which the search for it begins. */
  home: number;
}

/** Entries by MAC and VLAN. */
export type FilterSet = ReadonlyMap<string, FilterEntry>;

/** What changes: all of `remove` goes before any of `add` comes, so that two pools may exchange addresses. */
export interface FilterPlan {
  remove: FilterEntry[];
  add: FilterEntry[];
  /** What is set then. */
  next: FilterSet;
}

/** The way from the entries `before` to those of `programme`. Throws DeviceRefusal if there is none. */
export function planFilters(before: FilterSet, programme: PoolProgramme, wasm: FilterExports): FilterPlan {
  if (programme.vfs.length > VF_MAX) {
    throw new DeviceRefusal("programme", `Cannot have ${programme.vfs.length} VFs: there are at most ${VF_MAX}`);
  }
  const next = new Map<string, FilterEntry>();
  const add: FilterEntry[] = [];
  for (const { mac, vlan, pool } of wanted(programme)) {
    const key = `${mac} ${vlan}`;
    const other = next.get(key);
    if (other) throw new DeviceRefusal("programme", sameAddress(mac, vlan, other.pool, pool));
    const old = before.get(key);
    if (old?.pool === pool) {
      next.set(key, old);
      continue;
    }
    const number = macToNumber(mac);
    const entry = { mac: number, vlan, pool, home: old?.home ?? wasm.filterHome(number, vlan) };
    next.set(key, entry);
    add.push(entry);
  }
  if (add.length > 0) checkRoom(next);
  // An entry that only goes to another pool is set anew, not removed.
  const remove = [...before].flatMap(([key, entry]) => next.has(key) ? [] : [entry]);
  return { remove, add, next };
}

/** Makes the change while the engine stands still. If it cannot be made, `before` is in force again, and it throws. */
export function changeFilters({ remove, add }: FilterPlan, before: FilterSet, wasm: FilterExports): void {
  for (const { mac, vlan } of remove) wasm.removeFilter(mac, vlan);
  const failed = add.find(({ mac, vlan, pool }) => !wasm.insertFilter(mac, vlan, pool));
  if (!failed) return;
  for (const { mac, vlan } of add) wasm.removeFilter(mac, vlan);
  for (const { mac, vlan, pool } of before.values()) wasm.insertFilter(mac, vlan, pool);
  throw new Error("Cannot change the filter table: it has no room for an entry that was found to have room");
}

/** What a programme sets: an address in one VLAN for ports that the PF has put into one, in any for those that see tags. */
function* wanted({ pfMac, vfs, vports }: PoolProgramme): Generator<{ mac: string; vlan: number; pool: number }> {
  for (const [pool, policy] of vfs.entries()) if (policy) yield* addressesOf(policy, pool);
  if (pfMac === undefined) return;
  yield { mac: pfMac, vlan: VLAN_ANY, pool: POOL_PF };
  for (const vport of vports) yield* addressesOf(vport, POOL_PF);
}

type Addressed = PoolProgramme["vports"][number];

function* addressesOf(policy: Addressed, pool: number): Generator<{ mac: string; vlan: number; pool: number }> {
  const vlan = policy.vlan === 0 ? VLAN_ANY : vlanKey(policy);
  for (const mac of addressesOfPort(policy)) yield { mac, vlan, pool };
}

function sameAddress(mac: string, vlan: number, ...pools: [number, number]): string {
  const [one, two] = pools.map((pool) => pool === POOL_PF ? "the PF or a vport" : `vf ${poolName(pool)}`);
  const where = vlan === VLAN_ANY ? "any VLAN" : `VLAN ${vlan & 0xfff}`;
  return `Cannot give ${two} the address ${mac} in ${where}: ${one} has it; give one of them another`;
}

/**
 * Throws unless every entry finds a slot, in whatever order they come and whatever is learned. An entry takes an empty
 * slot or a learned one's, among the FILTER_PROBES_MAX slots from its home. Set entries that are in its way have their
 * homes within that distance, before or behind: fewer than FILTER_PROBES_MAX of them leave a slot.
 */
function checkRoom(entries: FilterSet): void {
  const homes = [...entries.values()].map(({ home }) => home).sort((a, b) => a - b);
  const reach = 2 * FILTER_PROBES_MAX - 1;
  // The table is a ring: those at its beginning come once more behind its end.
  const ring = [...homes, ...homes.filter((home) => home < reach).map((home) => home + FILTER_COUNT)];
  for (let i = FILTER_PROBES_MAX; i < ring.length; i++) {
    if ((ring[i] ?? 0) - (ring[i - FILTER_PROBES_MAX] ?? 0) >= reach) continue;
    throw new DeviceRefusal(
      "programme",
      `Cannot set ${entries.size} addresses: more than ${FILTER_PROBES_MAX} of them lie in one place of the filter ` +
        "table; restart the NIC, which lays them out anew",
    );
  }
}
