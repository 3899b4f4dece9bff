/**
 * Unix sockets that carry descriptors (SCM_RIGHTS), which Deno's own do not: streams for vhost-user, sequenced packets
 * for the device socket. Non-blocking throughout; a `Reactor` says when to try again.
 */
import { closeNumber, Fd } from "./fd.ts";
import { Reactor } from "./epoll.ts";
import { addressOf, check, EAGAIN, EINTR, errno, libc, OsError } from "./libc.ts";
import { kindOf, shutDownReceiving } from "./kinds.ts";
import { closeForeign } from "./lingering.ts";

// sys/socket.h
const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_SEQPACKET = 5;
export const SOCK_CLOEXEC = 0o2000000;
export const SOCK_NONBLOCK = 0o4000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_CTRUNC = 0x08;
const MSG_PEEK = 0x02;
const MSG_TRUNC = 0x20;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;
/** struct sockaddr_un: family u16, path of 108 bytes. */
const SUN_PATH_BYTES = 108;
const MSGHDR_BYTES = 56;
const CMSG_HEADER_BYTES = 16;
/** Descriptors one message may carry; more are a protocol error. SCM_MAX_FD of Linux is 253. */
const FDS_MAX = 64;
/** Control buffer that holds whatever the kernel can deliver, so that no descriptor is lost unseen. */
const CONTROL_BYTES = CMSG_HEADER_BYTES + 256 * 4;

/** Kind of a Unix socket. */
export type SocketKind = "stream" | "seqpacket";

/** struct sockaddr_un of `path`. */
export function socketAddress(path: string): Uint8Array<ArrayBuffer> {
  const bytes = new TextEncoder().encode(path);
  if (bytes.length >= SUN_PATH_BYTES) {
    throw new Error(`Cannot use socket path ${path}: it is ${bytes.length} bytes long, at most 107 fit`);
  }
  const address = new Uint8Array(2 + SUN_PATH_BYTES);
  new DataView(address.buffer).setUint16(0, AF_UNIX, true);
  address.set(bytes, 2);
  return address;
}

/** A new socket, not blocking. */
export function newSocket(kind: SocketKind): Fd {
  const type = kind === "stream" ? SOCK_STREAM : SOCK_SEQPACKET;
  return new Fd(check(libc().socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), "socket", `unix ${kind}`));
}

/** How often the lock of `alone` is tried, and how long the caller sleeps between two tries. */
const TRIES_MAX = 500;
const TRY_MS = 1;

/**
 * Runs `act` while no other process runs one for the same `path`. The lock is an abstract socket's name (unix(7)): the
 * kernel gives it to one process of a network namespace at a time, and frees it when that process ends. Any program may
 * hold the name, so the caller goes on without the lock after half a second.
 */
export function alone<T>(path: string, act: () => T): T {
  const name = socketAddress(`\0${path.slice(-35)}`);
  const held = newSocket("seqpacket");
  try {
    const clock = new Int32Array(new SharedArrayBuffer(4));
    for (let tries = 0; tries < TRIES_MAX; tries++) {
      if (libc().bind(held.number, name, name.byteLength) === 0) break;
      Atomics.wait(clock, 0, 0, TRY_MS);
    }
    return act();
  } finally {
    held.close();
  }
}

/** Two sockets that are connected with each other, not blocking. */
export function socketPair(kind: SocketKind): [Fd, Fd] {
  const type = kind === "stream" ? SOCK_STREAM : SOCK_SEQPACKET;
  const ends = new Int32Array(2);
  check(libc().socketpair(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), "socketpair", `unix ${kind}`);
  return [new Fd(ends[0] ?? -1), new Fd(ends[1] ?? -1)];
}

/** The peer closed, or the message was not whole. */
class SocketError extends Error {
  override readonly name = "SocketError";
}

/** How much is read at a time of what nobody will look at, and how often: a queue holds some hundred messages. */
const REST_BYTES = 4096;
const REST_MESSAGES_MAX = 1024;

/** What one receive brought. `bytes` 0 is the end of the connection. */
export interface Received {
  bytes: number;
  fds: Fd[];
}

/** One end of a connected Unix socket. */
export class UnixSocket implements Disposable {
  readonly fd: Fd;
  readonly #reactor: Reactor;
  readonly #header = new Uint8Array(MSGHDR_BYTES);
  readonly #iov = new BigUint64Array(2);
  readonly #control = new Uint8Array(CONTROL_BYTES);
  readonly #headerView = new DataView(this.#header.buffer);
  readonly #controlView = new DataView(this.#control.buffer);
  /** Descriptors that came this way, were closed here, and are not closed yet. */
  readonly #closing = new Set<Promise<void>>();
  readonly #isFellow: boolean;

  /** `isFellow`: at the other end is a process of the same service, which goes on with the sockets that it sends. */
  constructor(fd: Fd, reactor: Reactor, isFellow = false) {
    this.fd = fd;
    this.#reactor = reactor;
    this.#isFellow = isFellow;
  }

  /** Connects to a listening socket. `isFellow`: as for the constructor. */
  static connect(path: string, kind: SocketKind, reactor: Reactor, isFellow = false): UnixSocket {
    const fd = newSocket(kind);
    try {
      const address = socketAddress(path);
      check(libc().connect(fd.number, address, address.byteLength), "connect", path);
      return new UnixSocket(fd, reactor, isFellow);
    } catch (error) {
      fd.close();
      throw error;
    }
  }

  #prepare(buffer: Uint8Array<ArrayBuffer>, controlBytes: number): void {
    this.#iov[0] = addressOf(buffer);
    this.#iov[1] = BigInt(buffer.byteLength);
    this.#header.fill(0);
    this.#headerView.setBigUint64(16, addressOf(this.#iov), true);
    this.#headerView.setBigUint64(24, 1n, true);
    if (controlBytes > 0) this.#headerView.setBigUint64(32, addressOf(this.#control), true);
    this.#headerView.setBigUint64(40, BigInt(controlBytes), true);
  }

  /**
   * Receives what is there, up to the buffer's length, and the descriptors that came with it; `undefined` if nothing
   * is there yet. Throws SocketError, closing the descriptors, if anything was cut off. `peek`: it all stays there too.
   */
  tryReceive(buffer: Uint8Array<ArrayBuffer>, peek = false): Received | undefined {
    this.#prepare(buffer, CONTROL_BYTES);
    const n = Number(
      libc().recvmsg(this.fd.number, this.#header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC | (peek ? MSG_PEEK : 0)),
    );
    if (n < 0) {
      const code = errno();
      if (code === EAGAIN || code === EINTR) return undefined;
      throw new OsError("recvmsg", `fd ${this.fd.number}`, code);
    }
    const fds = this.#receivedFds();
    const flags = this.#headerView.getUint32(48, true);
    const fault = flags & MSG_TRUNC
      ? "the message is too long"
      : flags & MSG_CTRUNC || fds.length > FDS_MAX
      ? "the message has too many descriptors"
      : this.#closing.size > FDS_MAX && !this.#isFellow
      ? "descriptors of the messages before cannot be closed: what they are makes close wait"
      : undefined;
    if (fault === undefined) return { bytes: n, fds };
    for (const fd of fds) fd.close();
    throw new SocketError(fault);
  }

  #receivedFds(): Fd[] {
    const fds: Fd[] = [];
    const end = Number(this.#headerView.getBigUint64(40, true));
    for (let at = 0; at + CMSG_HEADER_BYTES <= end;) {
      const length = Number(this.#controlView.getBigUint64(at, true));
      if (length < CMSG_HEADER_BYTES) break;
      const level = this.#controlView.getInt32(at + 8, true);
      const type = this.#controlView.getInt32(at + 12, true);
      if (level === SOL_SOCKET && type === SCM_RIGHTS) {
        for (let i = at + CMSG_HEADER_BYTES; i + 4 <= at + length; i += 4) {
          fds.push(new Fd(this.#controlView.getInt32(i, true), this.#closeForeign));
        }
      }
      at += Math.ceil(length / 8) * 8;
    }
    return fds;
  }

  readonly #closeForeign = (fd: number): void => {
    // Nothing is to be taken out of it: who sent it reads it.
    if (this.#isFellow && kindOf(fd) === "socket") return closeNumber(fd);
    const closing = closeForeign(fd, (number) => this.#emptyOther(number));
    if (closing) this.#track(closing);
  };

  #track(closing: Promise<void>): void {
    this.#closing.add(closing);
    void closing.then(() => this.#closing.delete(closing));
  }

  /** Empties a Unix socket that came this way, and remembers what of it is not closed yet. */
  #emptyOther(number: number): boolean {
    const other = new UnixSocket(new Fd(number, () => {}), this.#reactor);
    const isEmpty = other.#empty();
    for (const closing of other.#closing) this.#track(closing);
    return isEmpty;
  }

  /** Resolves when every descriptor that came this way and was given up is closed. */
  async settled(): Promise<void> {
    await Promise.all(this.#closing);
  }

  /** As `tryReceive`, waiting until there is something. */
  async receive(buffer: Uint8Array<ArrayBuffer>): Promise<Received> {
    for (;;) {
      const got = this.tryReceive(buffer);
      if (got) return got;
      await this.readable();
    }
  }

  /** Resolves when there may be something to receive. */
  readable(): Promise<void> {
    return this.#reactor.readable(this.fd.number);
  }

  /**
   * Sends a message with descriptors (which stay the caller's). A peer that lets its socket run full is not waited
   * for: that is an error, since control messages are few and small.
   */
  send(bytes: Uint8Array<ArrayBuffer>, fds: readonly number[] = []): void {
    if (!this.trySend(bytes, fds)) throw new OsError("sendmsg", `fd ${this.fd.number}`, EAGAIN);
  }

  /** As `send`; false, with nothing sent, if the peer's queue is full. */
  trySend(bytes: Uint8Array<ArrayBuffer>, fds: readonly number[] = []): boolean {
    const controlBytes = fds.length === 0 ? 0 : CMSG_HEADER_BYTES + Math.ceil(fds.length / 2) * 8;
    if (fds.length > 0) {
      this.#controlView.setBigUint64(0, BigInt(CMSG_HEADER_BYTES + fds.length * 4), true);
      this.#controlView.setInt32(8, SOL_SOCKET, true);
      this.#controlView.setInt32(12, SCM_RIGHTS, true);
      fds.forEach((fd, i) => this.#controlView.setInt32(CMSG_HEADER_BYTES + i * 4, fd, true));
    }
    this.#prepare(bytes, controlBytes);
    const n = Number(libc().sendmsg(this.fd.number, this.#header, MSG_DONTWAIT | MSG_NOSIGNAL));
    if (n < 0) {
      const code = errno();
      if (code === EAGAIN) return false;
      throw new OsError("sendmsg", `fd ${this.fd.number}`, code);
    }
    if (n !== bytes.byteLength) throw new SocketError("the peer does not read its messages");
    return true;
  }

  /**
   * Takes what nobody will read out of the queue, descriptors first of all: the kernel would close them with the socket,
   * in this thread. False if the queue cannot be read to its end.
   */
  #empty(): boolean {
    if (!shutDownReceiving(this.fd.number)) return false;
    const rest = new Uint8Array(REST_BYTES);
    for (let i = 0; i < REST_MESSAGES_MAX; i++) {
      try {
        const got = this.tryReceive(rest);
        for (const fd of got?.fds ?? []) fd.close();
        if (!got || (got.bytes === 0 && got.fds.length === 0)) return true;
      } catch (error) {
        if (!(error instanceof SocketError)) return false;
      }
    }
    return false;
  }

  close(): void {
    if (this.fd.closed) return;
    this.#reactor.forget(this.fd.number);
    this.#empty();
    this.fd.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** Sends `bytes` on a Unix socket that somebody else reads, without ever waiting. False if there was no room, or nobody. */
export function sendNow(fd: number, bytes: Uint8Array<ArrayBuffer>): boolean {
  return libc().send(fd, bytes, BigInt(bytes.byteLength), MSG_DONTWAIT | MSG_NOSIGNAL) === bytes.byteLength;
}
