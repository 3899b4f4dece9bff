/**
 * Groups: the deliveries of a batch by receive queue, in the order in which they were sent. Each receive queue is then
 * visited once: its frames put in, its index published, its driver interrupted at most once.
 */
import {
  B_DELIVERED,
  B_DELIVERIES,
  B_NO_BUFFER,
  B_WAITS_FOR,
  C_RX_TOO_DEAR,
  N_COUNT,
  P_BUFFER,
  P_BUFFER_QUEUE,
  P_RX_COUNT,
  RECORD_STRIDE,
  B_GROUPS,
  B_RECEIVE_SPENT,
  B_RECEIVE_UNITS,
  CTL_UNIT_NS,
  DELIVERIES,
  DELIVERY_COUNT,
  DELIVERY_STRIDE,
  G_FIRST,
  G_LAST,
  G_QUEUE,
  GROUP_COUNT,
  GROUP_STRIDE,
  GROUPS,
  N_HEAD,
  N_NEXT,
  N_RECORD,
  P_RECEIVE_NS,
  Q_FLAGS,
  Q_GROUP,
  Q_POOL,
  QUEUE_F_HOLD,
} from "../../../shared/layout/nic.ts";
import { batch, context, control, poolAt } from "../context.ts";
import { scatterSeen } from "../capture/scatter.ts";
import { bookRefused, bookResults, note } from "../deliver/results.ts";
import { isBufferEmpty, noteBuffered, noteOverrun } from "../queue/packet_buffer.ts";
import { markDirty } from "../queue/interrupts.ts";
import { spend, UNITS_GROUP } from "../schedule/cost.ts";

/**
 * Adds a delivery of `record` to the group of receive queue `rx`. It stands for one record; `forward` counts in those that
 * follow and are alike. `head`:
 * HEAD_*, and the tag that is put in << 32.
 */
@inline
export function append(rx: usize, delivery: usize, record: usize, head: u64): void {
  store<u64>(delivery, <u32> record, N_RECORD);
  store<u64>(delivery, head | ONE_RECORD, N_HEAD);
  const group: usize = load<u32>(rx, Q_GROUP);
  if (group == 0) {
    open(rx, delivery);
    return;
  }
  store<u32>(load<u32>(group, G_LAST), <u32> delivery, N_NEXT);
  store<u32>(group, <u32> delivery, G_LAST);
}

/** N_COUNT of a delivery of one record, beside its N_HEAD. */
const ONE_RECORD: u64 = 1 << 16;

function open(rx: usize, delivery: usize): void {
  if (load<u32>(batch(), B_GROUPS) == GROUP_COUNT) flush();
  const count = load<u32>(batch(), B_GROUPS);
  const group = context + GROUPS + count * GROUP_STRIDE;
  store<u32>(batch(), count + 1, B_GROUPS);
  store<u32>(group, <u32> rx, G_QUEUE);
  store<u32>(group, <u32> delivery, G_FIRST);
  store<u32>(group, <u32> delivery, G_LAST);
  store<u32>(rx, <u32> group, Q_GROUP);
  spend(UNITS_GROUP);
}

/** A place for one more delivery of a frame that has several. What is in the groups goes out if there is none left. */
export function nextDelivery(): usize {
  if (load<u32>(batch(), B_DELIVERIES) == DELIVERY_COUNT) flush();
  const n = load<u32>(batch(), B_DELIVERIES);
  store<u32>(batch(), n + 1, B_DELIVERIES);
  return context + DELIVERIES + n * DELIVERY_STRIDE;
}

/** Puts all groups' frames into their queues, and books them on the receiving pools. */
export function flush(): void {
  const count = load<u32>(batch(), B_GROUPS);
  for (let i: u32 = 0; i < count; i++) {
    const group = context + GROUPS + i * GROUP_STRIDE;
    const rx: usize = load<u32>(group, G_QUEUE);
    store<u32>(rx, 0, Q_GROUP);
    store<u32>(batch(), 0, B_RECEIVE_UNITS);
    putGroup(rx, load<u32>(group, G_FIRST));
    noteCost(rx);
  }
  store<u64>(batch(), 0, B_GROUPS);
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
