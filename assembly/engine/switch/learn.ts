/**
 * What trusted pools learn: an address that one uses as a source is its own, until it is not used for a while, another
 * trusted pool uses it, or the PF sets it (filter.ts).
 */
import {
  CLAIM_LEARNED,
  CLAIM_REFUSED,
  CLAIM_SET,
  CTL_GENERATION,
  CTL_LEARNED_COUNT,
  FILTER_COUNT,
  FILTER_F_LEARNED,
  FILTER_FLAGS,
  FILTER_KEY,
  FILTER_POOL,
  FILTER_PROBES_MAX,
  FILTER_SEEN_SECONDS,
  LEARNED_AGE_SECONDS,
  LEARNED_PER_POOL_MAX,
  LEARNED_PF_MAX,
  P_FLAGS,
  P_LEARNED,
  POOL_F_ENABLED,
  POOL_F_TRUST,
  POOL_PF,
} from "../../../shared/layout/nic.ts";
import { control, poolAt } from "../context.ts";
import { findEntry, isMember } from "./filter.ts";
import {
  countLearned,
  fill,
  filterAt,
  filterHome,
  isLearned,
  keyOf,
  MASK,
  nowSeconds,
  removeSlot,
  vlanOf,
} from "./filter_table.ts";

/**
 * Whether (mac, vlan), in a VLAN of its own, is `pool`'s to send from: CLAIM_*. A trusted pool learns an address that
 * nobody has, and takes over one that another pool has learned: either makes every cached decision void (CTL_GENERATION).
 * A learned address stays for LEARNED_AGE_SECONDS after the last claim.
 */
export function claimAddress(mac: u64, vlan: u32, pool: u32, trusted: bool): u32 {
  const entry = findEntry(mac, vlan);
  if (entry == 0) return trusted && learn(mac, vlan, pool) ? CLAIM_LEARNED : CLAIM_REFUSED;
  const mine = <u32> load<u16>(entry, FILTER_POOL) == pool;
  if (!isLearned(entry)) return mine ? CLAIM_SET : CLAIM_REFUSED;
  if (!mine && !(trusted && takeOver(entry, pool))) return CLAIM_REFUSED;
  store<u32>(entry, nowSeconds(), FILTER_SEEN_SECONDS);
  return CLAIM_LEARNED;
}

function learn(mac: u64, vlan: u32, pool: u32): bool {
  if (!mayLearnMore(pool)) return false;
  let slot = filterHome(mac, vlan);
  for (let i = 0; i < FILTER_PROBES_MAX; i++, slot = (slot + 1) & MASK) {
    const entry = filterAt(slot);
    if (load<u64>(entry, FILTER_KEY) != 0) continue;
    fill(entry, keyOf(mac, vlan), pool, FILTER_F_LEARNED | arrivalNow());
    countLearned(pool, 1);
    forgetDecisions();
    return true;
  }
  return false;
}

/** Who is found where has changed. */
function forgetDecisions(): void {
  store<u32>(control(), load<u32>(control(), CTL_GENERATION) + 1, CTL_GENERATION);
}

/** Gives a learned entry to another pool, unless it has come to its present one in this very second. */
function takeOver(entry: usize, pool: u32): bool {
  const flags: u32 = load<u16>(entry, FILTER_FLAGS);
  if ((flags & ~FILTER_F_LEARNED) == arrivalNow() || !mayLearnMore(pool)) return false;
  countLearned(load<u16>(entry, FILTER_POOL), -1);
  store<u16>(entry, <u16> pool, FILTER_POOL);
  store<u16>(entry, <u16> (FILTER_F_LEARNED | arrivalNow()), FILTER_FLAGS);
  countLearned(pool, 1);
  forgetDecisions();
  return true;
}

/** Behind the PF's pool is a switch with many guests; behind a VF's is one. */
@inline
function mayLearnMore(pool: u32): bool {
  const most: u32 = pool == POOL_PF ? LEARNED_PF_MAX : LEARNED_PER_POOL_MAX;
  return load<u32>(poolAt(pool), P_LEARNED) < most;
}

/** This second, as a learned entry's flags say when it came to its pool: fifteen bits above FILTER_F_LEARNED. */
@inline
function arrivalNow(): u32 {
  return (nowSeconds() << 1) & 0xfffe;
}

/**
 * Takes out learned entries that nobody has claimed for LEARNED_AGE_SECONDS, and those that their pool may not have any
 * more, since it is off, not trusted, or no member of the VLAN. Looks at the whole table, if anything is learned at all.
 */
export function ageFilters(): void {
  if (load<u32>(control(), CTL_LEARNED_COUNT) == 0) return;
  const now = nowSeconds();
  for (let slot: u32 = 0; slot < <u32> FILTER_COUNT;) {
    const entry = filterAt(slot);
    // An empty slot has no flags. A removal may move a later entry here, so the slot is looked at again.
    if (isLearned(entry) && (isOld(entry, now) || !mayKeep(entry))) removeSlot(slot);
    else slot++;
  }
}

@inline
function isOld(entry: usize, now: u32): bool {
  return <i32> (now - load<u32>(entry, FILTER_SEEN_SECONDS)) > LEARNED_AGE_SECONDS;
}

function mayKeep(entry: usize): bool {
  const pool: u32 = load<u16>(entry, FILTER_POOL);
  const needed: u32 = POOL_F_ENABLED | POOL_F_TRUST;
  if ((load<u32>(poolAt(pool), P_FLAGS) & needed) != needed) return false;
  return isMember(pool, vlanOf(load<u64>(entry, FILTER_KEY)));
}
