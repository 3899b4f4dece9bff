/** Before the worker sleeps and after: every polled queue's driver is asked for kicks, or told that there is no need. */
import { ACTIVE_LIST, CTL, CTL_ACTIVE_COUNT, Q_STATE, QUEUE_RUNNING } from "../../shared/layout/nic.ts";
import { arm as armQueue, disarm as disarmQueue, pending } from "./ring.ts";

/** Asks every driver for kicks before the worker sleeps; answers how many queues have work after all. */
export function arm(): u32 {
  const active = load<u32>(CTL, CTL_ACTIVE_COUNT);
  let work: u32 = 0;
  for (let i: u32 = 0; i < active; i++) {
    const q: usize = load<u32>(ACTIVE_LIST + i * 4);
    if (load<u32>(q, Q_STATE) == QUEUE_RUNNING && armQueue(q)) work++;
  }
  return work;
}

/** Tells every driver that it is polled again. */
export function disarm(): void {
  const active = load<u32>(CTL, CTL_ACTIVE_COUNT);
  for (let i: u32 = 0; i < active; i++) {
    const q: usize = load<u32>(ACTIVE_LIST + i * 4);
    if (load<u32>(q, Q_STATE) == QUEUE_RUNNING) disarmQueue(q);
  }
}

/** Whether the driver of `q` has buffers waiting. */
export function hasWork(q: usize): bool {
  return load<u32>(q, Q_STATE) == QUEUE_RUNNING && pending(q) != 0;
}
