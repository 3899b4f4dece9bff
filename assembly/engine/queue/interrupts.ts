/** Queues that go to `error` and queues whose driver wants an interrupt: what the worker and the control thread are told. */
import {
  B_DIRTY,
  CALL_LIST,
  CTL_CALL_COUNT,
  CTL_EVENT_COUNT,
  DIRTY_LIST,
  Q_CALL_PENDING,
  Q_CALLS,
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

/** Has the worker interrupt the driver of `q`, at most once before it comes to it. */
export function raiseCall(q: usize): void {
  store<u64>(q, load<u64>(q, Q_CALLS) + 1, Q_CALLS);
  if (load<u32>(q, Q_CALL_PENDING)) return;
  store<u32>(q, 1, Q_CALL_PENDING);
  const count = load<u32>(control(), CTL_CALL_COUNT);
  store<u32>(context + CALL_LIST + count * 4, <u32> q);
  store<u32>(control(), count + 1, CTL_CALL_COUNT);
}

/** Notes that what was put into `q`, or given back to it, waits to be published. */
@inline
export function markDirty(q: usize): void {
  if (load<u32>(q, Q_DIRTY)) return;
  store<u32>(q, 1, Q_DIRTY);
  const count = load<u32>(batch(), B_DIRTY);
  store<u32>(context + DIRTY_LIST + count * 4, <u32> q);
  store<u32>(batch(), count + 1, B_DIRTY);
}
