/**
 * A driver pair: this service's engine as the driver of a pool of the NIC, with an advanced queue pair in memory of its
 * own. Emulated guests and the software switch reach the NIC through one each. If the NIC restarts the pair attaches
 * again; what was in it is lost, as on a cable that was pulled.
 */
import { ADV_DESC_BYTES, ADV_PAGE_BYTES, ADV_REG_TAIL, ADV_REGISTER_STRIDE } from "../../shared/layout/advanced.ts";
import {
  DRIVER_BUFFER_BYTES,
  DRIVER_PAIR_STRIDE,
  DRIVER_PAIRS,
  FLAVOUR_DRIVER_RX,
  FLAVOUR_DRIVER_TX,
  OFFLOADS_ALL,
  Q_BUFFERS,
  Q_BUFFERS_IOVA,
  Q_CALL_FD,
  Q_CARRY_TO,
  Q_DESC,
  Q_FLAVOUR,
  Q_HEAT,
  Q_KICK_FD,
  Q_LAST_AVAIL,
  Q_OFFLOADS,
  Q_POOL,
  Q_REGISTERS,
  Q_SIZE,
  Q_STATE,
  QUEUE_RUNNING,
  QUEUE_STOPPED,
  QUEUE_STRIDE,
  REGISTER_PAGES,
} from "../../shared/layout/nic.ts";
import { DeviceClient, DeviceRefusal, type PoolName } from "../../shared/device/mod.ts";
import type { Engine } from "../../shared/engine/mod.ts";
import {
  ArenaFullError,
  createEventFd,
  createMemfd,
  EPOLLET,
  EPOLLIN,
  type Fd,
  type Reactor,
  sealShrink,
  type Window,
} from "../../shared/os/mod.ts";
import type { SwitchExports } from "./exports.ts";

const SIZE = 1024;
const RING_BYTES = SIZE * ADV_DESC_BYTES;
const BUFFERS_BYTES = SIZE * DRIVER_BUFFER_BYTES;
const FIRST_BUFFER = 0x10000;
const MEMORY_BYTES = FIRST_BUFFER + 2 * BUFFERS_BYTES;
/** Where the NIC sees the pair's memory. */
const IOVA = 0x1000_0000n;
const RX = 0;
const TX = 1;
const REATTACH_PAUSE_MS = 100;
const DRAIN_DEADLINE_MS = 2000;
const RECEIVE_DRAIN_DEADLINE_MS = 300;
const DRAIN_PAUSE_MS = 1;

/** Where a driver pair leads, and who is told. */
export interface DriverPairOptions {
  deviceSocket: string;
  reactor: Reactor;
  /** The NIC's pool that it drives, and the pool of this engine that its frames belong to. */
  remote: PoolName;
  pool: number;
  owner: string;
  /** Emulated mode's path: frames go straight between the pair and the pool's queues, past the switch. */
  emulated: boolean;
  /** Whether there is anybody for the frames from the NIC; while there is not, rx is not polled. */
  isReceiving(): boolean;
  log(level: "info" | "warn", message: string): void;
}

/** A queue pair of the NIC, driven from here. */
export class DriverPair {
  /** Its queues, as arena offsets: frames from the NIC, frames to it. */
  readonly rx: number;
  readonly tx: number;
  readonly #engine: Engine<SwitchExports>;
  readonly #options: DriverPairOptions;
  readonly #memory: Fd;
  readonly #window: Window;
  readonly #kick = createEventFd();
  readonly #call = createEventFd();
  #device: DeviceClient | undefined;
  #attaching: Promise<void> = Promise.resolve();
  #mapped = false;
  #closed = false;

  private constructor(engine: Engine<SwitchExports>, options: DriverPairOptions) {
    this.#engine = engine;
    this.#options = options;
    this.rx = DRIVER_PAIRS + options.pool * DRIVER_PAIR_STRIDE;
    this.tx = this.rx + QUEUE_STRIDE;
    try {
      this.#window = engine.arena.allocate(MEMORY_BYTES);
    } catch (error) {
      for (const fd of [this.#kick, this.#call]) fd.close();
      if (error instanceof ArenaFullError) throw new DeviceRefusal("arena-full", `emulated mode: ${error.message}`);
      throw error;
    }
    this.#memory = createMemfd("ringfabric-driver-pair", MEMORY_BYTES);
    sealShrink(this.#memory.number);
    engine.arena.map(this.#window, this.#memory.number, 0, MEMORY_BYTES);
    engine.epoll.add(this.#call.number, EPOLLIN | EPOLLET, this.rx);
  }

  get isReceiving(): boolean {
    return this.#options.isReceiving();
  }

  /** Attaches to the NIC and starts both queues. Throws what the NIC refuses with. */
  static async connect(engine: Engine<SwitchExports>, options: DriverPairOptions): Promise<DriverPair> {
    const pair = new DriverPair(engine, options);
    try {
      await pair.#attach();
      return pair;
    } catch (error) {
      await pair.close((error as Error).message);
      throw error;
    }
  }

  async #attach(): Promise<void> {
    const { deviceSocket, reactor, remote, owner } = this.#options;
    const device = DeviceClient.connect(deviceSocket, reactor);
    try {
      await device.request({ op: "attach", vf: remote, owner, mode: "emulated" });
      using page = await device.requestFd({ op: "region", name: "registers" });
      this.#reset(page);
      const region = { iova: IOVA, size: MEMORY_BYTES, offset: 0 };
      await device.request({ op: "dmaSet", regions: [region] }, [this.#memory.number]);
      await this.#start(device, RX, IOVA, this.#call);
      await this.#start(device, TX, IOVA + BigInt(RING_BYTES), this.#kick);
      if (this.#closed) throw new Error("the driver pair is closed");
      this.#setState(QUEUE_RUNNING);
    } catch (error) {
      device.close();
      throw error;
    }
    this.#device = device;
    void device.closed.then(() => {
      if (!this.#closed && this.#device === device) this.#attaching = this.#reattach();
    });
  }

  async #start(device: DeviceClient, index: number, desc: bigint, eventfd: Fd): Promise<void> {
    await device.request({
      op: "queueStart",
      index,
      flavour: "advanced",
      size: SIZE,
      desc,
      base: 0,
      packetBytes: DRIVER_BUFFER_BYTES,
      virtioHeader: true,
      kick: index === TX,
      call: index === RX,
    }, [eventfd.number]);
  }

  /** Begins anew: empty rings, the NIC's doorbells mapped. */
  #reset(page: Fd): void {
    if (this.#closed) throw new Error("the driver pair is closed");
    const { arena, view, wasm } = this.#engine;
    const registers = REGISTER_PAGES + this.#options.pool * ADV_PAGE_BYTES;
    // Both queues are stopped, so the engine reads no doorbell while its page is exchanged.
    arena.mapOwn(registers, page.number, ADV_PAGE_BYTES);
    this.#mapped = true;
    this.#engine.between(() => {
      const describe = (at: number, index: number, flavour: number) => {
        // It may be among the queues that are polled, or that wait for a kick, and stays there.
        const heat = view.getUint32(at + Q_HEAT, true);
        new Uint8Array(arena.buffer, at, QUEUE_STRIDE).fill(0);
        view.setUint32(at + Q_HEAT, heat, true);
        view.setUint32(at + Q_STATE, QUEUE_STOPPED, true);
        view.setUint32(at + Q_FLAVOUR, flavour, true);
        view.setUint32(at + Q_SIZE, SIZE, true);
        view.setUint32(at + Q_POOL, this.#options.pool, true);
        view.setUint32(at + Q_LAST_AVAIL, 0, true);
        view.setUint16(at + Q_OFFLOADS, OFFLOADS_ALL, true);
        view.setUint32(at + Q_DESC, this.#window.offset + index * RING_BYTES, true);
        view.setUint32(at + Q_REGISTERS, registers + index * ADV_REGISTER_STRIDE, true);
        view.setUint32(at + Q_BUFFERS, this.#window.offset + FIRST_BUFFER + index * BUFFERS_BYTES, true);
        view.setBigUint64(at + Q_BUFFERS_IOVA, IOVA + BigInt(FIRST_BUFFER + index * BUFFERS_BYTES), true);
        view.setInt32(at + Q_CALL_FD, index === TX ? this.#kick.number : -1, true);
        // In emulated mode rx names itself: its frames go to its pool's receive queues.
        view.setUint32(at + Q_CARRY_TO, this.#options.emulated && index === RX ? at : 0, true);
        view.setInt32(at + Q_KICK_FD, index === RX ? this.#call.number : -1, true);
      };
      describe(this.rx, RX, FLAVOUR_DRIVER_RX);
      describe(this.tx, TX, FLAVOUR_DRIVER_TX);
      view.setUint32(registers + TX * ADV_REGISTER_STRIDE + ADV_REG_TAIL, 0, true);
      wasm.fillDriverRx(this.rx);
    });
  }

  #setState(state: number): void {
    this.#engine.between(() => {
      for (const at of [this.rx, this.tx]) this.#engine.view.setUint32(at + Q_STATE, state, true);
      if (state === QUEUE_RUNNING) this.#engine.wasm.heat(this.rx);
    });
  }

  async #reattach(): Promise<void> {
    this.#device = undefined;
    this.#setState(QUEUE_STOPPED);
    this.#options.log("warn", "the NIC went away; attaching again");
    while (!this.#closed) {
      await new Promise((resolve) => setTimeout(resolve, REATTACH_PAUSE_MS));
      if (this.#closed) return;
      try {
        await this.#attach();
        this.#options.log("info", "attached to the NIC again");
        return;
      } catch {
        // Not yet: its successor has to be programmed first.
      }
    }
  }

  /**
   * Waits until the NIC has taken what was sent, and the guest what was received. Throws if the NIC does not (its
   * transmit rate is limited, say); a guest that does not take its frames loses them, as it would on a cable.
   */
  async drain(): Promise<void> {
    const { wasm } = this.#engine;
    const start = performance.now();
    while (this.#device && !wasm.isDriverTxEmpty(this.tx)) {
      if (performance.now() - start > DRAIN_DEADLINE_MS) {
        throw new Error(`the VF's transmit queue did not run empty within ${DRAIN_DEADLINE_MS} ms`);
      }
      await new Promise((resolve) => setTimeout(resolve, DRAIN_PAUSE_MS));
    }
    while (this.#device && wasm.hasWork(this.rx) && performance.now() - start < RECEIVE_DRAIN_DEADLINE_MS) {
      await new Promise((resolve) => setTimeout(resolve, DRAIN_PAUSE_MS));
    }
  }

  /** Detaches and gives the memory back. The engine no longer polls rx. */
  async close(reason: string): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#attaching;
    this.#setState(QUEUE_STOPPED);
    await this.#device?.request({ op: "detach", reason: reason.slice(0, 500) }).catch(() => {});
    this.#device?.close();
    this.#engine.between(() => {
      this.#engine.epoll.remove(this.#call.number);
      for (const at of [this.rx, this.tx]) {
        this.#engine.forgetCall(at);
        new Uint8Array(this.#engine.arena.buffer, at, QUEUE_STRIDE).fill(0);
      }
    });
    if (this.#mapped) {
      this.#engine.arena.unmapOwn(REGISTER_PAGES + this.#options.pool * ADV_PAGE_BYTES, ADV_PAGE_BYTES);
    }
    this.#engine.arena.release(this.#window);
    for (const fd of [this.#kick, this.#call, this.#memory]) fd.close();
  }
}
