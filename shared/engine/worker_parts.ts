/** What an engine's thread needs whatever it runs, so that it can be made before the thread is told what to run. */
import { wakePunctually } from "../os/epoll.ts";
import { monotonicNs } from "../os/fd.ts";
import { Notifier } from "../os/notifier.ts";
import { ThreadTimes } from "../os/thread_times.ts";

/** So often the clock is read before it is measured: by then V8 has compiled the call. */
const CLOCK_CALLS_MIN = 5000;

/** Parts of a worker. */
export interface WorkerParts {
  notifier: Notifier;
  times: ThreadTimes;
}

/** Makes them. Throws, with what to do, if this process may not have them. */
export function makeParts(): WorkerParts {
  const parts = { notifier: new Notifier(), times: new ThreadTimes() };
  wakePunctually();
  for (let i = 0; i < CLOCK_CALLS_MIN; i++) monotonicNs();
  return parts;
}

/** As `makeParts`, while nobody hears what a thread throws: `undefined` if it cannot be, which is said at the next try. */
export function madeEarly(): WorkerParts | undefined {
  try {
    return makeParts();
  } catch {
    return undefined;
  }
}
