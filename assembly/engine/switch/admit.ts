/**
 * Source policy: whether a pool may send a frame, and in which VLAN it travels. Works on the record's copy of the
 * frame's head alone.
 */
import {
  C_TX_BAD_SOURCE,
  C_TX_BROADCAST_LIMITED,
  C_TX_LINK_DOWN,
  C_TX_SPOOFED,
  C_TX_VLAN_DENIED,
  C_TX_VLAN_TAGGED,
  CLAIM_LEARNED,
  CLAIM_REFUSED,
  HEAD_COPY_BYTES,
  P_FLAGS,
  P_MAC,
  P_NATIVE,
  P_QOS,
  P_VLAN,
  POOL_F_ENABLED,
  POOL_F_LINK_UP,
  POOL_F_SPOOF_CHECK,
  POOL_F_TRUNK_ALL,
  POOL_F_TRUST,
  POOL_F_UPLINK,
  VLAN_KEY_AD,
} from "../../../shared/layout/nic.ts";
import { isMulticast, isTag, MAC_BROADCAST, MAC_MASK, TPID_C, TPID_S } from "../../lib/ethernet.ts";
import { copiedHead } from "../batch/record.ts";
import { poolAt } from "../context.ts";
import { takeBroadcast } from "../schedule/rate.ts";
import { isMember } from "./filter.ts";
import { claimAddress } from "./learn.ts";

/** Of the frame that was admitted last: its addresses. */
export let dst: u64 = 0;
export let src: u64 = 0;
/** VLAN key it travels in; its tag where tags are seen (0: none), and whether that tag is in the frame already. */
export let vlan: u32 = 0;
export let tag: u32 = 0;
export let tagInFrame: bool = false;
/** Its record. */
let admitted: usize = 0;
/** Its source was learned, not set. */
export let learnedSource: bool = false;

/** The tag as it would be in a frame's bytes 12–15. */
@inline
export function tagOf(pool: usize): u32 {
  const own = load<u32>(pool, P_VLAN);
  const tci = (load<u32>(pool, P_QOS) << 13) | (own & 0xfff);
  return (own & VLAN_KEY_AD ? TPID_S : TPID_C) | (<u32> bswap<u16>(<u16> tci) << 16);
}

/** The tag of the VLAN with key `native`, as it would be in a frame's bytes 12–15. */
@inline
export function nativeTag(native: u32): u32 {
  return TPID_C | (<u32> bswap<u16>(<u16> native) << 16);
}

/** Checks a frame of `pool` against its policy. Answers 0 or the drop counter. */
export function admit(pool: u32, record: usize): u32 {
  const p = poolAt(pool);
  admitted = record;
  const ethertype: u32 = load<u16>(record, 12);
  dst = load<u64>(record) & MAC_MASK;
  src = load<u64>(record, 6) & MAC_MASK;
  tagInFrame = isTag(ethertype);
  learnedSource = false;
  if (isMulticast(src) || src == 0) return C_TX_BAD_SOURCE;
  const flags = load<u32>(p, P_FLAGS);
  if ((flags & (POOL_F_ENABLED | POOL_F_LINK_UP)) != (POOL_F_ENABLED | POOL_F_LINK_UP)) return C_TX_LINK_DOWN;
  const denied = classify(pool, flags, record);
  if (denied != 0 || (flags & POOL_F_UPLINK) != 0) return denied;
  const spoofed = checkSource(pool, flags);
  if (spoofed != 0) return spoofed;
  return dst == MAC_BROADCAST && !takeBroadcast(p) ? C_TX_BROADCAST_LIMITED : 0;
}

/** Finds the frame's VLAN (`vlan`, `tag`), or the counter that says why it may not be in it. */
function classify(pool: u32, flags: u32, record: usize): u32 {
  const p = poolAt(pool);
  const ethertype: u32 = load<u16>(record, 12);
  const tciBytes = load<u16>(record, 14);
  vlan = 0;
  tag = 0;
  const own = load<u32>(p, P_VLAN);
  if (own != 0) {
    // VST: the PF's tag goes on. A guest's own tag is refused, but a C-tag may travel inside an S-tag (802.1ad).
    const serviceTag = (own & VLAN_KEY_AD) != 0;
    if (tagInFrame && !(serviceTag && ethertype == TPID_C)) return C_TX_VLAN_TAGGED;
    tagInFrame = false;
    vlan = own;
    tag = tagOf(p);
    return 0;
  }
  const native = load<u32>(p, P_NATIVE);
  if (!tagInFrame) {
    if (native != 0) {
      vlan = native;
      tag = nativeTag(native);
    }
    return 0;
  }
  const vid = <u32> bswap<u16>(tciBytes) & 0xfff;
  if (vid == 0xfff) return C_TX_VLAN_DENIED;
  tag = ethertype | (<u32> tciBytes << 16);
  if (vid != 0) {
    vlan = vid | (ethertype == TPID_S ? VLAN_KEY_AD : 0);
  } else if (native != 0) {
    // The frame belongs to the native VLAN, and its tag would have to say so.
    return C_TX_VLAN_DENIED;
  } else if ((flags & POOL_F_TRUNK_ALL) == 0 && hasTagBehind()) {
    // VID 0 carries a priority only, and the frame belongs to the untagged VLAN; but whoever takes that tag off finds
    // the one behind it, and would be in a VLAN that nobody checked.
    return C_TX_VLAN_DENIED;
  }
  return isMember(pool, vlan) ? 0 : C_TX_VLAN_DENIED;
}

/** Whether there is a tag behind the tag of the frame that was admitted last. Its head is copied, and looked into. */
export function hasTagBehind(): bool {
  return isTag(load<u16>(copiedHead(admitted, HEAD_COPY_BYTES), 16));
}

/** Spoof check, and what a trusted VF may learn by it. Answers 0 or the drop counter. */
function checkSource(pool: u32, flags: u32): u32 {
  const p = poolAt(pool);
  if (src == load<u64>(p, P_MAC)) return 0;
  const claim = claimAddress(src, vlan, pool, (flags & POOL_F_TRUST) != 0);
  learnedSource = claim == CLAIM_LEARNED;
  if (claim != CLAIM_REFUSED) return 0;
  return flags & POOL_F_SPOOF_CHECK ? C_TX_SPOOFED : 0;
}
