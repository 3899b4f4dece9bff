/** Queues that go to `error`, which the control thread is told, and queues with something to publish. */
import {
  B_DIRTY,
  CTL_EVENT_COUNT,
  DIRTY_LIST,
  Q_DIRTY,
  Q_ERROR,
  Q_ERROR_DETAIL,
  Q_STATE,
  QUEUE_ERROR,
} from "../../../shared/layout/nic.ts";
import { batch, context, control } from "../context.ts";

/** Stops queue `q` with a reason; the control thread is told, the other queues go on. */
export function failQueue(q: usize, reason: u32, detail: u64): void {
  if (load<u32>(q, Q_STATE) == QUEUE_ERROR) return;
  store<u32>(q, reason, Q_ERROR);
  store<u64>(q, detail, Q_ERROR_DETAIL);
  atomic.store<u32>(q, QUEUE_ERROR, Q_STATE);
  store<u32>(control(), load<u32>(control(), CTL_EVENT_COUNT) + 1, CTL_EVENT_COUNT);
}

/** Notes that `frames` frames that were put into `q`, or given back to it, wait to be published: at least one. */
@inline
export function markDirty(q: usize, frames: u32): void {
  const before = load<u32>(q, Q_DIRTY);
  store<u32>(q, before + frames, Q_DIRTY);
  if (before != 0) return;
  const count = load<u32>(batch(), B_DIRTY);
  store<u32>(context + DIRTY_LIST + count * 4, <u32> q);
  store<u32>(batch(), count + 1, B_DIRTY);
}
