/** The lists of queues that send, as the control thread writes them while the worker stands still. */
import {
  ACTIVE_LIST,
  CTL,
  CTL_ACTIVE_COUNT,
  CTL_COLD_COUNT,
  CTL_HOT_COUNT,
  HEAT_COLD,
  HEAT_HOT,
  HEAT_NONE,
  HOT_LIST,
  Q_HEAT,
} from "../layout/nic.ts";

/** Writes the lists of queues that send, and of those that are polled. */
export function writeActive(view: DataView, queues: readonly number[]): void {
  const before = Array.from(
    { length: view.getUint32(CTL + CTL_ACTIVE_COUNT, true) },
    (_, i) => view.getUint32(ACTIVE_LIST + i * 4, true),
  );
  const now = new Set(queues);
  for (const queue of before) if (!now.has(queue)) view.setUint32(queue + Q_HEAT, HEAT_NONE, true);
  let hot = 0;
  queues.forEach((queue, i) => {
    view.setUint32(ACTIVE_LIST + i * 4, queue, true);
    if (view.getUint32(queue + Q_HEAT, true) === HEAT_COLD) return;
    view.setUint32(queue + Q_HEAT, HEAT_HOT, true);
    view.setUint32(HOT_LIST + 4 * hot++, queue, true);
  });
  view.setUint32(CTL + CTL_ACTIVE_COUNT, queues.length, true);
  view.setUint32(CTL + CTL_HOT_COUNT, hot, true);
  view.setUint32(CTL + CTL_COLD_COUNT, queues.length - hot, true);
}
