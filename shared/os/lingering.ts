/**
 * Closing what somebody else sent. close(2) can wait: for a FUSE server's answer, for a TCP peer (SO_LINGER), for a
 * terminal's output, for a pipe's mutex. What may wait is closed on another thread. Those threads are few and shared with
 * others' work, so few closings go on at a time, and the rest wait their turn. Honest front-ends send nothing of these
 * kinds but pipes that are taken, which their own thread closes (pipe_relay.ts).
 */
import { disarmLinger, isMemoryFile, kindOf } from "./kinds.ts";
import { libc } from "./libc.ts";

/** Threads that may be held at a time. */
const CLOSERS = 2;

const waiting: { fd: number; done: () => void }[] = [];
let closers = 0;

async function closeNext(): Promise<void> {
  if (closers === CLOSERS) return;
  closers++;
  for (let next = waiting.shift(); next; next = waiting.shift()) {
    await libc().close_async(next.fd);
    next.done();
  }
  closers--;
}

/**
 * Closes a descriptor that somebody sent; a promise of its end if it may take long. `empty` takes out and closes what
 * lies in a Unix socket's queue, which would be closed with it; false if it cannot.
 */
export function closeForeign(fd: number, empty: (fd: number) => boolean): Promise<void> | undefined {
  const kind = kindOf(fd);
  if (kind === "eventfd" || isMemoryFile(fd) || (kind === "socket" && empty(fd))) {
    libc().close(fd);
    return undefined;
  }
  disarmLinger(fd);
  return new Promise((done) => {
    waiting.push({ fd, done });
    void closeNext();
  });
}
