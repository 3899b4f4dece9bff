/** Queues that go to `error` and queues whose driver wants an interrupt: what the worker and the control thread are told. */
import {
  CALL_LIST,
  CTL,
  CTL_CALL_COUNT,
  CTL_EVENT_COUNT,
  Q_CALL_PENDING,
  Q_CALLS,
  Q_ERROR,
  Q_ERROR_DETAIL,
  Q_STATE,
  QUEUE_ERROR,
} from "../../shared/layout/nic.ts";

/** Stops queue `q` with a reason; the control thread is told, the other queues go on. */
export function failQueue(q: usize, reason: u32, detail: u64): void {
  if (load<u32>(q, Q_STATE) == QUEUE_ERROR) return;
  store<u32>(q, reason, Q_ERROR);
  store<u64>(q, detail, Q_ERROR_DETAIL);
  atomic.store<u32>(q, QUEUE_ERROR, Q_STATE);
  store<u32>(CTL, load<u32>(CTL, CTL_EVENT_COUNT) + 1, CTL_EVENT_COUNT);
}

/** Has the worker write the call eventfd of `q`, at most once before it comes to it. */
export function raiseCall(q: usize): void {
  store<u64>(q, load<u64>(q, Q_CALLS) + 1, Q_CALLS);
  if (load<u32>(q, Q_CALL_PENDING)) return;
  store<u32>(q, 1, Q_CALL_PENDING);
  const count = load<u32>(CTL, CTL_CALL_COUNT);
  store<u32>(CALL_LIST + count * 4, <u32> q);
  store<u32>(CTL, count + 1, CTL_CALL_COUNT);
}
