/**
 * The memory of VHOST_USER_GET_INFLIGHT_FD (vhost-user.rst, "Inflight I/O tracking"), for both languages: a part for each
 * queue, with a header and an entry for each descriptor. An engine keeps in it where each ring stands.
 */

/** The header of a queue's part begins: features u64 (none are defined), version u16, entries u16. */
export const INFLIGHT_VERSION = 8;
export const INFLIGHT_DESC_NUM = 10;
/** What the version is once the ring has run; 0 before. */
export const INFLIGHT_VERSION_1 = 1;
/** Split, u16: the used index that the entries are true of. */
export const INFLIGHT_SPLIT_USED_IDX = 14;
/** Packed, u64: used_idx u16, old_used_idx u16, used_wrap_counter u8, old_used_wrap_counter u8, padding u16. */
export const INFLIGHT_PACKED_POSITION = 16;
/** Bytes of a header, and of an entry. */
export const INFLIGHT_SPLIT_HEADER_BYTES = 16;
export const INFLIGHT_SPLIT_ENTRY_BYTES = 16;
export const INFLIGHT_PACKED_HEADER_BYTES = 32;
export const INFLIGHT_PACKED_ENTRY_BYTES = 32;
