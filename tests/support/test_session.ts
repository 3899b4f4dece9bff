/**
 * A vhost-user session whose front-end and ring backends are played by the test: messages go in one at a time, with real
 * descriptors, and what reaches a backend is kept, in order.
 */
import { COALESCE_ADAPTIVE, type DataPath, type LinkPatch, type SessionState } from "../../shared/api/mod.ts";
import { Pace } from "../../shared/async/mod.ts";
import { createEventFd, createMemfd, drainEventFd, type Fd, Reactor, signalEventFd } from "../../shared/os/mod.ts";
import { duplicateFd } from "../../shared/os/fd.ts";
import { DeviceRefusal, type VfLink } from "../../shared/device/mod.ts";
import {
  type Message,
  type RequestName,
  VHOST_USER_F_PROTOCOL_FEATURES,
  type VhostRegion,
} from "../../shared/vhost_user/mod.ts";
import type { RingBackendEvents } from "../../services/vhost/ring_backend.ts";
import { type Connection, Session } from "../../services/vhost/session.ts";
import { PipeThreads } from "../../services/vhost/wakeups.ts";
import { type BackendWorld, FakeBackend } from "./fake_backend.ts";
import { bits, memoryTable, PROTOCOL_FEATURES, singleRegion, u64, vringAddress, vringState } from "./front_end.ts";
import { descriptorsOf, openFileOf } from "./open_files.ts";
import { until } from "./wait.ts";

export { memoryTable, PROTOCOL_FEATURES, singleRegion, u64, vringAddress, vringState };

/** The size of every ring, unless a test says otherwise. */
export const SIZE = 64;
/** Bit 30: rings begin disabled, and wait for their enable message. */
export const WITH_PROTOCOL_FEATURES = bits(VHOST_USER_F_PROTOCOL_FEATURES);
const MEMORY_BYTES = 0x10000;

/** Region `n` of the guest: at `n` × 4 GiB, and somewhere else in the front-end's own address space. */
export function region(n: number): VhostRegion {
  return {
    ...{ guestAddress: BigInt(n) << 32n, userAddress: 0x7f00_0000_0000n + (BigInt(n) << 32n) },
    ...{ size: BigInt(MEMORY_BYTES), mmapOffset: 0n },
  };
}

/** The front-end's end of the connection. */
class FakeConnection implements Connection {
  /** What was answered: request, and payload. */
  readonly replies: [RequestName, DataView][] = [];
  /** Descriptors that came with answers. */
  readonly fds: Fd[] = [];
  isClosed = false;
  #wanted = Promise.withResolvers<Message | undefined>();
  #idle = Promise.withResolvers<void>();

  receive(): Promise<Message | undefined> {
    if (this.isClosed) return Promise.resolve(undefined);
    this.#wanted = Promise.withResolvers();
    this.#idle.resolve();
    return this.#wanted.promise;
  }

  /** Resolves when the session waits for the next message. */
  get idle(): Promise<void> {
    return this.#idle.promise;
  }

  deliver(message: Message | undefined): void {
    this.#idle = Promise.withResolvers();
    this.#wanted.resolve(message);
  }

  reply(name: RequestName, payload: Uint8Array, fds: number[] = []): void {
    this.fds.push(...fds.map(duplicateFd));
    this.replies.push([name, new DataView(payload.slice().buffer)]);
  }

  replyU64(name: RequestName, value: bigint): void {
    this.reply(name, u64(value));
  }

  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.#wanted.resolve(undefined);
  }
}

/** A session, its front-end, and its backends. */
export class TestSession implements AsyncDisposable {
  readonly session: Session;
  readonly connection = new FakeConnection();
  /** What reached backends, as `nic: start 0 at 0 kick call`. */
  readonly log: string[] = [];
  /** Used indices, which are in the guest's memory: where its split rings go on. */
  readonly used = new Map<number, number>();
  readonly #world: BackendWorld = { log: this.log, troubles: new Map(), used: this.used };
  /** What the device's guest wished, and what the PF says to it: why it is refused, if it is. */
  readonly wishes: LinkPatch[] = [];
  refusal: string | undefined;
  /** Addresses that were announced. */
  readonly announced: string[] = [];
  readonly #reactor = new Reactor();
  #link: VfLink = { mac: "02:00:00:00:00:07", up: true, mtu: 1500, queuePairs: 16, coalesce: COALESCE_ADAPTIVE };
  /** Why the session has ended. */
  readonly ended: Promise<string>;
  backend: FakeBackend | undefined;
  readonly warnings: string[] = [];
  /** How often the PF was told to forget what the guest wished. */
  forgotten = 0;
  /** How often it was told that the guest stands still. */
  pauses = 0;
  readonly #files: Fd[] = [];

  constructor(path: DataPath = "passthrough", troubles: Record<string, Error> = {}, link: Partial<VfLink> = {}) {
    this.#link = { ...this.#link, ...link };
    for (const [op, trouble] of Object.entries(troubles)) this.fail(op, trouble);
    const context = {
      pace: new Pace({ perSecond: 1e9, burst: 1e9 }),
      log: (_level: string, message: string) => void this.warnings.push(message),
      notifier: { raise: (fd: Fd) => signalEventFd(fd.number) },
      pipeThreads: new PipeThreads(),
      reactor: this.#reactor,
      link: () => this.#link,
      wish: (wish: LinkPatch) => {
        this.wishes.push(wish);
        return Promise.resolve(this.refusal);
      },
      forgetWishes: () => void this.forgotten++,
      paused: () => void this.pauses++,
      announce: (mac: string) => {
        this.announced.push(mac);
        return this.refusal === undefined
          ? Promise.resolve()
          : Promise.reject(new DeviceRefusal("nic-gone", this.refusal));
      },
      makeBackend: (path: DataPath, events: RingBackendEvents) => {
        const names = { passthrough: "nic", emulated: "local", guest: "" };
        this.backend = path === "guest" ? undefined : new FakeBackend(names[path], events, this.#world);
        return this.backend;
      },
    };
    this.session = new Session(this.connection, context, path);
    this.ended = this.session.run();
  }

  /** One that has agreed on every protocol feature, with its memory and nothing else. */
  static async start(path: DataPath = "passthrough", features = WITH_PROTOCOL_FEATURES): Promise<TestSession> {
    const test = new TestSession(path);
    await test.send("VHOST_USER_SET_PROTOCOL_FEATURES", u64(PROTOCOL_FEATURES));
    await test.send("VHOST_USER_SET_FEATURES", u64(features));
    await test.setMemory(1);
    test.log.length = 0;
    return test;
  }

  get state(): SessionState {
    return this.session.state;
  }

  /** The PF changes the port. */
  set link(link: Omit<VfLink, "coalesce" | "queuePairs"> & Partial<VfLink>) {
    this.#link = { ...this.#link, ...link };
    this.session.link = this.#link;
  }

  /** When a backend is asked for `op`, whichever it is, it fails so many times, after so many that succeed. */
  fail(op: string, error: Error, { times = 1, after = 0 } = {}): void {
    const succeeds = Array<undefined>(after).fill(undefined);
    this.#world.troubles.set(op, [...succeeds, ...Array<Error>(times).fill(error)]);
  }

  /** A new eventfd, which the test reads; it is closed with the test. */
  eventFd(): Fd {
    const fd = createEventFd();
    this.#files.push(fd);
    return fd;
  }

  /** A new memory file. */
  memoryFile(): Fd {
    const fd = createMemfd("ringfabric-test", MEMORY_BYTES);
    this.#files.push(fd);
    return fd;
  }

  /** Sends a message and waits until the session has dealt with it, or has ended. The session owns what `fds` become. */
  async send(
    name: RequestName,
    payload: Uint8Array<ArrayBuffer> = new Uint8Array(),
    fds: readonly Fd[] = [],
    needReply = false,
  ): Promise<void> {
    await Promise.race([this.connection.idle, this.ended]);
    const own = fds.map(({ number }) => duplicateFd(number));
    this.connection.deliver({ name, payload: new DataView(payload.slice().buffer), fds: own, needReply });
    await Promise.race([this.connection.idle, this.ended]);
  }

  /** Sends a message that has an answer; answers the answer. */
  async ask(name: RequestName, payload?: Uint8Array<ArrayBuffer>): Promise<DataView | undefined> {
    const before = this.connection.replies.length;
    await this.send(name, payload);
    return this.connection.replies[before]?.[1];
  }

  /** Sends a message that wants an acknowledgement; answers it, or `undefined` if there was none. */
  async acknowledged(
    name: RequestName,
    payload?: Uint8Array<ArrayBuffer>,
    fds: readonly Fd[] = [],
  ): Promise<bigint | undefined> {
    const before = this.connection.replies.length;
    await this.send(name, payload, fds, true);
    return this.connection.replies[before]?.[1].getBigUint64(0, true);
  }

  /** The whole memory table: regions by number. */
  async setMemory(...numbers: number[]): Promise<void> {
    const regions = numbers.map(region);
    await this.send("VHOST_USER_SET_MEM_TABLE", memoryTable(regions), numbers.map(() => this.memoryFile()));
  }

  /** The messages that describe ring `index`, and the one that enables it; the ring lies in region 1. */
  messages(index: number): Record<"num" | "base" | "addr" | "kick" | "call" | "enable", () => Promise<void>> {
    const at = region(1).userAddress + BigInt(index * 0x2000);
    const fd = (kind: "KICK" | "CALL") => () =>
      this.send(`VHOST_USER_SET_VRING_${kind}`, u64(BigInt(index)), [this.eventFd()]);
    return {
      num: () => this.send("VHOST_USER_SET_VRING_NUM", vringState(index, SIZE)),
      base: () => this.send("VHOST_USER_SET_VRING_BASE", vringState(index, 0)),
      addr: () => this.send("VHOST_USER_SET_VRING_ADDR", vringAddress(index, at, at + 0x800n, at + 0x400n)),
      kick: fd("KICK"),
      call: fd("CALL"),
      enable: () => this.enable(index, true),
    };
  }

  enable(index: number, on: boolean): Promise<void> {
    return this.send("VHOST_USER_SET_VRING_ENABLE", vringState(index, on ? 1 : 0));
  }

  /** Starts rings. What reaches the backend for that is not kept. */
  async startRings(...indices: number[]): Promise<void> {
    for (const index of indices) {
      const { num, base, addr, kick, call, enable } = this.messages(index);
      for (const message of [num, base, addr, call, kick, enable]) await message();
    }
    this.log.length = 0;
  }

  /** Stops ring `index`; answers its base. */
  async stopRing(index: number): Promise<number | undefined> {
    return (await this.ask("VHOST_USER_GET_VRING_BASE", vringState(index, 0)))?.getUint32(4, true);
  }

  /** The rings that run, by the backend's word; the session says the same. */
  get running(): number[] {
    return this.state.vrings.filter(({ running }) => running).map(({ index }) => index);
  }

  /** The front-end goes away; answers why the session has ended. */
  async end(): Promise<string> {
    this.connection.deliver(undefined);
    return await this.ended;
  }

  /** Ends it. Every descriptor that it was given is closed by then, and the test's own are the last ones. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.session.close();
    await this.ended;
    await this.#reactor.close();
    for (const fd of this.connection.fds) fd.close();
    const own = this.#files.filter(({ closed }) => !closed);
    const files = new Set(own.map(({ number }) => openFileOf(number)));
    await until("every descriptor to be closed", () => descriptorsOf(files) <= own.length);
    for (const fd of own) fd.close();
  }
}

/** Waits until an eventfd was signalled: that is done by another thread. */
export async function untilSignalled(fd: Fd): Promise<void> {
  await until("a signal", () => drainEventFd(fd.number) > 0n);
}
