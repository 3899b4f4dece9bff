/** The driving side of the device socket: requests as promises, events as a callback. */
import { type Fd, type Reactor, UnixSocket } from "../os/mod.ts";
import { Channel } from "./channel.ts";
import { type DeviceEvent, DeviceRefusal, type Reply, type RequestInput } from "./messages.ts";

/** A connection to the NIC: one VF's lease, or a watcher. */
export class DeviceClient implements Disposable {
  onEvent: (event: DeviceEvent) => void = () => {};
  /** Resolves when the connection has ended, whoever ended it. */
  readonly closed: Promise<void>;
  readonly #channel: Channel;
  readonly #waiting = new Map<number, PromiseWithResolvers<Record<string, unknown>>>();
  #next = 1;

  private constructor(channel: Channel) {
    this.#channel = channel;
    this.closed = this.#read();
  }

  /** Connects to the NIC's device socket at `path`. */
  static connect(path: string, reactor: Reactor): DeviceClient {
    return new DeviceClient(new Channel(UnixSocket.connect(path, "seqpacket", reactor)));
  }

  async #read(): Promise<void> {
    try {
      for (;;) {
        const packet = await this.#channel.receive();
        if (!packet) break;
        closeAll(packet.fds);
        const message = packet.message as Reply | DeviceEvent;
        if ("event" in message) this.onEvent(message);
        else this.#settle(message);
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

  #settle(reply: Reply): void {
    const waiter = this.#waiting.get(reply.id);
    this.#waiting.delete(reply.id);
    if (reply.ok) waiter?.resolve(reply.value);
    else waiter?.reject(new DeviceRefusal(reply.code, reply.message));
  }

  /**
   * Asks the NIC and waits for its answer. Throws DeviceRefusal if it refuses or goes away. `fds` are sent along and
   * stay the caller's.
   */
  request(body: RequestInput, fds: readonly number[] = []): Promise<Record<string, unknown>> {
    const id = this.#next++;
    const waiter = Promise.withResolvers<Record<string, unknown>>();
    this.#waiting.set(id, waiter);
    try {
      this.#channel.send({ id, ...body }, fds);
    } catch (cause) {
      this.#waiting.delete(id);
      waiter.reject(new DeviceRefusal("nic-gone", `the NIC cannot be reached: ${(cause as Error).message}`));
    }
    return waiter.promise;
  }

  close(): void {
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
