/**
 * One deadline for everything that is done for an operation. It is handed on from service to service as what is left of
 * it, so that nobody waits longer for an answer than whoever has asked for it.
 */
import { AsyncLocalStorage } from "node:async_hooks";

/** Header with which a service says how many milliseconds are left. */
export const DEADLINE_HEADER = "x-deadline-ms";
/** A change of mode takes no longer than this from the PF on, whatever fails. */
export const MODE_MS_MAX = 30_000;

const storage = new AsyncLocalStorage<Deadline>();

/** When something has to have ended, by `performance.now()`. */
export interface Deadline {
  endsMs: number;
}

/** Does a step; what it asks of other services is not waited for any longer than `deadline` says. */
export function withDeadline<T>(deadline: Deadline, step: () => T): T {
  return storage.run(deadline, step);
}

/** Milliseconds that are left for what is done now: at least 1, infinitely many without a deadline. */
export function msLeft(): number {
  const deadline = storage.getStore();
  return deadline ? Math.max(1, Math.ceil(deadline.endsMs - performance.now())) : Infinity;
}

/** The milliseconds that a header leaves; `undefined` if it says nothing that makes sense. */
export function readDeadline(header: string | undefined): number | undefined {
  return header !== undefined && /^[1-9]\d{0,4}$/.test(header) ? Number(header) : undefined;
}
