/**
 * Messages over a SOCK_SEQPACKET socket: msgpack bodies, descriptors beside them. One packet is one message, so there
 * is no framing to get wrong.
 */
import { Packr, Unpackr } from "msgpackr";
import { type Fd, type UnixSocket } from "../os/mod.ts";
import { MESSAGE_BYTES_MAX } from "./messages.ts";

// Record mode would compile code for each shape; plain maps need none.
const packr = new Packr({ useRecords: false });
const unpackr = new Unpackr({ useRecords: false, int64AsType: "bigint" });

/**
 * Where every channel receives: a message is taken out before anything else can run. One for each connection would wait
 * for the garbage collector, 64 KiB for each change of mode.
 */
const BUFFER = new Uint8Array(MESSAGE_BYTES_MAX);

/** A decoded message and the descriptors it brought, which the receiver owns. */
export interface Packet {
  message: unknown;
  fds: Fd[];
}

/** One end of the device socket. */
export class Channel implements Disposable {
  readonly socket: UnixSocket;
  constructor(socket: UnixSocket) {
    this.socket = socket;
  }

  /** The next message; `undefined` at the end of the connection. Throws on a message that is not msgpack. */
  async receive(): Promise<Packet | undefined> {
    for (;;) {
      const got = this.tryReceive();
      if (got !== "nothing") return got;
      await this.socket.readable();
    }
  }

  /** As `receive`, without waiting. */
  tryReceive(): Packet | undefined | "nothing" {
    const got = this.socket.tryReceive(BUFFER);
    if (!got) return "nothing";
    const { bytes, fds } = got;
    if (bytes === 0) {
      // An empty packet may bring descriptors too.
      for (const fd of fds) fd.close();
      return undefined;
    }
    try {
      return { message: unpackr.unpack(BUFFER.slice(0, bytes)), fds };
    } catch (cause) {
      for (const fd of fds) fd.close();
      throw new Error("Cannot read a device message: it is not msgpack", { cause });
    }
  }

  /** Sends one message; the descriptors stay the caller's. */
  send(message: unknown, fds: readonly number[] = []): void {
    this.socket.send(packed(message), fds);
  }

  /** As `send`; false, with nothing sent, if the other end has not read what came before. */
  trySend(message: unknown, fds: readonly number[] = []): boolean {
    return this.socket.trySend(packed(message), fds);
  }

  close(): void {
    this.socket.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function packed(message: unknown): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(packr.pack(message));
  if (bytes.byteLength > MESSAGE_BYTES_MAX) {
    throw new Error(`Cannot send a device message of ${bytes.byteLength} bytes: at most ${MESSAGE_BYTES_MAX}`);
  }
  return bytes;
}
