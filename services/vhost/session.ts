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
  CONFIG_HEADER_BYTES,
  MEM_SLOTS_MAX,
  type Message,
  ProtocolError,
  ruleOf,
  VHOST_USER_PROTOCOL_F_CONFIG,
  VHOST_USER_PROTOCOL_F_REPLY_ACK,
  type VhostUserConnection,
} from "../../shared/vhost_user/mod.ts";
import { MTU_MAX, type SessionState } from "../../shared/api/mod.ts";
import { BackChannel } from "./back_channel.ts";
import { ControlQueue } from "./control/queue.ts";
import { inflightMessage } from "./inflight_messages.ts";
import { addMemReg, remMemReg, setMemTable } from "./memory_messages.ts";
import * as N from "./negotiation.ts";
import { macText } from "./mac_text.ts";
import { NetDevice } from "./net_device.ts";
import type { SessionContext } from "./port_context.ts";
import type { RingPath } from "./ring_backend.ts";
import { Rings } from "./rings.ts";
import { VringMessages } from "./vring_messages.ts";
import { Wakeups } from "./wakeups.ts";

/** The front-end's end of a session: what comes from it, and what goes to it. */
export type Connection = Pick<VhostUserConnection, "receive" | "reply" | "replyU64" | "close">;

/** A request was refused and nothing has changed; the conversation goes on. */
class Refusal extends Error {
  override readonly name = "Refusal";
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
  #protocolFeatures = 0n;
  #status = 0;
  #lastRefusal: string | undefined;

  constructor(connection: Connection, context: SessionContext, path: RingPath) {
    this.#connection = connection;
    this.#context = context;
    const rings = new Rings(context, path, () => connection.close());
    this.#rings = rings;
    this.#wakeups = new Wakeups(context.pipeThreads);
    this.#vrings = new VringMessages(rings, this.#wakeups);
    this.#device = new NetDevice(context.link(), {
      wish: (wish, stopped) => context.wish(wish, stopped),
      forgetWishes: () => context.forgetWishes(),
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
  }

  /** What the API shows. */
  get state(): SessionState {
    return {
      features: `0x${this.#rings.features.toString(16)}`,
      protocolFeatures: `0x${this.#protocolFeatures.toString(16)}`,
      status: this.#status,
      queuePairs: this.#rings.queuePairs,
      memoryRegions: this.#rings.memory.table.size,
      ...(this.#lastRefusal === undefined ? {} : { lastRefusal: this.#lastRefusal }),
      ...this.#rings.shown,
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
    this.close();
    await this.#rings.close(reason);
    this.#device.reset();
    this.#wakeups.close();
    this.#backChannel?.close();
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
    this.#ended.abort();
    this.#connection.close();
  }

  // Messages -------------------------------------------------------------------------------------------------

  #has(protocolFeature: number): boolean {
    return N.hasBit(this.#protocolFeatures, protocolFeature);
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
    } catch (error) {
      // A Refusal never ends the session. What the NIC refuses ends it, unless the front-end has asked for an answer: it
      // would believe that the NIC has done it.
      const isRefusal = error instanceof Refusal || (error instanceof DeviceRefusal && isAcknowledged());
      if (!isRefusal) throw new Error(`${name}: ${(error as Error).message}`);
      this.#lastRefusal = `${name}: ${error.message}`;
      this.#context.log("warn", `refused ${this.#lastRefusal}`);
      if (isAcknowledged()) this.#connection.replyU64(name, 1n);
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
        return await this.#setConfig(payload);
      case "VHOST_USER_SET_BACKEND_REQ_FD":
        return this.#setBackChannel(message);
      case "VHOST_USER_SEND_RARP":
        return await this.#announce(macText(new Uint8Array(payload.buffer, 0, 6)));
      case "VHOST_USER_NET_SET_MTU": {
        const mtu = payload.getBigUint64(0, true);
        if (mtu > BigInt(MTU_MAX)) throw new Refusal(`an MTU of ${mtu}: at most ${MTU_MAX}`);
        return;
      }
      default: {
        const answer = await this.#vrings.handle(message);
        if (answer) this.#connection.reply(name, answer);
      }
    }
  }

  async #setFeatures(features: bigint): Promise<void> {
    const unknown = features & ~N.FEATURES;
    if (unknown !== 0n) throw new ProtocolError(`features 0x${unknown.toString(16)} were not offered`);
    await this.#rings.setFeatures(features);
    this.#device.features = features;
  }

  /** Announces the guest. A NIC that is away ends no session: others find the guest with its next frame. */
  async #announce(mac: string): Promise<void> {
    await this.#context.pace.step();
    try {
      await this.#context.announce(mac);
    } catch (error) {
      throw error instanceof DeviceRefusal ? new Refusal(error.message) : error;
    }
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
    this.#device.reset();
    this.#status = 0;
  }

  async #setConfig(payload: DataView<ArrayBuffer>): Promise<void> {
    const bytes = payload.byteLength < CONFIG_HEADER_BYTES ? -1 : payload.getUint32(4, true);
    if (bytes !== payload.byteLength - CONFIG_HEADER_BYTES) {
      throw new ProtocolError(`its ${payload.byteLength} bytes do not hold what they say they do`);
    }
    const data = new Uint8Array(payload.buffer, CONFIG_HEADER_BYTES);
    await this.#context.pace.step();
    const refusal = await this.#device.setConfig(payload.getUint32(0, true), data, this.#ended.signal);
    if (refusal !== undefined) throw new Refusal(refusal);
  }

  #setBackChannel({ fds }: Message): void {
    const [fd] = fds;
    if (!fd) throw new ProtocolError("no descriptor came");
    const channel = new BackChannel(fd);
    fds.length = 0;
    this.#backChannel?.close();
    this.#backChannel = channel;
  }
}
