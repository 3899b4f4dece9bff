/**
 * Handing on what the pools' packet buffers hold, as far as their drivers have room: some of each in a pass, out of what
 * the pool may spend, as what it sends is. So a driver whose buffers take long to walk pays for the walks, and one that
 * has no room costs a look at its ring: it is not tried again before it has offered more.
 */
import {
  B_RECEIVE_UNITS,
  B_UNITS,
  BUFFERED_LIST,
  CTL_BUFFERED_COUNT,
  CTL_GENERATION,
  CTL_UNIT_NS,
  P_BLOCKED_GENERATION,
  P_BLOCKED_MARK,
  P_BLOCKED_QUEUE,
  P_BUFFER,
  P_BUFFERED,
  P_RECEIVE_NS,
  Q_RELEASED,
  Q_SEGMENTS_DONE,
  Q_STATE,
  QUEUE_RUNNING,
} from "../../shared/layout/nic.ts";
import { batch, context, control, poolAt } from "./context.ts";
import { blockedAt, handOn } from "./hold.ts";
import { endOfOffer, offersMore } from "./queue/format.ts";
import { isBufferEmpty } from "./queue/packet_buffer.ts";
import { charge, releaseShareOf } from "./schedule/share.ts";

/** Frames of one packet buffer that are handed on in a pass. */
const RELEASE_FRAMES: u32 = 16;

/**
 * Hands on a part of what each packet buffer holds, in pass number `pass`. Called between two visits, since it makes records
 * of its own. Answers the units that were spent where something could be handed on.
 */
export function releaseBuffers(pass: u32): u32 {
  const c = control();
  let units: u32 = 0;
  for (let i: u32 = 0; i < load<u32>(c, CTL_BUFFERED_COUNT);) {
    const at = context + BUFFERED_LIST + i * 4;
    const pool = load<u32>(at);
    const p = poolAt(pool);
    const buffer: usize = load<u32>(p, P_BUFFER);
    if (buffer != 0) {
      if (!isBufferEmpty(buffer) && !isBlocked(p)) units += releaseSome(p, pool, buffer, pass);
      if (!isBufferEmpty(buffer)) {
        i++;
        continue;
      }
    }
    const count = load<u32>(c, CTL_BUFFERED_COUNT) - 1;
    store<u32>(at, load<u32>(context + BUFFERED_LIST + count * 4));
    store<u32>(c, count, CTL_BUFFERED_COUNT);
    store<u32>(p, 0, P_BUFFERED);
  }
  return units;
}

/** Hands on some of what `buffer` holds, if its pool `p` may spend anything; answers what it cost if anything went on. */
function releaseSome(p: usize, pool: u32, buffer: usize, pass: u32): u32 {
  const share = releaseShareOf(p, pass);
  if (share == 0) return 0;
  const released = load<u32>(buffer, Q_RELEASED);
  const segments = load<u16>(buffer, Q_SEGMENTS_DONE);
  let units = handOnPaid(p, pool, buffer, share);
  const rx = blockedAt;
  if (rx != 0) {
    // What its driver offers between the attempt and this look at its offer would be waited for in vain: it may have no
    // more. So what is offered by now is tried, and only what comes behind it is waited for.
    const mark = endOfOffer(rx);
    units += handOnPaid(p, pool, buffer, share);
    if (blockedAt == rx) block(p, rx, mark);
  }
  return load<u32>(buffer, Q_RELEASED) != released || load<u16>(buffer, Q_SEGMENTS_DONE) != segments ? units : 0;
}

/** Hands on some of what `buffer` holds, for `share` units, at the cost of its pool `p`; answers what it cost. */
function handOnPaid(p: usize, pool: u32, buffer: usize, share: u32): u32 {
  handOn(buffer, pool, RELEASE_FRAMES, share, false);
  const units = load<u32>(batch(), B_UNITS);
  charge(p, units);
  const received = <f64> load<u32>(batch(), B_RECEIVE_UNITS) * load<f64>(control(), CTL_UNIT_NS);
  store<f64>(p, load<f64>(p, P_RECEIVE_NS) + received, P_RECEIVE_NS);
  return units;
}

/**
 * Notes that receive queue `rx` of pool `p` has no room for the first frame that its packet buffer holds, with all that its
 * driver has offered up to `mark`.
 */
function block(p: usize, rx: usize, mark: u32): void {
  store<u32>(p, <u32> rx, P_BLOCKED_QUEUE);
  store<u32>(p, mark, P_BLOCKED_MARK);
  store<u32>(p, load<u32>(control(), CTL_GENERATION), P_BLOCKED_GENERATION);
}

/** Whether the queue that had no room has none still: nothing has changed, and its driver has offered nothing since. */
function isBlocked(p: usize): bool {
  const rx: usize = load<u32>(p, P_BLOCKED_QUEUE);
  if (rx == 0) return false;
  const isAsBefore = load<u32>(p, P_BLOCKED_GENERATION) == load<u32>(control(), CTL_GENERATION);
  if (isAsBefore && load<u32>(rx, Q_STATE) == QUEUE_RUNNING && !offersMore(rx, load<u32>(p, P_BLOCKED_MARK))) return true;
  store<u32>(p, 0, P_BLOCKED_QUEUE);
  return false;
}
