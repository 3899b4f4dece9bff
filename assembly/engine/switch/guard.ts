/**
 * Source addresses above Ethernet, where the PF says which ones a pool may use: those of IPv4 and IPv6 headers, and the
 * sender's in ARP. The head is copied before it is looked at, and goes on from the copy, so a guest that rewrites its
 * frame meanwhile gains nothing.
 */
import {
  ADDRESS_MASK,
  ADDRESS_STRIDE,
  ADDRESS_TABLE_STRIDE,
  ADDRESS_TABLES,
  C_TX_IP_SPOOFED,
  P_ADDRESS_COUNT,
} from "../../../shared/layout/nic.ts";
import { ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, isTag } from "../../lib/ethernet.ts";
import { copiedHead, headCopyBytes } from "../batch/record.ts";
import { context, poolAt } from "../context.ts";
import { spend, UNITS_DECISION } from "../schedule/cost.ts";

/** An IPv4 address as an IPv4-mapped one, the address itself being 0 (RFC 4291, §2.5.5.2). */
const V4_MAPPED = i32x4(0, 0, <i32> 0xffff0000, 0);

/** ARP's lengths of a hardware and of a protocol address, as loaded: an Ethernet address, an IPv4 one. */
const ARP_LENGTHS: u32 = 0x0406;

/** Whether the IP addresses that `pool` sends from are checked. */
@inline
export function isGuarded(pool: u32): bool {
  return load<u32>(poolAt(pool), P_ADDRESS_COUNT) != 0;
}

/** Checks the frame of a guarded pool. Answers 0 or the drop counter. */
export function guard(pool: u32, record: usize): u32 {
  spend(UNITS_DECISION);
  const head = copiedHead(record);
  const end = head + headCopyBytes(record);
  let at = head + 12;
  if (isTag(load<u16>(at))) at += 4;
  const type: u32 = load<u16>(at);
  at += 2;
  // What is behind two tags is not looked for, and may be anything.
  if (isTag(type)) return C_TX_IP_SPOOFED;
  if (type == ETHERTYPE_ARP) {
    const isKnown = at + 28 <= end && load<u16>(at, 4) == ARP_LENGTHS;
    return isKnown && mayUseV4(pool, load<u32>(at, 14)) ? 0 : C_TX_IP_SPOOFED;
  }
  if (type == ETHERTYPE_IPV4) return at + 20 <= end && mayUseV4(pool, load<u32>(at, 12)) ? 0 : C_TX_IP_SPOOFED;
  if (type == ETHERTYPE_IPV6) return at + 40 <= end && mayUse(pool, v128.load(at, 8)) ? 0 : C_TX_IP_SPOOFED;
  return 0;
}

@inline
function mayUseV4(pool: u32, address: u32): bool {
  return address == 0 || mayUse(pool, i32x4.replace_lane(V4_MAPPED, 3, address));
}

/** Whether the pool's table has an address. One that is all zero is nobody's yet: DHCP, and the search for doubles. */
function mayUse(pool: u32, address: v128): bool {
  if (!v128.any_true(address)) return true;
  const count = load<u32>(poolAt(pool), P_ADDRESS_COUNT);
  let entry = context + ADDRESS_TABLES + pool * ADDRESS_TABLE_STRIDE;
  const end = entry + min<u32>(count, ADDRESS_TABLE_STRIDE / ADDRESS_STRIDE) * ADDRESS_STRIDE;
  for (; entry < end; entry += ADDRESS_STRIDE) {
    const differs = v128.and(v128.xor(address, v128.load(entry)), v128.load(entry, ADDRESS_MASK));
    if (!v128.any_true(differs)) return true;
  }
  return false;
}
