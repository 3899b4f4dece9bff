/**
 * vhost-user messages on a stream socket. Exactly one message's bytes are asked of the kernel at a time, so the
 * descriptors that come in belong to that message. Sizes and descriptor counts are checked here, before anyone acts
 * on a message.
 */
import { type Fd, type Received, type UnixSocket } from "../os/mod.ts";
import {
  HEADER_BYTES,
  MEM_SLOTS_MAX,
  PAYLOAD_BYTES_MAX,
  ProtocolError,
  type RequestName,
  requestName,
  REQUESTS,
  ruleOf,
  VHOST_USER_NEED_REPLY_MASK,
  VHOST_USER_REPLY_MASK,
  VHOST_USER_VERSION,
  VHOST_USER_VERSION_MASK,
} from "./protocol.ts";

/** One message of the front-end. Its receiver owns the descriptors. */
export interface Message {
  name: RequestName;
  payload: DataView<ArrayBuffer>;
  fds: Fd[];
  needReply: boolean;
}

/** What messages come by, and go by. */
export interface MessageSocket extends Pick<UnixSocket, "receive" | "send" | "close"> {
  /** The message that came last has been served, and answered. */
  finish?(): Promise<void>;
}

/** How long the rest of a message may take. */
const MESSAGE_DEADLINE_MS = 2000;
/** Messages handled in a row before other connections have their turn. */
const TURN_MESSAGES = 16;

/** The back-end's end of a vhost-user connection. */
export class VhostUserConnection {
  readonly #socket: MessageSocket;
  #inTurn = 0;

  constructor(socket: MessageSocket) {
    this.#socket = socket;
  }

  /** The next message, `undefined` at the end of the connection. Throws ProtocolError on anything malformed. */
  async receive(): Promise<Message | undefined> {
    // A front-end that floods gives way to the others now and then.
    if (++this.#inTurn % TURN_MESSAGES === 0) await new Promise((resolve) => setTimeout(resolve, 0));
    const fds: Fd[] = [];
    try {
      const header = await this.#read(HEADER_BYTES, fds, true);
      if (!header) return undefined;
      const number = header.getUint32(0, true);
      const flags = header.getUint32(4, true);
      const size = header.getUint32(8, true);
      const name = requestName(number);
      if ((flags & VHOST_USER_VERSION_MASK) !== VHOST_USER_VERSION) {
        throw new ProtocolError(`message of version ${flags & VHOST_USER_VERSION_MASK}: only version 1 is spoken`);
      }
      if (size > PAYLOAD_BYTES_MAX) {
        throw new ProtocolError(`request ${name ?? number} with ${size} bytes: at most ${PAYLOAD_BYTES_MAX}`);
      }
      const payload = size === 0 ? new DataView(new ArrayBuffer(0)) : await this.#read(size, fds, false);
      if (!payload) throw new ProtocolError("the connection ended inside a message");
      if (!name) throw new ProtocolError(`unknown request ${number}`);
      const { bytes, fdsMax } = ruleOf(name);
      if (bytes && !bytes.includes(size)) {
        throw new ProtocolError(`${name} with ${size} bytes: it has ${bytes.join(" or ")}`);
      }
      if (fds.length > fdsMax) {
        throw new ProtocolError(`${name} with ${fds.length} descriptors: at most ${fdsMax}`);
      }
      return { name, payload, fds, needReply: (flags & VHOST_USER_NEED_REPLY_MASK) !== 0 };
    } catch (error) {
      for (const fd of fds) fd.close();
      throw error;
    }
  }

  /** Reads exactly `length` bytes; `undefined` if the connection ends first (an error once a message has begun). */
  async #read(length: number, fds: Fd[], mayEnd: boolean): Promise<DataView<ArrayBuffer> | undefined> {
    const bytes = new Uint8Array(length);
    for (let at = 0; at < length;) {
      const got = mayEnd && at === 0
        ? await this.#socket.receive(bytes)
        : await this.#receiveInTime(bytes.subarray(at));
      fds.push(...got.fds);
      if (fds.length > MEM_SLOTS_MAX) throw new ProtocolError("too many descriptors in one message");
      if (got.bytes === 0) {
        if (mayEnd && at === 0) return undefined;
        throw new ProtocolError("the connection ended inside a message");
      }
      at += got.bytes;
    }
    return new DataView(bytes.buffer);
  }

  /**
   * As `receive`, but not for ever: a message that has begun must end. A front-end that sends its own end of the
   * socket along and then stops would otherwise hold its port, since that end stays open for as long as we hold it.
   */
  async #receiveInTime(bytes: Uint8Array<ArrayBuffer>): Promise<Received> {
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      this.#socket.close();
    }, MESSAGE_DEADLINE_MS);
    try {
      return await this.#socket.receive(bytes);
    } catch (error) {
      if (late) throw new ProtocolError(`a message was not finished within ${MESSAGE_DEADLINE_MS / 1000} s`);
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Answers a request; descriptors go along, and stay the caller's. */
  reply(name: RequestName, payload: Uint8Array, fds: number[] = []): void {
    const bytes = new Uint8Array(HEADER_BYTES + payload.byteLength);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, REQUESTS[name].number, true);
    view.setUint32(4, VHOST_USER_VERSION | VHOST_USER_REPLY_MASK, true);
    view.setUint32(8, payload.byteLength, true);
    bytes.set(payload, HEADER_BYTES);
    this.#socket.send(bytes, fds);
  }

  /** Answers with one u64. */
  replyU64(name: RequestName, value: bigint): void {
    this.reply(name, new Uint8Array(new BigUint64Array([value]).buffer));
  }

  /** The message that came last has been served, and answered. */
  async finish(): Promise<void> {
    await this.#socket.finish?.();
  }

  close(): void {
    this.#socket.close();
  }
}
