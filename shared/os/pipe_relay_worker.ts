/**
 * The thread of a `PipeRelay`: waits for the eventfds that stand in for pipes, and writes those pipes. It may be held by
 * whoever owns them, at any call on a pipe, for any time.
 */
import { eventData, eventRoom, waitBlocking } from "./epoll.ts";
import { libc } from "./libc.ts";
import { NOTIFICATION, NOTIFICATION_BYTES } from "./notifier.ts";

/** What the relay hands over at the start. */
export interface RelayStart {
  epollFd: number;
  words: Int32Array<SharedArrayBuffer>;
}

/** Pipes a relay may have: more than a device has queues, twice. */
export const SLOTS = 128;
/** Words that both threads share: whether to end; pipes to be closed and closed so far; then their numbers, in turn. */
export const WORD_END = 0;
export const WORD_TO_CLOSE = 1;
export const WORD_CLOSED = 2;
export const WORD_SLOTS = 3;

/** Runs until the relay is closed. Event data is 0 for the relay itself, else a pipe's number plus one. */
function run({ epollFd, words }: RelayStart): void {
  const events = eventRoom();
  const view = new DataView(events.buffer);
  while (!ended(words)) {
    const ready = waitBlocking(epollFd, events, -1);
    // Pipes of this round are still open: they are closed below, and no round after that knows them.
    for (let i = 0; i < ready; i++) {
      const data = eventData(view, i);
      if (data > 0) libc().write(data - 1, NOTIFICATION, NOTIFICATION_BYTES);
    }
    closePipes(words);
  }
}

function ended(words: Int32Array): boolean {
  const done = Atomics.load(words, WORD_CLOSED) === Atomics.load(words, WORD_TO_CLOSE);
  return Atomics.load(words, WORD_END) === 1 && done;
}

function closePipes(words: Int32Array): void {
  for (;;) {
    const closed = Atomics.load(words, WORD_CLOSED);
    if (closed === Atomics.load(words, WORD_TO_CLOSE)) return;
    libc().close(words[WORD_SLOTS + closed % SLOTS] ?? -1);
    Atomics.store(words, WORD_CLOSED, closed + 1);
  }
}

if (typeof WorkerGlobalScope !== "undefined" && self instanceof WorkerGlobalScope && self.name === "pipes") {
  self.addEventListener("message", (event) => {
    run((event as MessageEvent<RelayStart>).data);
    (self as unknown as { postMessage(message: string): void }).postMessage("ended");
  }, { once: true });
}
