/**
 * Captures: what of each pool's traffic is copied, which frames are wanted, and the ring that they go into. The engine
 * writes whole blocks of a pcapng file; whoever reads a ring hands them on as they are.
 *
 *      CAPTURES         8 entries of 64 bytes, one for each capture that may be open (X_*)
 *      CAPTURE_STATE    what all of them may spend, and the scratch memory of filters (XS_*)
 *      CAPTURE_OPTIONS  48 places of 64 bytes: u32 length, then pcapng options: a comment for each drop counter, by its
 *                       number, and those that are no drop
 */

export const CAPTURES = 0xd40000;
export const CAPTURES_MAX = 8;
export const CAPTURE_STRIDE = 64;
export const CAPTURE_STATE = 0xd41000;
export const CAPTURE_OPTIONS = 0xd42000;
export const CAPTURE_OPTION_STRIDE = 64;
export const CAPTURE_OPTION_COUNT = 48;

/** Places of CAPTURE_OPTIONS behind those of the counters: a checksum that is not filled in, a frame to be cut. */
export const OPTION_PARTIAL = 40;
export const OPTION_TO_BE_CUT = 41;

// A capture (64 bytes) -------------------------------------------------------------------------------------------

/** u32: its ring (arena offset), CAPTURE_RING_BYTES long. */
export const X_RING = 0;
/** u32: what it knows of each pool: CAPTURE_POOL_STRIDE bytes each (XP_*). */
export const X_POOLS = 4;
/** u32: its filter's steps, CAPTURE_STEP_STRIDE bytes each (XF_*), and how many; 0: it wants every frame. */
export const X_FILTER = 8;
export const X_STEPS = 12;
/** u32: bytes of a frame that are kept at the most. */
export const X_SNAP = 16;
/** u32, positions in the ring that count up: up to where it is written; up to where it is read. */
export const X_WRITE = 20;
export const X_READ = 24;
/** u32: the position at which the blocks of the round before this one end; what is behind it to the ring's end is empty. */
export const X_END = 28;
/** u32: up to where blocks have been made that are not published yet. */
export const X_NEXT = 32;
/** u64: what is added to the engine's clock, in ns, for the time since 1970. */
export const X_EPOCH_NS = 40;

export const CAPTURE_RING_BYTES = 1 << 22;

/** u32: the interface's number in the file; frames lost since the last one that was written; u64: all that were lost. */
export const CAPTURE_POOL_STRIDE = 16;
export const XP_INTERFACE = 0;
export const XP_LOST = 4;
export const XP_LOST_TOTAL = 8;

// A step of a filter (16 bytes): whether bytes at a place, under a mask, have a value; and the steps that follow -------

export const CAPTURE_STEP_STRIDE = 16;
export const CAPTURE_STEPS_MAX = 512;
/** u8: STEP_*: what the place is counted from; u8: the place; u8: bytes that must be there. */
export const XF_BASE = 0;
export const XF_OFFSET = 1;
export const XF_BYTES = 2;
/** u16: the step if it has the value, and if not: a later one, STEP_WANTED or STEP_UNWANTED. */
export const XF_YES = 4;
export const XF_NO = 6;
/** u32 as loaded: the mask and the value. */
export const XF_MASK = 8;
export const XF_VALUE = 12;

export const STEP_FRAME = 0;
export const STEP_NETWORK = 1;
export const STEP_TRANSPORT = 2;
/** What is known of the frame beside its bytes: XM_*. */
export const STEP_META = 3;
export const STEP_WANTED = 0xffff;
export const STEP_UNWANTED = 0xfffe;

/** u32: pool; CAPTURE_IN or CAPTURE_OUT; the drop counter's number, 0: not dropped; the type behind tags, as loaded. */
export const XM_POOL = 0;
export const XM_DIRECTION = 4;
export const XM_DROPPED = 8;
export const XM_TYPE = 12;
/** u32: the outer tag's VLAN, NO_VLAN without one; the protocol behind IP headers, NO_PROTOCOL; 1: it has ports. */
export const XM_VLAN = 16;
export const XM_PROTOCOL = 20;
export const XM_PORTS = 24;
export const NO_VLAN = 0xffff;
export const NO_PROTOCOL = 0xffff;

/** As epb_flags has it: in to the port that the interface is, or out of it. */
export const CAPTURE_IN = 1;
export const CAPTURE_OUT = 2;

// CAPTURE_STATE -------------------------------------------------------------------------------------------------------

/** f64, ns: what captures may spend, and when that was filled up last; f64: passes without work until then. */
export const XS_TOKENS = 0;
export const XS_FILLED_NS = 8;
export const XS_IDLE = 16;
/** The XM_* of the frame in hand, and its head. */
export const XS_META = 64;
export const XS_HEAD = 128;
export const CAPTURE_HEAD_BYTES = 192;
