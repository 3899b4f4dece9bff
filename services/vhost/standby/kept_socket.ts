/**
 * A front-end's connection with which another process can go on at any moment. Bytes are announced to the standby, together
 * with the descriptors that lie with them, before they are taken off the socket; a request stays announced until what it
 * has changed is told. Its answer is put into the outbox before that, and goes out behind it. So whoever takes over finds
 * each request executed or not, and each answer sent or not, and there is nothing between.
 *
 *     peek ─ tell: input ─ take off ─ … executed … ─ answer into the outbox ─ tell: done ─ answer into the socket
 *
 * Who peeks is shown the descriptors of a later message too, if this one has none: which are this one's is known when it has
 * been taken off. Whoever takes over before that is told goes by what the message says of itself.
 *
 * An answer that brings a descriptor cannot lie in a pipe: it is sent before its request counts as done.
 */
import {
  beginTake,
  discard,
  duplicateFd,
  endTake,
  Fd,
  Outbox,
  type Reactor,
  type Received,
  shutDown,
  UnixSocket,
  untaken,
} from "../../../shared/os/mod.ts";
import { closeAll } from "../../../shared/device/mod.ts";
import {
  HEADER_BYTES,
  MEM_SLOTS_MAX,
  PAYLOAD_BYTES_MAX,
  requestName,
  ruleOf,
  VHOST_USER_VRING_NOFD_MASK,
} from "../../../shared/vhost_user/mod.ts";
import type { KeptPart } from "./follower.ts";
import type { Part, Parts, Replicated } from "./replica.ts";

/** What precedes an answer in the outbox: no request has the first number; the second says of which request it is. */
const PREFIX_BYTES = 8;
const PREFIX = 0xffff_ffff;

/** What of the input is told. */
export interface KeptInput {
  /** How often something was taken off the socket. */
  turn: number;
  /** Bytes of a request that is not done. */
  bytes: Uint8Array;
  /** How many requests are done: the last one's answer may still be in the outbox. */
  done: number;
  /** Its descriptors are in use already, and cannot be told any more. */
  isLost: boolean;
}

/** Bytes that are taken off the socket and that nobody has looked at, and the descriptors that came with them. */
interface Ahead {
  bytes: Uint8Array<ArrayBuffer>;
  fds: Fd[];
}

/** The payload's size, as a header says it. */
function sizeOf(header: Uint8Array): number {
  return new DataView(header.buffer, header.byteOffset).getUint32(8, true);
}

/** How many descriptors a message has, by its own word, of which `bytes` are there. */
function descriptorsOf(bytes: Uint8Array): number {
  if (bytes.byteLength < HEADER_BYTES) return 0;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const name = requestName(view.getUint32(0, true));
  const hasBody = bytes.byteLength >= HEADER_BYTES + 8;
  const first = hasBody ? view.getBigUint64(HEADER_BYTES, true) : 0n;
  switch (name) {
    case "VHOST_USER_SET_VRING_KICK":
    case "VHOST_USER_SET_VRING_CALL":
    case "VHOST_USER_SET_VRING_ERR":
      return (first & VHOST_USER_VRING_NOFD_MASK) === 0n ? 1 : 0;
    case "VHOST_USER_SET_MEM_TABLE":
      return hasBody ? Number(first & 0xffff_ffffn) : MEM_SLOTS_MAX;
    default:
      return name === undefined ? 0 : ruleOf(name).fdsMax;
  }
}

/** Closes descriptors whose files others have too: they are nobody's last ones. */
function discardDuplicates(fds: readonly Fd[]): void {
  for (const fd of fds) new Fd(fd.detach()).close();
}

/** A front-end's connection. */
export class KeptSocket {
  readonly #socket: UnixSocket;
  readonly #outbox: Outbox;
  #object: Replicated | undefined;
  #turn = 0;
  #done = 0;
  /** What has come of the request that is being served. */
  #bytes: Uint8Array<ArrayBuffer>[] = [];
  #fds: Fd[] = [];
  #ahead: Ahead | undefined;
  #answers: { bytes: Uint8Array<ArrayBuffer>; fds: readonly Fd[] }[] = [];

  constructor(socket: UnixSocket, outbox = Outbox.open()) {
    this.#socket = socket;
    this.#outbox = outbox;
  }

  /** Goes on with another process's connection, exactly where that was. */
  static adopt(connection: KeptPart, input: KeptPart, reactor: Reactor): KeptSocket {
    const [fd, read, write] = connection.fds.splice(0);
    if (!fd || !read || !write) throw new Error("a connection came without its descriptors");
    const kept = new KeptSocket(new UnixSocket(fd, reactor), Outbox.adopt(read, write));
    const { turn, bytes, done, isLost } = input.value as KeptInput;
    if (isLost) throw new Error("its request was half done when the standby came");
    [kept.#turn, kept.#done] = [turn, done];
    discard(fd.number, untaken(fd.number, turn));
    endTake(fd.number);
    kept.#sendOutbox();
    if (bytes.byteLength > 0) {
      const fds = input.fds.splice(0, descriptorsOf(bytes));
      kept.#note(new Uint8Array(bytes), fds);
      kept.#ahead = { bytes: new Uint8Array(bytes), fds: [...fds] };
    }
    closeAll(input.fds.splice(0));
    return kept;
  }

  /** Sends the last answer, if it is still in the outbox. One of a request that is not done is made anew. */
  #sendOutbox(): void {
    const left = this.#outbox.take();
    if (left.byteLength < PREFIX_BYTES) return;
    const view = new DataView(left.buffer);
    if (view.getUint32(0, true) !== PREFIX) return void this.#socket.send(left);
    if (view.getUint32(4, true) === this.#done) this.#socket.send(left.slice(PREFIX_BYTES));
  }

  /** Has the connection told with `object`, whose parts `parts` are among. */
  tellBy(object: Replicated): void {
    this.#object = object;
  }

  /** What a standby is told of it. */
  get parts(): Parts {
    const bytes = new Uint8Array(this.#bytes.flatMap((part) => [...part]));
    const isLost = this.#fds.some((fd) => fd.closed);
    const value: KeptInput = { turn: this.#turn, bytes, done: this.#done, isLost };
    const connection: Part = { value: {}, fds: [this.#socket.fd, ...this.#outbox.fds] };
    return { connection, input: { value, fds: isLost ? [] : this.#fds } };
  }

  /** The next bytes of a request, up to the buffer's length, and descriptors that came with them. */
  async receive(buffer: Uint8Array<ArrayBuffer>): Promise<Received> {
    for (;;) {
      const ahead = this.#takeAhead(buffer);
      if (ahead) return ahead;
      const end = await this.#takeAnnounced(buffer.byteLength);
      if (end) return end;
      if (!this.#ahead) await this.#socket.readable();
    }
  }

  #takeAhead(buffer: Uint8Array<ArrayBuffer>): Received | undefined {
    const { bytes, fds } = this.#ahead ?? {};
    if (!bytes || !fds) return undefined;
    const part = bytes.slice(0, buffer.byteLength);
    buffer.set(part);
    const rest = bytes.slice(part.byteLength);
    this.#ahead = rest.byteLength === 0 ? undefined : { bytes: rest, fds: [] };
    return { bytes: part.byteLength, fds };
  }

  #note(bytes: Uint8Array<ArrayBuffer>, fds: readonly Fd[]): void {
    this.#bytes.push(bytes);
    this.#fds.push(...fds);
  }

  /**
   * Takes what is there of a message off the socket, at most `wanted` bytes of one that has begun: it is ahead then. Answers
   * the connection's end.
   */
  async #takeAnnounced(wanted: number): Promise<Received | undefined> {
    const begun = this.#bytes.length > 0;
    const got = this.#peek(begun ? wanted : HEADER_BYTES);
    // The end is there for whoever looks next.
    if (!got || got.bytes.byteLength === 0) return got && { bytes: 0, fds: [] };
    const isHead = !begun && got.bytes.byteLength === HEADER_BYTES;
    const message = isHead ? this.#peek(HEADER_BYTES + Math.min(PAYLOAD_BYTES_MAX, sizeOf(got.bytes))) ?? got : got;
    if (message !== got) discardDuplicates(got.fds);
    const { bytes, fds: seen } = message;
    const { number } = this.#socket.fd;
    this.#turn++;
    this.#note(bytes, seen);
    beginTake(number, this.#turn, bytes.byteLength);
    const fds = await this.#takeTold(bytes.byteLength).catch((error) => {
      // Nobody has been given them.
      closeAll(this.#fds.splice(this.#fds.length - seen.length, seen.length));
      throw error;
    });
    endTake(number);
    this.#fds.splice(this.#fds.length - seen.length, seen.length, ...fds);
    discardDuplicates(seen);
    if (fds.length !== seen.length) this.#object?.tell();
    this.#ahead = { bytes, fds };
    return undefined;
  }

  /** Takes `bytes` bytes off the socket when a standby has been told of them; answers the descriptors. */
  async #takeTold(bytes: number): Promise<Fd[]> {
    this.#object?.tell();
    if (this.#object?.told) await this.#object.told;
    if (this.#socket.fd.closed) throw new Error("the connection is closed");
    return this.#takeOff(bytes);
  }

  #peek(bytes: number): Ahead | undefined {
    const buffer = new Uint8Array(bytes);
    const got = this.#socket.tryReceive(buffer, true);
    return got && { bytes: buffer.slice(0, got.bytes), fds: got.fds };
  }

  /** Takes `bytes` bytes off the socket; answers the descriptors that came with them. */
  #takeOff(bytes: number): Fd[] {
    const fds: Fd[] = [];
    for (let left = bytes; left > 0;) {
      const got = this.#socket.tryReceive(new Uint8Array(left));
      if (!got || got.bytes === 0) throw new Error("the connection ended inside a message");
      fds.push(...got.fds);
      left -= got.bytes;
    }
    return fds;
  }

  /** Answers, once the request is done. */
  send(bytes: Uint8Array<ArrayBuffer>, fds: readonly number[] = []): void {
    this.#answers.push({ bytes, fds: fds.map(duplicateFd) });
  }

  /** The request is done: tells so, and answers. */
  async finish(): Promise<void> {
    const answers = this.#answers.splice(0);
    try {
      for (const { bytes, fds } of answers) {
        if (fds.length > 0) {
          this.#socket.send(
            bytes,
            fds.map(({ number }) => number),
          );
        }
      }
    } finally {
      closeAll(answers.flatMap(({ fds }) => [...fds]));
    }
    const answer = answers.find(({ fds }) => fds.length === 0)?.bytes;
    this.#done = (this.#done + 1) >>> 0;
    [this.#bytes, this.#fds] = [[], []];
    if (!answer || !this.#object) {
      if (answer) this.#socket.send(answer);
      return this.#object?.tell();
    }
    this.#outbox.put(new Uint8Array(new Uint32Array([PREFIX, this.#done]).buffer));
    this.#outbox.put(answer);
    this.#object.tell();
    if (this.#object.told) await this.#object.told;
    this.#outbox.take(PREFIX_BYTES);
    this.#outbox.moveInto(this.#socket.fd.number, answer.byteLength);
  }

  /** Resolves when every descriptor that came this way and was given up is closed. */
  settled(): Promise<void> {
    return this.#socket.settled();
  }

  /** Ends the connection, also while a standby has the socket too. */
  close(): void {
    closeAll(this.#answers.splice(0).flatMap(({ fds }) => [...fds]));
    closeAll(this.#ahead?.fds ?? []);
    this.#ahead = undefined;
    if (this.#socket.fd.closed) return;
    shutDown(this.#socket.fd.number);
    this.#socket.close();
    this.#outbox.close();
  }
}
