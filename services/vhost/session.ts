/**
 * One front-end on one VF: the vhost-user state machine. Each message becomes at most one request to the NIC, and the
 * next message is not looked at before the NIC has answered, so what a front-end is told is true.
 *
 * A ring runs when its size, addresses, kick and enable have all come, in whatever order; it stops at GET_VRING_BASE,
 * at a reset, or when it is disabled. If the NIC restarts, the session attaches again and the rings go on where they
 * were.
 */
import { DeviceRefusal } from "../../shared/device/mod.ts";
import type { Fd } from "../../shared/os/mod.ts";
import {
  type Message,
  ProtocolError,
  VHOST_USER_PROTOCOL_F_REPLY_ACK,
  VHOST_USER_VRING_IDX_MASK,
  VHOST_USER_VRING_NOFD_MASK,
  type VhostUserConnection,
} from "../../shared/vhost_user/mod.ts";
import type { DataPath, SessionState } from "../../shared/api/mod.ts";
import { MEM_SLOTS_MAX } from "./memory.ts";
import { addMemReg, remMemReg, setMemTable } from "./memory_messages.ts";
import * as N from "./negotiation.ts";
import type { SessionContext } from "./port_context.ts";
import { Rings } from "./rings.ts";
import type { Vring } from "./vring.ts";
import { Wakeups } from "./wakeups.ts";

/** The front-end's end of a session: what comes from it, and what goes to it. */
export type Connection = Pick<VhostUserConnection, "receive" | "reply" | "replyU64" | "close">;

/** One front-end's connection. */
export class Session {
  readonly #connection: Connection;
  readonly #context: SessionContext;
  readonly #rings: Rings;
  readonly #wakeups: Wakeups;
  #protocolFeatures = 0n;
  #status = 0;
  #lastRefusal: string | undefined;

  constructor(connection: Connection, context: SessionContext, path: DataPath) {
    this.#connection = connection;
    this.#context = context;
    this.#rings = new Rings(context, path, () => connection.close());
    this.#wakeups = new Wakeups(context.pipeThreads);
  }

  get path(): DataPath {
    return this.#rings.path;
  }

  /** Has another data path serve the guest's rings; throws the reason if that cannot be. */
  switchTo(path: DataPath): Promise<void> {
    return this.#rings.switchTo(path);
  }

  /** What the API shows. */
  get state(): SessionState {
    return {
      features: `0x${this.#rings.features.toString(16)}`,
      protocolFeatures: `0x${this.#protocolFeatures.toString(16)}`,
      status: this.#status,
      memoryRegions: this.#rings.memory.size,
      ...(this.#lastRefusal === undefined ? {} : { lastRefusal: this.#lastRefusal }),
      vrings: this.#rings.all.map((ring) => ({
        index: ring.index,
        size: ring.size,
        enabled: ring.enabled,
        running: ring.running,
        ...(ring.error === undefined ? {} : { error: ring.error }),
      })),
    };
  }

  /** Serves the front-end until it goes away; answers why it ended. Throws nothing. */
  async run(): Promise<string> {
    const reason = await this.#converse().catch((error) => error instanceof Error ? error.message : String(error));
    this.#connection.close();
    await this.#rings.close(reason);
    this.#wakeups.close();
    return reason;
  }

  /** Serves message after message; answers or throws why there are no more. */
  async #converse(): Promise<string> {
    await this.#rings.exclusively(() => this.#rings.attach());
    for (;;) {
      const message = await this.#connection.receive();
      if (!message) return "the front-end closed the connection";
      await this.#rings.exclusively(() => this.#serve(message));
    }
  }

  /** Ends the session from outside: the port is being closed. */
  close(): void {
    this.#connection.close();
  }

  // Messages -------------------------------------------------------------------------------------------------

  async #serve(message: Message): Promise<void> {
    const { name, fds } = message;
    const acknowledge = message.needReply && !N.ANSWERED.has(name) &&
      N.hasBit(this.#protocolFeatures, VHOST_USER_PROTOCOL_F_REPLY_ACK);
    try {
      const needed = N.NEEDS[name];
      if (needed !== undefined && !N.hasBit(this.#protocolFeatures, needed)) {
        throw new ProtocolError(`${name} before its protocol feature was negotiated`);
      }
      await this.#handle(message);
      if (acknowledge) this.#connection.replyU64(name, 0n);
    } catch (error) {
      // A refusal of the NIC is told to a front-end that asked; everything else ends the connection.
      if (!acknowledge || !(error instanceof DeviceRefusal)) throw new Error(`${name}: ${(error as Error).message}`);
      this.#lastRefusal = `${name}: ${error.message}`;
      this.#context.log("warn", `refused ${this.#lastRefusal}`);
      this.#connection.replyU64(name, 1n);
    } finally {
      for (const fd of fds) fd.close();
    }
  }

  async #handle(message: Message): Promise<void> {
    const { name, payload } = message;
    switch (name) {
      case "VHOST_USER_GET_FEATURES":
        return this.#connection.replyU64(name, N.FEATURES);
      case "VHOST_USER_SET_FEATURES":
        return await this.#setFeatures(payload.getBigUint64(0, true));
      case "VHOST_USER_GET_PROTOCOL_FEATURES":
        return this.#connection.replyU64(name, N.PROTOCOL_FEATURES);
      case "VHOST_USER_SET_PROTOCOL_FEATURES":
        return this.#setProtocolFeatures(payload.getBigUint64(0, true));
      case "VHOST_USER_GET_QUEUE_NUM":
        return this.#connection.replyU64(name, BigInt(N.QUEUE_PAIRS_MAX));
      case "VHOST_USER_SET_OWNER":
        return;
      case "VHOST_USER_RESET_OWNER":
      case "VHOST_USER_RESET_DEVICE":
        return await this.#reset();
      case "VHOST_USER_SET_STATUS":
        return await this.#setStatus(payload.getBigUint64(0, true));
      case "VHOST_USER_GET_STATUS":
        return this.#connection.replyU64(name, BigInt(this.#status));
      case "VHOST_USER_GET_MAX_MEM_SLOTS":
        return this.#connection.replyU64(name, BigInt(MEM_SLOTS_MAX));
      case "VHOST_USER_SET_MEM_TABLE":
        return await setMemTable(this.#rings, message);
      case "VHOST_USER_ADD_MEM_REG":
        return await addMemReg(this.#rings, message);
      case "VHOST_USER_REM_MEM_REG":
        return await remMemReg(this.#rings, message);
      case "VHOST_USER_SEND_RARP":
      case "VHOST_USER_NET_SET_MTU":
      case "VHOST_USER_SET_LOG_BASE":
      case "VHOST_USER_SET_LOG_FD":
        throw new ProtocolError("this back-end did not offer it");
      default:
        return await this.#handleVring(message);
    }
  }

  async #setFeatures(features: bigint): Promise<void> {
    const unknown = features & ~N.FEATURES;
    if (unknown !== 0n) throw new ProtocolError(`features 0x${unknown.toString(16)} were not offered`);
    await this.#rings.setFeatures(features);
  }

  #setProtocolFeatures(features: bigint): void {
    const unknown = features & ~N.PROTOCOL_FEATURES;
    if (unknown !== 0n) throw new ProtocolError(`protocol features 0x${unknown.toString(16)} were not offered`);
    this.#protocolFeatures = features;
  }

  async #setStatus(status: bigint): Promise<void> {
    if (status > 0xffn) throw new ProtocolError(`device status 0x${status.toString(16)} has more than 8 bits`);
    if (status === 0n) await this.#reset();
    this.#status = Number(status);
  }

  /**
   * Stops and resets all rings; features and memory stay, because front-ends do not send their memory again. SET_STATUS
   * 0, RESET_DEVICE and RESET_OWNER all do this. The text asks no more of RESET_OWNER than to disable the rings.
   */
  async #reset(): Promise<void> {
    await this.#rings.reset();
    this.#status = 0;
  }

  // Vrings ---------------------------------------------------------------------------------------------------

  #vring(index: number): Vring {
    if (index >= N.QUEUE_PAIRS_MAX * 2) {
      throw new ProtocolError(`vring ${index}: vrings are 0–${N.QUEUE_PAIRS_MAX * 2 - 1}`);
    }
    return this.#rings.at(index);
  }

  async #handleVring(message: Message): Promise<void> {
    const { name, payload } = message;
    const value = payload.byteLength >= 8 ? payload.getUint32(4, true) : 0;
    switch (name) {
      case "VHOST_USER_SET_VRING_NUM":
        return await this.#setNum(this.#vring(payload.getUint32(0, true)), value);
      case "VHOST_USER_SET_VRING_ADDR":
        return await this.#setAddr(this.#vring(payload.getUint32(0, true)), payload);
      case "VHOST_USER_SET_VRING_BASE": {
        const ring = this.#vring(payload.getUint32(0, true));
        if (ring.running) throw new ProtocolError(`vring ${ring.index} runs: stop it before its base is set`);
        // Before the features are known it may be a packed ring's; a split ring's start looks again.
        if (this.#rings.features !== 0n) N.checkBase(ring.index, value, this.#rings.isPacked);
        ring.base = value;
        return;
      }
      case "VHOST_USER_GET_VRING_BASE": {
        const ring = this.#vring(payload.getUint32(0, true));
        await this.#rings.stop(ring);
        ring.kicked = false;
        ring.kick?.close();
        ring.kick = undefined;
        const answer = new Uint32Array([ring.index, this.#rings.baseOf(ring)]);
        return this.#connection.reply(name, new Uint8Array(answer.buffer));
      }
      case "VHOST_USER_SET_VRING_ENABLE": {
        if (value > 1) throw new ProtocolError(`enable ${value}: it is 0 or 1`);
        const ring = this.#vring(payload.getUint32(0, true));
        ring.enabled = value === 1;
        return await this.#rings.settle(ring);
      }
      case "VHOST_USER_SET_VRING_KICK":
      case "VHOST_USER_SET_VRING_CALL":
      case "VHOST_USER_SET_VRING_ERR":
        return await this.#setFd(name, message);
      default:
        throw new ProtocolError("nobody handles it");
    }
  }

  async #setNum(ring: Vring, size: number): Promise<void> {
    N.checkRingSize(ring.index, size, this.#rings.isPacked || this.#rings.features === 0n);
    if (ring.running && size !== ring.size) throw new ProtocolError(`vring ${ring.index} runs: its size is fixed`);
    ring.size = size;
    await this.#rings.settle(ring);
  }

  async #setAddr(ring: Vring, payload: DataView): Promise<void> {
    const [desc, used, avail] = [8, 16, 24].map((at) => payload.getBigUint64(at, true));
    const moved = ring.descUser !== desc || ring.usedUser !== used || ring.availUser !== avail;
    if (moved) await this.#rings.stop(ring);
    ring.descUser = desc;
    ring.usedUser = used;
    ring.availUser = avail;
    await this.#rings.settle(ring);
  }

  async #setFd(name: Message["name"], message: Message): Promise<void> {
    const value = message.payload.getBigUint64(0, true);
    const ring = this.#vring(Number(value & VHOST_USER_VRING_IDX_MASK));
    if (value >> 9n !== 0n) throw new ProtocolError(`0x${value.toString(16)} is not a vring index`);
    const wants = (value & VHOST_USER_VRING_NOFD_MASK) === 0n;
    if (wants !== (message.fds.length === 1)) {
      throw new ProtocolError(
        `vring ${ring.index}: ${wants ? "no descriptor came" : "a descriptor came"} against its flag`,
      );
    }
    const isKick = name === "VHOST_USER_SET_VRING_KICK";
    const fd = this.#checked(ring, isKick, message.fds[0]);
    message.fds.length = 0;
    if (isKick) return await this.#setKick(ring, fd);
    const role = name === "VHOST_USER_SET_VRING_CALL" ? "call" : "err";
    ring[role]?.close();
    ring[role] = fd;
    if (role === "call") await this.#rings.setCall(ring, fd);
  }

  /** The descriptor to use for `fd`, which is still the caller's if this throws. */
  #checked(ring: Vring, isKick: boolean, fd: Fd | undefined): Fd | undefined {
    try {
      if (!isKick) return this.#wakeups.raisable(fd);
      this.#wakeups.checkKick(fd);
      return fd;
    } catch (error) {
      throw new ProtocolError(`vring ${ring.index}: ${(error as Error).message}`);
    }
  }

  async #setKick(ring: Vring, fd: Fd | undefined): Promise<void> {
    const before = ring.kick;
    ring.kick = fd;
    try {
      await this.#rings.stop(ring);
    } finally {
      before?.close();
    }
    ring.kicked = true;
    await this.#rings.settle(ring);
  }
}
