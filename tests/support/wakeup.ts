/** Descriptors that somebody is woken by, of every kind, with the end that reads them and what their owner can do. */
import { createEventFd, drainEventFd, Fd, type Reactor, UnixSocket } from "../../shared/os/mod.ts";
import { check, libc } from "../../shared/os/libc.ts";

const AF_UNIX = 1;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;
const F_SETFL = 4;
const SOCKET_TYPES = { socket: 1, datagram: 2, seqpacket: 5 };

/** What is sent: an eventfd, one end of a socket pair, or the end of a pipe that is written. */
export type WakeupKind = "eventfd" | "pipe" | keyof typeof SOCKET_TYPES;

/** Both ends of a pair, non-blocking: [read, written]. */
function pairOf(kind: Exclude<WakeupKind, "eventfd">): [Fd, Fd] {
  const fds = new Int32Array(2);
  if (kind === "pipe") check(libc().pipe2(fds, O_NONBLOCK | O_CLOEXEC), "pipe2", "");
  else {
    const type = SOCKET_TYPES[kind] | SOCK_NONBLOCK | SOCK_CLOEXEC;
    check(libc().socketpair(AF_UNIX, type, 0, fds), "socketpair", kind);
  }
  return [new Fd(fds[0] ?? -1), new Fd(fds[1] ?? -1)];
}

/** A wake-up: `sent` is given away, the other end is read here. */
export class Wakeup implements Disposable {
  readonly kind: WakeupKind;
  readonly sent: Fd;
  readonly #read: Fd;

  constructor(kind: WakeupKind) {
    this.kind = kind;
    if (kind === "eventfd") this.#read = this.sent = createEventFd();
    else [this.#read, this.sent] = pairOf(kind);
  }

  /** How often it was raised since the last look; never waits. */
  take(): bigint {
    if (this.kind === "eventfd") return drainEventFd(this.#read.number);
    const bytes = new Uint8Array(8);
    let times = 0n;
    while (libc().read(this.#read.number, bytes, 8n) === 8n) times++;
    return times;
  }

  /** What has come, `bytes` at the most; never waits. */
  read(bytes: number): number[] {
    const room = new Uint8Array(bytes);
    const got = Number(libc().read(this.#read.number, room, BigInt(bytes)));
    return [...room.subarray(0, Math.max(0, got))];
  }

  /** Fills it and makes it blocking: a plain write waits until somebody reads. */
  block(): void {
    if (this.kind === "eventfd") this.take();
    const full = new BigUint64Array([this.kind === "eventfd" ? 0xffff_ffff_ffff_fffen : 1n]);
    while (libc().write(this.sent.number, full, 8n) === 8n);
    libc().fcntl(this.sent.number, F_SETFL, 0n);
  }

  /** Puts a descriptor into what is sent, by the other end. */
  put(fd: number, reactor: Reactor): void {
    new UnixSocket(this.#read, reactor).send(new Uint8Array(1), [fd]);
  }

  /** Nobody reads it any more. */
  closeReader(): void {
    this.#read.close();
  }

  [Symbol.dispose](): void {
    this.#read.close();
    this.sent.close();
  }
}
