/**
 * A vhost-user proxy that withholds features: a guest connects to it and is offered what the back-end behind it offers,
 * less some bits. Every message and descriptor is passed on as it is but for the answer to GET_FEATURES. So one fabric has
 * guests that can and guests that cannot, with nothing in the product for it.
 */
import { type Fd, libc, Reactor, UnixListener, UnixSocket } from "../../shared/os/mod.ts";
import { HEADER_BYTES, REQUESTS } from "../../shared/vhost_user/mod.ts";
import { until } from "./wait.ts";

/** Feature bits by what they are for (VIRTIO 1.2 §5.1.3); what needs another one goes with it (§5.1.3.1). */
const TSO = [7, 8, 9, 11, 12, 13];
const USO = [54, 55, 56];
const CSUM = [0, 1, 2, ...TSO, ...USO];
const WITHHELD = { csum: CSUM, tso: TSO, uso: USO, mergeable: [15], packed: [34], multiqueue: [22] } as const;

/** What can be withheld. */
export type Feature = keyof typeof WITHHELD;

const FEATURE_BYTES = 8;

/** One whole message. */
interface Message {
  bytes: Uint8Array<ArrayBuffer>;
  fds: Fd[];
}

/** Reads one message; `undefined` at the end of the connection. */
async function readMessage(socket: UnixSocket): Promise<Message | undefined> {
  const fds: Fd[] = [];
  const read = async (bytes: Uint8Array<ArrayBuffer>) => {
    for (let at = 0; at < bytes.length;) {
      const got = await socket.receive(bytes.subarray(at));
      fds.push(...got.fds);
      if (got.bytes === 0) return false;
      at += got.bytes;
    }
    return true;
  };
  const header = new Uint8Array(HEADER_BYTES);
  if (!await read(header)) return undefined;
  const payload = new Uint8Array(new DataView(header.buffer).getUint32(8, true));
  if (!await read(payload)) return undefined;
  const bytes = new Uint8Array(HEADER_BYTES + payload.length);
  bytes.set(header);
  bytes.set(payload, HEADER_BYTES);
  return { bytes, fds };
}

/** Passes messages on until a side ends; `look` sees each of them before. */
async function pump(from: UnixSocket, to: UnixSocket, look: (bytes: Uint8Array<ArrayBuffer>) => void): Promise<void> {
  try {
    for (let message = await readMessage(from); message; message = await readMessage(from)) {
      look(message.bytes);
      const numbers = message.fds.map((fd) => fd.number);
      try {
        to.send(message.bytes, numbers);
      } finally {
        // Not `close`, which would shut a socket down for the one that has it now.
        for (const fd of message.fds) libc().close(fd.detach());
      }
    }
  } catch {
    // A side has gone.
  } finally {
    from.close();
    to.close();
  }
}

/** A socket at which a back-end offers less. */
export class FeatureMask implements AsyncDisposable {
  /** Where guests connect. */
  readonly socket: string;
  readonly #dir: string;
  readonly #behind: string;
  readonly #bits: bigint;
  readonly #reactor = new Reactor();
  readonly #listener: UnixListener;
  readonly #serving: Promise<void>;
  readonly #connections = new Set<Promise<unknown>>();
  readonly #ends = new Set<UnixSocket>();
  #agreed: bigint | undefined;

  /** `behind`: the back-end's socket. */
  constructor(behind: string, withheld: readonly Feature[]) {
    this.#behind = behind;
    this.#bits = withheld.flatMap((name) => WITHHELD[name]).reduce((bits, bit) => bits | (1n << BigInt(bit)), 0n);
    this.#dir = Deno.makeTempDirSync({ prefix: "ringfabric-mask-" });
    this.socket = `${this.#dir}/guest.sock`;
    this.#listener = UnixListener.listen(this.socket, "stream", this.#reactor);
    this.#serving = this.#serve();
  }

  async #serve(): Promise<void> {
    for (let front = await this.#listener.accept(); front; front = await this.#listener.accept()) {
      const back = UnixSocket.connect(this.#behind, "stream", this.#reactor);
      const both = Promise.all([
        pump(front, back, (bytes) => this.#seeRequest(bytes)),
        pump(back, front, (bytes) => this.#seeAnswer(bytes)),
      ]);
      const ends = [front, back];
      for (const end of ends) this.#ends.add(end);
      this.#connections.add(both);
      void both.then(() => {
        this.#connections.delete(both);
        for (const end of ends) this.#ends.delete(end);
      });
    }
  }

  #seeRequest(bytes: Uint8Array<ArrayBuffer>): void {
    const view = new DataView(bytes.buffer);
    if (view.getUint32(0, true) !== REQUESTS.VHOST_USER_SET_FEATURES.number) return;
    this.#agreed = view.getBigUint64(HEADER_BYTES, true);
  }

  #seeAnswer(bytes: Uint8Array<ArrayBuffer>): void {
    const view = new DataView(bytes.buffer);
    if (view.getUint32(0, true) !== REQUESTS.VHOST_USER_GET_FEATURES.number) return;
    if (bytes.length !== HEADER_BYTES + FEATURE_BYTES) return;
    view.setBigUint64(HEADER_BYTES, view.getBigUint64(HEADER_BYTES, true) & ~this.#bits, true);
  }

  /** Whether the guest has agreed to all feature bits of `name`'s first one; waits until it has agreed to anything. */
  async hasAgreedTo(name: Feature): Promise<boolean> {
    const agreed = await until("the guest to agree to features", () => this.#agreed);
    return ((agreed >> BigInt(WITHHELD[name][0])) & 1n) !== 0n;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    for (const end of this.#ends) end.close();
    await Promise.all([this.#serving, ...this.#connections]);
    await this.#reactor.close();
    await Deno.remove(this.#dir, { recursive: true });
  }
}
