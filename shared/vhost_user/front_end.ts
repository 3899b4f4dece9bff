/**
 * The front-end role of vhost-user: a guest's side of the connection. Requests go out one after the other; where the
 * back-end can acknowledge (REPLY_ACK), each is waited for, so that an error belongs to the request that caused it.
 */
import { type Fd, type Reactor, UnixSocket } from "../os/mod.ts";
import {
  HEADER_BYTES,
  ProtocolError,
  type RequestName,
  REQUESTS,
  VHOST_USER_F_PROTOCOL_FEATURES,
  VHOST_USER_NEED_REPLY_MASK,
  VHOST_USER_PROTOCOL_F_MQ,
  VHOST_USER_PROTOCOL_F_REPLY_ACK,
  VHOST_USER_VERSION,
  type VhostRegion,
  writeRegion,
} from "./protocol.ts";

const REPLY_DEADLINE_MS = 10_000;
const REPLY_BYTES_MAX = 4096;
const FRONT_END_FEATURES = (1n << BigInt(VHOST_USER_PROTOCOL_F_MQ)) | (1n << BigInt(VHOST_USER_PROTOCOL_F_REPLY_ACK));

/** Rings of one virtqueue, in the front-end's own addresses. */
export interface VringAddresses {
  desc: bigint;
  avail: bigint;
  used: bigint;
  size: number;
}

/** A connection to a back-end. */
export class VhostUserFrontEnd implements Disposable {
  readonly #socket: UnixSocket;
  #protocolFeatures = 0n;

  private constructor(socket: UnixSocket) {
    this.#socket = socket;
  }

  /** Connects to the back-end that listens at `path`. */
  static connect(path: string, reactor: Reactor): VhostUserFrontEnd {
    return new VhostUserFrontEnd(UnixSocket.connect(path, "stream", reactor));
  }

  /** Agrees on features: those that `choose` takes of what the back-end has. Answers them, and how many queues it has. */
  async negotiate(choose: (offered: bigint) => bigint): Promise<{ features: bigint; queues: number }> {
    const offered = await this.#ask("VHOST_USER_GET_FEATURES");
    const protocol = 1n << BigInt(VHOST_USER_F_PROTOCOL_FEATURES);
    if (offered & protocol) {
      const agreed = await this.#ask("VHOST_USER_GET_PROTOCOL_FEATURES") & FRONT_END_FEATURES;
      // Acknowledgements are there from the next message on.
      await this.#tell("VHOST_USER_SET_PROTOCOL_FEATURES", u64(agreed));
      this.#protocolFeatures = agreed;
    }
    await this.#tell("VHOST_USER_SET_OWNER", new Uint8Array());
    const many = this.#protocolFeatures & (1n << BigInt(VHOST_USER_PROTOCOL_F_MQ));
    const queues = many ? Number(await this.#ask("VHOST_USER_GET_QUEUE_NUM")) : 1;
    const features = choose(offered) | (offered & protocol);
    await this.#tell("VHOST_USER_SET_FEATURES", u64(features));
    return { features, queues };
  }

  /** Shares memory with the back-end: one descriptor for each region. */
  async setMemory(regions: readonly VhostRegion[], fds: readonly number[]): Promise<void> {
    const payload = new Uint8Array(8 + regions.length * 32);
    const view = new DataView(payload.buffer);
    view.setUint32(0, regions.length, true);
    regions.forEach((region, i) => writeRegion(view, 8 + i * 32, region));
    await this.#tell("VHOST_USER_SET_MEM_TABLE", payload, fds);
  }

  /** Describes a vring, hands its eventfds over, and enables it. */
  async startVring(index: number, ring: VringAddresses, base: number, kick: Fd, call: Fd): Promise<void> {
    const address = new Uint8Array(40);
    const view = new DataView(address.buffer);
    view.setUint32(0, index, true);
    [ring.desc, ring.used, ring.avail].forEach((at, i) => view.setBigUint64(8 + i * 8, at, true));
    await this.#tell("VHOST_USER_SET_VRING_NUM", state(index, ring.size));
    await this.#tell("VHOST_USER_SET_VRING_BASE", state(index, base));
    await this.#tell("VHOST_USER_SET_VRING_ADDR", address);
    await this.#tell("VHOST_USER_SET_VRING_KICK", u64(BigInt(index)), [kick.number]);
    await this.#tell("VHOST_USER_SET_VRING_CALL", u64(BigInt(index)), [call.number]);
    // Without protocol features there is no such message, and rings are enabled from the start.
    if (this.#protocolFeatures !== 0n) await this.#tell("VHOST_USER_SET_VRING_ENABLE", state(index, 1));
  }

  /** Resolves when the back-end has closed the connection; nothing may be asked meanwhile. */
  async ended(): Promise<void> {
    try {
      const { fds } = await this.#socket.receive(new Uint8Array(REPLY_BYTES_MAX));
      for (const fd of fds) fd.close();
    } catch {
      // It is closed.
    }
  }

  async #tell(name: RequestName, payload: Uint8Array, fds: readonly number[] = []): Promise<void> {
    const acknowledged = (this.#protocolFeatures & (1n << BigInt(VHOST_USER_PROTOCOL_F_REPLY_ACK))) !== 0n;
    this.#send(name, payload, fds, acknowledged);
    if (!acknowledged) return;
    const code = (await this.#reply(name)).getBigUint64(0, true);
    if (code !== 0n) throw new ProtocolError(`the back-end refused ${name} (${code})`);
  }

  async #ask(name: RequestName): Promise<bigint> {
    this.#send(name, new Uint8Array(), [], false);
    const reply = await this.#reply(name);
    if (reply.byteLength !== 8) throw new ProtocolError(`the back-end answered ${name} with ${reply.byteLength} bytes`);
    return reply.getBigUint64(0, true);
  }

  #send(name: RequestName, payload: Uint8Array, fds: readonly number[], needReply: boolean): void {
    const bytes = new Uint8Array(HEADER_BYTES + payload.byteLength);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, REQUESTS[name].number, true);
    view.setUint32(4, VHOST_USER_VERSION | (needReply ? VHOST_USER_NEED_REPLY_MASK : 0), true);
    view.setUint32(8, payload.byteLength, true);
    bytes.set(payload, HEADER_BYTES);
    this.#socket.send(bytes, fds);
  }

  async #reply(name: RequestName): Promise<DataView> {
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      this.#socket.close();
    }, REPLY_DEADLINE_MS);
    try {
      const header = await this.#read(HEADER_BYTES);
      const size = header.getUint32(8, true);
      if (header.getUint32(0, true) !== REQUESTS[name].number || size > REPLY_BYTES_MAX) {
        throw new ProtocolError(`the back-end answered something else than ${name}`);
      }
      return await this.#read(size);
    } catch (error) {
      if (late) throw new ProtocolError(`the back-end did not answer ${name} within ${REPLY_DEADLINE_MS / 1000} s`);
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  async #read(length: number): Promise<DataView> {
    const bytes = new Uint8Array(length);
    for (let at = 0; at < length;) {
      const got = await this.#socket.receive(bytes.subarray(at));
      for (const fd of got.fds) fd.close();
      if (got.bytes === 0) throw new ProtocolError("the back-end closed the connection");
      at += got.bytes;
    }
    return new DataView(bytes.buffer);
  }

  close(): void {
    this.#socket.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function u64(value: bigint): Uint8Array {
  return new Uint8Array(new BigUint64Array([value]).buffer);
}

function state(index: number, value: number): Uint8Array {
  return new Uint8Array(new Uint32Array([index, value]).buffer);
}
