/**
 * A vhost-user front-end for tests, honest or not: it can send any message, whole or broken, with any descriptors, and
 * its guest is one with split or packed rings over a memfd that the back-end maps.
 */
import { createEventFd, createMemfd, type Fd, Reactor, signalEventFd, UnixSocket } from "../../shared/os/mod.ts";
import { errno, libc, OsError } from "../../shared/os/libc.ts";
import {
  HEADER_BYTES,
  type RequestName,
  REQUESTS,
  VHOST_USER_F_PROTOCOL_FEATURES,
  VHOST_USER_NEED_REPLY_MASK,
  VHOST_USER_PROTOCOL_F_BACKEND_REQ,
  VHOST_USER_PROTOCOL_F_CONFIG,
  VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS,
  VHOST_USER_PROTOCOL_F_LOG_SHMFD,
  VHOST_USER_PROTOCOL_F_MQ,
  VHOST_USER_PROTOCOL_F_NET_MTU,
  VHOST_USER_PROTOCOL_F_RARP,
  VHOST_USER_PROTOCOL_F_REPLY_ACK,
  VHOST_USER_PROTOCOL_F_RESET_DEVICE,
  VHOST_USER_PROTOCOL_F_STATUS,
  VHOST_USER_VERSION,
  type VhostRegion,
  writeRegion,
} from "../../shared/vhost_user/mod.ts";
import {
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1,
  VIRTIO_NET_F_MQ,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from "../../shared/layout/virtio.ts";
import { type VirtqueueName, VIRTQUEUES } from "./formats.ts";
import { type MockGuest, SplitDriver } from "./mock_guest.ts";
import type { PackedGuest, PackedGuestOptions } from "./packed_guest.ts";
import { within } from "./wait.ts";
import { Wakeup, type WakeupKind } from "./wakeup.ts";

const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;
const MAP_FAILED = 0xffff_ffff_ffff_ffffn;

/** Bits as a mask. */
export function bits(...positions: number[]): bigint {
  return positions.reduce((mask, position) => mask | (1n << BigInt(position)), 0n);
}

/** What the mock guest understands. */
export const FEATURES = bits(VIRTIO_F_VERSION_1, VIRTIO_RING_F_INDIRECT_DESC, VHOST_USER_F_PROTOCOL_FEATURES);
export const PROTOCOL_FEATURES = bits(
  VHOST_USER_PROTOCOL_F_MQ,
  VHOST_USER_PROTOCOL_F_LOG_SHMFD,
  VHOST_USER_PROTOCOL_F_RARP,
  VHOST_USER_PROTOCOL_F_REPLY_ACK,
  VHOST_USER_PROTOCOL_F_NET_MTU,
  VHOST_USER_PROTOCOL_F_BACKEND_REQ,
  VHOST_USER_PROTOCOL_F_CONFIG,
  VHOST_USER_PROTOCOL_F_RESET_DEVICE,
  VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS,
  VHOST_USER_PROTOCOL_F_STATUS,
);
export { VIRTIO_NET_F_MQ, VIRTIO_NET_F_MRG_RXBUF };

/** Features that say which format a guest's rings have. */
const FORMAT_FEATURES: Record<VirtqueueName, bigint> = {
  "split": 0n,
  "split in-order": bits(VIRTIO_F_IN_ORDER),
  "packed": bits(VIRTIO_F_RING_PACKED),
  "packed in-order": bits(VIRTIO_F_RING_PACKED, VIRTIO_F_IN_ORDER),
};

/** Guests of a front-end. */
export type FrontEndGuest = MockGuest | PackedGuest;

/** The back-end closed the connection. */
export class BackEndClosed extends Error {}

/** A memory file mapped into this process. */
export class SharedMemory implements Disposable {
  readonly fd: Fd;
  readonly view: DataView<ArrayBuffer>;
  readonly #address: bigint;

  /** `fd`: a memory file of at least `bytes` bytes, which is the guest's from now on. */
  constructor(bytes: number, fd = createMemfd("ringfabric-test", bytes)) {
    this.fd = fd;
    this.#address = libc().mmap(0n, BigInt(bytes), PROT_READ_WRITE, MAP_SHARED, this.fd.number, 0n);
    if (this.#address === MAP_FAILED) throw new OsError("mmap", "test memory", errno());
    const pointer = Deno.UnsafePointer.create(this.#address);
    if (!pointer) throw new Error("mmap answered null");
    this.view = new DataView(Deno.UnsafePointerView.getArrayBuffer(pointer, bytes));
  }

  [Symbol.dispose](): void {
    libc().munmap(this.#address, BigInt(this.view.byteLength));
    this.fd.close();
  }
}

/** u64 payload. */
export function u64(...values: bigint[]): Uint8Array<ArrayBuffer> {
  return new Uint8Array(new BigUint64Array(values).buffer);
}

/** Vring state payload: index and number. */
export function vringState(index: number, value: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(new Uint32Array([index, value]).buffer);
}

/** Vring address payload. */
export function vringAddress(index: number, desc: bigint, used: bigint, avail: bigint): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(40);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, index, true);
  [desc, used, avail].forEach((address, i) => view.setBigUint64(8 + i * 8, BigInt.asUintN(64, address), true));
  return bytes;
}

/** Memory table payload; `count` may lie. */
export function memoryTable(regions: readonly VhostRegion[], count = regions.length): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(8 + regions.length * 32);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, count, true);
  regions.forEach((region, i) => writeRegion(view, 8 + i * 32, region));
  return bytes;
}

/** Payload of ADD_MEM_REG and REM_MEM_REG. */
export function singleRegion(region: VhostRegion): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(40);
  writeRegion(new DataView(bytes.buffer), 8, region);
  return bytes;
}

/** How a front-end is made. */
export interface FrontEndOptions {
  bytes?: number;
  queueSize?: number;
  queuePairs?: number;
  features?: bigint;
  bufferBytes?: number;
  /** Its memory file, of `bytes` bytes; a new one if it brings none. */
  memory?: Fd;
  /** What its call descriptors are. */
  callKind?: WakeupKind;
}

/** IOVA of a front-end's first byte, and its own (user) address for it. */
export const GUEST_BASE = 0x1_0000_0000n;
export const USER_BASE = 0x7f00_0000_0000n;

/** A front-end on a VF's socket. */
export class FrontEnd<G extends FrontEndGuest = MockGuest> implements AsyncDisposable {
  readonly reactor = new Reactor();
  socket: UnixSocket;
  readonly memory: SharedMemory;
  readonly guest: G;
  readonly kicks: Fd[];
  /** Its call descriptors, as it sends them, and with the ends that it reads. */
  readonly calls: Fd[];
  readonly wakeups: Wakeup[];
  readonly features: bigint;
  #released = false;

  private constructor(
    socketPath: string,
    options: FrontEndOptions,
    make: (view: DataView, options: PackedGuestOptions) => G,
  ) {
    const {
      bytes = 4 * 1024 ** 2,
      queueSize = 64,
      queuePairs = 1,
      features = FEATURES,
      bufferBytes = 2048,
      callKind = "eventfd",
    } = options;
    this.memory = new SharedMemory(bytes, options.memory);
    this.guest = make(this.memory.view, {
      ...{ offset: 0, bytes, iova: GUEST_BASE },
      ...{ queueSize, queuePairs, bufferBytes },
      inOrder: (features & bits(VIRTIO_F_IN_ORDER)) !== 0n,
      eventIdx: (features & bits(VIRTIO_RING_F_EVENT_IDX)) !== 0n,
    });
    this.kicks = this.guest.queues.map(() => createEventFd());
    this.wakeups = this.guest.queues.map(() => new Wakeup(callKind));
    this.calls = this.wakeups.map(({ sent }) => sent);
    this.features = features;
    try {
      this.socket = UnixSocket.connect(socketPath, "stream", this.reactor);
    } catch (error) {
      void this.#release();
      throw error;
    }
  }

  static connect(socketPath: string, options: FrontEndOptions = {}): FrontEnd {
    return new FrontEnd(socketPath, options, VIRTQUEUES.split.make);
  }

  /** A front-end whose guest has packed rings. */
  static connectPacked(socketPath: string, options: FrontEndOptions = {}): FrontEnd<PackedGuest> {
    const features = (options.features ?? FEATURES) | FORMAT_FEATURES.packed;
    return new FrontEnd(socketPath, { ...options, features }, VIRTQUEUES.packed.make);
  }

  /** A front-end whose guest has rings of any format. */
  static connectAs(format: VirtqueueName, socketPath: string, options: FrontEndOptions = {}): FrontEnd<FrontEndGuest> {
    const features = (options.features ?? FEATURES) | FORMAT_FEATURES[format];
    return new FrontEnd<FrontEndGuest>(socketPath, { ...options, features }, VIRTQUEUES[format].make);
  }

  /** Its one region. */
  get region(): VhostRegion {
    return {
      guestAddress: GUEST_BASE,
      size: BigInt(this.memory.view.byteLength),
      userAddress: USER_BASE,
      mmapOffset: 0n,
    };
  }

  /** Sends raw bytes. */
  raw(bytes: Uint8Array<ArrayBuffer>, fds: number[] = []): void {
    try {
      this.socket.send(bytes, fds);
    } catch (error) {
      if (error instanceof OsError) throw new BackEndClosed(error.message);
      throw error;
    }
  }

  /** Sends one message. `request` may be a number that no request has. */
  send(
    request: RequestName | number,
    payload: Uint8Array = new Uint8Array(),
    fds: number[] = [],
    needReply = false,
  ): void {
    const bytes = new Uint8Array(HEADER_BYTES + payload.byteLength);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, typeof request === "number" ? request : REQUESTS[request].number, true);
    view.setUint32(4, VHOST_USER_VERSION | (needReply ? VHOST_USER_NEED_REPLY_MASK : 0), true);
    view.setUint32(8, payload.byteLength, true);
    bytes.set(payload, HEADER_BYTES);
    this.raw(bytes, fds);
  }

  /** The payload of the next message of the back-end. */
  async reply(): Promise<DataView<ArrayBuffer>> {
    const header = await this.#read(HEADER_BYTES);
    return await this.#read(header.getUint32(8, true));
  }

  async #read(length: number): Promise<DataView<ArrayBuffer>> {
    const bytes = new Uint8Array(length);
    for (let at = 0; at < length;) {
      const got = await within("a reply of the back-end", this.socket.receive(bytes.subarray(at)), 10_000)
        .catch((error) => {
          throw error instanceof OsError ? new BackEndClosed(error.message) : error;
        });
      if (got.bytes === 0) throw new BackEndClosed("the back-end closed the connection");
      at += got.bytes;
    }
    return new DataView(bytes.buffer);
  }

  /** Asks for a u64. */
  async ask(request: RequestName, payload: Uint8Array = new Uint8Array()): Promise<bigint> {
    this.send(request, payload);
    return (await this.reply()).getBigUint64(0, true);
  }

  /** Sends a message that wants an acknowledgement; answers its code. */
  async acknowledged(
    request: RequestName,
    payload: Uint8Array = new Uint8Array(),
    fds: number[] = [],
  ): Promise<bigint> {
    this.send(request, payload, fds, true);
    return (await this.reply()).getBigUint64(0, true);
  }

  /** Resolves when the back-end has closed the connection. */
  async closedByBackEnd(): Promise<void> {
    try {
      for (;;) await this.#read(1);
    } catch (error) {
      if (!(error instanceof BackEndClosed)) throw error;
    }
  }

  /** Features and protocol features. */
  async negotiate(): Promise<void> {
    await this.ask("VHOST_USER_GET_FEATURES");
    await this.ask("VHOST_USER_GET_PROTOCOL_FEATURES");
    this.send("VHOST_USER_SET_PROTOCOL_FEATURES", u64(PROTOCOL_FEATURES));
    this.send("VHOST_USER_SET_OWNER");
    this.send("VHOST_USER_SET_FEATURES", u64(this.features));
  }

  async shareMemory(): Promise<void> {
    await this.acknowledged("VHOST_USER_SET_MEM_TABLE", memoryTable([this.region]), [this.memory.fd.number]);
  }

  /** The front-end's own address of view offset `at`. */
  user(at: number): bigint {
    return USER_BASE + BigInt(at);
  }

  /** Where each vring began when it was last started. */
  readonly #bases = new Map<number, number>();

  /** Describes vring `index` and enables it at `base`; answers the acknowledgement of the enable. */
  async startVring(index: number, base = this.#queue(index).base): Promise<bigint> {
    const queue = this.#queue(index);
    this.#bases.set(index, base);
    this.send("VHOST_USER_SET_VRING_NUM", vringState(index, queue.size));
    this.send("VHOST_USER_SET_VRING_BASE", vringState(index, base));
    this.send(
      "VHOST_USER_SET_VRING_ADDR",
      vringAddress(index, this.user(queue.desc), this.user(queue.used), this.user(queue.avail)),
    );
    this.send("VHOST_USER_SET_VRING_KICK", u64(BigInt(index)), [this.kicks[index]?.number ?? -1]);
    this.send("VHOST_USER_SET_VRING_CALL", u64(BigInt(index)), [this.calls[index]?.number ?? -1]);
    return await this.acknowledged("VHOST_USER_SET_VRING_ENABLE", vringState(index, 1));
  }

  #queue(index: number): G["queues"][number] {
    const queue = this.guest.queues[index];
    if (!queue) throw new Error(`no queue ${index}`);
    return queue;
  }

  /** The whole handshake; all queues run afterwards, from where their drivers are. One that fails leaves nothing behind. */
  async start(): Promise<this> {
    try {
      await this.negotiate();
      await this.shareMemory();
      for (const index of this.guest.queues.keys()) await this.startVring(index);
      return this;
    } catch (error) {
      await this[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Connects again, as a front-end that keeps its guest. `anew`: the driver of a packed ring has begun it again. */
  async reconnect(socketPath: string, anew = false): Promise<void> {
    this.socket.close();
    this.socket = UnixSocket.connect(socketPath, "stream", this.reactor);
    const bases = new Map(this.#bases);
    await this.negotiate();
    await this.shareMemory();
    for (const [index, queue] of this.guest.queues.entries()) {
      const isKnown = queue instanceof SplitDriver || anew;
      await this.startVring(index, isKnown ? queue.base : bases.get(index));
    }
  }

  /** Stops vring `index`; answers its base: its next avail index, or both positions of a packed one. */
  async stopVring(index: number): Promise<number> {
    this.send("VHOST_USER_GET_VRING_BASE", vringState(index, 0));
    return (await this.reply()).getUint32(4, true);
  }

  kick(index = 1): void {
    const fd = this.kicks[index];
    if (fd) signalEventFd(fd.number);
  }

  /** Kicks if the device wants to be kicked. */
  kickIfWanted(index = 1): void {
    if (this.#queue(index).takeKick()) this.kick(index);
  }

  /** How often queue `index` was interrupted since the last look. */
  takeCalls(index = 0): bigint {
    return this.wakeups[index]?.take() ?? 0n;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.socket.close();
    await this.#release();
  }

  /** A reactor that is left open keeps one of the process's few threads. */
  async #release(): Promise<void> {
    if (this.#released) return;
    this.#released = true;
    await this.reactor.close();
    for (const end of [...this.kicks, ...this.wakeups]) end[Symbol.dispose]();
    this.memory[Symbol.dispose]();
  }
}
