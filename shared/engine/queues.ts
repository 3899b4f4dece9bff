/**
 * The queues of one VF: started on rings in the guest's memory, stopped between two bursts, found again when the
 * memory table changes. Every function that touches the engine's tables runs inside `Engine.between`.
 */
import {
  BAD_ADDRESS,
  BAD_AVAIL_IDX,
  BAD_CHAIN_LENGTH,
  BAD_DESCRIPTOR,
  BAD_DIRECTION,
  BAD_HEAD,
  BAD_HEADER,
  BAD_INDIRECT,
  BAD_NEXT,
  BAD_TAIL,
  BURST_FRAMES,
  C_TX_UNFETCHED,
  CALL_BLOCKED,
  CALL_LIST,
  CTL,
  CTL_CALL_COUNT,
  FLAVOUR_ADVANCED,
  MEMORY_GONE,
  OK,
  P_COUNTERS,
  P_RX_COUNT,
  P_RX_QUEUES,
  P_VISIT_FRAMES,
  POOL_STRIDE,
  POOLS,
  Q_AVAIL,
  Q_AVAIL_IOVA,
  Q_CALL_FD,
  Q_CALL_PENDING,
  Q_CALLS,
  Q_DESC_IOVA,
  Q_ERROR,
  Q_ERROR_DETAIL,
  Q_FLAGS,
  Q_FLAVOUR,
  Q_HDR_BYTES,
  Q_HEADER_BYTES,
  Q_INDEX,
  Q_KICK_FD,
  Q_LAST_AVAIL,
  Q_PACKET_BYTES,
  Q_POOL,
  Q_REGISTERS,
  Q_SIZE,
  Q_STATE,
  Q_USED,
  Q_USED_IOVA,
  QUEUE_ERROR,
  QUEUE_F_EVENT_IDX,
  QUEUE_F_INDIRECT,
  QUEUE_F_MRG_RXBUF,
  QUEUE_PAIRS_MAX,
  QUEUE_RUNNING,
  QUEUE_SIZE_MAX,
  QUEUE_STOPPED,
  QUEUE_STRIDE,
  QUEUES,
  QUEUES_PER_POOL,
  REGISTER_PAGES,
  RING_UNMAPPED,
} from "../layout/nic.ts";
import {
  VIRTIO_F_ANY_LAYOUT,
  VIRTIO_F_VERSION_1,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_HDR_BYTES,
  VIRTIO_NET_HDR_LEGACY_BYTES,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
  VIRTQ_AVAIL_IDX,
} from "../layout/virtio.ts";
import {
  ADV_HEADER_BYTES_MAX,
  ADV_PACKET_BYTES_MAX,
  ADV_PACKET_BYTES_MIN,
  ADV_PAGE_BYTES,
  ADV_QUEUE_SIZE_MAX,
  ADV_QUEUE_SIZE_MIN,
  ADV_REG_TAIL,
  ADV_REGISTER_STRIDE,
} from "../layout/advanced.ts";
import { DeviceRefusal, type Request } from "../device/mod.ts";
import { EPOLLET, EPOLLIN, type Fd, isEventFd } from "../os/mod.ts";
import type { Engine } from "./engine.ts";

/** Features a split queue of this NIC can do; the vhost service adds what the protocol needs. */
export const QUEUE_FEATURES = (1n << BigInt(VIRTIO_F_VERSION_1)) |
  (1n << BigInt(VIRTIO_NET_F_MRG_RXBUF)) |
  (1n << BigInt(VIRTIO_RING_F_INDIRECT_DESC)) |
  (1n << BigInt(VIRTIO_RING_F_EVENT_IDX)) |
  (1n << BigInt(VIRTIO_F_ANY_LAYOUT));

/** Why a queue stopped, by the engine's verdict. */
export const QUEUE_REASONS: Record<number, string> = {
  [BAD_AVAIL_IDX]: "avail index jumps by more than the queue size",
  [BAD_HEAD]: "head index is not below the queue size",
  [BAD_NEXT]: "next index is not below the table size",
  [BAD_CHAIN_LENGTH]: "descriptor chain is longer than the queue, or takes too many descriptors for a frame",
  [BAD_ADDRESS]: "buffer is outside the guest's memory",
  [BAD_DIRECTION]: "buffer has the wrong direction",
  [BAD_INDIRECT]: "indirect table is malformed",
  [BAD_HEADER]: "chain is shorter than the virtio-net header",
  [MEMORY_GONE]: "the guest's memory file was truncated",
  [RING_UNMAPPED]: "rings are not in the guest's memory, or not aligned",
  [CALL_BLOCKED]: "the call eventfd blocks its writer",
  [BAD_TAIL]: "doorbell is not below the queue size",
  [BAD_DESCRIPTOR]: "descriptor is malformed, or a frame's last one is missing",
};

/** So many queues that a burst would be cut up smaller than this cost more than they share. */
const VISIT_FRAMES_MIN = 8;

/** State of one queue, for APIs. */
export interface QueueState {
  index: number;
  kind: "rx" | "tx";
  flavour: "split" | "advanced";
  state: "running" | "error";
  size: number;
  reason?: string;
  detail?: string;
  /** Interrupts raised. */
  calls: number;
}

type StartRequest = Extract<Request, { op: "queueStart" }>;

interface Running {
  pointer: number;
  index: number;
  kick: Fd | undefined;
  call: Fd | undefined;
}

function has(features: bigint, bit: number): boolean {
  return (features >> BigInt(bit) & 1n) === 1n;
}

/** Throws unless the request's sizes are ones that its flavour has. */
function checkSize({ index, size, flavour, packetBytes, headerBytes }: StartRequest): void {
  if (flavour === "packed") throw new DeviceRefusal("bad-queue", `queue ${index}: this NIC has no packed rings`);
  const [min, max] = flavour === "advanced" ? [ADV_QUEUE_SIZE_MIN, ADV_QUEUE_SIZE_MAX] : [2, QUEUE_SIZE_MAX];
  if (size < min || size > max || (size & (size - 1)) !== 0) {
    throw new DeviceRefusal("bad-size", `queue ${index} of size ${size}: sizes are powers of two, ${min}–${max}`);
  }
  if (flavour !== "advanced") return;
  if (packetBytes % 1024 !== 0 || packetBytes < ADV_PACKET_BYTES_MIN || packetBytes > ADV_PACKET_BYTES_MAX) {
    const range = `${ADV_PACKET_BYTES_MIN}–${ADV_PACKET_BYTES_MAX}`;
    throw new DeviceRefusal("bad-size", `queue ${index}: packet buffers of ${packetBytes} bytes: KiB, ${range}`);
  }
  if (headerBytes % 64 !== 0 || headerBytes > ADV_HEADER_BYTES_MAX) {
    throw new DeviceRefusal(
      "bad-size",
      `queue ${index}: header buffers of ${headerBytes} bytes: multiples of 64, up to ${ADV_HEADER_BYTES_MAX}`,
    );
  }
}

/** Frames one visit may take from each of `count` TX queues of a pool: together a burst, whatever their number. */
export function visitFrames(count: number): number {
  return Math.max(VISIT_FRAMES_MIN, Math.floor(BURST_FRAMES / Math.max(1, count)));
}

/** A queue on its ring, by name. */
export function ringName(index: number, desc: bigint): string {
  return `${index} at 0x${desc.toString(16)}`;
}

/** The queues of one pool. */
export class Queues {
  readonly #engine: Engine;
  readonly #view: DataView;
  readonly #pool: number;
  readonly #running = new Map<number, Running>();

  constructor(engine: Engine, pool: number) {
    this.#engine = engine;
    this.#view = engine.view;
    this.#pool = pool;
  }

  /** Whether the switch delivers elsewhere for now (the pool is held). */
  #diverted: number | undefined;

  /** Has the switch deliver to another queue instead (its arena offset), or to the receive queues again. */
  divert(queue: number | undefined): void {
    this.#diverted = queue;
    this.#writeLists();
  }

  /** Arena offsets of running TX queues, for the list that is polled. */
  get transmitters(): number[] {
    return this.#sorted().filter((queue) => queue.index % 2 === 1).map((queue) => queue.pointer);
  }

  /** Whether a receive queue runs. */
  get isReceiving(): boolean {
    return this.#sorted().some((queue) => queue.index % 2 === 0);
  }

  #sorted(): Running[] {
    return [...this.#running.values()].sort((a, b) => a.index - b.index);
  }

  #pointer(index: number): number {
    return QUEUES + (this.#pool * QUEUES_PER_POOL + index) * QUEUE_STRIDE;
  }

  /** Starts a queue; takes over the descriptors it uses. Throws DeviceRefusal with nothing started. */
  start(request: StartRequest, kick: Fd | undefined, call: Fd | undefined): void {
    const { index, size, features } = request;
    if (index >= QUEUE_PAIRS_MAX * 2) {
      throw new DeviceRefusal("bad-queue", `queue ${index}: queues are 0–${QUEUE_PAIRS_MAX * 2 - 1}`);
    }
    if (this.#running.has(index)) throw new DeviceRefusal("running", `queue ${index} runs already`);
    checkSize(request);
    for (const [name, fd] of [["kick", kick], ["call", call]] as const) {
      if (fd && !isEventFd(fd.number)) {
        throw new DeviceRefusal("bad-fd", `queue ${index}: its ${name} is not an eventfd`);
      }
    }
    const at = this.#pointer(index);
    new Uint8Array(this.#engine.arena.buffer, at, QUEUE_STRIDE).fill(0);
    const longHeader = has(features, VIRTIO_F_VERSION_1) || has(features, VIRTIO_NET_F_MRG_RXBUF);
    const flags = (has(features, VIRTIO_RING_F_EVENT_IDX) ? QUEUE_F_EVENT_IDX : 0) |
      (has(features, VIRTIO_RING_F_INDIRECT_DESC) ? QUEUE_F_INDIRECT : 0) |
      (has(features, VIRTIO_NET_F_MRG_RXBUF) ? QUEUE_F_MRG_RXBUF : 0);
    this.#view.setUint32(at + Q_SIZE, size, true);
    this.#view.setUint32(at + Q_FLAGS, flags, true);
    this.#view.setUint32(at + Q_HDR_BYTES, longHeader ? VIRTIO_NET_HDR_BYTES : VIRTIO_NET_HDR_LEGACY_BYTES, true);
    this.#view.setUint32(at + Q_POOL, this.#pool, true);
    this.#view.setUint32(at + Q_INDEX, index, true);
    this.#view.setInt32(at + Q_CALL_FD, call?.number ?? -1, true);
    this.#view.setInt32(at + Q_KICK_FD, kick?.number ?? -1, true);
    this.#view.setBigUint64(at + Q_DESC_IOVA, request.desc, true);
    this.#view.setBigUint64(at + Q_AVAIL_IOVA, request.avail, true);
    this.#view.setBigUint64(at + Q_USED_IOVA, request.used, true);
    if (request.flavour === "advanced") this.#setAdvanced(at, request);
    const verdict = this.#engine.wasm.startQueue(at, request.base);
    if (verdict !== OK) {
      this.#view.setUint32(at + Q_STATE, QUEUE_STOPPED, true);
      throw new DeviceRefusal("bad-ring", `queue ${index}: ${QUEUE_REASONS[verdict]}`);
    }
    if (kick && index % 2 === 1) this.#engine.epoll.add(kick.number, EPOLLIN | EPOLLET, at);
    this.#running.set(index, { pointer: at, index, kick, call });
    this.#writeLists();
    this.#call(at);
  }

  #setAdvanced(at: number, { index, packetBytes, headerBytes }: StartRequest): void {
    const registers = REGISTER_PAGES + this.#pool * ADV_PAGE_BYTES + index * ADV_REGISTER_STRIDE;
    this.#view.setUint32(at + Q_FLAVOUR, FLAVOUR_ADVANCED, true);
    this.#view.setUint32(at + Q_REGISTERS, registers, true);
    this.#view.setUint32(at + Q_PACKET_BYTES, packetBytes, true);
    this.#view.setUint32(at + Q_HEADER_BYTES, headerBytes, true);
    this.#view.setUint32(at + Q_HDR_BYTES, 0, true);
  }

  /**
   * Has the worker raise one interrupt: what was added before a ring or its eventfd was handed over may have gone
   * unannounced. Never written here: somebody else's eventfd may block its writer.
   */
  #call(at: number): void {
    if (this.#view.getInt32(at + Q_CALL_FD, true) < 0 || this.#view.getUint32(at + Q_CALL_PENDING, true)) return;
    const count = this.#view.getUint32(CTL + CTL_CALL_COUNT, true);
    this.#view.setUint32(CALL_LIST + count * 4, at, true);
    this.#view.setUint32(CTL + CTL_CALL_COUNT, count + 1, true);
    this.#view.setUint32(at + Q_CALL_PENDING, 1, true);
  }

  /** Stops a queue; answers its next avail index. */
  stop(index: number): number {
    const queue = this.#running.get(index);
    if (!queue) throw new DeviceRefusal("not-running", `queue ${index} does not run`);
    const at = queue.pointer;
    // Whoever drives the rings next polls or arms them for himself; he must not find our "do not kick" in them.
    const inError = this.#view.getUint32(at + Q_STATE, true) === QUEUE_ERROR;
    const split = this.#view.getUint32(at + Q_FLAVOUR, true) !== FLAVOUR_ADVANCED;
    if (!inError && split) this.#view.setUint16(this.#view.getUint32(at + Q_USED, true), 0, true);
    this.#view.setUint32(at + Q_STATE, QUEUE_STOPPED, true);
    if (queue.kick && index % 2 === 1) this.#engine.epoll.remove(queue.kick.number);
    this.#engine.forgetCall(at);
    this.#view.setInt32(at + Q_KICK_FD, -1, true);
    this.#view.setInt32(at + Q_CALL_FD, -1, true);
    queue.kick?.close();
    queue.call?.close();
    this.#running.delete(index);
    this.#writeLists();
    return this.#view.getUint32(at + Q_LAST_AVAIL, true) & 0xffff;
  }

  /** Stops all queues. */
  stopAll(): void {
    for (const index of [...this.#running.keys()]) this.stop(index);
  }

  /** Gives a running queue another call eventfd, which becomes the queue's. */
  setCall(index: number, call: Fd | undefined): void {
    const queue = this.#running.get(index);
    if (!queue) throw new DeviceRefusal("not-running", `queue ${index} does not run`);
    if (call && !isEventFd(call.number)) {
      throw new DeviceRefusal("bad-fd", `queue ${index}: its call is not an eventfd`);
    }
    queue.call?.close();
    queue.call = call;
    this.#view.setInt32(queue.pointer + Q_CALL_FD, call?.number ?? -1, true);
    this.#call(queue.pointer);
  }

  /**
   * Finds every ring again after the memory table changed. Those that are gone stop with a reason; they go on when
   * their memory comes back (a front-end resizes a region by removing and adding it).
   */
  rebind(): void {
    for (const { pointer } of this.#running.values()) {
      this.#engine.wasm.forgetRegion(pointer);
      const found = this.#engine.wasm.bindRings(pointer) === OK;
      const state = this.#view.getUint32(pointer + Q_STATE, true);
      const unmapped = state === QUEUE_ERROR && this.#view.getUint32(pointer + Q_ERROR, true) === RING_UNMAPPED;
      if (!found && state === QUEUE_RUNNING) this.#fail(pointer, RING_UNMAPPED);
      if (found && unmapped) this.#view.setUint32(pointer + Q_STATE, QUEUE_RUNNING, true);
    }
    this.#writeLists();
  }

  /** Stops the queue whose call eventfd has held the worker. */
  failCall(fd: number): void {
    for (const { pointer, call } of this.#running.values()) {
      if (call?.number !== fd) continue;
      this.#view.setInt32(pointer + Q_CALL_FD, -1, true);
      this.#fail(pointer, CALL_BLOCKED);
    }
  }

  /** Stops all queues in place, with a reason that the API shows. */
  failAll(reason: number): void {
    for (const { pointer } of this.#running.values()) this.#fail(pointer, reason);
    this.#writeLists();
  }

  #fail(at: number, reason: number): void {
    this.#view.setUint32(at + Q_STATE, QUEUE_ERROR, true);
    this.#view.setUint32(at + Q_ERROR, reason, true);
  }

  /** Writes the list of RX queues that the switch delivers to, and the TX queues' share of a burst. */
  #writeLists(): void {
    const at = POOLS + this.#pool * POOL_STRIDE;
    const receivers = this.#diverted === undefined
      ? this.#sorted().filter((queue) => queue.index % 2 === 0).map((queue) => queue.pointer)
      : [this.#diverted];
    receivers.forEach((pointer, i) => this.#view.setUint32(at + P_RX_QUEUES + i * 4, pointer, true));
    this.#view.setUint32(at + P_RX_COUNT, receivers.length, true);
    this.#view.setUint32(at + P_VISIT_FRAMES, visitFrames(this.transmitters.length), true);
  }

  /** Which queues run on which rings, so that a successor of a dead owner can go on exactly there. */
  rings(): Set<string> {
    return new Set(
      this.#sorted().map(({ pointer, index }) => ringName(index, this.#view.getBigUint64(pointer + Q_DESC_IOVA, true))),
    );
  }

  /**
   * Counts what its driver has offered to send and the engine has not fetched, in descriptors; answers how many. For a
   * driver that loses its VF: its frames are lost with it. The engine stands still.
   */
  countUnfetched(): number {
    const unfetched = this.transmitters.reduce((sum, at) => sum + this.#unfetched(at), 0);
    const counter = POOLS + this.#pool * POOL_STRIDE + P_COUNTERS + C_TX_UNFETCHED;
    this.#view.setBigUint64(counter, this.#view.getBigUint64(counter, true) + BigInt(unfetched), true);
    return unfetched;
  }

  #unfetched(at: number): number {
    const u32 = (offset: number) => this.#view.getUint32(at + offset, true);
    if (u32(Q_STATE) !== QUEUE_RUNNING) return 0;
    const size = u32(Q_SIZE);
    if (u32(Q_FLAVOUR) !== FLAVOUR_ADVANCED) {
      const offered = this.#view.getUint16(u32(Q_AVAIL) + VIRTQ_AVAIL_IDX, true) - u32(Q_LAST_AVAIL) & 0xffff;
      return offered <= size ? offered : 0;
    }
    const tail = this.#view.getUint32(u32(Q_REGISTERS) + ADV_REG_TAIL, true);
    return tail < size ? (tail - u32(Q_LAST_AVAIL) + size) % size : 0;
  }

  /** State of all queues, for the API. */
  states(): QueueState[] {
    return this.#sorted().map(({ pointer, index }) => {
      const error = this.#view.getUint32(pointer + Q_STATE, true) === QUEUE_ERROR;
      const reason = QUEUE_REASONS[this.#view.getUint32(pointer + Q_ERROR, true)] ?? "unknown";
      const detail = `0x${this.#view.getBigUint64(pointer + Q_ERROR_DETAIL, true).toString(16)}`;
      return {
        index,
        kind: index % 2 === 0 ? "rx" : "tx",
        flavour: this.#view.getUint32(pointer + Q_FLAVOUR, true) === FLAVOUR_ADVANCED ? "advanced" : "split",
        state: error ? "error" : "running",
        size: this.#view.getUint32(pointer + Q_SIZE, true),
        ...(error ? { reason, detail } : {}),
        calls: Number(this.#view.getBigUint64(pointer + Q_CALLS, true)),
      };
    });
  }
}
