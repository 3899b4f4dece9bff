/**
 * Groups: the deliveries of a batch by receive queue, in the order in which they were sent. Each receive queue is then
 * visited once: its frames put in, its index published, its driver interrupted at most once.
 */
import {
  B_DELIVERIES,
  B_GROUPS,
  DELIVERIES,
  DELIVERY_COUNT,
  DELIVERY_STRIDE,
  GROUPS,
  GROUP_COUNT,
  GROUP_STRIDE,
  G_FIRST,
  G_LAST,
  G_QUEUE,
  N_COUNT,
  N_HEAD,
  N_NEXT,
  N_RECORD,
  P_MIRROR,
  Q_GROUP,
  Q_POOL,
} from "../../../shared/layout/nic.ts";
import { batch, context, poolAt } from "../context.ts";
import { spend, UNITS_GROUP } from "../schedule/cost.ts";
import { mirrorReceived } from "./mirror.ts";
import { putInto } from "./put.ts";

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

/** The pool whose batch is being sent. */
let sender: u32 = 0;

/** Begins the groups of a batch that `pool` sends. */
@inline
export function beginGroups(pool: u32): void {
  sender = pool;
  store<u64>(batch(), 0, B_GROUPS);
}

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
    const first: usize = load<u32>(group, G_FIRST);
    store<u32>(rx, 0, Q_GROUP);
    const mirror = load<u32>(poolAt(load<u32>(rx, Q_POOL)), P_MIRROR);
    if (mirror != 0) mirrorReceived(mirror, first, sender);
    putInto(rx, first);
  }
  store<u64>(batch(), 0, B_GROUPS);
}
