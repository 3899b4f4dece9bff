/** Frames for many: multicast and broadcast to the pools that want them, unknown unicast to those that take it. */
import {
  C_RX_NO_BUFFER,
  C_RX_STALLED,
  C_TX_BAD_OFFLOAD,
  C_TX_NO_DESTINATION,
  CTL_PROMISC_COUNT,
  CTL_VF_COUNT,
  D_COUNTER,
  D_KIND,
  D_POOL,
  DECIDED_DELIVER,
  FLOOD_SEGMENTS_MAX,
  MULTICAST_TABLE_STRIDE,
  MULTICAST_TABLES,
  ONE_DECISION,
  P_FLAGS,
  P_RX_COUNT,
  POOL_F_MULTICAST_FILTER,
  POOL_F_PROMISC,
  POOL_PF,
  POOL_UPLINK,
  P_WATCH,
  R_DROP,
  R_LENGTH,
  R_SEGMENTS,
} from "../../../shared/layout/nic.ts";
import { MAC_BROADCAST } from "../../lib/ethernet.ts";
import { captureDropped } from "../capture/watch.ts";
import { context, control, poolAt } from "../context.ts";
import { count } from "../deliver/results.ts";
import { spend, UNITS_BYTES_SHIFT, UNITS_DESCRIPTOR, UNITS_FLOOD_POOL, UNITS_FRAME } from "../schedule/cost.ts";
import { dst, vlan } from "./admit.ts";
import { deliver, headAndTag, prunedPool, uplinkTakes } from "./decide.ts";
import { isMember } from "./filter.ts";
import { append, nextDelivery } from "./group.ts";
import { admitsCopy } from "./line.ts";
import { segmentsOf, spendFinish } from "../batch/offload.ts";
import { hashOf, steer } from "./steer.ts";

/** Every pool of the VLAN but the sender's, and the uplink: the frame that was admitted last. */
export function flood(from: u32, record: usize): void {
  if (isTooMany(from, record)) return;
  const pruned = prunedPool(from);
  const vfs = load<u32>(control(), CTL_VF_COUNT);
  spend(vfs * UNITS_FLOOD_POOL);
  for (let pool: u32 = 0; pool < vfs; pool++) {
    if (pool == from || <i32> pool == pruned || !isMember(pool, vlan) || !wantsGroup(pool)) continue;
    sendTo(from, pool, record);
  }
  if (from != POOL_PF && load<u32>(poolAt(POOL_PF), P_RX_COUNT) != 0) sendTo(from, POOL_PF, record);
  if (from == POOL_UPLINK || !uplinkTakes()) return;
  if (admitsCopy(from, record)) sendTo(from, POOL_UPLINK, record);
  else dropAtUplink(from, record, C_RX_NO_BUFFER);
}

/**
 * Unknown unicast: the uplink and promiscuous VFs of the VLAN, nobody else. Counted if nobody was asked to take it.
 * `isStalled`: the uplink's line takes nothing.
 */
export function floodUnknown(from: u32, record: usize, isStalled: bool): void {
  if (isTooMany(from, record)) return;
  let sent = from != POOL_UPLINK && uplinkTakes();
  if (sent && isStalled) dropAtUplink(from, record, C_RX_STALLED);
  else if (sent) sendTo(from, POOL_UPLINK, record);
  if (load<u32>(control(), CTL_PROMISC_COUNT) != 0) {
    const pruned = prunedPool(from);
    const vfs = load<u32>(control(), CTL_VF_COUNT);
    spend(vfs * UNITS_FLOOD_POOL);
    for (let pool: u32 = 0; pool < vfs; pool++) {
      if (pool == from || <i32> pool == pruned || !isMember(pool, vlan)) continue;
      if ((load<u32>(poolAt(pool), P_FLAGS) & POOL_F_PROMISC) == 0) continue;
      sendTo(from, pool, record);
      sent = true;
    }
  }
  if (!sent) refuse(from, record, C_TX_NO_DESTINATION);
}

/** Counts a frame that its sender's pool refuses, and says so in its record. */
export function refuse(from: u32, record: usize, counter: u32): void {
  count(poolAt(from), counter, 1);
  store<u32>(record, counter, R_DROP);
}

/**
 * Whether a frame would be cut into more segments than a frame for many may be, since each receiver may have it cut for
 * itself; it is counted. Lawful ones have fewer: Linux sends at most 128 datagrams at a time.
 */
function isTooMany(from: u32, record: usize): bool {
  if (segmentsOf(record) <= <u32> FLOOD_SEGMENTS_MAX) return false;
  refuse(from, record, C_TX_BAD_OFFLOAD);
  return true;
}

/** Whether `pool` receives the group that the frame is for: broadcast always, others as its multicast table has them. */
@inline
function wantsGroup(pool: u32): bool {
  if ((load<u32>(poolAt(pool), P_FLAGS) & POOL_F_MULTICAST_FILTER) == 0) return true;
  if (dst == MAC_BROADCAST) return true;
  const bit = <u32> (dst >> 36) & 0xfff;
  const table = context + MULTICAST_TABLES + pool * MULTICAST_TABLE_STRIDE;
  return ((<u32> load<u8>(table + (bit >> 3)) >> (bit & 7)) & 1) != 0;
}

/** Counts a frame for pool `to` that `entry` drops. */
export function countDrop(to: u32, record: usize, entry: usize): void {
  countDropAs(to, record, entry, <u32> load<u8>(entry, D_COUNTER) << 3);
}

/** Counts a frame for the uplink, which its line does not take, as `counter`. The frame was admitted last. */
function dropAtUplink(from: u32, record: usize, counter: u32): void {
  const entry = context + ONE_DECISION;
  deliver(entry, from, POOL_UPLINK);
  countDropAs(POOL_UPLINK, record, entry, counter);
}

/** Counts a frame for pool `to`, with its head as `entry` has it, as `counter`. */
export function countDropAs(to: u32, record: usize, entry: usize, counter: u32): void {
  const p = poolAt(to);
  count(p, counter, 1);
  if (load<u32>(p, P_WATCH) != 0) captureDropped(to, record, headAndTag(entry), counter);
}

/** One copy of the frame to `pool`, tagged as its side of the switch wants it. */
function sendTo(from: u32, pool: u32, record: usize): void {
  const entry = context + ONE_DECISION;
  const further = <u32> load<u16>(record, R_SEGMENTS) - 1;
  spend(UNITS_FRAME + (load<u32>(record, R_LENGTH) >> UNITS_BYTES_SHIFT) + further * UNITS_DESCRIPTOR);
  deliver(entry, from, pool);
  const to: u32 = load<u16>(entry, D_POOL);
  if (load<u8>(entry, D_KIND) != DECIDED_DELIVER) {
    countDrop(to, record, entry);
    return;
  }
  const rx = steer(to, load<u32>(poolAt(to), P_RX_COUNT) > 1 ? hashOf(record) : 0);
  if (rx == 0) return;
  append(rx, nextDelivery(), record, headAndTag(entry));
  spendFinish(rx, record);
}
