/** A thread that raises descriptors with a notifier, so that a test can tell whether it is held. */
import { Notifier } from "../../shared/os/notifier.ts";

/** What to raise, and how often: so many times, and until its owner has blocked it so often. */
export interface RaiseStart {
  fds: { number: number; socket: boolean }[];
  times: number;
  blocks: number;
  /** Count both: WORD_BLOCKED, WORD_RAISED. */
  words: Int32Array<SharedArrayBuffer>;
}

export const WORD_BLOCKED = 1;
export const WORD_RAISED = 2;

if (self.name === "raise") {
  self.addEventListener("message", (event) => {
    const { fds, times, blocks, words } = (event as MessageEvent<RaiseStart>).data;
    using notifier = new Notifier();
    for (let i = 0; i < times || Atomics.load(words, WORD_BLOCKED) < blocks; i++) {
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
