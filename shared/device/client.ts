/** The driving side of the device socket: requests as promises, events as a callback. */
import { type Fd, type Reactor, shutDown, UnixSocket } from "../os/mod.ts";
import { Channel } from "./channel.ts";
import type { DeviceEvent, Reply, RequestInput } from "./messages.ts";
import { DeviceRefusal } from "./refusal.ts";

/** A reply's value and the descriptors that came with it. */
interface Answer {
  value: Record<string, unknown>;
  fds: Fd[];
}

/** A request that has not been answered. */
interface Waiter extends PromiseWithResolvers<Answer> {
  message: Record<string, unknown>;
  fds: readonly number[];
}

/** A connection to the NIC: one VF's lease, or a watcher. */
export class DeviceClient implements Disposable {
  onEvent: (event: DeviceEvent) => void = () => {};
  /** Resolves when the connection has ended, whoever ended it. */
  readonly closed: Promise<void>;
  readonly #channel: Channel;
  readonly #waiting = new Map<number, Waiter>();
  #next = 1;

  private constructor(channel: Channel) {
    this.#channel = channel;
    this.closed = this.#read();
  }

  /** Connects to the NIC's device socket at `path`. */
  static connect(path: string, reactor: Reactor): DeviceClient {
    return new DeviceClient(new Channel(UnixSocket.connect(path, "seqpacket", reactor)));
  }

  /**
   * Goes on with the connection `fd` of a process that has ended. What that had asked is not answered here: the numbers of
   * requests are others.
   */
  static adopt(fd: Fd, reactor: Reactor): DeviceClient {
    const client = new DeviceClient(new Channel(new UnixSocket(fd, reactor)));
    client.#next = crypto.getRandomValues(new Uint32Array(1))[0] ?? 1;
    return client;
  }

  /** Its socket, for whoever is to go on with it. It stays the connection's. */
  get fd(): Fd {
    return this.#channel.socket.fd;
  }

  async #read(): Promise<void> {
    try {
      for (;;) {
        const packet = await this.#channel.receive();
        if (!packet) break;
        const message = packet.message as Reply | DeviceEvent;
        if ("event" in message) {
          closeAll(packet.fds);
          if (message.event === "tookOver") this.#askAgain();
          this.onEvent(message);
        } else this.#settle(message, packet.fds);
      }
    } catch {
      // The connection is gone; whoever waits is told below.
    }
    for (const waiter of this.#waiting.values()) {
      waiter.reject(new DeviceRefusal("nic-gone", "the connection to the NIC ended"));
    }
    this.#waiting.clear();
    this.#channel.close();
  }

  #settle(reply: Reply, fds: Fd[]): void {
    const waiter = this.#waiting.get(reply.id);
    this.#waiting.delete(reply.id);
    if (reply.ok && waiter) return waiter.resolve({ value: reply.value, fds });
    closeAll(fds);
    if (!reply.ok) waiter?.reject(new DeviceRefusal(reply.code, reply.message));
  }

  /**
   * Asks the NIC and waits for its answer. Throws DeviceRefusal if it refuses or goes away. `fds` are sent along and
   * stay the caller's.
   */
  async request(body: RequestInput, fds: readonly number[] = []): Promise<Record<string, unknown>> {
    const answer = await this.#ask(body, fds);
    closeAll(answer.fds);
    return answer.value;
  }

  /** As `request`, for what is answered with a descriptor, which becomes the caller's. */
  async requestFd(body: RequestInput): Promise<Fd> {
    const { fds } = await this.#ask(body, []);
    const [fd, ...others] = fds;
    closeAll(others);
    if (!fd) throw new DeviceRefusal("fd-count", `${body.op} was answered without a descriptor`);
    return fd;
  }

  #ask(body: RequestInput, fds: readonly number[]): Promise<Answer> {
    const id = this.#next++;
    const waiter = { ...Promise.withResolvers<Answer>(), message: { id, ...body }, fds };
    this.#waiting.set(id, waiter);
    this.#send(id, waiter);
    return waiter.promise;
  }

  #send(id: number, { message, fds, reject }: Waiter): void {
    try {
      this.#channel.send(message, fds);
    } catch (cause) {
      this.#waiting.delete(id);
      reject(new DeviceRefusal("nic-gone", `the NIC cannot be reached: ${(cause as Error).message}`));
    }
  }

  /**
   * The process that answered has ended, and another one has its connections. It answers what was asked last once more if
   * that was done, and does what was not; a number that it has answered already it answers the same way.
   */
  #askAgain(): void {
    for (const [id, waiter] of this.#waiting) this.#send(id, waiter);
  }

  /** Ends the connection, also while a standby has the socket too. */
  close(): void {
    if (!this.fd.closed) shutDown(this.fd.number);
    this.#channel.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** Closes descriptors that nobody asked for. */
export function closeAll(fds: readonly Fd[]): void {
  for (const fd of fds) fd.close();
}
