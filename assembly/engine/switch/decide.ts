/**
 * What becomes of a frame: dropped with a counter, to one pool, or to many. A decision depends on the sending pool, the
 * addresses and the tag alone, and is remembered, with four exceptions: what is for many; frames of VID 0, since what
 * lies behind their tag is looked at; what a trusted VF is refused now and may learn later; and what rests on a learned
 * source, which is remembered for a second.
 */
import {
  C_RX_LINK_DOWN,
  C_RX_NO_QUEUE,
  C_TX_NO_DESTINATION,
  C_TX_PRUNED,
  C_TX_SPOOFED,
  C_TX_TO_SELF,
  CTL_PROMISC_COUNT,
  CTL_SWITCH_MODE,
  D_COUNTER,
  D_F_LEARNED,
  D_F_SENT,
  D_FLAGS,
  D_HEAD,
  D_KIND,
  D_OUT_TAG,
  D_POOL,
  D_QUEUE,
  D_SECOND,
  DECIDED_DELIVER,
  DECIDED_DROP,
  DECIDED_FLOOD,
  DECIDED_UNKNOWN,
  HEAD_AS_IS,
  HEAD_F_BROADCAST,
  HEAD_F_MULTICAST,
  HEAD_INSERT,
  HEAD_STRIP,
  ONE_DECISION,
  P_FLAGS,
  P_NATIVE,
  P_RX_COUNT,
  P_RX_QUEUES,
  P_VLAN,
  POOL_F_ENABLED,
  POOL_F_FALLBACK_PF,
  POOL_F_FALLBACK_UPLINK,
  POOL_F_LINK_UP,
  POOL_F_TRUST,
  POOL_PF,
  POOL_UPLINK,
  QUEUE_PAIRS_MAX,
  SWITCH_VEPA,
} from "../../../shared/layout/nic.ts";
import { isMulticast, MAC_BROADCAST } from "../../lib/ethernet.ts";
import { context, control, poolAt } from "../context.ts";
import { spend, UNITS_DECISION } from "../schedule/cost.ts";
import { admit, dst, hasTagBehind, learnedSource, src, tag, tagInFrame, vlan } from "./admit.ts";
import { recall, remember } from "./decisions.ts";
import { findPool, isMember } from "./filter.ts";
import { nowSeconds } from "./filter_table.ts";

/** The decision on a record's frame: an entry of the cache, or one that holds until the next call. */
export function decide(pool: u32, record: usize, key: v128): usize {
  const known = recall(pool, key);
  if (known != 0) return known;
  spend(UNITS_DECISION);
  const made = context + ONE_DECISION;
  lookedBehind = false;
  const denied = admit(pool, record);
  if (denied != 0) drop(made, pool, denied, false);
  else route(made, pool);
  if (learnedSource) {
    store<u8>(made, load<u8>(made, D_FLAGS) | D_F_LEARNED, D_FLAGS);
    store<u16>(made, <u16> nowSeconds(), D_SECOND);
  }
  if (lookedBehind) return made;
  // What is for many is decided each time, and so is a frame of VID 0: what lies behind its tag was looked at, too. What
  // a trusted pool may not use as source now it may learn later; what somebody learns makes all decisions void.
  if (<u32> load<u8>(made, D_KIND) > <u32> DECIDED_DELIVER || isMulticast(dst)) return made;
  const tagBytes = v128.extract_lane<u32>(key, 3);
  if (tagBytes != 0 && (tagBytes & VID_MASK) == 0) return made;
  if (denied == C_TX_SPOOFED && (load<u32>(poolAt(pool), P_FLAGS) & POOL_F_TRUST) != 0) return made;
  const entry = remember(pool, key);
  store<u64>(entry, load<u64>(made, D_POOL), D_POOL);
  store<u64>(entry, load<u64>(made, D_COUNTER), D_COUNTER);
  return entry;
}

/** The VLAN id in bytes 12–15 of a frame as loaded. */
const VID_MASK: u32 = 0xff0f0000;
/** The last decision rests on what is behind the frame's tag: it says nothing of the next frame. */
let lookedBehind: bool = false;

/** What becomes of the head of a frame that is delivered, and the tag that is put in << 32. */
@inline
export function headAndTag(entry: usize): u64 {
  return <u64> load<u8>(entry, D_HEAD) | (<u64> load<u32>(entry, D_OUT_TAG) << 32);
}

/** Makes `entry` a drop, counted on `pool`. `sent`: the frame passed its sender's policy. */
function drop(entry: usize, pool: u32, counter: u32, sent: bool): void {
  store<u16>(entry, <u16> pool, D_POOL);
  store<u8>(entry, DECIDED_DROP, D_KIND);
  store<u8>(entry, <u8> (counter >> 3), D_COUNTER);
  store<u8>(entry, sent ? D_F_SENT : 0, D_FLAGS);
  store<u32>(entry, 0, D_QUEUE);
  store<u8>(entry, HEAD_AS_IS, D_HEAD);
}

/** The same of a frame for pool `to`, with its head as it would have got it. */
function dropAt(entry: usize, to: u32, counter: u32): void {
  drop(entry, to, counter, true);
  setHead(entry, poolAt(to));
}

/** Makes `entry` a delivery to many. */
function share(entry: usize, kind: u32): void {
  store<u8>(entry, <u8> kind, D_KIND);
  store<u8>(entry, D_F_SENT, D_FLAGS);
  store<u32>(entry, 0, D_QUEUE);
}

/** Decides where the admitted frame belongs. */
function route(entry: usize, from: u32): void {
  const vepa = load<u32>(control(), CTL_SWITCH_MODE) == SWITCH_VEPA;
  if (vepa && from != POOL_UPLINK) {
    if (!uplinkTakes()) drop(entry, from, C_TX_NO_DESTINATION, true);
    else deliver(entry, from, POOL_UPLINK);
    return;
  }
  if (isMulticast(dst)) {
    share(entry, DECIDED_FLOOD);
    return;
  }
  const to = findPool(dst, vlan);
  if (to < 0) {
    unknown(entry, from);
  } else if (<u32> to == from) {
    drop(entry, from, C_TX_TO_SELF, true);
  } else if (to == prunedPool(from) && to != POOL_PF) {
    drop(entry, from, C_TX_PRUNED, true);
  } else {
    deliver(entry, from, to);
  }
}

/** Whether somebody drives the uplink, and the VLAN of the frame that was admitted last is one of its own. */
export function uplinkTakes(): bool {
  return load<u32>(poolAt(POOL_UPLINK), P_RX_COUNT) != 0 && isMember(POOL_UPLINK, vlan);
}

/** Unknown unicast: to the uplink, if it takes it; if there are promiscuous VFs, to whom it concerns of them too. */
function unknown(entry: usize, from: u32): void {
  if (load<u32>(control(), CTL_PROMISC_COUNT) != 0) {
    share(entry, DECIDED_UNKNOWN);
  } else if (from == POOL_UPLINK || !uplinkTakes()) {
    drop(entry, from, C_TX_NO_DESTINATION, true);
  } else {
    deliver(entry, from, POOL_UPLINK);
  }
}

/**
 * VEPA: a hairpinned frame does not go back to where it came from (802.1Qbg source pruning): the pool of its source, -1
 * for none. Behind the PF's pool are many guests; the switch there sees to it that none gets its own.
 */
export function prunedPool(from: u32): i32 {
  const vepa = load<u32>(control(), CTL_SWITCH_MODE) == SWITCH_VEPA;
  return from == POOL_UPLINK && vepa ? findPool(src, vlan) : -1;
}

/** Makes `entry` a delivery to pool `to`, or to who stands in for it, or the drop that counts why it cannot be. */
export function deliver(entry: usize, from: u32, to: u32): void {
  const p = poolAt(to);
  const flags = load<u32>(p, P_FLAGS);
  if ((flags & (POOL_F_ENABLED | POOL_F_LINK_UP)) != (POOL_F_ENABLED | POOL_F_LINK_UP)) {
    dropAt(entry, to, C_RX_LINK_DOWN);
    return;
  }
  const queues = load<u32>(p, P_RX_COUNT);
  if (queues == 0 || queues > <u32> QUEUE_PAIRS_MAX) {
    // Not back to where they came from; and a group's frames have been there by themselves.
    const other: u32 = flags & POOL_F_FALLBACK_PF ? POOL_PF : flags & POOL_F_FALLBACK_UPLINK ? POOL_UPLINK : to;
    if (other != to && other != from && !isMulticast(dst)) deliver(entry, from, other);
    else dropAt(entry, to, C_RX_NO_QUEUE);
    return;
  }
  setHead(entry, p);
  store<u16>(entry, <u16> to, D_POOL);
  store<u8>(entry, DECIDED_DELIVER, D_KIND);
  store<u8>(entry, D_F_SENT, D_FLAGS);
  store<u32>(entry, queues == 1 ? load<u32>(p, P_RX_QUEUES) : 0, D_QUEUE);
}

/** Notes what becomes of the head of a frame for pool `p`. */
function setHead(entry: usize, p: usize): void {
  const tagged = seesTag(p);
  const head: u32 = tagInFrame ? (tagged ? HEAD_AS_IS : HEAD_STRIP) : tagged ? HEAD_INSERT : HEAD_AS_IS;
  store<u8>(entry, <u8> (head | groupOf(dst)), D_HEAD);
  store<u32>(entry, tag, D_OUT_TAG);
}

/** Whether pool `p` gets the frame with its tag: not where the PF sets the VLAN, nor in its native VLAN. */
function seesTag(p: usize): bool {
  if (tag == 0 || load<u32>(p, P_VLAN) != 0) return false;
  const native = load<u32>(p, P_NATIVE);
  if (native == 0 || vlan != native) return true;
  if (!tagInFrame) return false;
  // A tag behind the one that is taken off would put the frame into a VLAN of the receiver that nobody checked.
  lookedBehind = true;
  return hasTagBehind();
}

/** What a delivery's N_HEAD says of frames to `dst`: a group, all, or neither. */
@inline
export function groupOf(dst: u64): u32 {
  return dst == MAC_BROADCAST ? HEAD_F_BROADCAST : isMulticast(dst) ? HEAD_F_MULTICAST : 0;
}
