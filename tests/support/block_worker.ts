/**
 * A thread that turns an eventfd against its writers all the time: empty or full, blocking or not, at any moment. Once
 * it is full and blocking it stays so until its writer has got over it.
 */
import { libc } from "../../shared/os/libc.ts";
import { blockWriters } from "./eventfd.ts";
import { WORD_BLOCKED, WORD_RAISED } from "./raise_worker.ts";

/** Whose eventfd, and words: when to end, how often it was blocked, how often it was raised. */
export interface BlockStart {
  fd: number;
  words: Int32Array<SharedArrayBuffer>;
}

const F_SETFL = 4;
const O_NONBLOCK = 0o4000n;

self.addEventListener("message", (event) => {
  const { fd, words } = (event as MessageEvent<BlockStart>).data;
  while (Atomics.load(words, 0) === 0) {
    // Only the filling needs it non-blocking, so that this thread does not wait for itself.
    libc().fcntl(fd, F_SETFL, O_NONBLOCK);
    blockWriters(fd);
    Atomics.add(words, WORD_BLOCKED, 1);
    const raised = Atomics.load(words, WORD_RAISED);
    while (Atomics.load(words, WORD_RAISED) === raised && Atomics.load(words, 0) === 0);
  }
  (self as unknown as { postMessage(message: string): void }).postMessage("ended");
});
