/**
 * The queues of one VF: started on rings in the guest's memory, stopped between two bursts, found again when the
 * memory table changes. Every function that touches the engine's tables runs inside `Engine.between`.
 */
import * as L from "../layout/nic.ts";
import { RING_EVENT_FLAGS_ENABLE, VIRTQ_EVENT_FLAGS } from "../layout/virtio.ts";
import { ADV_PAGE_BYTES, ADV_REGISTER_STRIDE } from "../layout/advanced.ts";
import { DeviceRefusal } from "../device/refusal.ts";
import { EPOLLET, EPOLLIN, type Fd, monotonicNs } from "../os/mod.ts";
import type { DirtyLog } from "./dirty_log.ts";
import type { Engine } from "./engine.ts";
import { beginQueue } from "./queue_begin.ts";
import { keepKickRecord, type KickRecord, kickRecord } from "./quarantine.ts";
import { isHeard, raiseOnce, writeCall, writeDescriptors, writeOffloads, writeQueue } from "./queue_entry.ts";
import type { Quota, RingQuotas } from "./limits.ts";
import { PoolBuffer } from "./packet_buffer.ts";
import { checkDescriptors, checkSize, type StartRequest } from "./queue_request.ts";
import { flavourOf, QUEUE_REASONS, type QueueState, queueState } from "./queue_state.ts";

/** A queue that runs. */
export interface RunningQueue {
  readonly pointer: number;
  readonly index: number;
  /** With what it was started, less what only its start needed. */
  readonly request: StartRequest;
  readonly kick: Fd | undefined;
  call: Fd | undefined;
}

/** A queue on its ring, by name. */
export const ringName = (index: number, desc: bigint) => `${index} at 0x${desc.toString(16)}`;
/** The queues of one pool. */
export class Queues {
  readonly #engine: Engine;
  readonly #view: DataView;
  readonly #pool: number;
  readonly #running = new Map<number, RunningQueue>();
  /** The pool's register page is mapped: advanced queues have their doorbells there, packed ones keep their position. */
  hasRegisters = false;
  /** Whether interrupts of its queues may be deferred, if the pool's policy says so. */
  areDeferred = true;
  /** The rings that ran until all were stopped, and where they go on: a successor of a dead owner goes on there. */
  readonly left = new Map<string, number>();
  /** What takes the pool's frames while its driver has no room for them. */
  readonly buffer: PoolBuffer;
  /** What is held against queues that have been stopped. */
  readonly #records = new Map<number, KickRecord>();
  readonly #quotas: RingQuotas | undefined;
  readonly #log: DirtyLog | undefined;

  /** `quotas`: what its rings may have together; `log`: where their writes are noted while it is on. */
  constructor(engine: Engine, pool: number, quotas?: RingQuotas, log?: DirtyLog) {
    this.#quotas = quotas;
    this.#log = log;
    this.#engine = engine;
    this.#view = engine.view;
    this.#pool = pool;
    this.buffer = new PoolBuffer(engine, pool);
  }

  /** Whether the switch delivers elsewhere for now (the pool is held). */
  #diverted: number | undefined;

  /** Has the switch deliver to another queue instead (its arena offset), or to the receive queues again. */
  divert(queue: number | undefined): void {
    this.#diverted = queue;
    this.writeLists();
  }

  /** Those that run, in their order. */
  get running(): readonly RunningQueue[] {
    return this.#sorted();
  }
  /** Arena offsets of running queues: of all, of those that receive, of those that send. */
  get pointers(): number[] {
    return this.#sorted().map(({ pointer }) => pointer);
  }
  get #receivers(): number[] {
    return this.#sorted().filter(({ index }) => index % 2 === 0).map(({ pointer }) => pointer);
  }
  get transmitters(): number[] {
    return this.#sorted().filter(({ index }) => index % 2 === 1).map(({ pointer }) => pointer);
  }

  get isReceiving(): boolean {
    return this.#receivers.length > 0;
  }

  #sorted(): RunningQueue[] {
    return [...this.#running.values()].sort((a, b) => a.index - b.index);
  }

  #pointer(index: number): number {
    return L.QUEUES + (this.#pool * L.QUEUES_PER_POOL + index) * L.QUEUE_STRIDE;
  }

  get #poolAt(): number {
    return L.POOLS + this.#pool * L.POOL_STRIDE;
  }

  /** Starts a queue; takes over the descriptors it uses. Throws DeviceRefusal with nothing started. */
  start(request: StartRequest, kick: Fd | undefined, call: Fd | undefined): void {
    const { index } = request;
    if (index >= L.QUEUE_PAIRS_MAX * 2) {
      throw new DeviceRefusal("bad-queue", `queue ${index}: queues are 0–${L.QUEUE_PAIRS_MAX * 2 - 1}`);
    }
    if (this.#running.has(index)) throw new DeviceRefusal("running", `queue ${index} runs already`);
    checkSize(request);
    checkDescriptors(index, kick, call);
    const quota = this.#quotaOf(index);
    quota?.take(request.size, `queue ${index} of size ${request.size}`);
    try {
      return this.#start(request, kick, call);
    } catch (error) {
      quota?.give(request.size);
      throw error;
    }
  }

  #quotaOf(index: number): Quota | undefined {
    return index % 2 === 0 ? this.#quotas?.receives : this.#quotas?.submissions;
  }

  #start(request: StartRequest, kick: Fd | undefined, call: Fd | undefined): void {
    const { index } = request;
    const { wasm } = this.#engine;
    const at = this.#pointer(index);
    if (this.#engine.standsBy) return this.#add({ pointer: at, index, request, kick, call });
    const registers = this.hasRegisters ? this.#registers(index) : 0;
    const isLogged = this.#log?.isOn === true;
    this.#log?.setUsed(index, request.log);
    writeQueue(this.#view, at, { pool: this.#pool, registers, areDeferred: this.areDeferred, isLogged }, request);
    writeDescriptors(this.#view, at, kick, call);
    const record = this.#records.get(index);
    if (record) keepKickRecord(this.#view, at, record, monotonicNs());
    const verdict = beginQueue(wasm, at, request, this.hasRegisters);
    if (verdict !== L.OK) {
      this.#view.setUint32(at + L.Q_STATE, L.QUEUE_STOPPED, true);
      throw new DeviceRefusal("bad-ring", `queue ${index}: ${QUEUE_REASONS[verdict]}`);
    }
    if (kick && isHeard(this.#pool, index)) this.#engine.epoll.add(kick.number, EPOLLIN | EPOLLET, at);
    this.#add({ pointer: at, index, request, kick, call });
    if (isLogged) wasm.logRings(at);
    raiseOnce(this.#view, at);
  }

  #add(queue: RunningQueue): void {
    this.#running.set(queue.index, queue);
    this.writeLists();
  }

  #registers(index: number): number {
    return L.REGISTER_PAGES + this.#pool * ADV_PAGE_BYTES + index * ADV_REGISTER_STRIDE;
  }

  #runningAt(index: number): RunningQueue {
    const queue = this.#running.get(index);
    if (!queue) throw new DeviceRefusal("not-running", `queue ${index} does not run`);
    return queue;
  }

  /** Stops a queue; answers its next avail index. */
  stop(index: number): number {
    const queue = this.#runningAt(index);
    const at = queue.pointer;
    if (this.#engine.standsBy) return this.#forget(queue);
    // Whoever drives the rings next polls or arms them for himself; he must not find our "do not kick" in them.
    if (this.#view.getUint32(at + L.Q_STATE, true) !== L.QUEUE_ERROR) this.#askForKicks(at);
    this.#view.setUint32(at + L.Q_STATE, L.QUEUE_STOPPED, true);
    this.#records.set(index, kickRecord(this.#view, at, monotonicNs()));
    if (queue.kick && isHeard(this.#pool, index)) this.#engine.epoll.remove(queue.kick.number);
    this.#engine.forgetCall(at);
    this.#view.setInt32(at + L.Q_KICK_FD, -1, true);
    this.#view.setInt32(at + L.Q_CALL_FD, -1, true);
    this.#forget(queue);
    return this.#engine.wasm.positionOf(at) >>> 0;
  }

  #askForKicks(at: number): void {
    const used = this.#view.getUint32(at + L.Q_USED, true);
    const flavour = flavourOf(this.#view, at);
    if (flavour === "split") this.#view.setUint16(used, 0, true);
    if (flavour === "packed") this.#view.setUint16(used + VIRTQ_EVENT_FLAGS, RING_EVENT_FLAGS_ENABLE, true);
    if (this.#log?.isOn) this.#engine.wasm.logRings(at);
  }

  #forget({ index, request, kick, call }: RunningQueue): number {
    kick?.close();
    call?.close();
    this.#running.delete(index);
    this.#quotaOf(index)?.give(request.size);
    this.writeLists();
    if (!this.isReceiving) this.buffer.take();
    return 0;
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
        ringName(index, this.#view.getBigUint64(pointer + L.Q_DESC_IOVA, true)),
        this.#engine.wasm.positionOf(pointer) >>> 0,
      ]),
    );
  }

  /** Gives a running queue another call descriptor, which becomes the queue's. */
  setCall(index: number, call: Fd | undefined): void {
    const queue = this.#runningAt(index);
    checkDescriptors(index, undefined, call);
    queue.call?.close();
    queue.call = call;
    writeCall(this.#view, queue.pointer, call);
    raiseOnce(this.#view, queue.pointer);
  }

  /** The driver of a running virtqueue accepts what these features say from now on. */
  setOffloads(index: number, features: bigint): void {
    const queue = this.#runningAt(index);
    const isDirect = (this.#view.getUint32(queue.pointer + L.Q_FLAGS, true) & L.QUEUE_F_DIRECT) !== 0;
    if (flavourOf(this.#view, queue.pointer) === "advanced" && !isDirect) {
      throw new DeviceRefusal("bad-queue", `queue ${index} has advanced rings: what they accept does not change`);
    }
    writeOffloads(this.#view, queue.pointer, { pool: this.#pool, index, features });
  }

  /**
   * Finds every ring again after the memory table changed. Those that are gone stop with a reason; they go on when
   * their memory comes back (a front-end resizes a region by removing and adding it).
   */
  rebind(): void {
    for (const { pointer } of this.#running.values()) {
      this.#engine.wasm.forgetRegions(pointer);
      const found = this.#engine.wasm.bindRings(pointer) === L.OK;
      const [state, error] = [L.Q_STATE, L.Q_ERROR].map((field) => this.#view.getUint32(pointer + field, true));
      const unmapped = state === L.QUEUE_ERROR && error === L.RING_UNMAPPED;
      if (!found && state === L.QUEUE_RUNNING) this.#fail(pointer, L.RING_UNMAPPED);
      if (!found || !unmapped) continue;
      this.#view.setUint32(pointer + L.Q_STATE, L.QUEUE_RUNNING, true);
      // It may have gone cold while it did not run; what its driver offered meanwhile nobody has seen.
      this.#engine.wasm.heat(pointer);
    }
    this.writeLists();
  }

  /** Stops all queues in place, with a reason that the API shows. */
  failAll(reason: number): void {
    for (const { pointer } of this.#running.values()) this.#fail(pointer, reason);
    this.writeLists();
  }

  #fail(at: number, reason: number): void {
    this.#view.setUint32(at + L.Q_STATE, L.QUEUE_ERROR, true);
    this.#view.setUint32(at + L.Q_ERROR, reason, true);
  }

  /** Writes the list of RX queues that the switch delivers to. The engine stands still. */
  writeLists(): void {
    const at = this.#poolAt;
    const receivers = this.#diverted === undefined ? this.#receivers : [this.#diverted];
    receivers.forEach((pointer, i) => this.#view.setUint32(at + L.P_RX_QUEUES + i * 4, pointer, true));
    this.#view.setUint32(at + L.P_RX_COUNT, receivers.length, true);
  }

  /**
   * Counts what its driver has offered to send and the engine has not fetched, in descriptors; answers how many. For a
   * driver that loses its VF: its frames are lost with it. The engine stands still.
   */
  countUnfetched(): number {
    const unfetched = this.offered().submissions;
    const counter = this.#poolAt + L.P_COUNTERS + L.C_TX_UNFETCHED;
    this.#view.setBigUint64(counter, this.#view.getBigUint64(counter, true) + BigInt(unfetched), true);
    return unfetched;
  }

  /** Descriptors that its driver has offered and nobody has taken: to receive into, and to send. */
  offered(): { receives: number; submissions: number } {
    const unfetched = (queues: number[]) => queues.reduce((sum, at) => sum + this.#engine.wasm.unfetched(at), 0);
    return { receives: unfetched(this.#receivers), submissions: unfetched(this.transmitters) };
  }

  /** State of all queues, for the API. */
  states(): QueueState[] {
    const nowNs = monotonicNs();
    return this.#sorted().map(({ pointer, index }) => queueState(this.#view, pointer, index, nowNs));
  }
}
