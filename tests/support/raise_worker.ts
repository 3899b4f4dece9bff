/** A thread that raises descriptors with a notifier, so that a test can tell whether it is held. */
import { Notifier } from "../../shared/os/notifier.ts";

/** What to raise, and how often. */
export interface RaiseStart {
  fds: { number: number; socket: boolean }[];
  times: number;
  /** Counts the times, for whoever watches. */
  words: Int32Array<SharedArrayBuffer>;
}

/** Which word counts. */
export const WORD_RAISED = 2;

if (self.name === "raise") {
  self.addEventListener("message", (event) => {
    const { fds, times, words } = (event as MessageEvent<RaiseStart>).data;
    using notifier = new Notifier();
    for (let i = 0; i < times; i++) {
      for (const { number, socket } of fds) {
        if (socket) notifier.addSocket(number);
        else notifier.addEventFd(number);
      }
      notifier.flush();
      Atomics.add(words, WORD_RAISED, 1);
    }
    (self as unknown as { postMessage(message: string): void }).postMessage("raised");
  });
}
