/**
 * When a driver that wants an interrupt gets it: at once where little happens; a little later where much does, so that
 * one interrupt stands for many frames. NICs call it moderation (82599 datasheet §7.3.2.1), `ethtool -C` coalescing. A
 * driver that polls suppresses its interrupts and never comes here.
 *
 * The policy of the VF has, for each direction, `usecs` and `frames`, and says whether it is adaptive. An interrupt is
 * raised when `frames` frames have been published since the first that it stands for, or a quarter of the ring's
 * descriptors (its driver must not run out of them), or when a time has passed since that first one. This time is
 * `usecs`, if the policy is not adaptive. If it is:
 *
 * 1. None, if the queue was quiet before: nothing was published for QUIET_NS. So below 50,000 frames/s nobody waits.
 * 2. Else `usecs` × (1 - gap / QUIET_NS), the gap being the time between two frames as it was lately: half of `usecs`
 *    at 100,000 frames/s, 95 % of it at 1,000,000. It grows with the rate, as the levels of Linux' DIM and ixgbe's ITR do.
 * 3. None, if waiting is for nothing. A driver that answers each frame before the next one comes would have each delayed.
 *    A wait that brings no frame has the next 16 interrupts raised at once; a second one in a row 32, and so on to 512.
 *
 * The clock is read when an interrupt is wanted, never for a frame. What is deferred is raised before the worker stands
 * still, so queues, descriptors and policy change while nothing is; before it sleeps, if the policy is adaptive; and else
 * it sleeps no longer than until the first is due (queue/deferred.ts).
 */
import {
  C_RX_INTERRUPTS,
  C_RX_INTERRUPTS_SAVED,
  C_TX_INTERRUPTS,
  C_TX_INTERRUPTS_SAVED,
  CALL_LIST,
  COALESCE_ADAPTIVE,
  COALESCE_FLAGS,
  COALESCE_FRAMES,
  COALESCE_STRIDE,
  CTL_CALL_COUNT,
  CTL_DEFERRED_COUNT,
  CTL_DEFERRED_UNTIL_NS,
  CTL_NOW_NS,
  DEFERRED_LIST,
  P_COALESCE,
  Q_CALL_FD,
  Q_CALL_PENDING,
  Q_CALLED_FRAMES,
  Q_CALLED_NS,
  Q_CALLS,
  Q_CALLS_SAVED,
  Q_DEFERRED_AT,
  Q_DEFERRED_FIRST,
  Q_DEFERRED_FRAMES,
  Q_DEFERRED_UNTIL_NS,
  Q_DIRTY,
  Q_FLAGS,
  Q_FRAMES,
  Q_GAP_NS,
  Q_INDEX,
  Q_POOL,
  Q_PROMPT,
  Q_PROMPT_LAST,
  Q_PUBLISHED_NS,
  Q_SIZE,
  QUEUE_F_UNDEFERRED,
} from "../../../shared/layout/nic.ts";
import { context, control, poolAt } from "../context.ts";
import { count } from "../deliver/results.ts";
import { nowNs } from "../schedule/clock.ts";

/** A queue with nothing to publish for so long was quiet. */
const QUIET_NS: f64 = 20_000;
/** How much of the measured gap the newest sample is. */
const GAP_NEWEST: f64 = 0.25;
const PROMPT_LEAST: u32 = 16;
const PROMPT_MOST: u32 = 512;

@inline
function isTransmit(q: usize): bool {
  return (load<u32>(q, Q_INDEX) & 1) != 0;
}

/** The policy for `q`. */
@inline
function policyOf(q: usize): usize {
  return poolAt(load<u32>(q, Q_POOL)) + P_COALESCE + (isTransmit(q) ? COALESCE_STRIDE : 0);
}

/** Whether the interrupts of `q` are coalesced by what happens. */
export function isAdaptive(q: usize): bool {
  return (load<u32>(policyOf(q), COALESCE_FLAGS) & COALESCE_ADAPTIVE) != 0;
}

/** Has the worker raise the call descriptor of `q`, at most once before it comes to it. */
export function raiseCall(q: usize): void {
  if (load<u32>(q, Q_CALL_PENDING)) return;
  store<u32>(q, 1, Q_CALL_PENDING);
  const n = load<u32>(control(), CTL_CALL_COUNT);
  store<u32>(context + CALL_LIST + n * 4, <u32> q);
  store<u32>(control(), n + 1, CTL_CALL_COUNT);
}

/**
 * The driver of `q` wants an interrupt for what has just been published. `given`: descriptors that it has got since it was
 * last interrupted, or last wanted none. False if the interrupt is deferred: the driver is asked again.
 */
export function interrupt(q: usize, given: u32): bool {
  if (load<i32>(q, Q_CALL_FD) < 0) return true;
  if (load<u32>(q, Q_CALL_PENDING) != 0) return save(q, true);
  const isDeferred = load<f64>(q, Q_DEFERRED_UNTIL_NS) != 0;
  const policy = policyOf(q);
  const bound = load<f64>(policy);
  if (bound == 0 || (load<u32>(q, Q_FLAGS) & QUEUE_F_UNDEFERRED) != 0) {
    raise(q, load<f64>(control(), CTL_NOW_NS));
    return true;
  }
  const newest = load<u32>(q, Q_DIRTY);
  const before = isDeferred ? load<u32>(q, Q_DEFERRED_FRAMES) : <u32> load<u64>(q, Q_FRAMES) - newest;
  const enough = <u32> load<u64>(q, Q_FRAMES) - before >= load<u32>(policy, COALESCE_FRAMES) ||
    given >= load<u32>(q, Q_SIZE) >> 2;
  if (isDeferred && !enough) return save(q, false);
  const now = nowNs();
  store<f64>(control(), now, CTL_NOW_NS);
  if (isDeferred) {
    // Waiting has brought frames, and this interrupt stands for the one that waited too.
    store<u16>(q, 0, Q_PROMPT_LAST);
    save(q, true);
  } else {
    noteGap(q, now);
    const wait = enough ? 0 : waitOf(q, policy, bound, now);
    if (wait > 0) {
      defer(q, now + wait, newest);
      return false;
    }
  }
  raise(q, now);
  return true;
}

/** Counts an interrupt that another one stands for; answers `told`. */
function save(q: usize, told: bool): bool {
  store<u64>(q, load<u64>(q, Q_CALLS_SAVED) + 1, Q_CALLS_SAVED);
  count(poolAt(load<u32>(q, Q_POOL)), isTransmit(q) ? C_TX_INTERRUPTS_SAVED : C_RX_INTERRUPTS_SAVED, 1);
  return told;
}

/** Takes a sample of the time between two frames, QUIET_NS at most: since the last interrupt, or the last frame. */
function noteGap(q: usize, now: f64): void {
  const frames = load<u64>(q, Q_FRAMES) - load<u64>(q, Q_CALLED_FRAMES);
  const isQuiet = now - load<f64>(q, Q_PUBLISHED_NS) >= QUIET_NS;
  const sample = isQuiet ? QUIET_NS : min(QUIET_NS, (now - load<f64>(q, Q_CALLED_NS)) / <f64> max(frames, 1));
  const gap = <f64> load<f32>(q, Q_GAP_NS);
  store<f32>(q, <f32> (gap == 0 ? sample : gap + (sample - gap) * GAP_NEWEST), Q_GAP_NS);
}

/** How long the interrupt that is wanted at `now` may wait. */
function waitOf(q: usize, policy: usize, bound: f64, now: f64): f64 {
  if ((load<u32>(policy, COALESCE_FLAGS) & COALESCE_ADAPTIVE) == 0) return bound;
  if (now - load<f64>(q, Q_PUBLISHED_NS) >= QUIET_NS) return 0;
  const prompt = <u32> load<u16>(q, Q_PROMPT);
  if (prompt == 0) return bound * (1 - <f64> load<f32>(q, Q_GAP_NS) / QUIET_NS);
  store<u16>(q, <u16> (prompt - 1), Q_PROMPT);
  return 0;
}

/** Defers the interrupt of `q`, which stands for `first` frames as yet. */
function defer(q: usize, until: f64, first: u32): void {
  const c = control();
  const n = load<u32>(c, CTL_DEFERRED_COUNT);
  store<u32>(context + DEFERRED_LIST + n * 4, <u32> q);
  store<u32>(c, n + 1, CTL_DEFERRED_COUNT);
  if (n == 0 || until < load<f64>(c, CTL_DEFERRED_UNTIL_NS)) store<f64>(c, until, CTL_DEFERRED_UNTIL_NS);
  store<u32>(q, n, Q_DEFERRED_AT);
  store<f64>(q, until, Q_DEFERRED_UNTIL_NS);
  store<u32>(q, <u32> load<u64>(q, Q_FRAMES) - first, Q_DEFERRED_FRAMES);
  store<u32>(q, first, Q_DEFERRED_FIRST);
}

/** Takes `q` off the list of those whose interrupt is deferred, if it is on it. */
export function forgetDeferral(q: usize): void {
  if (load<f64>(q, Q_DEFERRED_UNTIL_NS) == 0) return;
  store<f64>(q, 0, Q_DEFERRED_UNTIL_NS);
  const last = load<u32>(control(), CTL_DEFERRED_COUNT) - 1;
  const at = load<u32>(q, Q_DEFERRED_AT);
  const moved = load<u32>(context + DEFERRED_LIST + last * 4);
  store<u32>(context + DEFERRED_LIST + at * 4, moved);
  store<u32>(moved, at, Q_DEFERRED_AT);
  store<u32>(control(), last, CTL_DEFERRED_COUNT);
}

/** Notes whether the wait of `q`, whose time is over, has brought a frame. */
export function noteWait(q: usize): void {
  const frames = <u32> load<u64>(q, Q_FRAMES) - load<u32>(q, Q_DEFERRED_FRAMES);
  const last = <u32> load<u16>(q, Q_PROMPT_LAST);
  const prompt = frames > load<u32>(q, Q_DEFERRED_FIRST) ? 0 : min(max(last * 2, PROMPT_LEAST), PROMPT_MOST);
  store<u16>(q, <u16> (prompt), Q_PROMPT);
  store<u16>(q, <u16> (prompt), Q_PROMPT_LAST);
}

/** Raises the interrupt of `q`, deferred or not. */
export function raise(q: usize, now: f64): void {
  forgetDeferral(q);
  store<f64>(q, now, Q_CALLED_NS);
  store<u64>(q, load<u64>(q, Q_FRAMES), Q_CALLED_FRAMES);
  store<u64>(q, load<u64>(q, Q_CALLS) + 1, Q_CALLS);
  raiseCall(q);
  // The interrupts of an engine are not its guest's, which are counted there.
  if ((load<u32>(q, Q_FLAGS) & QUEUE_F_UNDEFERRED) != 0) return;
  count(poolAt(load<u32>(q, Q_POOL)), isTransmit(q) ? C_TX_INTERRUPTS : C_RX_INTERRUPTS, 1);
}
