/**
 * Pipes that somebody else owns, written by a thread that nobody else waits for.
 *
 * Whoever has an end of a pipe can hold everybody who reads, writes or even closes it, and no flag helps: all of them
 * take the pipe's mutex, and a read into a page that never comes keeps it. So a guest that sends pipes gets a thread of
 * its own. The rest of the service has an eventfd in place of each pipe; the thread writes the pipe when that eventfd is
 * raised, and closes it in the end. A guest that holds its pipes holds its own interrupts, and nothing else.
 */
import { createEventFd, Fd, signalEventFd } from "./fd.ts";
import { Epoll, EPOLLET, EPOLLIN } from "./epoll.ts";
import { type RelayStart, SLOTS, WORD_CLOSED, WORD_END, WORD_SLOTS, WORD_TO_CLOSE } from "./pipe_relay_worker.ts";

/** Stands in for a pipe: an eventfd whose `close` has the relay close the pipe as well. */
class StandIn extends Fd {
  readonly #release: (fd: StandIn) => void;

  constructor(fd: number, release: (fd: StandIn) => void) {
    super(fd);
    this.#release = release;
  }

  override close(): void {
    if (this.closed) return;
    this.#release(this);
    super.close();
  }
}

/** The pipes of one guest's connection, and their thread. */
export class PipeRelay {
  readonly #epoll = new Epoll();
  readonly #wake = createEventFd();
  readonly #words = new Int32Array(new SharedArrayBuffer((WORD_SLOTS + SLOTS) * 4));
  /** Numbers of the pipes that are written, by what stands in for them. */
  readonly #pipes = new Map<StandIn, number>();
  readonly #ended = Promise.withResolvers<void>();
  readonly #worker: Worker;
  #closing = false;

  constructor() {
    this.#epoll.add(this.#wake.number, EPOLLIN | EPOLLET, 0);
    this.#worker = new Worker(new URL("./pipe_relay_worker.ts", import.meta.url), { type: "module", name: "pipes" });
    this.#worker.addEventListener("message", () => this.#finish());
    // A thread that fails takes its guest's interrupts along; nobody else had any there.
    this.#worker.addEventListener("error", (event) => {
      event.preventDefault();
      this.#finish();
    });
    this.#worker.postMessage({ epollFd: this.#epoll.number, words: this.#words } satisfies RelayStart);
  }

  #finish(): void {
    this.#pipes.clear();
    this.#worker.terminate();
    this.#epoll.close();
    this.#wake.close();
    this.#ended.resolve();
  }

  /** Resolves when every pipe is closed and the thread has ended; never, while the guest holds one. */
  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  /** Takes `pipe` over, which its owner forgets; answers what stands in for it. Throws, taking nothing, if it is full. */
  take(pipe: Fd): Fd {
    const held = Atomics.load(this.#words, WORD_TO_CLOSE) - Atomics.load(this.#words, WORD_CLOSED);
    if (this.#pipes.size + held >= SLOTS) {
      throw new Error(`${this.#pipes.size} pipes are open, and ${held} are held by their owner: use eventfds instead`);
    }
    const event = createEventFd();
    // Edge-triggered and never read, as kicks are: each raise is one event.
    this.#epoll.add(event.number, EPOLLIN | EPOLLET, pipe.number + 1);
    const standIn = new StandIn(event.detach(), (closing) => this.#release(closing));
    this.#pipes.set(standIn, pipe.detach());
    return standIn;
  }

  /** Has the thread close a pipe. There is a slot for every one. */
  #release(standIn: StandIn): void {
    const number = this.#pipes.get(standIn);
    if (number === undefined) return;
    this.#pipes.delete(standIn);
    this.#epoll.remove(standIn.number);
    const next = Atomics.load(this.#words, WORD_TO_CLOSE);
    this.#words[WORD_SLOTS + next % SLOTS] = number;
    Atomics.store(this.#words, WORD_TO_CLOSE, next + 1);
    signalEventFd(this.#wake.number);
  }

  /** Closes all pipes and ends the thread. Does not wait for that: see `ended`. */
  close(): void {
    if (this.#closing) return;
    this.#closing = true;
    for (const standIn of [...this.#pipes.keys()]) standIn.close();
    Atomics.store(this.#words, WORD_END, 1);
    signalEventFd(this.#wake.number);
  }
}
