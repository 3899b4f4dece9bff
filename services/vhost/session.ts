/**
 * One front-end on one VF: the vhost-user state machine. Each message becomes at most one request to the NIC, and the
 * next message is not looked at before the NIC has answered, so what a front-end is told is true.
 *
 * A ring runs when its size, addresses, kick and enable have all come, in whatever order; it stops at GET_VRING_BASE,
 * at a reset, or when it is disabled. If the NIC restarts, the session attaches again and the rings go on where they
 * were.
 */
import { DeviceRefusal, type VfLink } from "../../shared/device/mod.ts";
import {
  MEM_SLOTS_MAX,
  type Message,
  ProtocolError,
  ruleOf,
  VHOST_USER_PROTOCOL_F_CONFIG,
  VHOST_USER_PROTOCOL_F_REPLY_ACK,
  type VhostUserConnection,
} from "../../shared/vhost_user/mod.ts";
import type { SessionState } from "../../shared/api/mod.ts";
import { BackChannel } from "./back_channel.ts";
import { ControlQueue } from "./control/queue.ts";
import { announce, checkMtu, type DeviceParts, Refusal, setConfig } from "./device_messages.ts";
import { inflightMessage } from "./inflight_messages.ts";
import { addMemReg, remMemReg, setMemTable } from "./memory_messages.ts";
import * as N from "./negotiation.ts";
import { type KeptDevice, NetDevice } from "./net_device.ts";
import type { SessionContext } from "./port_context.ts";
import type { RingPath } from "./ring_backend.ts";
import { Rings } from "./rings.ts";
import { sessionState } from "./session_state.ts";
import { fdsOf, type KeptObject, type Parts, valueOf } from "./standby/mod.ts";
import { VringMessages } from "./vring_messages.ts";
import { Wakeups } from "./wakeups.ts";

/** The front-end's end of a session: what comes from it, and what goes to it. */
export type Connection =
  & Pick<VhostUserConnection, "receive" | "reply" | "replyU64" | "close">
  & Partial<Pick<VhostUserConnection, "finish">>;

/** What of the session is none of its parts'. */
export interface KeptSession {
  status: number;
  lastRefusal: string | undefined;
}

/** One front-end's connection. */
export class Session {
  readonly #connection: Connection;
  readonly #context: SessionContext;
  readonly #rings: Rings;
  readonly #vrings: VringMessages;
  readonly #wakeups: Wakeups;
  readonly #device: NetDevice;
  #backChannel: BackChannel | undefined;
  /** Whoever waits for the PF on behalf of this session need wait no longer. */
  readonly #ended = new AbortController();
  #status = 0;
  #lastRefusal: string | undefined;
  /** Told when what a standby has of it has changed. */
  onChange: () => Promise<void> = () => Promise.resolve();
  /** Its rings were served by a process that has ended. */
  #isAdopted = false;

  constructor(connection: Connection, context: SessionContext, path: RingPath) {
    this.#connection = connection;
    this.#context = context;
    const rings = new Rings(context, path, () => connection.close());
    this.#rings = rings;
    rings.onChange = () => this.onChange();
    this.#wakeups = new Wakeups(context.pipeThreads);
    this.#vrings = new VringMessages(rings, this.#wakeups, () => context.paused());
    this.#device = new NetDevice(context.link(), {
      wish: (wish, stopped) => context.wish(wish, stopped),
      forgetWishes: () => context.forgetWishes(),
      queuePairs: () => rings.queuePairs,
      useQueuePairs: (pairs, stopped) =>
        rings.exclusively(async () => stopped.aborted ? undefined : await rings.useQueuePairs(pairs)),
      useOffloads: (features, stopped) =>
        rings.exclusively(async () => stopped.aborted ? undefined : await rings.useOffloads(features)),
      // Front-ends without CONFIG may take the message for an error.
      changed: () => this.#has(VHOST_USER_PROTOCOL_F_CONFIG) && this.#backChannel?.configChanged(),
    });
    rings.control = new ControlQueue({
      ...{ reactor: context.reactor, pace: context.pace, log: context.log },
      carryOut: (command, stopped) => this.#device.carryOut(command, stopped),
      changed: () => this.onChange(),
    });
  }

  get path(): RingPath {
    return this.#rings.path;
  }

  /** Has another data path serve the guest's rings; throws the reason if that cannot be. */
  switchTo(path: RingPath): Promise<void> {
    return this.#rings.switchTo(path);
  }

  /** Tells the front-end what its port has become. */
  set link(link: VfLink) {
    this.#device.link = link;
    this.#rings.settingsChanged();
    void this.onChange();
  }

  /** What whoever stands by has of it. */
  get kept(): Parts {
    return {
      session: { value: this.#own },
      device: this.#device.kept,
      ...this.#rings.kept,
      ...(this.#backChannel ? { backChannel: { value: {}, fds: [this.#backChannel.fd] } } : {}),
    };
  }

  /** Whether another process can go on with it: threads that serve a front-end's pipes it cannot have. */
  get isKeepable(): boolean {
    return !this.#wakeups.hasThread;
  }

  /** Goes on with the session of a process that has ended; `run` serves it. */
  async adopt(object: KeptObject): Promise<void> {
    const { status, lastRefusal } = valueOf<KeptSession>(object, "session");
    [this.#status, this.#lastRefusal] = [status, lastRefusal];
    this.#device.adopt(valueOf<KeptDevice>(object, "device"));
    const [channel] = fdsOf(object, "backChannel");
    if (channel) this.#backChannel = BackChannel.adopt(channel);
    await this.#rings.adopt(object);
    this.#isAdopted = true;
  }

  /** What the API shows. */
  get state(): SessionState {
    return sessionState(this.#rings, this.#own);
  }

  get #own(): KeptSession {
    return { status: this.#status, lastRefusal: this.#lastRefusal };
  }

  /** Serves the front-end until it goes away; answers why it ended. Throws nothing. */
  async run(): Promise<string> {
    const reason = await this.#converse().catch((error) => error instanceof Error ? error.message : String(error));
    this.close();
    await this.#rings.close(reason);
    this.#device.reset();
    this.#wakeups.close();
    this.#backChannel?.close();
    return reason;
  }

  /** Serves message after message; answers or throws why there are no more. */
  async #converse(): Promise<string> {
    if (this.#isAdopted) await this.#rings.resume();
    else await this.#rings.exclusively(() => this.#rings.attach());
    for (;;) {
      const message = await this.#connection.receive();
      if (!message) return "the front-end closed the connection";
      await this.#rings.exclusively(() => this.#serve(message));
    }
  }

  close(): void {
    this.#ended.abort();
    this.#connection.close();
  }

  get #deviceParts(): DeviceParts {
    return { device: this.#device, context: this.#context, ended: this.#ended.signal };
  }

  #has(protocolFeature: number): boolean {
    return N.hasBit(this.#rings.protocolFeatures, protocolFeature);
  }

  async #serve(message: Message): Promise<void> {
    const { name, fds, needReply } = message;
    const { needs, answered } = ruleOf(name);
    // Asked when it has been served: SET_PROTOCOL_FEATURES may be what brings acknowledgements.
    const isAcknowledged = () => needReply && !answered && this.#has(VHOST_USER_PROTOCOL_F_REPLY_ACK);
    try {
      if (needs !== undefined && !this.#has(needs)) {
        throw new ProtocolError(`${name} before its protocol feature was negotiated`);
      }
      await this.#handle(message);
      if (isAcknowledged()) this.#connection.replyU64(name, 0n);
      await this.#connection.finish?.();
    } catch (error) {
      // A Refusal never ends the session. What the NIC refuses ends it, unless the front-end has asked for an answer: it
      // would believe that the NIC has done it.
      const isRefusal = error instanceof Refusal || (error instanceof DeviceRefusal && isAcknowledged());
      if (!isRefusal) throw new Error(`${name}: ${(error as Error).message}`);
      this.#lastRefusal = `${name}: ${error.message}`;
      this.#context.log("warn", `refused ${this.#lastRefusal}`);
      if (isAcknowledged()) this.#connection.replyU64(name, 1n);
      await this.#connection.finish?.();
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
        return this.#connection.replyU64(
          name,
          N.queueNumber(this.#rings.queuePairs, this.#has(VHOST_USER_PROTOCOL_F_CONFIG)),
        );
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
        return await setMemTable(this.#rings.memory, message);
      case "VHOST_USER_ADD_MEM_REG":
        return await addMemReg(this.#rings.memory, message);
      case "VHOST_USER_REM_MEM_REG":
        return await remMemReg(this.#rings.memory, message);
      default:
        return await this.#handleDevice(message);
    }
  }

  /** What concerns the network device beside its rings; the rest is about the rings. */
  async #handleDevice(message: Message): Promise<void> {
    const { name, payload } = message;
    switch (name) {
      case "VHOST_USER_GET_CONFIG":
        return this.#connection.reply(
          name,
          this.#device.configAnswer(payload, this.#has(VHOST_USER_PROTOCOL_F_CONFIG)),
        );
      case "VHOST_USER_GET_INFLIGHT_FD":
      case "VHOST_USER_SET_INFLIGHT_FD":
        return await inflightMessage(this.#rings, this.#connection, message, (cost) => this.#context.pace.step(cost));
      case "VHOST_USER_SET_CONFIG":
        return await setConfig(this.#deviceParts, message);
      case "VHOST_USER_SET_BACKEND_REQ_FD":
        return this.#setBackChannel(message);
      case "VHOST_USER_SEND_RARP":
        return await announce(this.#deviceParts, message);
      case "VHOST_USER_NET_SET_MTU":
        return checkMtu(message);
      default: {
        const answer = await this.#vrings.handle(message);
        if (answer) this.#connection.reply(name, answer);
      }
    }
  }

  async #setFeatures(features: bigint): Promise<void> {
    N.checkOffered("features", features, N.FEATURES);
    await this.#rings.setFeatures(features);
    this.#device.features = features;
  }

  #setProtocolFeatures(features: bigint): void {
    N.checkOffered("protocol features", features, N.PROTOCOL_FEATURES);
    this.#rings.protocolFeatures = features;
  }

  async #setStatus(status: bigint): Promise<void> {
    if (status > 0xffn) throw new ProtocolError(`device status 0x${status.toString(16)} has more than 8 bits`);
    if (status === 0n) await this.#reset();
    this.#status = Number(status);
  }

  /**
   * Stops and resets all rings; features and memory stay, because front-ends do not send their memory again. SET_STATUS
   * 0, RESET_DEVICE and RESET_OWNER all do this; of RESET_OWNER the text asks no more than to disable the rings.
   */
  async #reset(): Promise<void> {
    await this.#vrings.reset();
    this.#device.reset();
    this.#status = 0;
  }

  #setBackChannel(message: Message): void {
    const channel = BackChannel.of(message);
    this.#backChannel?.close();
    this.#backChannel = channel;
  }
}
