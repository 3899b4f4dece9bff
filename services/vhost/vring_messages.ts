/** The messages that describe a front-end's vrings, one by one, in whatever order they come. */
import type { Fd } from "../../shared/os/mod.ts";
import {
  type Message,
  ProtocolError,
  VHOST_USER_VRING_IDX_MASK,
  VHOST_USER_VRING_NOFD_MASK,
  VHOST_VRING_F_LOG,
} from "../../shared/vhost_user/mod.ts";
import { VIRTQ_PACKED_BASE_INITIAL } from "../../shared/layout/virtio.ts";
import { QUEUE_PAIRS_MAX } from "../../shared/layout/nic.ts";
import { Refusal } from "./device_messages.ts";
import * as N from "./negotiation.ts";
import type { Rings } from "./rings.ts";
import type { Vring } from "./vring.ts";
import type { Wakeups } from "./wakeups.ts";

/** What a session does about its vrings. */
export class VringMessages {
  readonly #rings: Rings;
  readonly #wakeups: Wakeups;
  readonly #paused: () => void;

  /** `paused` is told when the guest, which is being moved, has come to stand still: its last ring has stopped. */
  constructor(rings: Rings, wakeups: Wakeups, paused: () => void) {
    this.#rings = rings;
    this.#wakeups = wakeups;
    this.#paused = paused;
  }

  get #isRunning(): boolean {
    return this.#rings.all.some(({ running }) => running);
  }

  #vring(index: number): Vring {
    // One more than the pairs have: the control queue.
    const { queuePairs } = this.#rings;
    const last = queuePairs * 2;
    if (index > last) {
      const offered = `vrings are 0–${last}, since ${queuePairs} queue pairs were offered`;
      const remedy = queuePairs < QUEUE_PAIRS_MAX ? "; more by queue_pairs of the port's policy" : "";
      throw new ProtocolError(`vring ${index}: ${offered}${remedy}`);
    }
    return this.#rings.at(index);
  }

  /** Does what a message asks for; answers the payload of its answer, if it has one. Throws ProtocolError. */
  handle(message: Message): Promise<Uint8Array | undefined> {
    return this.#noticingPause(() => this.#carryOut(message));
  }

  /** Stops and resets all rings. */
  reset(): Promise<void> {
    return this.#noticingPause(() => this.#rings.reset());
  }

  async #noticingPause<T>(step: () => Promise<T>): Promise<T> {
    const ran = this.#rings.log.isOn && this.#isRunning;
    const answer = await step();
    if (ran && !this.#isRunning) this.#paused();
    return answer;
  }

  async #carryOut(message: Message): Promise<Uint8Array | undefined> {
    const { name, payload } = message;
    const value = payload.byteLength >= 8 ? payload.getUint32(4, true) : 0;
    switch (name) {
      case "VHOST_USER_SET_VRING_NUM":
        await this.#setNum(this.#vring(payload.getUint32(0, true)), value);
        return undefined;
      case "VHOST_USER_SET_VRING_ADDR":
        await this.#setAddr(this.#vring(payload.getUint32(0, true)), payload);
        return undefined;
      case "VHOST_USER_SET_VRING_BASE": {
        const ring = this.#vring(payload.getUint32(0, true));
        if (ring.running) throw new ProtocolError(`vring ${ring.index} runs: stop it before its base is set`);
        // Before the features are known it may be a packed ring's; a split ring's start looks again.
        if (this.#rings.isNegotiated) N.checkBase(ring.index, value, this.#rings.isPacked);
        ring.isBaseOurs = ring.hasRun && ring.base === value;
        ring.base = value;
        return undefined;
      }
      case "VHOST_USER_GET_VRING_BASE": {
        const ring = this.#vring(payload.getUint32(0, true));
        await this.#rings.stop(ring);
        ring.kicked = false;
        ring.kick?.close();
        ring.kick = undefined;
        const answer = new Uint32Array([
          ring.index,
          ring.base ?? (this.#rings.isPacked ? VIRTQ_PACKED_BASE_INITIAL : 0),
        ]);
        return new Uint8Array(answer.buffer);
      }
      case "VHOST_USER_SET_VRING_ENABLE": {
        if (value > 1) throw new ProtocolError(`enable ${value}: it is 0 or 1`);
        const ring = this.#vring(payload.getUint32(0, true));
        ring.enabled = value === 1;
        await this.#rings.settle(ring);
        return undefined;
      }
      case "VHOST_USER_SET_VRING_KICK":
      case "VHOST_USER_SET_VRING_CALL":
      case "VHOST_USER_SET_VRING_ERR":
        await this.#setFd(name, message);
        return undefined;
      case "VHOST_USER_SET_LOG_BASE":
        await this.#rings.log.set(message);
        // QEMU and DPDK agree on an answer of nothing.
        return new Uint8Array();
      case "VHOST_USER_SET_LOG_FD":
        // The text leaves it to the back-end ("may be used"), and a guest that is being moved must not lose its network.
        throw new Refusal("this back-end tells nobody of writes to the log: look into it without being told");
      default:
        throw new ProtocolError("nobody handles it");
    }
  }

  async #setNum(ring: Vring, size: number): Promise<void> {
    N.checkRingSize(ring.index, size, this.#rings.isPacked || !this.#rings.isNegotiated);
    if (ring.running && size !== ring.size) throw new ProtocolError(`vring ${ring.index} runs: its size is fixed`);
    ring.size = size;
    await this.#rings.settle(ring);
  }

  async #setAddr(ring: Vring, payload: DataView): Promise<void> {
    const [desc, used, avail] = [8, 16, 24].map((at) => payload.getBigUint64(at, true));
    const flags = payload.getUint32(4, true);
    const usedLog = flags & VHOST_VRING_F_LOG ? payload.getBigUint64(32, true) : undefined;
    const moved = ring.descUser !== desc || ring.usedUser !== used || ring.availUser !== avail;
    if (moved) await this.#rings.stop(ring);
    ring.descUser = desc;
    ring.usedUser = used;
    ring.availUser = avail;
    await this.#rings.setUsedLog(ring, usedLog);
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
