/**
 * Source addresses above Ethernet, where the PF says which ones a pool may use: those of IPv4 and IPv6 headers, the
 * sender's in ARP, and the one that a neighbour advertisement speaks for. The head is copied before it is looked at, and
 * goes on from the copy, so a guest that rewrites its frame meanwhile gains nothing.
 */
import {
  ADDRESS_MASK,
  ADDRESS_MASK_V4,
  ADDRESS_STRIDE,
  ADDRESS_TABLE_STRIDE,
  ADDRESS_TABLES,
  C_TX_IP_SPOOFED,
  HEAD_COPY_BYTES,
  P_ADDRESS_COUNT,
} from "../../../shared/layout/nic.ts";
import { ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, isLlcLength, isTag } from "../../lib/ethernet.ts";
import { copiedHead, headCopyBytes } from "../batch/record.ts";
import { context, poolAt } from "../context.ts";
import { spend, UNITS_DECISION } from "../schedule/cost.ts";

/** An IPv4 address as an IPv4-mapped one, the address itself being 0 (RFC 4291, §2.5.5.2). */
const V4_MAPPED = i32x4(0, 0, <i32> 0xffff0000, 0);

/** ARP's lengths of a hardware and of a protocol address, as loaded: an Ethernet address, an IPv4 one. */
const ARP_LENGTHS: u32 = 0x0406;

/** The service access point of SNAP, which has an EtherType of its own; the lowest bit says no more than group. */
const LLC_SNAP: u32 = 0xab;

const IPV6_HEADER_BYTES: usize = 40;
/** Extension headers that may stand before ICMPv6, and that all have their length in their second byte. */
const NEXT_HOP_BY_HOP: u32 = 0;
const NEXT_ROUTING: u32 = 43;
const NEXT_DESTINATION: u32 = 60;
const NEXT_ICMPV6: u32 = 58;
const ICMPV6_NEIGHBOUR_ADVERTISEMENT: u32 = 136;

/** Whether the IP addresses that `pool` sends from are checked. */
@inline
export function isGuarded(pool: u32): bool {
  return load<u32>(poolAt(pool), P_ADDRESS_COUNT) != 0;
}

/** Checks the frame of a guarded pool. Answers 0 or the drop counter. */
export function guard(pool: u32, record: usize): u32 {
  spend(UNITS_DECISION);
  const head = copiedHead(record, HEAD_COPY_BYTES);
  return isOwn(pool, head, head + headCopyBytes(record)) ? 0 : C_TX_IP_SPOOFED;
}

/** Whether a frame whose head lies from `head` to `end` speaks for no other addresses than the pool's. */
function isOwn(pool: u32, head: usize, end: usize): bool {
  let at = head + 12;
  if (isTag(load<u16>(at))) at += 4;
  const type: u32 = load<u16>(at);
  at += 2;
  // What is behind two tags is not looked for, and may be anything.
  if (isTag(type)) return false;
  if (type == ETHERTYPE_ARP) {
    return at + 28 <= end && load<u16>(at, 4) == ARP_LENGTHS && mayUseV4(pool, load<u32>(at, 14));
  }
  if (type == ETHERTYPE_IPV4) return at + 20 <= end && mayUseV4(pool, load<u32>(at, 12));
  if (type == ETHERTYPE_IPV6) return at + IPV6_HEADER_BYTES <= end && isOwnV6(pool, at, end);
  // Some receivers take what is behind SNAP for what its EtherType says.
  return !isLlcLength(type) || at >= end || (<u32> load<u8>(at) | 1) != LLC_SNAP;
}

/** The same of an IPv6 packet at `at`, whose header is in the copy. */
function isOwnV6(pool: u32, at: usize, end: usize): bool {
  if (!mayUse(pool, v128.load(at, 8), 0)) return false;
  let next: u32 = load<u8>(at, 6);
  let behind = at + IPV6_HEADER_BYTES;
  while (next == NEXT_HOP_BY_HOP || next == NEXT_ROUTING || next == NEXT_DESTINATION) {
    // What lies further in than the copy could be an advertisement.
    if (behind + 8 > end) return false;
    next = load<u8>(behind);
    behind += (<usize> load<u8>(behind, 1) + 1) << 3;
  }
  if (next != NEXT_ICMPV6) return true;
  if (behind >= end) return false;
  if (<u32> load<u8>(behind) != ICMPV6_NEIGHBOUR_ADVERTISEMENT) return true;
  return behind + 24 <= end && v128.any_true(v128.load(behind, 8)) && mayUse(pool, v128.load(behind, 8), 0);
}

@inline
function mayUseV4(pool: u32, address: u32): bool {
  return address == 0 || mayUse(pool, i32x4.replace_lane(V4_MAPPED, 3, address), 0xffffffff);
}

/**
 * Whether the pool's table has an address, in a prefix whose ADDRESS_MASK_V4 has all the bits of `least`: no prefix of
 * IPv6 addresses has IPv4 ones in it. One that is all zero is nobody's yet: DHCP, and the search for doubles.
 */
function mayUse(pool: u32, address: v128, least: u32): bool {
  if (!v128.any_true(address)) return true;
  const count = load<u32>(poolAt(pool), P_ADDRESS_COUNT);
  let entry = context + ADDRESS_TABLES + pool * ADDRESS_TABLE_STRIDE;
  const end = entry + min<u32>(count, ADDRESS_TABLE_STRIDE / ADDRESS_STRIDE) * ADDRESS_STRIDE;
  for (; entry < end; entry += ADDRESS_STRIDE) {
    if ((load<u32>(entry, ADDRESS_MASK_V4) & least) != least) continue;
    const differs = v128.and(v128.xor(address, v128.load(entry)), v128.load(entry, ADDRESS_MASK));
    if (!v128.any_true(differs)) return true;
  }
  return false;
}
