/**
 * The decision cache: what the switch made of a frame with these addresses and this tag from this pool, good until the
 * generation changes. Each pool has sets of its own, so no guest can push out another's; the sets have four ways and a
 * seeded hash, so a guest's peers do not fight for a slot.
 */
import {
  CTL_FILTER_SEED,
  CTL_GENERATION,
  D_DST,
  D_FLAGS,
  D_F_LEARNED,
  D_GENERATION,
  D_SECOND,
  D_SRC,
  D_TAG,
  DECISION_SETS,
  DECISION_STRIDE,
  DECISION_WAYS,
  DECISIONS,
  DECISIONS_PER_POOL,
} from "../../../shared/layout/nic.ts";
import { context, control } from "../context.ts";
import { nowSeconds } from "./filter_table.ts";

@inline
function hashOfKey(dst: u64, src: u32, tag: u32): u64 {
  const x = (dst ^ load<u64>(control(), CTL_FILTER_SEED)) * 0x9e3779b97f4a7c15;
  return (x ^ (x >> 29) ^ (<u64> src << 32) ^ <u64> tag) * 0xbf58476d1ce4e5b9;
}

@inline
function setOf(pool: u32, hash: u64): usize {
  const set = <u32> (hash >> 40) & (DECISION_SETS - 1);
  return context + DECISIONS + (pool * DECISIONS_PER_POOL + set * DECISION_WAYS) * DECISION_STRIDE;
}

/**
 * The remembered decision on the frames of `pool` with these first 12 bytes and this tag; 0 if there is none. One that
 * rests on a learned source is given up each second, so that the address is seen to be in use.
 */
export function recall(pool: u32, dst: u64, src: u32, tag: u32): usize {
  const generation = load<u32>(control(), CTL_GENERATION);
  const first = setOf(pool, hashOfKey(dst, src, tag));
  for (let way: u32 = 0; way < <u32> DECISION_WAYS; way++) {
    const entry = first + way * DECISION_STRIDE;
    if (load<u64>(entry, D_DST) != dst || load<u32>(entry, D_SRC) != src || load<u32>(entry, D_TAG) != tag) continue;
    if (load<u32>(entry, D_GENERATION) != generation) continue;
    if (load<u8>(entry, D_FLAGS) & D_F_LEARNED) {
      if (<u32> load<u16>(entry, D_SECOND) != (nowSeconds() & 0xffff)) return 0;
    }
    return entry;
  }
  return 0;
}

/** The place for a new decision, its key filled in: one that is out of date, else one by chance. */
export function remember(pool: u32, dst: u64, src: u32, tag: u32): usize {
  const generation = load<u32>(control(), CTL_GENERATION);
  const hash = hashOfKey(dst, src, tag);
  const first = setOf(pool, hash);
  let entry = first + (<u32> (hash >> 20) & (DECISION_WAYS - 1)) * DECISION_STRIDE;
  for (let way: u32 = 0; way < <u32> DECISION_WAYS; way++) {
    const other = first + way * DECISION_STRIDE;
    const same = load<u64>(other, D_DST) == dst && load<u32>(other, D_SRC) == src && load<u32>(other, D_TAG) == tag;
    if (same || load<u32>(other, D_GENERATION) != generation) {
      entry = other;
      if (same) break;
    }
  }
  store<u64>(entry, dst, D_DST);
  store<u32>(entry, src, D_SRC);
  store<u32>(entry, tag, D_TAG);
  store<u32>(entry, generation, D_GENERATION);
  return entry;
}
