/**
 * The filter table: (MAC, VLAN) -> pool, as the NIC's receive address filters. Open addressing with linear probing and
 * backward-shift deletion, so there are no tombstones and a miss stops at the first empty slot. Exact entries serve
 * VFs whose VLAN the PF sets; entries with VLAN_ANY serve VFs that see tags, whose VLAN bitmap then decides.
 */
import {
  CTL_FILTER_COUNT,
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
  LEARNED_AGE_SECONDS,
  P_LEARNED,
  POOL_COUNT,
  VLAN_ANY,
  VLAN_BITMAP_STRIDE,
  VLAN_BITMAPS,
} from "../../../shared/layout/nic.ts";
import { context, control, poolAt } from "../context.ts";

const VALID: u64 = 1 << 63;
const MASK: u32 = FILTER_COUNT - 1;

/** Whether `pool` is a member of the VLAN with key `vlan`. */
export function isMember(pool: u32, vlan: u32): bool {
  const word = load<u32>(context + VLAN_BITMAPS + pool * VLAN_BITMAP_STRIDE + (vlan >> 5) * 4);
  return ((word >> (vlan & 31)) & 1) != 0;
}

@inline
function keyOf(mac: u64, vlan: u32): u64 {
  return mac | (<u64> vlan << 48) | VALID;
}

@inline
function slotOf(key: u64): u32 {
  return <u32> ((key * 0x9e3779b97f4a7c15) >> 48) & MASK;
}

/** The entry of exactly (mac, vlan), 0 if there is none. */
export function findEntry(mac: u64, vlan: u32): usize {
  const key = keyOf(mac, vlan);
  let slot = slotOf(key);
  for (let i = 0; i < FILTER_PROBES_MAX; i++, slot = (slot + 1) & MASK) {
    const entry: usize = context + FILTERS + slot * FILTER_STRIDE;
    const found = load<u64>(entry, FILTER_KEY);
    if (found == key) return entry;
    if (found == 0) return 0;
  }
  return 0;
}

/** The pool that receives (mac, vlan), -1 if none: the exact entry first, then a member with VLAN_ANY. */
export function findPool(mac: u64, vlan: u32): i32 {
  const exact = findEntry(mac, vlan);
  if (exact != 0) return load<u16>(exact, FILTER_POOL);
  const any = findEntry(mac, VLAN_ANY);
  if (any == 0) return -1;
  const pool: u32 = load<u16>(any, FILTER_POOL);
  return isMember(pool, vlan) ? <i32> pool : -1;
}

/** The pool of exactly (mac, vlan), -1 if there is no entry. */
export function findPoolExact(mac: u64, vlan: u32): i32 {
  const entry = findEntry(mac, vlan);
  return entry != 0 ? <i32> load<u16>(entry, FILTER_POOL) : -1;
}

/**
 * Puts an entry into the table or renews the one with its key. A static entry takes the place of a learned one; a
 * learned one never takes the place of another pool's. Answers false if it was refused or no slot is near enough.
 */
export function insertFilter(mac: u64, vlan: u32, pool: u32, flags: u32): bool {
  const key = keyOf(mac, vlan);
  // A static entry finds room beside the learned ones, whatever a guest has made the table hold.
  if ((flags & FILTER_F_LEARNED) == 0) evictLearned(slotOf(key));
  let slot = slotOf(key);
  for (let i = 0; i < FILTER_PROBES_MAX; i++, slot = (slot + 1) & MASK) {
    const entry: usize = context + FILTERS + slot * FILTER_STRIDE;
    const found = load<u64>(entry, FILTER_KEY);
    if (found != 0 && found != key) continue;
    if (found == key) {
      const owner: u32 = load<u16>(entry, FILTER_POOL);
      if ((flags & FILTER_F_LEARNED) != 0 && owner != pool) return false;
      forgetLearned(entry);
    } else {
      store<u32>(control(), load<u32>(control(), CTL_FILTER_COUNT) + 1, CTL_FILTER_COUNT);
    }
    store<u64>(entry, key, FILTER_KEY);
    store<u16>(entry, <u16> pool, FILTER_POOL);
    store<u16>(entry, <u16> flags, FILTER_FLAGS);
    store<u32>(entry, nowSeconds(), FILTER_SEEN_SECONDS);
    if (flags & FILTER_F_LEARNED) addLearned(pool, 1);
    return true;
  }
  return false;
}

/** Removes one learned entry of a probe sequence that has no empty slot. */
function evictLearned(home: u32): void {
  let learned: i32 = -1;
  let slot = home;
  for (let i = 0; i < FILTER_PROBES_MAX; i++, slot = (slot + 1) & MASK) {
    const entry: usize = context + FILTERS + slot * FILTER_STRIDE;
    if (load<u64>(entry, FILTER_KEY) == 0) return;
    if (load<u16>(entry, FILTER_FLAGS) & FILTER_F_LEARNED) learned = slot;
  }
  if (learned >= 0) removeSlot(learned);
}

/** Empties the table. */
export function clearFilters(): void {
  memory.fill(context + FILTERS, 0, FILTER_COUNT * FILTER_STRIDE);
  store<u32>(control(), 0, CTL_FILTER_COUNT);
  for (let pool: u32 = 0; pool < <u32> POOL_COUNT; pool++) store<u32>(poolAt(pool), 0, P_LEARNED);
}

/** Takes (mac, vlan) out of the table. */
export function removeFilter(mac: u64, vlan: u32): void {
  const entry = findEntry(mac, vlan);
  if (entry != 0) removeSlot(<u32> (entry - context - FILTERS) / FILTER_STRIDE);
}

/** Takes out every entry of `pool`, or only the learned ones. */
export function removeFiltersOf(pool: u32, onlyLearned: bool): void {
  for (let slot: u32 = 0; slot < <u32> FILTER_COUNT;) {
    const entry: usize = context + FILTERS + slot * FILTER_STRIDE;
    const mine = load<u64>(entry, FILTER_KEY) != 0 && <u32> load<u16>(entry, FILTER_POOL) == pool;
    const learned = (load<u16>(entry, FILTER_FLAGS) & FILTER_F_LEARNED) != 0;
    // A removal may shift a later entry into this slot, so the slot is looked at again.
    if (mine && (learned || !onlyLearned)) removeSlot(slot);
    else slot++;
  }
}

/** Takes out learned entries that have not been used for LEARNED_AGE_SECONDS. */
export function ageFilters(): void {
  const now = nowSeconds();
  for (let slot: u32 = 0; slot < <u32> FILTER_COUNT;) {
    const entry: usize = context + FILTERS + slot * FILTER_STRIDE;
    const learned = load<u64>(entry, FILTER_KEY) != 0 && (load<u16>(entry, FILTER_FLAGS) & FILTER_F_LEARNED) != 0;
    if (learned && now - load<u32>(entry, FILTER_SEEN_SECONDS) > <u32> LEARNED_AGE_SECONDS) removeSlot(slot);
    else slot++;
  }
}

/** Marks a learned entry as used now. */
@inline
export function refreshEntry(entry: usize): void {
  store<u32>(entry, nowSeconds(), FILTER_SEEN_SECONDS);
}

/** Seconds of the engine's clock. */
export function nowSeconds(): u32 {
  return <u32> (load<f64>(control(), CTL_NOW_NS) / 1e9);
}

function addLearned(pool: u32, n: i32): void {
  const p: usize = poolAt(pool);
  store<u32>(p, load<u32>(p, P_LEARNED) + n, P_LEARNED);
}

function forgetLearned(entry: usize): void {
  if (load<u16>(entry, FILTER_FLAGS) & FILTER_F_LEARNED) addLearned(load<u16>(entry, FILTER_POOL), -1);
}

function removeSlot(slot: u32): void {
  forgetLearned(context + FILTERS + slot * FILTER_STRIDE);
  store<u32>(control(), load<u32>(control(), CTL_FILTER_COUNT) - 1, CTL_FILTER_COUNT);
  let hole = slot;
  let at = slot;
  for (let i: u32 = 0; i < <u32> FILTER_COUNT; i++) {
    at = (at + 1) & MASK;
    const entry: usize = context + FILTERS + at * FILTER_STRIDE;
    const key = load<u64>(entry, FILTER_KEY);
    if (key == 0) break;
    // An entry may fill the hole unless its home slot lies behind the hole.
    if (((at - slotOf(key)) & MASK) < ((at - hole) & MASK)) continue;
    v128.store(context + FILTERS + hole * FILTER_STRIDE, v128.load(entry));
    hole = at;
  }
  v128.store(context + FILTERS + hole * FILTER_STRIDE, i64x2.splat(0));
}
