/**
 * The decision cache: what the switch made of a frame with these addresses and this tag from this pool, good until the
 * generation changes. Each pool has sets of its own, so no guest can push out another's; the sets have four ways and a
 * seeded hash, so a guest's peers do not fight for a slot.
 */
import {
  CTL_FILTER_SEED,
  CTL_GENERATION,
  D_F_LEARNED,
  D_FLAGS,
  D_GENERATION,
  D_SECOND,
  DECISION_STRIDE,
  DECISION_WAYS,
  DECISIONS,
  DECISIONS_PER_POOL,
} from "../../../shared/layout/nic.ts";
import { isTag } from "../../lib/ethernet.ts";
import { context, control } from "../context.ts";
import { nowSeconds } from "./filter_table.ts";

/** What a decision depends on, as one value: the frame's first 12 bytes, and its tag. */
@inline
export function keyOf(record: usize): v128 {
  const head = v128.load(record);
  const type = v128.extract_lane<u16>(head, 6);
  return isTag(type) ? head : i32x4.replace_lane(head, 3, 0);
}

/** Whether two keys are the same. */
@inline
export function isSame(a: v128, b: v128): bool {
  return !v128.any_true(v128.xor(a, b));
}

/** The set of `pool` in which a decision with this key lies. */
@inline
function setOf(pool: u32, key: v128): usize {
  const x = v128.extract_lane<u64>(key, 0) ^ rotl<u64>(v128.extract_lane<u64>(key, 1), 21);
  const set = <u32> (((x ^ load<u64>(control(), CTL_FILTER_SEED)) * 0x9e3779b97f4a7c15) >> 58);
  return context + DECISIONS + (pool * DECISIONS_PER_POOL + set * DECISION_WAYS) * DECISION_STRIDE;
}

/**
 * The remembered decision on the frames of `pool` with this key; 0 if there is none. One that rests on a learned source
 * is given up each second, so that the address is seen to be in use.
 */
export function recall(pool: u32, key: v128): usize {
  const generation = load<u32>(control(), CTL_GENERATION);
  const first = setOf(pool, key);
  for (let way: u32 = 0; way < <u32> DECISION_WAYS; way++) {
    const entry = first + way * DECISION_STRIDE;
    if (!isSame(v128.load(entry), key) || load<u32>(entry, D_GENERATION) != generation) continue;
    if ((load<u8>(entry, D_FLAGS) & D_F_LEARNED) != 0 && <u32> load<u16>(entry, D_SECOND) != (nowSeconds() & 0xffff)) {
      return 0;
    }
    return entry;
  }
  return 0;
}

/** The place for a new decision, its key filled in: one that is out of date, else one by chance. */
export function remember(pool: u32, key: v128): usize {
  const generation = load<u32>(control(), CTL_GENERATION);
  const first = setOf(pool, key);
  let entry = first + (nextWay++ & (DECISION_WAYS - 1)) * DECISION_STRIDE;
  for (let way: u32 = 0; way < <u32> DECISION_WAYS; way++) {
    const other = first + way * DECISION_STRIDE;
    const same = isSame(v128.load(other), key);
    if (same || load<u32>(other, D_GENERATION) != generation) {
      entry = other;
      if (same) break;
    }
  }
  v128.store(entry, key);
  store<u32>(entry, generation, D_GENERATION);
  return entry;
}

/** Which of a set's decisions that are all good has to go. */
let nextWay: u32 = 0;
