/**
 * Taking from a stream socket, and putting into it, so that another process which has the same socket can go on exactly
 * there when this one is killed. The kernel keeps the two facts that memory cannot keep, since it changes them together with
 * the queue itself: how much of what was announced has been taken (SO_PEEK_OFF goes back by what is read), and whether an
 * answer has gone out (splice moves it from a pipe into the socket).
 */
import { Fd } from "./fd.ts";
import { check, EAGAIN, errno, libc, OsError } from "./libc.ts";

// sys/socket.h
const SOL_SOCKET = 1;
const SO_PEEK_OFF = 42;
const MSG_DONTWAIT = 0x40;
// fcntl.h
const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;
const SPLICE_F_NONBLOCK = 2;
const PIPE_BYTES = 65536;

/** A mark has the low bits of a number, and above all the bytes that are still to be taken. */
const TURN_SHIFT = 20;
const TURN_MASK = 0x3ff;
const BYTES_MASK = (1 << TURN_SHIFT) - 1;

/** Announces that `bytes` bytes are taken from the socket as number `turn`. Until `endTake` nobody may peek. */
export function beginTake(fd: number, turn: number, bytes: number): void {
  setMark(fd, ((turn & TURN_MASK) << TURN_SHIFT) | bytes);
}

/** How many of the bytes that were announced as number `turn` are still there; 0 if they are taken, or it was another turn. */
export function untaken(fd: number, turn: number): number {
  const mark = new Int32Array(1);
  const bytes = new Uint32Array([4]);
  check(libc().getsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, mark, bytes), "getsockopt SO_PEEK_OFF", `fd ${fd}`);
  const [value = -1] = mark;
  return value < 0 || value >> TURN_SHIFT !== (turn & TURN_MASK) ? 0 : value & BYTES_MASK;
}

/** What was announced is over: peeking begins at the front again. */
export function endTake(fd: number): void {
  setMark(fd, -1);
}

function setMark(fd: number, mark: number): void {
  const value = new Int32Array([mark]);
  check(libc().setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, value, 4), "setsockopt SO_PEEK_OFF", `fd ${fd}`);
}

/** Takes `bytes` bytes that are there off the socket; descriptors that lie with them are closed. */
export function discard(fd: number, bytes: number): void {
  const buffer = new Uint8Array(bytes);
  for (let left = bytes; left > 0;) {
    const taken = Number(libc().recv(fd, buffer, BigInt(left), MSG_DONTWAIT));
    if (taken <= 0) throw new OsError("recv", `fd ${fd}`, taken < 0 ? errno() : EAGAIN);
    left -= taken;
  }
}

/** Where an answer waits until it goes out: a pipe, which both processes have. */
export class Outbox implements Disposable {
  readonly #ends: readonly [Fd, Fd];

  private constructor(ends: readonly [Fd, Fd]) {
    this.#ends = ends;
  }

  static open(): Outbox {
    const ends = new Int32Array(2);
    check(libc().pipe2(ends, O_NONBLOCK | O_CLOEXEC), "pipe2", "an outbox");
    return new Outbox([new Fd(ends[0] ?? -1), new Fd(ends[1] ?? -1)]);
  }

  /** Goes on with another process's, whose ends become this one's. */
  static adopt(read: Fd, write: Fd): Outbox {
    return new Outbox([read, write]);
  }

  /** Both ends, for whoever stands by. They stay the outbox's. */
  get fds(): readonly [Fd, Fd] {
    return this.#ends;
  }

  /** Puts bytes in. */
  put(bytes: Uint8Array<ArrayBuffer>): void {
    const n = Number(libc().write(this.#ends[1].number, bytes, BigInt(bytes.byteLength)));
    if (n !== bytes.byteLength) throw new OsError("write", "an outbox", n < 0 ? errno() : EAGAIN);
  }

  /** Takes up to `bytes` bytes out; none if it is empty. */
  take(bytes = PIPE_BYTES): Uint8Array<ArrayBuffer> {
    const buffer = new Uint8Array(bytes);
    const n = Number(libc().read(this.#ends[0].number, buffer, BigInt(bytes)));
    return buffer.slice(0, Math.max(0, n));
  }

  /** Moves `bytes` bytes into a socket at once. Throws OsError EAGAIN if its peer does not read. */
  moveInto(socket: number, bytes: number): void {
    for (let left = bytes; left > 0;) {
      const moved = Number(libc().splice(this.#ends[0].number, 0n, socket, 0n, BigInt(left), SPLICE_F_NONBLOCK));
      if (moved <= 0) throw new OsError("splice", `fd ${socket}`, moved < 0 ? errno() : EAGAIN);
      left -= moved;
    }
  }

  close(): void {
    for (const end of this.#ends) end.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
