/**
 * Mirrors: copies of a VF's frames for another pool, where somebody looks at them. A copy is the frame as the VF's port
 * has it, and goes into the other pool's first receive queue, past the VLANs: who looks is the PF's choice. It does not
 * go back to the pool that the frame came from, and is not mirrored again. Nothing here runs for a pool without a mirror:
 * whoever calls has looked at P_MIRROR.
 */
import {
  C_RX_LINK_DOWN,
  C_RX_NO_BUFFER,
  C_RX_NO_QUEUE,
  DELIVERY_STRIDE,
  HEAD_AS_IS,
  MIRROR_DELIVERIES,
  MIRROR_DELIVERY_COUNT,
  MIRROR_IN,
  MIRROR_OUT,
  MIRROR_POOL,
  N_COUNT,
  N_HEAD,
  N_NEXT,
  N_RECORD,
  P_FLAGS,
  P_MIRROR,
  P_RX_COUNT,
  P_RX_QUEUES,
  POOL_F_ENABLED,
  POOL_F_LINK_UP,
  POOL_UPLINK,
  R_DROP,
  R_LENGTH,
  R_SEGMENTS,
  RECORD_STRIDE,
} from "../../../shared/layout/nic.ts";
import { spendFinish } from "../batch/offload.ts";
import { recordAt } from "../batch/record.ts";
import { context, poolAt } from "../context.ts";
import { kindOf } from "../deliver/head.ts";
import { count } from "../deliver/results.ts";
import { spend, UNITS_BYTES_SHIFT, UNITS_DESCRIPTOR, UNITS_FRAME } from "../schedule/cost.ts";
import { admitsCopy } from "./line.ts";
import { putInto } from "./put.ts";

/** N_COUNT beside N_HEAD, and 1 there. */
const COUNT_MASK: u64 = 0xffff_0000;
const ONE_RECORD: u64 = 1 << 16;

// The copies in hand: who sent the frames, where they go, and how many deliveries there are.
let sender: u32 = 0;
let to: u32 = 0;
let queue: usize = 0;
let filled: u32 = 0;

/** Begins copies for a mirror. False if they would go back to `from`. */
function begin(mirror: u32, from: u32): bool {
  sender = from;
  to = mirror & MIRROR_POOL;
  queue = 0;
  filled = 0;
  const p = poolAt(to);
  const flags = load<u32>(p, P_FLAGS);
  const isUp = (flags & (POOL_F_ENABLED | POOL_F_LINK_UP)) == (POOL_F_ENABLED | POOL_F_LINK_UP);
  if (isUp && load<u32>(p, P_RX_COUNT) != 0) queue = load<u32>(p, P_RX_QUEUES);
  return to != from;
}

/** Adds `n` records from `record` on, with the same N_HEAD; they are counted if nobody is there to take them. */
function add(record: usize, head: u64, n: u32): void {
  if (queue == 0) {
    const isUp = (load<u32>(poolAt(to), P_FLAGS) & POOL_F_LINK_UP) != 0;
    count(poolAt(to), isUp ? C_RX_NO_QUEUE : C_RX_LINK_DOWN, n);
    return;
  }
  if (to != POOL_UPLINK) {
    place(record, head, n);
    return;
  }
  const one = head & ~COUNT_MASK | ONE_RECORD;
  for (let i: u32 = 0, at = record; i < n; i++, at += RECORD_STRIDE) {
    if (admitsCopy(sender, at)) place(at, one, 1);
    else count(poolAt(to), C_RX_NO_BUFFER, 1);
  }
}

/** Adds copies that are to be delivered. */
function place(record: usize, head: u64, n: u32): void {
  for (let i: u32 = 0, at = record; i < n; i++, at += RECORD_STRIDE) {
    const further = <u32> load<u16>(at, R_SEGMENTS) - 1;
    spend(UNITS_FRAME + (load<u32>(at, R_LENGTH) >> UNITS_BYTES_SHIFT) + further * UNITS_DESCRIPTOR);
    spendFinish(queue, at);
  }
  const delivery = context + MIRROR_DELIVERIES + filled * DELIVERY_STRIDE;
  store<u64>(delivery, <u32> record, N_RECORD);
  store<u64>(delivery, head, N_HEAD);
  if (filled != 0) store<u32>(delivery - DELIVERY_STRIDE, <u32> delivery, N_NEXT);
  filled++;
  if (filled == MIRROR_DELIVERY_COUNT) put();
}

/** Puts the copies in hand into their queue. */
function put(): void {
  if (filled != 0) putInto(queue, context + MIRROR_DELIVERIES);
  filled = 0;
}

/** Copies of those of the batch's first `n` records that `pool` was allowed to send. */
export function mirrorSent(pool: u32, n: u32): void {
  const mirror = load<u32>(poolAt(pool), P_MIRROR);
  if ((mirror & MIRROR_OUT) == 0 || !begin(mirror, pool)) return;
  for (let i: u32 = 0; i < n; i++) {
    const record = recordAt(i);
    if (load<u32>(record, R_DROP) == 0) add(record, HEAD_AS_IS | ONE_RECORD | kindOf(record), 1);
  }
  put();
}

/** Copies of the deliveries from `first` on, which go to a pool with `mirror` and come from pool `from`. */
export function mirrorReceived(mirror: u32, first: usize, from: u32): void {
  if ((mirror & MIRROR_IN) == 0 || !begin(mirror, from)) return;
  for (let at = first; at != 0; at = load<u32>(at, N_NEXT)) {
    add(load<u32>(at, N_RECORD), load<u64>(at, N_HEAD), load<u16>(at, N_COUNT));
  }
  put();
}
