/** The control block: what the worker and the control thread tell each other. Offsets from CTL. */

// Control block (offsets from CTL) -----------------------------------------------------------------------------

/** i32: a number that counts up: odd while the engine is to stand still, even while it may run; PAUSE_END. */
export const CTL_PAUSE = 0;
/** i32: the last odd number for which the engine stood still. */
export const CTL_PARKED = 4;
/** u32: bumped by every control operation; caches of decisions carry it. */
export const CTL_GENERATION = 8;
export const CTL_ACTIVE_COUNT = 12;
export const CTL_CALL_COUNT = 16;
/** u32: bumped when a queue goes to `error`, so that the control thread looks. */
export const CTL_EVENT_COUNT = 20;
/** Written by the SIGBUS guard (shared/os/sigbus.ts): {count u32, pad u32, a bit for each 2 MiB, 2049 of them}. */
export const CTL_FAULTS = 256;
export const FAULTS_BYTES = 272;
/** u64: passes over the hot queues, of them with work; frames taken from TX queues. */
export const CTL_PASSES = 40;
export const CTL_BUSY_PASSES = 48;
export const CTL_FRAMES = 56;
/** f64, ns: time spent on passes that found work (sampled), since start. */
export const CTL_BUSY_NS = 64;
/** f64, ns: monotonic time that the engine last saw, and the time it started. */
export const CTL_NOW_NS = 72;
export const CTL_START_NS = 80;
/** u64: times the worker slept; calls (interrupts) it raised; kicks without work. */
export const CTL_SLEEPS = 88;
export const CTL_CALLS = 96;
export const CTL_SPURIOUS_KICKS = 104;
/** u32: SWITCH_VEB or SWITCH_VEPA. */
export const CTL_SWITCH_MODE = 116;
/** u32: VFs that exist (pools 0 … n-1 are enabled). */
export const CTL_VF_COUNT = 120;
export const CTL_FILTER_COUNT = 124;
/** u32: queues to look at again soon: held back by their pool's rate, or by a full other side in emulated mode. */
export const CTL_RATE_BLOCKED = 128;
/** u32: promiscuous pools. */
export const CTL_PROMISC_COUNT = 132;
/** f64, ns: time asleep in epoll since start. */
export const CTL_SLEPT_NS = 136;

/** u64: the secret in the filter table's hash; it changes only while the table is empty. */
export const CTL_FILTER_SEED = 152;
/** u32: learned entries of the filter table, of all pools together. */
export const CTL_LEARNED_COUNT = 160;
/** u32: queues in HOT_LIST; how many queues are armed and not polled. */
export const CTL_HOT_COUNT = 544;
export const CTL_COLD_COUNT = 548;
/** f64, ns: how long a queue may have no work before it is armed and no longer polled, where many are polled. */
export const CTL_COOL_NS = 552;
/** f64, ns: what a unit takes on this machine, as measured lately (schedule/clock.ts). */
export const CTL_UNIT_NS = 560;
/** u32: passes' worth of credit that the next pass gives (schedule/share.ts). */
export const CTL_CREDITS = 568;
/** u32: queues that had work and whose pool's share was used up in the last pass. */
export const CTL_SHARE_BLOCKED = 572;

/** u32: queues in DEFERRED_LIST; f64, ns: when the first of their interrupts is due. */
export const CTL_DEFERRED_COUNT = 576;
export const CTL_DEFERRED_UNTIL_NS = 584;
/** u32: pools whose packet buffers hold frames, in BUFFERED_LIST. */
export const CTL_BUFFERED_COUNT = 592;
/** u32: the number of the process that takes over if this engine's dies; 0: none does. */
export const CTL_HEIR = 596;
/** u32: HELD_LIST: entries ever taken out, and ever put in. */
export const CTL_HELD_FROM = 600;
export const CTL_HELD_TO = 604;

export const PAUSE_END = -1;

export const SWITCH_VEB = 0;
export const SWITCH_VEPA = 1;

// What run() answers (bits) ------------------------------------------------------------------------------------

export const RUN_WORK = 1;
export const RUN_CALLS = 2;
export const RUN_PAUSE = 4;
export const RUN_EVENT = 8;
