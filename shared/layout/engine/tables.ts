/** The switch's tables: address filters and remembered decisions. */

// Filter entry (16 bytes): {key u64, pool u16, flags u16, seenSeconds u32} ----------------------------------------

/** key = MAC (48 bits, first byte lowest) | VLAN key << 48 | valid bit 63. */
export const FILTER_KEY = 0;
export const FILTER_POOL = 8;
export const FILTER_FLAGS = 10;
export const FILTER_SEEN_SECONDS = 12;
/** flags: whether the entry is learned, and above it the second, modulo 2^15, in which its pool has got it. */
export const FILTER_F_LEARNED = 1;
/** What `claimAddress` answers: the address is not the pool's; the PF has set it for the pool; the pool has learned it. */
export const CLAIM_REFUSED = 0;
export const CLAIM_SET = 1;
export const CLAIM_LEARNED = 2;
/** VLAN key of an S-VLAN (802.1ad) has this bit; VLAN_ANY matches whatever VLANs the pool is a member of. */
export const VLAN_KEY_AD = 0x1000;
export const VLAN_ANY = 0x1fff;
/** An entry lies within this many slots from its home, or is refused. */
export const FILTER_PROBES_MAX = 64;
/** MACs a trusted VF may add by using them, and how long an unused one is kept. */
export const LEARNED_PER_POOL_MAX = 64;
export const LEARNED_PF_MAX = 4096;
export const LEARNED_AGE_SECONDS = 300;

// Decision cache entry (64 bytes, a line) ----------------------------------------------------------------------------------

// Bytes 0–15 are the key: the frame's first 12 bytes, and its tag as it is in the frame (0: none).
export const D_GENERATION = 16;
/** u16: the pool that receives the frame, or whose counter tells why nobody does. */
export const D_POOL = 20;
/** u8: DECIDED_*, and HEAD_*: what becomes of the frame's tag. */
export const D_KIND = 22;
export const D_HEAD = 23;
/** u32: the tag that is put in. */
export const D_OUT_TAG = 24;
/** u8: for DECIDED_DROP the counter's number (C_* / 8). */
export const D_COUNTER = 28;
/** u8: D_F_*. */
export const D_FLAGS = 29;
/** u32: the receive queue (arena offset) of all its frames; 0 if that depends on the frame, or nobody receives it. */
export const D_QUEUE = 32;
/** u16: the second (its low half) in which a learned source was last seen to be in use. */
export const D_SECOND = 30;

export const DECIDED_DROP = 0;
export const DECIDED_DELIVER = 1;
/** To every pool that wants it: multicast, broadcast; and unknown unicast. Never remembered. */
export const DECIDED_FLOOD = 2;
export const DECIDED_UNKNOWN = 3;
/** The frame passed its sender's policy, and counts as sent. */
export const D_F_SENT = 1;
export const D_F_LEARNED = 2;

// Entry of an address table (32 bytes): what a source address must be, in the bits that the mask has. IPv4 addresses
// stand as IPv4-mapped IPv6 ones.
export const ADDRESS_STRIDE = 32;
export const ADDRESS_MASK = 16;
/** u32 of the mask: all ones if the prefix is one of IPv4 addresses (or as long as those). */
export const ADDRESS_MASK_V4 = 24;

/** What becomes of a frame's tag: it stays as it is; one is put in; it is taken out. */
export const HEAD_AS_IS = 0;
export const HEAD_INSERT = 1;
export const HEAD_STRIP = 2;
export const HEAD_MASK = 3;
/** Beside these, so that the receiver's counters tell. */
export const HEAD_F_MULTICAST = 4;
export const HEAD_F_BROADCAST = 8;
/** Of a delivery, not of a decision: all its records are plain. */
export const HEAD_F_PLAIN = 16;
/** All its records are whole; their senders left a checksum to be finished, or say something of it. */
export const HEAD_F_WHOLE = 32;
export const HEAD_F_OFFLOAD = 64;
