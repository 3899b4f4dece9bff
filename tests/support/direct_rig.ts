/**
 * Emulated mode in the engine rig: guests whose virtqueues are carried to driver pairs, and VFs at the pairs' other ends,
 * all in one engine. What the vhost service's engine and the NIC's do to each other happens in one memory here.
 */
import {
  CTL,
  CTL_CALL_COUNT,
  DIRECT_HALT,
  DIRECT_HEADER_BYTES,
  DIRECT_RX_COPIED,
  DIRECT_RX_FRAMES,
  DIRECT_TX_COPIED,
  DIRECT_TX_FRAMES,
  DRIVER_PAIR_STRIDE,
  DRIVER_PAIRS,
  FLAVOUR_ADVANCED,
  HALT_RX,
  HEAT_COLD,
  OFFLOADS_ALL,
  P_RX_COUNT,
  P_RX_QUEUES,
  POOL_STRIDE,
  POOLS,
  Q_CALL_FD,
  Q_CALL_PENDING,
  Q_CARRY_TO,
  Q_DESC_IOVA,
  Q_DIRECT,
  Q_ERROR,
  Q_FLAGS,
  Q_FLAVOUR,
  Q_HDR_BYTES,
  Q_HEADER_BYTES,
  Q_HEAT,
  Q_INDEX,
  Q_KICK_FD,
  Q_OFFLOADS,
  Q_PACKET_BYTES,
  Q_POOL,
  Q_REGISTERS,
  Q_SIZE,
  Q_STATE,
  QUEUE_ERROR,
  QUEUE_F_DIRECT,
  QUEUE_RUNNING,
  QUEUE_STRIDE,
  QUEUES,
  QUEUES_PER_POOL,
  REGISTER_PAGES,
  WINDOWS,
} from "../../shared/layout/nic.ts";
import { ADV_PAGE_BYTES, ADV_REG_HEAD, ADV_REGISTER_STRIDE } from "../../shared/layout/advanced.ts";
import { VIRTIO_NET_HDR_BYTES } from "../../shared/layout/virtio.ts";
import { writeActive } from "../../shared/engine/active_list.ts";
import type { SwitchExports } from "../../services/vhost/exports.ts";
import {
  describePair,
  type Directness,
  directState,
  PAIR_BYTES,
  PAIR_RING_BYTES,
  PAIR_SHARED_BYTES,
  PAIR_SIZE,
  RX,
  TX,
} from "../../services/vhost/pair_layout.ts";
import { EngineRig, type VirtioRigGuest } from "./engine_rig.ts";
import type { VirtqueueName } from "./formats.ts";
import type { PackedGuestOptions } from "./packed_guest.ts";

/** Pools of guests whose VF is `vf`: from here up. */
const FIRST_POOL = 200;
/** The pairs' memory lies far above the guests'. */
const PAIRS_AT = WINDOWS + 512 * 1024 ** 2;
const PAIR_STRIDE = 8 * 1024 ** 2;

/** How frames of one path have gone. */
export interface PathCounters {
  sent: number;
  sentCopied: number;
  received: number;
  receivedCopied: number;
}

/** A guest in emulated mode: its driver pair, and the VF at the pair's other end. */
export class EmulatedGuest {
  readonly rig: EngineRig;
  readonly guest: VirtioRigGuest;
  readonly vf: number;
  readonly pool: number;
  readonly directness: Directness;
  readonly memory: number;
  readonly registers: number;
  readonly rx: number;
  readonly tx: number;

  constructor(rig: EngineRig, vf: number, guest: VirtioRigGuest, directness: Directness) {
    this.rig = rig;
    this.vf = vf;
    this.guest = guest;
    this.directness = directness;
    this.pool = guest.pool;
    this.memory = PAIRS_AT + vf * PAIR_STRIDE;
    this.registers = REGISTER_PAGES + vf * ADV_PAGE_BYTES;
    this.rx = DRIVER_PAIRS + guest.pool * DRIVER_PAIR_STRIDE;
    this.tx = this.rx + QUEUE_STRIDE;
    new Uint8Array(rig.view.buffer).fill(0, this.memory, this.memory + PAIR_BYTES);
    this.start();
  }

  get #wasm(): SwitchExports {
    return this.rig.wasm as unknown as SwitchExports;
  }

  get #isDirect(): boolean {
    return this.directness !== "copy";
  }

  /** The VF's queue at the NIC. */
  nicQueue(index: number): number {
    return QUEUES + (this.vf * QUEUES_PER_POOL + index) * QUEUE_STRIDE;
  }

  /** Begins anew: empty rings at both ends. */
  start(): void {
    const { view } = this.rig;
    new Uint8Array(view.buffer).fill(0, this.registers, this.registers + ADV_PAGE_BYTES);
    const { rx, tx, memory, registers, pool, directness } = this;
    describePair(view, { rx, tx, memory, registers, pool, emulated: true, directness, kick: 0, call: 0, sent: 0 });
    if (this.#isDirect) this.#wasm.fillDirect(rx);
    else this.#wasm.fillDriverRx(rx);
    for (const at of [rx, tx]) view.setUint32(at + Q_STATE, QUEUE_RUNNING, true);
    const { offset, bytes } = this.guest.options;
    this.rig.setRegions(this.vf, [
      { iova: BigInt(memory), size: PAIR_SHARED_BYTES, window: memory },
      ...(this.#isDirect ? [{ iova: BigInt(offset), size: bytes, window: offset }] : []),
    ]);
    this.startNic(RX, 0);
    this.startNic(TX, 0);
    view.setUint32(POOLS + this.vf * POOL_STRIDE + P_RX_QUEUES, this.nicQueue(RX), true);
    view.setUint32(POOLS + this.vf * POOL_STRIDE + P_RX_COUNT, 1, true);
    for (let index = 1; index < this.guest.options.queuePairs * 2; index += 2) {
      view.setUint32(this.guest.queuePointer(index) + Q_CARRY_TO, tx, true);
      view.setUint32(this.guest.queuePointer(index) + Q_DIRECT, this.#isDirect ? directState(memory) : 0, true);
    }
  }

  /** Starts one of the VF's queues at slot `head`. */
  startNic(index: number, head: number): void {
    const { view } = this.rig;
    const at = this.nicQueue(index);
    new Uint8Array(view.buffer).fill(0, at, at + QUEUE_STRIDE);
    view.setUint32(at + Q_SIZE, PAIR_SIZE, true);
    view.setUint32(at + Q_FLAVOUR, FLAVOUR_ADVANCED, true);
    view.setUint32(at + Q_FLAGS, this.#isDirect ? QUEUE_F_DIRECT : 0, true);
    view.setUint32(at + Q_HDR_BYTES, VIRTIO_NET_HDR_BYTES, true);
    const own = view.getUint32(this.guest.queuePointer(index) + Q_OFFLOADS, true);
    view.setUint16(at + Q_OFFLOADS, this.#isDirect ? own : OFFLOADS_ALL, true);
    view.setUint32(at + Q_PACKET_BYTES, 2048, true);
    view.setUint32(at + Q_HEADER_BYTES, this.directness === "headersplit" ? DIRECT_HEADER_BYTES : 0, true);
    view.setUint32(at + Q_POOL, this.vf, true);
    view.setUint32(at + Q_INDEX, index, true);
    view.setUint32(at + Q_REGISTERS, this.registers + index * ADV_REGISTER_STRIDE, true);
    view.setBigUint64(at + Q_DESC_IOVA, BigInt(this.memory + index * PAIR_RING_BYTES), true);
    view.setInt32(at + Q_CALL_FD, -1, true);
    view.setInt32(at + Q_KICK_FD, 0, true);
    this.rig.wasm.forgetRegions(at);
    const verdict = this.rig.wasm.startQueue(at, head);
    if (verdict !== 0) throw new Error(`the NIC's queue ${index} did not start: ${verdict}`);
  }

  /** Queues that are polled. */
  get active(): number[] {
    const { queuePairs } = this.guest.options;
    const own = Array.from({ length: queuePairs }, (_, pair) => this.guest.queuePointer(2 * pair + 1));
    return [...own, this.rx, ...(this.#isDirect ? [this.tx] : []), this.nicQueue(TX)];
  }

  /** As the service takes back what is outstanding: the NIC's transmit queue stops, and goes on where it was. */
  recallSent(): void {
    const { view } = this.rig;
    const head = view.getUint32(this.registers + TX * ADV_REGISTER_STRIDE + ADV_REG_HEAD, true);
    view.setUint32(this.nicQueue(TX) + Q_STATE, 0, true);
    this.#wasm.settleSent(this.tx, head);
    this.startNic(TX, head);
  }

  /** As the service takes the guest's receive buffers back. `between`: what the NIC does meanwhile. */
  recallReceived(between: () => void = () => {}): void {
    this.#halt(HALT_RX);
    this.#wasm.withdrawOffered(this.rx);
    between();
    this.#wasm.settleReceived(this.rx);
    this.#halt(0);
  }

  #halt(bits: number): void {
    this.rig.view.setUint32(directState(this.memory) + DIRECT_HALT, bits, true);
  }

  /** Where the guest's queue stands. */
  position(index: number): number {
    return this.rig.wasm.positionOf(this.guest.queuePointer(index)) >>> 0;
  }

  get counters(): PathCounters {
    const of = (at: number) => Number(this.rig.view.getBigUint64(directState(this.memory) + at, true));
    return {
      sent: of(DIRECT_TX_FRAMES),
      sentCopied: of(DIRECT_TX_COPIED),
      received: of(DIRECT_RX_FRAMES),
      receivedCopied: of(DIRECT_RX_COPIED),
    };
  }

  /** Why a queue of the pair, or of the VF, stopped, 0 if none did. */
  get error(): number {
    const { view } = this.rig;
    const failed = [this.rx, this.tx, this.nicQueue(RX), this.nicQueue(TX)].find((at) =>
      view.getUint32(at + Q_STATE, true) === QUEUE_ERROR
    );
    return failed === undefined ? 0 : view.getUint32(failed + Q_ERROR, true);
  }
}

/** A rig of emulated guests. */
export class DirectRig {
  readonly rig: EngineRig;
  readonly guests: EmulatedGuest[] = [];

  constructor(vfs: number) {
    this.rig = new EngineRig(vfs);
  }

  /** Attaches the next VF's guest. */
  attach(
    directness: Directness,
    format: VirtqueueName,
    options: Partial<PackedGuestOptions> = {},
    flags?: number,
  ): EmulatedGuest {
    const vf = this.guests.length;
    const guest = this.rig.attachVirtqueues(format, FIRST_POOL + vf, options, flags);
    const made = new EmulatedGuest(this.rig, vf, guest, directness);
    this.guests.push(made);
    writeActive(this.rig.view, this.guests.flatMap(({ active }) => active));
    return made;
  }

  /** As the rig's `run`; what goes cold at either end of a pair is kicked. */
  run(passes = 200): void {
    const { view, wasm } = this.rig;
    for (let done = 0; done < passes; done += 10) {
      for (const at of this.guests.flatMap(({ active }) => active)) {
        if (view.getUint32(at + Q_HEAT, true) === HEAT_COLD && wasm.hasWork(at)) wasm.heat(at);
      }
      this.rig.run(10);
      for (const one of this.guests) {
        for (const at of [one.rx, one.tx, one.nicQueue(RX), one.nicQueue(TX)]) {
          view.setUint32(at + Q_CALL_PENDING, 0, true);
        }
      }
      view.setUint32(CTL + CTL_CALL_COUNT, 0, true);
    }
  }
}
