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
  C_TX_UNFETCHED,
  CALL_EVENTFD,
  CALL_LIST,
  CALL_SOCKET,
  CTL,
  CTL_CALL_COUNT,
  FLAVOUR_ADVANCED,
  FLAVOUR_PACKED,
  MEMORY_GONE,
  OK,
  P_COUNTERS,
  P_RX_COUNT,
  P_RX_QUEUES,
  POOL_STRIDE,
  POOLS,
  Q_AVAIL_IOVA,
  Q_CALL_FD,
  Q_CALL_KIND,
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
  Q_PACKET_BYTES,
  Q_POOL,
  Q_REGISTERS,
  Q_SIZE,
  Q_STATE,
  Q_USED,
  Q_USED_IOVA,
  QUEUE_ERROR,
  QUEUE_F_EVENT_IDX,
  QUEUE_F_IN_ORDER,
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
  RING_EVENT_FLAGS_ENABLE,
  VIRTIO_F_ANY_LAYOUT,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_HDR_BYTES,
  VIRTIO_NET_HDR_LEGACY_BYTES,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
  VIRTQ_EVENT_FLAGS,
} from "../layout/virtio.ts";
import {
  ADV_HEADER_BYTES_MAX,
  ADV_PACKET_BYTES_MAX,
  ADV_PACKET_BYTES_MIN,
  ADV_PAGE_BYTES,
  ADV_QUEUE_SIZE_MAX,
  ADV_QUEUE_SIZE_MIN,
  ADV_REGISTER_STRIDE,
} from "../layout/advanced.ts";
import { DeviceRefusal, type Request } from "../device/mod.ts";
import { EPOLLET, EPOLLIN, type Fd, monotonicNs } from "../os/mod.ts";
import type { Engine } from "./engine.ts";
import { keepKickRecord, type KickRecord, kickRecord } from "./quarantine.ts";

/** Features a virtqueue of this NIC can do; the vhost service adds what the protocol needs. */
export const QUEUE_FEATURES = (1n << BigInt(VIRTIO_F_VERSION_1)) |
  (1n << BigInt(VIRTIO_NET_F_MRG_RXBUF)) |
  (1n << BigInt(VIRTIO_RING_F_INDIRECT_DESC)) |
  (1n << BigInt(VIRTIO_RING_F_EVENT_IDX)) |
  (1n << BigInt(VIRTIO_F_RING_PACKED)) |
  (1n << BigInt(VIRTIO_F_IN_ORDER)) |
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
  [BAD_TAIL]: "doorbell is not below the queue size",
  [BAD_DESCRIPTOR]: "descriptor is malformed, or a frame's last one is missing",
};

/** State of one queue, for APIs. */
export interface QueueState extends KickRecord {
  index: number;
  kind: "rx" | "tx";
  flavour: "split" | "packed" | "advanced";
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

/** Sizes of a ring: a packed one may have any (virtio 1.2 §2.8.10.1). */
const SIZES = {
  split: [2, QUEUE_SIZE_MAX],
  packed: [1, QUEUE_SIZE_MAX],
  advanced: [ADV_QUEUE_SIZE_MIN, ADV_QUEUE_SIZE_MAX],
} as const;

/** Throws unless the request's sizes are ones that its flavour has. */
function checkSize({ index, size, flavour, packetBytes, headerBytes }: StartRequest): void {
  const [min, max] = SIZES[flavour];
  if (size < min || size > max || (flavour !== "packed" && (size & (size - 1)) !== 0)) {
    const sizes = flavour === "packed" ? "sizes are" : "sizes are powers of two,";
    throw new DeviceRefusal("bad-size", `queue ${index} of size ${size}: ${sizes} ${min}–${max}`);
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

/** Throws unless the engine can wait for `kick` and raise `call` without being held by whoever has them too. */
function checkDescriptors(index: number, kick: Fd | undefined, call: Fd | undefined): void {
  if (kick && kick.kind !== "eventfd") {
    throw new DeviceRefusal(
      "bad-fd",
      `queue ${index}: its kick is not an eventfd. It must be one: kicks are never read, and anything else fills up`,
    );
  }
  if (call && call.kind !== "eventfd" && call.kind !== "socket") {
    throw new DeviceRefusal("bad-fd", `queue ${index}: its call is not an eventfd, nor a Unix socket`);
  }
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
  /** The pool's register page is mapped: advanced queues have their doorbells there, packed ones keep their position. */
  hasRegisters = false;
  /** The rings that ran until all were stopped, and where they go on: a successor of a dead owner goes on there. */
  readonly left = new Map<string, number>();
  /** What is held against queues that have been stopped. */
  readonly #records = new Map<number, KickRecord>();

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
    checkDescriptors(index, kick, call);
    const at = this.#pointer(index);
    new Uint8Array(this.#engine.arena.buffer, at, QUEUE_STRIDE).fill(0);
    const longHeader = has(features, VIRTIO_F_VERSION_1) || has(features, VIRTIO_NET_F_MRG_RXBUF);
    const flags = (has(features, VIRTIO_RING_F_EVENT_IDX) ? QUEUE_F_EVENT_IDX : 0) |
      (has(features, VIRTIO_RING_F_INDIRECT_DESC) ? QUEUE_F_INDIRECT : 0) |
      (has(features, VIRTIO_NET_F_MRG_RXBUF) ? QUEUE_F_MRG_RXBUF : 0) |
      (has(features, VIRTIO_F_IN_ORDER) ? QUEUE_F_IN_ORDER : 0);
    this.#view.setUint32(at + Q_SIZE, size, true);
    this.#view.setUint32(at + Q_FLAGS, flags, true);
    this.#view.setUint32(at + Q_HDR_BYTES, longHeader ? VIRTIO_NET_HDR_BYTES : VIRTIO_NET_HDR_LEGACY_BYTES, true);
    this.#view.setUint32(at + Q_POOL, this.#pool, true);
    this.#view.setUint32(at + Q_INDEX, index, true);
    this.#writeCall(at, call);
    this.#view.setInt32(at + Q_KICK_FD, kick?.number ?? -1, true);
    this.#view.setBigUint64(at + Q_DESC_IOVA, request.desc, true);
    this.#view.setBigUint64(at + Q_AVAIL_IOVA, request.avail, true);
    this.#view.setBigUint64(at + Q_USED_IOVA, request.used, true);
    if (request.flavour === "advanced") this.#setAdvanced(at, request);
    if (request.flavour === "packed") this.#setPacked(at, request);
    const record = this.#records.get(index);
    if (record) keepKickRecord(this.#view, at, record, monotonicNs());
    const { wasm } = this.#engine;
    const verdict = request.next !== undefined && request.flavour === "packed"
      ? wasm.continueQueue(at, request.base, request.next)
      : wasm.startQueue(at, request.base);
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
    this.#view.setUint32(at + Q_FLAVOUR, FLAVOUR_ADVANCED, true);
    this.#view.setUint32(at + Q_REGISTERS, this.#registers(index), true);
    this.#view.setUint32(at + Q_PACKET_BYTES, packetBytes, true);
    this.#view.setUint32(at + Q_HEADER_BYTES, headerBytes, true);
    this.#view.setUint32(at + Q_HDR_BYTES, 0, true);
  }

  #setPacked(at: number, { index }: StartRequest): void {
    this.#view.setUint32(at + Q_FLAVOUR, FLAVOUR_PACKED, true);
    if (this.hasRegisters) this.#view.setUint32(at + Q_REGISTERS, this.#registers(index), true);
  }

  #registers(index: number): number {
    return REGISTER_PAGES + this.#pool * ADV_PAGE_BYTES + index * ADV_REGISTER_STRIDE;
  }

  #writeCall(at: number, call: Fd | undefined): void {
    this.#view.setInt32(at + Q_CALL_FD, call?.number ?? -1, true);
    this.#view.setUint32(at + Q_CALL_KIND, call?.kind === "socket" ? CALL_SOCKET : CALL_EVENTFD, true);
  }

  /**
   * Has the worker raise one interrupt: what was added before a ring or its descriptor was handed over may have gone
   * unannounced.
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
    const used = this.#view.getUint32(at + Q_USED, true);
    if (!inError && this.#flavour(at) === "split") this.#view.setUint16(used, 0, true);
    if (!inError && this.#flavour(at) === "packed") {
      this.#view.setUint16(used + VIRTQ_EVENT_FLAGS, RING_EVENT_FLAGS_ENABLE, true);
    }
    this.#view.setUint32(at + Q_STATE, QUEUE_STOPPED, true);
    this.#records.set(index, kickRecord(this.#view, at, monotonicNs()));
    if (queue.kick && index % 2 === 1) this.#engine.epoll.remove(queue.kick.number);
    this.#engine.forgetCall(at);
    this.#view.setInt32(at + Q_KICK_FD, -1, true);
    this.#view.setInt32(at + Q_CALL_FD, -1, true);
    queue.kick?.close();
    queue.call?.close();
    this.#running.delete(index);
    this.#writeLists();
    return this.#engine.wasm.positionOf(at) >>> 0;
  }

  #flavour(at: number): QueueState["flavour"] {
    const flavour = this.#view.getUint32(at + Q_FLAVOUR, true);
    return flavour === FLAVOUR_ADVANCED ? "advanced" : flavour === FLAVOUR_PACKED ? "packed" : "split";
  }

  /** Stops all queues, and notes in `left` where they go on. */
  stopAll(): void {
    for (const [ring, position] of this.rings()) this.left.set(ring, position);
    for (const index of [...this.#running.keys()]) this.stop(index);
  }

  /** Which queues run on which rings, by name, and where they go on. */
  rings(): Map<string, number> {
    return new Map(
      this.#sorted().map(({ pointer, index }) => [
        ringName(index, this.#view.getBigUint64(pointer + Q_DESC_IOVA, true)),
        this.#engine.wasm.positionOf(pointer) >>> 0,
      ]),
    );
  }

  /** Gives a running queue another call descriptor, which becomes the queue's. */
  setCall(index: number, call: Fd | undefined): void {
    const queue = this.#running.get(index);
    if (!queue) throw new DeviceRefusal("not-running", `queue ${index} does not run`);
    checkDescriptors(index, undefined, call);
    queue.call?.close();
    queue.call = call;
    this.#writeCall(queue.pointer, call);
    this.#call(queue.pointer);
  }

  /**
   * Finds every ring again after the memory table changed. Those that are gone stop with a reason; they go on when
   * their memory comes back (a front-end resizes a region by removing and adding it).
   */
  rebind(): void {
    for (const { pointer } of this.#running.values()) {
      this.#engine.wasm.forgetRegions(pointer);
      const found = this.#engine.wasm.bindRings(pointer) === OK;
      const state = this.#view.getUint32(pointer + Q_STATE, true);
      const unmapped = state === QUEUE_ERROR && this.#view.getUint32(pointer + Q_ERROR, true) === RING_UNMAPPED;
      if (!found && state === QUEUE_RUNNING) this.#fail(pointer, RING_UNMAPPED);
      if (!found || !unmapped) continue;
      this.#view.setUint32(pointer + Q_STATE, QUEUE_RUNNING, true);
      // It may have gone cold while it did not run; what its driver offered meanwhile nobody has seen.
      this.#engine.wasm.heat(pointer);
    }
    this.#writeLists();
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

  /** Writes the list of RX queues that the switch delivers to. */
  #writeLists(): void {
    const at = POOLS + this.#pool * POOL_STRIDE;
    const receivers = this.#diverted === undefined
      ? this.#sorted().filter((queue) => queue.index % 2 === 0).map((queue) => queue.pointer)
      : [this.#diverted];
    receivers.forEach((pointer, i) => this.#view.setUint32(at + P_RX_QUEUES + i * 4, pointer, true));
    this.#view.setUint32(at + P_RX_COUNT, receivers.length, true);
  }

  /**
   * Counts what its driver has offered to send and the engine has not fetched, in descriptors; answers how many. For a
   * driver that loses its VF: its frames are lost with it. The engine stands still.
   */
  countUnfetched(): number {
    const unfetched = this.transmitters.reduce((sum, at) => sum + this.#engine.wasm.unfetched(at), 0);
    const counter = POOLS + this.#pool * POOL_STRIDE + P_COUNTERS + C_TX_UNFETCHED;
    this.#view.setBigUint64(counter, this.#view.getBigUint64(counter, true) + BigInt(unfetched), true);
    return unfetched;
  }

  /** State of all queues, for the API. */
  states(): QueueState[] {
    const nowNs = monotonicNs();
    return this.#sorted().map(({ pointer, index }) => {
      const error = this.#view.getUint32(pointer + Q_STATE, true) === QUEUE_ERROR;
      const reason = QUEUE_REASONS[this.#view.getUint32(pointer + Q_ERROR, true)] ?? "unknown";
      const detail = `0x${this.#view.getBigUint64(pointer + Q_ERROR_DETAIL, true).toString(16)}`;
      return {
        index,
        kind: index % 2 === 0 ? "rx" : "tx",
        flavour: this.#flavour(pointer),
        state: error ? "error" : "running",
        size: this.#view.getUint32(pointer + Q_SIZE, true),
        ...(error ? { reason, detail } : {}),
        calls: Number(this.#view.getBigUint64(pointer + Q_CALLS, true)),
        ...kickRecord(this.#view, pointer, nowNs),
      };
    });
  }
}
