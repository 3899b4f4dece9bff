/**
 * Ethernet addresses and tags as integers: a MAC is the 48-bit number whose lowest byte is the first on the wire (what
 * a little-endian load of a frame gives); an EtherType is byte-swapped likewise.
 */

export const MAC_MASK: u64 = 0xffffffffffff;
export const MAC_BROADCAST: u64 = 0xffffffffffff;

/** TPIDs as loaded: 802.1Q C-tag 0x8100, 802.1ad S-tag 0x88a8. */
export const TPID_C: u32 = 0x0081;
export const TPID_S: u32 = 0xa888;

export const ETHERTYPE_ARP: u32 = 0x0608;
export const ETHERTYPE_IPV4: u32 = 0x0008;
export const ETHERTYPE_IPV6: u32 = 0xdd86;

/** Below it an EtherType is a length, and what follows is an LLC header (IEEE 802.3, §3.2.6). */
const ETHERTYPE_LEAST: u32 = 0x0600;

/** Whether an EtherType, as loaded, is the length of an LLC frame. */
@inline
export function isLlcLength(ethertype: u32): bool {
  return <u32> bswap<u16>(<u16> ethertype) < ETHERTYPE_LEAST;
}

@inline
export function isTag(ethertype: u32): bool {
  return ethertype == TPID_C || ethertype == TPID_S;
}

/** The group bit: lowest bit of the first byte. */
@inline
export function isMulticast(mac: u64): bool {
  return (mac & 1) != 0;
}
