/**
 * Groups: the deliveries of a batch by receive queue, in the order in which they were sent. Each receive queue is then
 * visited once: its frames put in, its index published, its driver interrupted at most once.
 */
import {
  B_DELIVERED,
  B_DELIVERIES,
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
import { bookRefused, bookResults, clearResults, note } from "../deliver/results.ts";
import { scatter } from "../queue/format.ts";
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
    clearResults();
    scatter(rx, load<u32>(group, G_FIRST), false);
    if (load<u32>(batch(), B_DELIVERED) != 0) markDirty(rx);
    const p = poolAt(load<u32>(rx, Q_POOL));
    // What a hold takes is booked when it is handed on.
    if ((load<u32>(rx, Q_FLAGS) & QUEUE_F_HOLD) != 0) bookRefused(p);
    else bookResults(p);
    noteCost(rx);
  }
  store<u64>(batch(), 0, B_GROUPS);
}

/** Notes against `rx`'s pool what its buffers cost beside the usual. */
function noteCost(rx: usize): void {
  const units = load<u32>(batch(), B_RECEIVE_UNITS);
  if (units == 0) return;
  note(B_RECEIVE_SPENT, units);
  const p = poolAt(load<u32>(rx, Q_POOL));
  store<f64>(p, load<f64>(p, P_RECEIVE_NS) + <f64> units * load<f64>(control(), CTL_UNIT_NS), P_RECEIVE_NS);
}
