/**
 * The descriptors by which a front-end and its back-end wake each other: which kinds there may be, and what stands in
 * for those that the engine cannot raise by itself.
 *
 * A kick is an eventfd: nobody reads kicks, and anything else would fill up. A call or an error descriptor may be an
 * eventfd, a connected Unix stream socket (User-Mode Linux sends those) or a pipe. The owner of a pipe can hold whoever writes or closes
 * it, so a front-end's pipes go to a thread of their own, and the engine has eventfds in their place.
 */
import { type Fd, PipeRelay, socketFault } from "../../shared/os/mod.ts";
import { ProtocolError } from "../../shared/vhost_user/mod.ts";

/** Threads of one port: its front-end's, and that of one before which still holds its pipes. */
const THREADS_MAX = 2;

/** The threads for pipes of one port. */
export class PipeThreads {
  readonly #living = new Set<PipeRelay>();

  /** A thread for a front-end that has just sent its first pipe. */
  start(): PipeRelay {
    if (this.#living.size >= THREADS_MAX) {
      throw new ProtocolError("earlier front-ends still hold the pipes that they sent: use eventfds or Unix sockets");
    }
    const relay = new PipeRelay();
    this.#living.add(relay);
    void relay.ended.then(() => this.#living.delete(relay));
    return relay;
  }
}

/** The descriptors of one session. */
export class Wakeups {
  readonly #threads: PipeThreads;
  #relay: PipeRelay | undefined;

  constructor(threads: PipeThreads) {
    this.#threads = threads;
  }

  /** Throws unless `fd` may be a kick. */
  checkKick(fd: Fd | undefined): void {
    if (fd && fd.kind !== "eventfd") {
      throw new ProtocolError(
        "its kick is not an eventfd. It must be one: kicks are never read, and anything else fills up",
      );
    }
  }

  /** What a call or error descriptor is raised by: `fd`, or what stands in for it; it is the caller's. */
  raisable(fd: Fd | undefined): Fd | undefined {
    if (fd === undefined || fd.kind === "eventfd") return fd;
    if (fd.kind === "socket") {
      const fault = socketFault(fd.number);
      if (fault) throw new ProtocolError(`its descriptor is a socket that cannot be used: ${fault}`);
      return fd;
    }
    if (fd.kind !== "pipe") throw new ProtocolError("its descriptor is not an eventfd, a Unix socket or a pipe");
    this.#relay ??= this.#threads.start();
    return this.#relay.take(fd);
  }

  /** Whether a thread of this process serves the front-end's pipes. */
  get hasThread(): boolean {
    return this.#relay !== undefined;
  }

  /** The end of the session: all its pipes are closed. */
  close(): void {
    this.#relay?.close();
  }
}
