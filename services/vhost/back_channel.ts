/** The connection on which a back-end tells its front-end something unasked (SET_BACKEND_REQ_FD). */
import { type Fd, sendNow, socketFault } from "../../shared/os/mod.ts";
import {
  HEADER_BYTES,
  type Message,
  ProtocolError,
  VHOST_USER_BACKEND_CONFIG_CHANGE_MSG,
  VHOST_USER_VERSION,
} from "../../shared/vhost_user/mod.ts";

/** The back-end's end. */
export class BackChannel {
  readonly #fd: Fd;

  /** Takes the socket over. Throws ProtocolError if it cannot be used; it is the caller's then. */
  private constructor(fd: Fd, isChecked = false) {
    this.#fd = fd;
    if (isChecked) return;
    if (fd.kind !== "socket") throw new ProtocolError("its descriptor is not a Unix socket");
    const fault = socketFault(fd.number);
    if (fault) throw new ProtocolError(`its descriptor is a socket that cannot be used: ${fault}`);
  }

  /** SET_BACKEND_REQ_FD: takes the descriptor over. Throws ProtocolError. */
  static of({ fds }: Message): BackChannel {
    const [fd] = fds;
    if (!fd) throw new ProtocolError("no descriptor came");
    const channel = new BackChannel(fd);
    fds.length = 0;
    return channel;
  }

  /** Its socket, for whoever stands by. It stays the channel's. */
  get fd(): Fd {
    return this.#fd;
  }

  /** Goes on with the channel of a process that has ended, which had looked at the socket. */
  static adopt(fd: Fd): BackChannel {
    return new BackChannel(fd, true);
  }

  /**
   * Says that the configuration space has changed. A full socket holds the same message already: nothing else is ever
   * sent here, and the front-end reads the space when it comes to it.
   */
  configChanged(): void {
    const message = new Uint32Array([VHOST_USER_BACKEND_CONFIG_CHANGE_MSG, VHOST_USER_VERSION, 0]);
    sendNow(this.#fd.number, new Uint8Array(message.buffer, 0, HEADER_BYTES));
  }

  close(): void {
    this.#fd.close();
  }
}
