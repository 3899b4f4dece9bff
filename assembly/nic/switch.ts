/**
 * The embedded switch (VMDq and VEB semantics): one frame through source policy, lookup and delivery. The head of the
 * frame is copied first and only the copy is looked at and sent on, so its owner cannot change it after the check.
 */
import {
  BAD_CHAIN_LENGTH,
  BAD_HEADER,
  C_RX_BROADCAST,
  C_RX_LINK_DOWN,
  C_RX_MULTICAST,
  C_RX_NO_QUEUE,
  C_TX_BAD_OFFLOAD,
  C_TX_BAD_SOURCE,
  C_TX_BROADCAST,
  C_TX_BYTES,
  C_TX_FRAMES,
  C_TX_LINK_DOWN,
  C_TX_MULTICAST,
  C_TX_NO_DESTINATION,
  C_TX_OVERSIZE,
  C_TX_RUNT,
  C_TX_SPOOFED,
  C_TX_TO_SELF,
  C_TX_VLAN_DENIED,
  C_TX_VLAN_TAGGED,
  CLAIM_LEARNED,
  CLAIM_REFUSED,
  CTL,
  CTL_PROMISC_COUNT,
  CTL_SWITCH_MODE,
  CTL_VF_COUNT,
  FLAVOUR_ADVANCED,
  FLAVOUR_SPLIT,
  FRAME_BYTES_MAX,
  FRAME_BYTES_MIN,
  FRAME_HEAD,
  HEAD_BYTES_MAX,
  MULTICAST_TABLE_STRIDE,
  MULTICAST_TABLES,
  OUT_HEAD,
  P_FLAGS,
  P_MAC,
  P_QOS,
  P_RX_COUNT,
  P_VLAN,
  POOL_F_ENABLED,
  POOL_F_FALLBACK_PF,
  POOL_F_FALLBACK_UPLINK,
  POOL_F_LEARN,
  POOL_F_LINK_UP,
  POOL_F_MULTICAST_FILTER,
  POOL_F_PROMISC,
  POOL_F_SPOOF_CHECK,
  POOL_F_TRUNK_ALL,
  POOL_F_TRUST,
  POOL_PF,
  POOL_STRIDE,
  POOL_UPLINK,
  POOLS,
  Q_FLAVOUR,
  Q_HDR_BYTES,
  Q_LAST_AVAIL,
  Q_POOL,
  QUEUE_PAIRS_MAX,
  QUEUE_SIZE_MAX,
  SWITCH_VEPA,
  TX_SEGMENTS,
  VLAN_KEY_AD,
} from "../../shared/layout/nic.ts";
import { isMulticast, isTag, MAC_BROADCAST, MAC_MASK, TPID_C, TPID_S } from "../lib/ethernet.ts";
import { clearRegionsSeen, regionsSeen } from "../lib/domain.ts";
import { advancedBytes, advancedLength, advancedOffload, completeAdvanced, gatherAdvanced } from "../lib/advanced_ring.ts";
import { count, deliver, receiveWork } from "../lib/deliver.ts";
import { failQueue } from "../lib/interrupts.ts";
import { badDetail, clearSegments, peek, segmentCount } from "../lib/segments.ts";
import { availHead, chainBytes, chainLength, gatherChain, pushUsed } from "../lib/split_ring.ts";
import { completeSource, gatherSource, sourceBytes, sourceLength } from "../lib/trunk.ts";
import { findPool, isMember } from "./filter.ts";
import { claimAddress } from "./learn.ts";
import { rememberDecision } from "./run.ts";
import { flowHash, noteFlow, steer } from "./steer.ts";

// The frame in hand.
let source: u32 = 0;
let dst: u64 = 0;
let src: u64 = 0;
/** VLAN key it travels in; its tag on the trunk side (0: none) and whether that tag is already in the frame. */
let vlan: u32 = 0;
let tag: u32 = 0;
let tagInFrame: bool = false;
let frameBytes: u32 = 0;
let hdrBytes: u32 = 0;
let learnedSource: bool = false;

/** Heads of a split ring, or descriptors of an advanced one, that the last `switchFrame` took. */
export let frameLength: u32 = 0;
/** What the last `switchFrame` cost, in descriptors walked and copies made; its length in bytes. */
export let frameWork: u32 = 0;
export let switchedBytes: u32 = 0;

/** Whether the frame in hand asks for an offload that was not negotiated. */
let badOffload: bool = false;

/**
 * Takes the next frame of TX queue `q`, of whose descriptors `waiting` are there, through the switch. False if the queue
 * broke the protocol and stopped.
 */
export function switchFrame(q: usize, waiting: u32): bool {
  const flavour = load<u32>(q, Q_FLAVOUR);
  if (flavour == FLAVOUR_SPLIT) return switchSplit(q);
  return flavour == FLAVOUR_ADVANCED ? switchAdvanced(q, waiting) : switchSource(q, waiting);
}

function switchSplit(q: usize): bool {
  const head = availHead(q, load<u32>(q, Q_LAST_AVAIL));
  clearSegments();
  clearRegionsSeen();
  const verdict = gatherChain(q, head, TX_SEGMENTS, false, QUEUE_SIZE_MAX);
  frameLength = 1;
  frameWork = chainLength + segmentCount + (regionsSeen >> 3);
  switchedBytes = 0;
  if (verdict != 0) {
    failQueue(q, verdict, badDetail);
    return false;
  }
  hdrBytes = load<u32>(q, Q_HDR_BYTES);
  if (chainBytes < hdrBytes) {
    failQueue(q, BAD_HEADER, chainBytes);
    return false;
  }
  peek(TX_SEGMENTS, 0, hdrBytes, FRAME_HEAD);
  // No offload is negotiated, so flags and gso_type must be zero (§5.1.6.2).
  badOffload = load<u16>(FRAME_HEAD) != 0;
  take(q, chainBytes - hdrBytes);
  pushUsed(q, head, 0);
  store<u32>(q, load<u32>(q, Q_LAST_AVAIL) + 1, Q_LAST_AVAIL);
  return true;
}

function switchAdvanced(q: usize, waiting: u32): bool {
  clearSegments();
  clearRegionsSeen();
  const verdict = gatherAdvanced(q, TX_SEGMENTS, waiting);
  frameLength = advancedLength;
  frameWork = advancedLength + segmentCount + (regionsSeen >> 3);
  switchedBytes = 0;
  if (verdict != 0) {
    failQueue(q, verdict, badDetail);
    return false;
  }
  hdrBytes = 0;
  badOffload = advancedOffload;
  take(q, advancedBytes);
  completeAdvanced(q);
  return true;
}

function switchSource(q: usize, waiting: u32): bool {
  clearSegments();
  const verdict = gatherSource(q, TX_SEGMENTS, waiting);
  frameLength = sourceLength;
  frameWork = sourceLength + segmentCount;
  switchedBytes = 0;
  if (verdict != 0) {
    // A frame whose last descriptor is not there yet is waited for.
    if (verdict != BAD_CHAIN_LENGTH) failQueue(q, verdict, badDetail);
    return false;
  }
  hdrBytes = 0;
  badOffload = false;
  take(q, sourceBytes);
  completeSource(q);
  return true;
}

/** Admits the gathered frame and sends it on, or counts why not. */
function take(q: usize, length: u64): void {
  source = load<u32>(q, Q_POOL);
  const drop = admit(length);
  const p: usize = POOLS + source * POOL_STRIDE;
  if (drop != 0) {
    count(p, drop, 1);
    return;
  }
  countSent(p);
  if (load<u32>(p, P_RX_COUNT) > 1) noteFlow(source, frameHash(), q);
  route(p);
}

function countSent(p: usize): void {
  switchedBytes = frameBytes;
  count(p, C_TX_FRAMES, 1);
  count(p, C_TX_BYTES, frameBytes);
  if (dst == MAC_BROADCAST) count(p, C_TX_BROADCAST, 1);
  else if (isMulticast(dst)) count(p, C_TX_MULTICAST, 1);
}

/** Copies the head out of the segments, checks it and the source's policy. Answers 0 or the drop counter. */
function admit(length: u64): u32 {
  if (length > <u64> FRAME_BYTES_MAX) return C_TX_OVERSIZE;
  frameBytes = <u32> length;
  if (badOffload) return C_TX_BAD_OFFLOAD;
  peek(TX_SEGMENTS, hdrBytes, min(frameBytes, HEAD_BYTES_MAX), FRAME_HEAD + hdrBytes);
  if (frameBytes < <u32> FRAME_BYTES_MIN) return C_TX_RUNT;
  const frame = FRAME_HEAD + hdrBytes;
  dst = load<u64>(frame) & MAC_MASK;
  src = load<u64>(frame, 6) & MAC_MASK;
  const ethertype: u32 = load<u16>(frame, 12);
  tagInFrame = isTag(ethertype);
  // A tagged frame has at least its tag and the EtherType behind it.
  if (tagInFrame && frameBytes < <u32> FRAME_BYTES_MIN + 4) return C_TX_RUNT;
  if (isMulticast(src) || src == 0) return C_TX_BAD_SOURCE;
  learnedSource = false;

  const p: usize = POOLS + source * POOL_STRIDE;
  const flags = load<u32>(p, P_FLAGS);
  if ((flags & (POOL_F_ENABLED | POOL_F_LINK_UP)) != (POOL_F_ENABLED | POOL_F_LINK_UP)) return C_TX_LINK_DOWN;
  const denied = classify(p, flags, ethertype, load<u16>(frame, 14), load<u16>(frame, 16));
  if (denied != 0 || (flags & (POOL_F_TRUNK_ALL | POOL_F_LEARN)) == <u32> POOL_F_TRUNK_ALL) return denied;
  return checkSource(p, flags);
}

/** Finds the frame's VLAN (`vlan`, `tag`), or the counter that says why it may not be in it. */
function classify(p: usize, flags: u32, ethertype: u32, tciBytes: u16, innerType: u32): u32 {
  const tci: u32 = <u32> bswap<u16>(tciBytes);
  vlan = 0;
  tag = 0;
  const own = load<u32>(p, P_VLAN);
  if (own != 0) {
    // VST: the PF's tag goes on. A guest's own tag is refused, but a C-tag may travel inside an S-tag (802.1ad).
    const serviceTag = (own & VLAN_KEY_AD) != 0;
    if (tagInFrame && !(serviceTag && ethertype == TPID_C)) return C_TX_VLAN_TAGGED;
    tagInFrame = false;
    vlan = own;
    const tpid = serviceTag ? TPID_S : TPID_C;
    const outTci = (load<u32>(p, P_QOS) << 13) | (own & 0xfff);
    tag = tpid | (<u32> bswap<u16>(<u16> outTci) << 16);
    return 0;
  }
  if (!tagInFrame) return 0;
  const vid = tci & 0xfff;
  if (vid == 0xfff) return C_TX_VLAN_DENIED;
  tag = ethertype | (<u32> tciBytes << 16);
  if (vid != 0) {
    vlan = vid | (ethertype == TPID_S ? VLAN_KEY_AD : 0);
  } else if ((flags & POOL_F_TRUNK_ALL) == 0 && isTag(innerType)) {
    // VID 0 carries a priority only, and the frame belongs to the untagged VLAN; but whoever takes that tag off finds
    // the one behind it, and would be in a VLAN that nobody checked.
    return C_TX_VLAN_DENIED;
  }
  return isMember(source, vlan) ? 0 : C_TX_VLAN_DENIED;
}

/** Spoof check, and what a trusted VF may learn by it. Answers 0 or the drop counter. */
function checkSource(p: usize, flags: u32): u32 {
  if (src == load<u64>(p, P_MAC)) return 0;
  const claim = claimAddress(src, vlan, source, (flags & POOL_F_TRUST) != 0);
  learnedSource = claim == CLAIM_LEARNED;
  if (claim != CLAIM_REFUSED) return 0;
  return flags & POOL_F_SPOOF_CHECK ? C_TX_SPOOFED : 0;
}

/** Sends the admitted frame where it belongs. */
function route(p: usize): void {
  const fromUplink = source == POOL_UPLINK;
  const vepa = load<u32>(CTL, CTL_SWITCH_MODE) == SWITCH_VEPA;
  // VEPA: a hairpinned frame does not go back to where it came from (802.1Qbg source pruning). Behind the PF's pool are
  // many guests; the switch there sees to it that none gets its own.
  const pruned = fromUplink && vepa ? findPool(src, vlan) : -1;
  if (vepa && !fromUplink) {
    if (!sendTo(POOL_UPLINK)) count(p, C_TX_NO_DESTINATION, 1);
    return;
  }
  if (isMulticast(dst)) {
    flood(pruned);
    return;
  }
  const pool = findPool(dst, vlan);
  if (pool < 0) {
    if (!sendUnknown(pruned)) count(p, C_TX_NO_DESTINATION, 1);
  } else if (<u32> pool == source) {
    count(p, C_TX_TO_SELF, 1);
  } else if (pool != pruned || pool == POOL_PF) {
    deliverTo(pool);
    remember(pool);
  }
}

/** A decision may be reused for the next frame if nothing but the addresses enters it and the bytes stay as they are. */
function remember(pool: u32): void {
  if (tagInFrame || learnedSource || source == POOL_UPLINK) return;
  const rp: usize = POOLS + pool * POOL_STRIDE;
  if ((load<u32>(rp, P_FLAGS) & POOL_F_LINK_UP) == 0) return;
  if (tag != 0 && load<u32>(rp, P_VLAN) == 0) return;
  // Inside an S-tag the guest's own C-tag may be there or not: only the general path looks.
  if (load<u32>(POOLS + source * POOL_STRIDE, P_VLAN) & VLAN_KEY_AD) return;
  const frame = FRAME_HEAD + hdrBytes;
  rememberDecision(source, load<u64>(frame), load<u32>(frame, 8), pool);
}

/** Every pool of the VLAN but the source, and the uplink. */
function flood(pruned: i32): void {
  const vfs = load<u32>(CTL, CTL_VF_COUNT);
  for (let pool: u32 = 0; pool < vfs; pool++) {
    if (pool != source && <i32> pool != pruned && isMember(pool, vlan) && wantsGroup(pool)) deliverTo(pool);
  }
  if (source != POOL_PF) sendTo(POOL_PF);
  if (source != POOL_UPLINK) sendTo(POOL_UPLINK);
}

/** Whether `pool` receives the group that the frame is for: broadcast always, others as its multicast table has them. */
@inline
function wantsGroup(pool: u32): bool {
  if ((load<u32>(POOLS + pool * POOL_STRIDE, P_FLAGS) & POOL_F_MULTICAST_FILTER) == 0) return true;
  if (dst == MAC_BROADCAST) return true;
  const bit = <u32> (dst >> 36) & 0xfff;
  return ((<u32> load<u8>(MULTICAST_TABLES + pool * MULTICAST_TABLE_STRIDE + (bit >> 3)) >> (bit & 7)) & 1) != 0;
}

/** Unknown unicast: the uplink and promiscuous VFs of the VLAN, nobody else. True if anybody was asked to take it. */
function sendUnknown(pruned: i32): bool {
  let sent = source != POOL_UPLINK && sendTo(POOL_UPLINK);
  if (load<u32>(CTL, CTL_PROMISC_COUNT) == 0) return sent;
  const vfs = load<u32>(CTL, CTL_VF_COUNT);
  for (let pool: u32 = 0; pool < vfs; pool++) {
    if (pool == source || <i32> pool == pruned || !isMember(pool, vlan)) continue;
    if ((load<u32>(POOLS + pool * POOL_STRIDE, P_FLAGS) & POOL_F_PROMISC) == 0) continue;
    deliverTo(pool);
    sent = true;
  }
  return sent;
}

/** Delivers to the uplink or the PF if somebody drives their queues. */
function sendTo(pool: u32): bool {
  if (load<u32>(POOLS + pool * POOL_STRIDE, P_RX_COUNT) == 0) return false;
  deliverTo(pool);
  return true;
}

function frameHash(): u32 {
  return flowHash(FRAME_HEAD + hdrBytes, min(frameBytes, HEAD_BYTES_MAX));
}

/** One copy of the frame to `pool`, tagged as its side of the switch wants it. */
function deliverTo(pool: u32): void {
  const p: usize = POOLS + pool * POOL_STRIDE;
  const flags = load<u32>(p, P_FLAGS);
  frameWork += 8 + (frameBytes >> 8);
  if ((flags & (POOL_F_ENABLED | POOL_F_LINK_UP)) != (POOL_F_ENABLED | POOL_F_LINK_UP)) {
    count(p, C_RX_LINK_DOWN, 1);
    return;
  }
  const queues = load<u32>(p, P_RX_COUNT);
  if (queues == 0 || queues > <u32> QUEUE_PAIRS_MAX) {
    // Not back to where they came from; and a group's frames have been there by themselves.
    const other: u32 = flags & POOL_F_FALLBACK_PF ? POOL_PF : flags & POOL_F_FALLBACK_UPLINK ? POOL_UPLINK : pool;
    if (other != pool && other != source && !isMulticast(dst)) deliverTo(other);
    else count(p, C_RX_NO_QUEUE, 1);
    return;
  }
  const rx = steer(pool, queues > 1 ? frameHash() : 0);
  const frame = FRAME_HEAD + hdrBytes;
  const tagged = tag != 0 && load<u32>(p, P_VLAN) == 0;
  const skip: u32 = tagInFrame ? 16 : 12;
  // Addresses, tag and EtherType come from the copy that was checked; the payload from the sender's memory.
  let headBytes: u32 = 12;
  v128.store(OUT_HEAD, v128.load(frame));
  if (tagged) {
    store<u32>(OUT_HEAD, tag, 12);
    headBytes = 16;
  }
  store<u16>(OUT_HEAD + headBytes, load<u16>(frame + skip));
  headBytes += 2;
  const seen = regionsSeen;
  const delivered = deliver(p, rx, OUT_HEAD, headBytes, TX_SEGMENTS, hdrBytes + skip + 2, frameBytes - skip - 2);
  // The sender pays for the walk through its receiver's buffers: nobody else's frames wait for it.
  frameWork += receiveWork + ((regionsSeen - seen) >> 3);
  if (!delivered) return;
  if (dst == MAC_BROADCAST) count(p, C_RX_BROADCAST, 1);
  else if (isMulticast(dst)) count(p, C_RX_MULTICAST, 1);
}
