/**
 * Deliveries into a receive queue: its frames put in, its index published, its driver interrupted at most once. What it
 * has no buffers for waits in its pool's packet buffer, or is dropped and counted.
 */
import {
  B_DELIVERED,
  B_NO_BUFFER,
  B_RECEIVE_SPENT,
  B_RECEIVE_UNITS,
  B_WAITS_FOR,
  CTL_UNIT_NS,
  C_RX_TOO_DEAR,
  N_COUNT,
  N_NEXT,
  N_RECORD,
  P_BUFFER,
  P_BUFFER_QUEUE,
  P_RECEIVE_NS,
  P_RX_COUNT,
  QUEUE_F_HOLD,
  Q_FLAGS,
  Q_POOL,
  RECORD_STRIDE,
} from "../../../shared/layout/nic.ts";
import { batch, control, poolAt } from "../context.ts";
import { scatterSeen } from "../capture/scatter.ts";
import { bookRefused, bookResults, note } from "../deliver/results.ts";
import { isBufferEmpty, noteBuffered, noteOverrun } from "../queue/packet_buffer.ts";
import { markDirty } from "../queue/interrupts.ts";

/** Puts deliveries from `first` on into receive queue `rx`, and books them on its pool, with what its buffers cost. */
export function putInto(rx: usize, first: usize): void {
  store<u32>(batch(), 0, B_RECEIVE_UNITS);
  putGroup(rx, first);
  noteCost(rx);
}

/** Puts a group's deliveries from `first` on into receive queue `rx`; what it has no buffers for into its pool's packet buffer. */
function putGroup(rx: usize, first: usize): void {
  const pool = load<u32>(rx, Q_POOL);
  const p = poolAt(pool);
  const buffer: usize = load<u32>(p, P_BUFFER);
  if (buffer == 0) return putOrDrop(rx, p, first);
  let rest = first;
  if (!isBufferEmpty(buffer)) {
    // One queue without room does not hold up those beside it.
    if (load<u32>(p, P_RX_COUNT) > 1 && load<u32>(p, P_BUFFER_QUEUE) != <u32> rx) return putOrDrop(rx, p, first);
  } else {
    if ((load<u32>(rx, Q_FLAGS) & QUEUE_F_HOLD) != 0) return putOrDrop(rx, p, first);
    rest = behind(first, scatterSeen(pool, rx, first, true, true));
    if (load<u32>(batch(), B_DELIVERED) != 0) markDirty(rx, load<u32>(batch(), B_DELIVERED));
    bookResults(p);
    if (rest == 0) return;
    if (load<u32>(batch(), B_WAITS_FOR) == C_RX_TOO_DEAR) return putOrDrop(rx, p, rest);
  }
  store<u32>(p, <u32> rx, P_BUFFER_QUEUE);
  // What it takes is booked when it is handed on.
  scatterSeen(pool, buffer, rest, false, false);
  // Its index is published too: that is what says which frames of a batch are in it for good.
  if (load<u32>(batch(), B_DELIVERED) != 0) markDirty(buffer, load<u32>(batch(), B_DELIVERED));
  bookRefused(p);
  noteBuffered(p, pool);
}

/** Puts a group's deliveries from `first` on into `rx`, and drops those that do not go in. */
function putOrDrop(rx: usize, p: usize, first: usize): void {
  const isHold = (load<u32>(rx, Q_FLAGS) & QUEUE_F_HOLD) != 0;
  scatterSeen(load<u32>(rx, Q_POOL), rx, first, false, !isHold);
  if (load<u32>(batch(), B_DELIVERED) != 0) markDirty(rx, load<u32>(batch(), B_DELIVERED));
  // What a hold takes is booked when it is handed on.
  if (isHold) return bookRefused(p);
  bookResults(p);
  if (load<u32>(batch(), B_NO_BUFFER) != 0 && load<u32>(p, P_BUFFER) == 0) noteOverrun(p);
}

/** The deliveries behind the first `done` records of those from `first` on; 0 if there are none. */
function behind(first: usize, done: u32): usize {
  let left = done;
  for (let at = first; at != 0; at = load<u32>(at, N_NEXT)) {
    const count: u32 = load<u16>(at, N_COUNT);
    if (left < count) {
      store<u32>(at, load<u32>(at, N_RECORD) + left * RECORD_STRIDE, N_RECORD);
      store<u16>(at, <u16> (count - left), N_COUNT);
      return at;
    }
    left -= count;
  }
  return 0;
}

/** Notes against `rx`'s pool what its buffers cost beside the usual. */
function noteCost(rx: usize): void {
  const units = load<u32>(batch(), B_RECEIVE_UNITS);
  if (units == 0) return;
  note(B_RECEIVE_SPENT, units);
  const p = poolAt(load<u32>(rx, Q_POOL));
  store<f64>(p, load<f64>(p, P_RECEIVE_NS) + <f64> units * load<f64>(control(), CTL_UNIT_NS), P_RECEIVE_NS);
}
