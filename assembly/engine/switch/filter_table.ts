/**
 * The filter table as memory: keys, homes, slots, counts (filter.ts says what entries mean and why they lie where they
 * do). Open addressing, linear probing, backward-shift deletion.
 */
import {
  CTL_FILTER_COUNT,
  CTL_FILTER_SEED,
  CTL_LEARNED_COUNT,
  CTL_NOW_NS,
  FILTER_COUNT,
  FILTER_F_LEARNED,
  FILTER_FLAGS,
  FILTER_KEY,
  FILTER_POOL,
  FILTER_PROBES_MAX,
  FILTER_SEEN_SECONDS,
  FILTER_STRIDE,
  FILTERS,
  P_LEARNED,
  VLAN_ANY,
} from "../../../shared/layout/nic.ts";
import { MAC_MASK } from "../../lib/ethernet.ts";
import { context, control, poolAt } from "../context.ts";

@inline
export function filterAt(slot: u32): usize {
  return context + FILTERS + slot * FILTER_STRIDE;
}

@inline
export function slotAt(entry: usize): u32 {
  return <u32> (entry - filterAt(0)) / FILTER_STRIDE;
}

/** A MAC's homes, and the slots from one to the next. */
export const HOMES: u32 = 64;
export const HOME_DISTANCE: u32 = FILTER_COUNT / HOMES;
export const MASK: u32 = FILTER_COUNT - 1;
const VALID: u64 = 1 << 63;

@inline
export function keyOf(mac: u64, vlan: u32): u64 {
  return mac | (<u64> vlan << 48) | VALID;
}

/** Two multiplications by secret odd numbers. With one, keys of equal distances could collide in a row. */
@inline
function hashOf(x: u64): u64 {
  const seed = load<u64>(control(), CTL_FILTER_SEED);
  let h = (x ^ seed) * ((rotl<u64>(seed, 21) ^ 0x9e3779b97f4a7c15) | 1);
  h ^= h >> 32;
  return h * ((rotl<u64>(seed, 42) ^ 0xd1b54a32d192ed03) | 1);
}

@inline
export function macHome(mac: u64): u32 {
  return <u32> (hashOf(mac) >> 48);
}

@inline
export function vlanOffset(vlan: u32): u32 {
  return <u32> (hashOf(vlan) >> 58) * HOME_DISTANCE;
}

/** The slot at which the search for (mac, vlan) begins. */
export function filterHome(mac: u64, vlan: u32): u32 {
  return (macHome(mac) + vlanOffset(vlan)) & MASK;
}

@inline
function homeOf(key: u64): u32 {
  return filterHome(key & MAC_MASK, vlanOf(key));
}

/** The VLAN key of an entry's key. */
@inline
export function vlanOf(key: u64): u32 {
  return <u32> (key >> 48) & VLAN_ANY;
}

/** The entry with `key`, 0 if there is none. */
export function findAt(key: u64, home: u32): usize {
  let slot = home & MASK;
  for (let i = 0; i < FILTER_PROBES_MAX; i++, slot = (slot + 1) & MASK) {
    const entry = filterAt(slot);
    const found = load<u64>(entry, FILTER_KEY);
    if (found == key) return entry;
    if (found == 0) return 0;
  }
  return 0;
}

@inline
export function isLearned(entry: usize): bool {
  return (load<u16>(entry, FILTER_FLAGS) & FILTER_F_LEARNED) != 0;
}

export function countLearned(pool: u32, n: i32): void {
  const p = poolAt(pool);
  store<u32>(p, load<u32>(p, P_LEARNED) + n, P_LEARNED);
  store<u32>(control(), load<u32>(control(), CTL_LEARNED_COUNT) + n, CTL_LEARNED_COUNT);
}

@inline
export function nowSeconds(): u32 {
  return <u32> (load<f64>(control(), CTL_NOW_NS) / 1e9);
}

/** Writes an entry and counts it. The key comes last: the control thread may be listing the table meanwhile. */
export function fill(entry: usize, key: u64, pool: u32, flags: u32): void {
  store<u16>(entry, <u16> pool, FILTER_POOL);
  store<u16>(entry, <u16> flags, FILTER_FLAGS);
  store<u32>(entry, nowSeconds(), FILTER_SEEN_SECONDS);
  store<u64>(entry, key, FILTER_KEY);
  store<u32>(control(), load<u32>(control(), CTL_FILTER_COUNT) + 1, CTL_FILTER_COUNT);
}

/** Takes an entry out of the counts. */
export function discount(entry: usize): void {
  if (isLearned(entry)) countLearned(load<u16>(entry, FILTER_POOL), -1);
  store<u32>(control(), load<u32>(control(), CTL_FILTER_COUNT) - 1, CTL_FILTER_COUNT);
}

export function removeSlot(slot: u32): void {
  discount(filterAt(slot));
  let hole = slot;
  let at = slot;
  for (let i: u32 = 0; i < <u32> FILTER_COUNT; i++) {
    at = (at + 1) & MASK;
    const entry = filterAt(at);
    const key = load<u64>(entry, FILTER_KEY);
    if (key == 0) break;
    // An entry may fill the hole unless its home lies behind the hole.
    if (((at - homeOf(key)) & MASK) < ((at - hole) & MASK)) continue;
    v128.store(filterAt(hole), v128.load(entry));
    hole = at;
  }
  v128.store(filterAt(hole), i64x2.splat(0));
}
