/**
 * The filter table: (MAC, VLAN) -> pool, as a NIC's receive address filters. An entry is either *set* by the PF or
 * *learned* from a source address that a trusted pool used.
 *
 * Which entry counts. A set entry has an exact VLAN (the PF puts its port into it) or VLAN_ANY (the port sees tags, and
 * its VLAN bitmap decides). A learned entry always has an exact VLAN. Nothing is learned for a (MAC, VLAN) that a set
 * entry covers, and setting an entry takes out all learned ones that it covers: (MAC, VLAN) covers itself, (MAC,
 * VLAN_ANY) covers the MAC in every VLAN. So no learned entry stands beside a set one that it contradicts, and a lookup
 * asks for the exact entry, then for VLAN_ANY. A learned entry goes to another trusted pool when that pool uses the
 * address, at most once in a second of the clock: there are never more moves a second than learned entries (learn.ts).
 *
 * Where an entry lies. Open addressing, linear probing, backward-shift deletion: no tombstones, and a miss stops at the
 * first empty slot. An entry's home is hash(MAC) + 1024 * hash6(VLAN): a MAC has 64 homes, spread evenly, so all that
 * was learned of one MAC is found by looking at 64 places; and one MAC in thousands of VLANs makes 64 short heaps, not
 * one long. The hash has secret factors (CTL_FILTER_SEED), so a guest cannot choose addresses that collide. A set entry
 * that finds no empty slot within FILTER_PROBES_MAX takes the slot of a learned one; whether set ones alone leave room
 * is known from their homes, before anything is changed (shared/engine/filter_plan.ts).
 *
 * The worker looks up, learns and moves, which shifts no entry. Only the control thread inserts, removes, ages and
 * clears, while the worker stands still.
 */
import {
  CTL_FILTER_COUNT,
  CTL_LEARNED_COUNT,
  FILTER_COUNT,
  FILTER_KEY,
  FILTER_POOL,
  FILTER_PROBES_MAX,
  FILTER_STRIDE,
  P_LEARNED,
  POOL_COUNT,
  VLAN_ANY,
  VLAN_BITMAP_STRIDE,
  VLAN_BITMAPS,
} from "../../../shared/layout/nic.ts";
import { MAC_MASK } from "../../lib/ethernet.ts";
import { context, control, poolAt } from "../context.ts";
import {
  discount,
  fill,
  filterAt,
  filterHome,
  findAt,
  HOME_DISTANCE,
  HOMES,
  isLearned,
  keyOf,
  macHome,
  MASK,
  removeSlot,
  slotAt,
  vlanOf,
  vlanOffset,
} from "./filter_table.ts";

/** Whether `pool` is a member of the VLAN with key `vlan`. */
export function isMember(pool: u32, vlan: u32): bool {
  const word = load<u32>(context + VLAN_BITMAPS + pool * VLAN_BITMAP_STRIDE + (vlan >> 5) * 4);
  return ((word >> (vlan & 31)) & 1) != 0;
}

/** The entry that counts for (mac, vlan), 0 if there is none. Of VLAN_ANY's pool the VLAN membership is not asked. */
export function findEntry(mac: u64, vlan: u32): usize {
  const home = macHome(mac);
  const exact = findAt(keyOf(mac, vlan), home + vlanOffset(vlan));
  return exact != 0 ? exact : findAt(keyOf(mac, VLAN_ANY), home + vlanOffset(VLAN_ANY));
}

/** The pool that receives (mac, vlan), -1 if none does. */
export function findPool(mac: u64, vlan: u32): i32 {
  const entry = findEntry(mac, vlan);
  if (entry == 0) return -1;
  const pool: u32 = load<u16>(entry, FILTER_POOL);
  const everywhere = vlanOf(load<u64>(entry, FILTER_KEY)) == VLAN_ANY;
  return !everywhere || isMember(pool, vlan) ? <i32> pool : -1;
}

/**
 * Sets (mac, vlan) for `pool`, whoever had it, and takes out what was learned and is covered by it. False if the slots
 * near its home are full of set entries, and then nothing has been set.
 */
export function insertFilter(mac: u64, vlan: u32, pool: u32): bool {
  const key = keyOf(mac, vlan);
  let place: usize = 0;
  let slot = filterHome(mac, vlan);
  for (let i = 0; i < FILTER_PROBES_MAX; i++, slot = (slot + 1) & MASK) {
    const entry = filterAt(slot);
    const found = load<u64>(entry, FILTER_KEY);
    if (found == key || found == 0) {
      place = entry;
      break;
    }
    // In place of a learned entry: the slots from the home to there stay full, so every other entry is still found.
    if (place == 0 && isLearned(entry)) place = entry;
  }
  if (place == 0) return false;
  if (load<u64>(place, FILTER_KEY) != 0) discount(place);
  fill(place, key, pool, 0);
  if (vlan == VLAN_ANY) forgetLearned(mac);
  return true;
}

/** Takes (mac, vlan) out of the table. */
export function removeFilter(mac: u64, vlan: u32): void {
  const entry = findAt(keyOf(mac, vlan), filterHome(mac, vlan));
  if (entry != 0) removeSlot(slotAt(entry));
}

/** Takes out what was learned of `mac`, in whatever VLAN. */
function forgetLearned(mac: u64): void {
  if (load<u32>(control(), CTL_LEARNED_COUNT) == 0) return;
  const home = macHome(mac);
  for (let i: u32 = 0; i < HOMES; i++) {
    let slot = (home + i * HOME_DISTANCE) & MASK;
    for (let probe = 0; probe < FILTER_PROBES_MAX;) {
      const entry = filterAt(slot);
      const key = load<u64>(entry, FILTER_KEY);
      if (key == 0) break;
      if ((key & MAC_MASK) == mac && isLearned(entry)) {
        // A later entry may have moved here, so the slot is looked at again.
        removeSlot(slot);
        continue;
      }
      probe++;
      slot = (slot + 1) & MASK;
    }
  }
}

/** Empties the table. The seed may only be changed together with this. */
export function clearFilters(): void {
  memory.fill(filterAt(0), 0, FILTER_COUNT * FILTER_STRIDE);
  store<u32>(control(), 0, CTL_FILTER_COUNT);
  store<u32>(control(), 0, CTL_LEARNED_COUNT);
  for (let pool: u32 = 0; pool < <u32> POOL_COUNT; pool++) store<u32>(poolAt(pool), 0, P_LEARNED);
}
