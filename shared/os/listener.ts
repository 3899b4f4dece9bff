/** Listening Unix sockets: a file that the dead leave behind is replaced, a living listener is not. */
import type { Reactor } from "./epoll.ts";
import { Fd } from "./fd.ts";
import { check, EAGAIN, ECONNREFUSED, EINTR, ENOENT, errno, libc, OsError } from "./libc.ts";
import { newSocket, SOCK_CLOEXEC, SOCK_NONBLOCK, socketAddress, type SocketKind, UnixSocket } from "./socket.ts";

const BACKLOG = 16;
/** ENOMEM, ENFILE, EMFILE, ENOBUFS: what accept4 says when it cannot now. */
const OUT_OF_RESOURCES = new Set([12, 23, 24, 105]);
const ECONNABORTED = 103;
const ACCEPT_RETRY_MS = 100;

/** A listening Unix socket; its file is made with mode 0600 and removed on `close`. */
export class UnixListener implements Disposable {
  readonly path: string;
  readonly #fd: Fd;
  readonly #reactor: Reactor;
  #closed = false;

  private constructor(path: string, fd: Fd, reactor: Reactor) {
    this.path = path;
    this.#fd = fd;
    this.#reactor = reactor;
  }

  /** Listens at `path`. A file left behind by a dead process is replaced, a live listener is an error. */
  static listen(path: string, kind: SocketKind, reactor: Reactor): UnixListener {
    removeStale(path, kind, reactor);
    const fd = newSocket(kind);
    try {
      const address = socketAddress(path);
      const umask = libc().umask(0o177);
      try {
        check(libc().bind(fd.number, address, address.byteLength), "bind", path);
      } finally {
        libc().umask(umask);
      }
      check(libc().listen(fd.number, BACKLOG), "listen", path);
      return new UnixListener(path, fd, reactor);
    } catch (error) {
      fd.close();
      throw error;
    }
  }

  /** Goes on with the listening socket `fd` of a process that has ended, whose file at `path` it is. */
  static adopt(path: string, fd: Fd, reactor: Reactor): UnixListener {
    return new UnixListener(path, fd, reactor);
  }

  /** The listening socket, for whoever is to go on with it. It stays the listener's. */
  get fd(): Fd {
    return this.#fd;
  }

  /** The next connection; `undefined` once the listener is closed. */
  async accept(): Promise<UnixSocket | undefined> {
    while (!this.#closed) {
      const n = libc().accept4(this.#fd.number, 0n, 0n, SOCK_CLOEXEC | SOCK_NONBLOCK);
      if (n >= 0) return new UnixSocket(new Fd(n), this.#reactor);
      const code = errno();
      if (OUT_OF_RESOURCES.has(code)) {
        // Descriptors or memory have run out for now: those who wait are served when some have come back.
        await new Promise((resolve) => setTimeout(resolve, ACCEPT_RETRY_MS));
        continue;
      }
      if (code !== EAGAIN && code !== EINTR && code !== ECONNABORTED) throw new OsError("accept4", this.path, code);
      await this.#reactor.readable(this.#fd.number).catch(() => {});
    }
    return undefined;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#reactor.forget(this.#fd.number);
    // The file goes first: once nobody listens any more, another process may put its own there.
    try {
      Deno.removeSync(this.path);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    } finally {
      this.#fd.close();
    }
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function removeStale(path: string, kind: SocketKind, reactor: Reactor): void {
  try {
    // Only a socket is connected to: a link would lead to somebody else's.
    if (!Deno.lstatSync(path).isSocket) {
      throw new Error(`Cannot listen on ${path}: there is something else than a socket; remove it`);
    }
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return;
    throw error;
  }
  try {
    UnixSocket.connect(path, kind, reactor).close();
  } catch (error) {
    if (!(error instanceof OsError)) throw error;
    if (error.errno === ENOENT) return;
    if (error.errno === ECONNREFUSED) return Deno.removeSync(path);
    throw error;
  }
  throw new Error(`Cannot listen on ${path}: another process listens there`);
}
