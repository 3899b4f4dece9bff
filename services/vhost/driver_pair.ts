/**
 * A driver pair: this service's engine as the driver of a pool of the NIC, with an advanced queue pair in memory of its
 * own. Emulated guests and the software switch reach the NIC through one each. If the NIC restarts the pair attaches
 * again; what was in it is lost, as on a cable that was pulled.
 */
import { ADV_PAGE_BYTES } from "../../shared/layout/advanced.ts";
import {
  DIRECT_HEADER_BYTES,
  DRIVER_BUFFER_BYTES,
  DRIVER_PAIR_STRIDE,
  DRIVER_PAIRS,
  Q_STATE,
  QUEUE_RUNNING,
  QUEUE_STOPPED,
  QUEUE_STRIDE,
  REGISTER_PAGES,
} from "../../shared/layout/nic.ts";
import { DeviceClient, DeviceRefusal, type MemoryRegion, type RequestInput } from "../../shared/device/mod.ts";
import type { Engine } from "../../shared/engine/mod.ts";
import {
  ArenaFullError,
  createEventFd,
  createMemfd,
  EPOLLET,
  EPOLLIN,
  type Fd,
  sealShrink,
  type Window,
} from "../../shared/os/mod.ts";
import type { SwitchExports } from "./exports.ts";
import type { DriverPairOptions } from "./pair_options.ts";
import { describePair, PAIR_BYTES, PAIR_RING_BYTES, PAIR_SHARED_BYTES, PAIR_SIZE, RX, TX } from "./pair_layout.ts";

const REATTACH_PAUSE_MS = 50;
const DRAIN_DEADLINE_MS = 2000;
const RECEIVE_DRAIN_DEADLINE_MS = 300;
const DRAIN_PAUSE_MS = 1;

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
  readonly #sent = createEventFd();
  #device: DeviceClient | undefined;
  #attaching: Promise<void> = Promise.resolve();
  #isRecovering = false;
  #mapped = false;
  #closed = false;

  private constructor(engine: Engine<SwitchExports>, options: DriverPairOptions) {
    this.#engine = engine;
    this.#options = options;
    this.rx = DRIVER_PAIRS + options.pool * DRIVER_PAIR_STRIDE;
    this.tx = this.rx + QUEUE_STRIDE;
    try {
      this.#window = engine.arena.allocate(PAIR_BYTES);
    } catch (error) {
      for (const fd of [this.#kick, this.#call, this.#sent]) fd.close();
      if (error instanceof ArenaFullError) throw new DeviceRefusal("arena-full", `emulated mode: ${error.message}`);
      throw error;
    }
    this.#memory = createMemfd("ringfabric-driver-pair", PAIR_SHARED_BYTES);
    sealShrink(this.#memory.number);
    engine.arena.map(this.#window, this.#memory.number, 0, PAIR_SHARED_BYTES);
    engine.epoll.add(this.#call.number, EPOLLIN | EPOLLET, this.rx);
    engine.epoll.add(this.#sent.number, EPOLLIN | EPOLLET, this.tx);
  }

  /** Its queues that are polled. */
  get active(): number[] {
    const receiving = this.#options.isReceiving() ? [this.rx] : [];
    return this.#isDirect ? [...receiving, this.tx] : receiving;
  }

  get #isDirect(): boolean {
    return this.#options.directness !== "copy";
  }

  /** Where its memory is in the arena, and at the NIC. */
  get memory(): number {
    return this.#window.offset;
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
      const dataPath = this.#options.directness;
      await device.request({ op: "attach", vf: remote, owner, mode: "emulated", dataPath });
      using page = await device.requestFd({ op: "region", name: "registers" });
      this.#reset(page);
      const guest = this.#options.guestMemory?.() ?? { regions: [], fds: [] };
      const regions = [this.region, ...guest.regions];
      await device.request({ op: "dmaSet", regions }, [this.#memory.number, ...guest.fds]);
      await this.#start(device, RX, 0);
      await this.#start(device, TX, 0);
      if (this.#closed) throw new Error("the driver pair is closed");
      this.#setState(QUEUE_RUNNING);
    } catch (error) {
      device.close();
      throw error;
    }
    this.#device = device;
    device.onEvent = (event) => {
      if (event.event === "queueError") this.#options.onFailed?.(event.reason);
    };
    void device.closed.then(() => {
      if (!this.#closed && this.#device === device) this.#attaching = this.#reattach();
    });
  }

  /** The pair's own memory, as a region of its domain at the NIC; its file goes with it. */
  get region(): MemoryRegion {
    return { iova: BigInt(this.#window.offset), size: PAIR_SHARED_BYTES, offset: 0, perm: "rw" };
  }

  /** The file of `region`. */
  get file(): number {
    return this.#memory.number;
  }

  async #start(device: DeviceClient, index: number, base: number): Promise<void> {
    const { directness } = this.#options;
    const eventfds = index === RX ? [this.#call] : this.#isDirect ? [this.#kick, this.#sent] : [this.#kick];
    await device.request({
      op: "queueStart",
      index,
      flavour: "advanced",
      size: PAIR_SIZE,
      desc: BigInt(this.#window.offset + index * PAIR_RING_BYTES),
      base,
      packetBytes: DRIVER_BUFFER_BYTES,
      virtioHeader: true,
      headerBytes: directness === "headersplit" ? DIRECT_HEADER_BYTES : 0,
      direct: this.#isDirect,
      features: this.#options.features?.() ?? 0n,
      kick: index === TX,
      call: index === RX || this.#isDirect,
    }, eventfds.map(({ number }) => number));
  }

  /** Asks the NIC; throws DeviceRefusal, also while it is away. */
  async ask(body: RequestInput, fds: readonly number[] = []): Promise<Record<string, unknown>> {
    if (!this.#device) throw new DeviceRefusal("nic-gone", "the NIC is away");
    return await this.#device.request(body, fds);
  }

  /** Has the NIC go on with the transmit ring at slot `base`, where it was stopped. */
  async startTransmit(base: number): Promise<void> {
    if (!this.#device) throw new DeviceRefusal("nic-gone", "the NIC is away");
    await this.#start(this.#device, TX, base);
  }

  /** Whether the NIC went away and the pair is not attached to its successor yet. */
  get isRecovering(): boolean {
    return this.#isRecovering;
  }

  /** Waits until the pair is attached again, if it is being attached. */
  get attached(): Promise<void> {
    return this.#attaching;
  }

  /** Ends the connection, whatever the NIC does; the pair attaches again by itself. */
  async sever(): Promise<void> {
    const device = this.#device;
    device?.close();
    await device?.closed;
  }

  /** Gives the VF back until `revive`: the NIC has none of the guest's memory any more. */
  async suspend(reason: string): Promise<void> {
    const device = this.#device;
    this.#device = undefined;
    this.#setState(QUEUE_STOPPED);
    await device?.request({ op: "detach", reason: reason.slice(0, 500) }).catch(() => {});
    device?.close();
  }

  /** Attaches again after `suspend`; throws what the NIC refuses with. */
  async revive(): Promise<void> {
    await this.#attach();
  }

  /** Begins anew: empty rings, the NIC's doorbells mapped. */
  #reset(page: Fd): void {
    if (this.#closed) throw new Error("the driver pair is closed");
    const { arena, view, wasm } = this.#engine;
    const { pool, emulated, directness } = this.#options;
    const registers = REGISTER_PAGES + pool * ADV_PAGE_BYTES;
    // Both queues are stopped, so the engine reads no doorbell while its page is exchanged.
    arena.mapOwn(registers, page.number, ADV_PAGE_BYTES);
    this.#mapped = true;
    this.#engine.between(() => {
      const [kick, call, sent] = [this.#kick.number, this.#call.number, this.#sent.number];
      const { rx, tx, memory } = this;
      describePair(view, { rx, tx, memory, registers, pool, emulated, directness, kick, call, sent });
      if (this.#isDirect) wasm.fillDirect(rx);
      else wasm.fillDriverRx(rx);
    });
  }

  #setState(state: number): void {
    this.#engine.between(() => {
      for (const at of [this.rx, this.tx]) this.#engine.view.setUint32(at + Q_STATE, state, true);
      // The new register page asks for no interrupt. And what was taken back is offered by nobody again.
      const cold = state === QUEUE_RUNNING ? [this.rx, this.tx, ...this.#options.guestQueues?.() ?? []] : [];
      for (const at of cold) this.#engine.wasm.heat(at);
    });
  }

  async #reattach(): Promise<void> {
    this.#device = undefined;
    this.#isRecovering = true;
    this.#setState(QUEUE_STOPPED);
    this.#options.onLost?.();
    this.#options.log("warn", "the NIC went away; attaching again");
    while (!this.#closed) {
      await new Promise((resolve) => setTimeout(resolve, REATTACH_PAUSE_MS));
      if (this.#closed) return;
      try {
        await this.#attach();
        this.#isRecovering = false;
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
      for (const fd of [this.#call, this.#sent]) this.#engine.epoll.remove(fd.number);
      for (const at of [this.rx, this.tx]) {
        this.#engine.forgetCall(at);
        new Uint8Array(this.#engine.arena.buffer, at, QUEUE_STRIDE).fill(0);
      }
    });
    if (this.#mapped) {
      this.#engine.arena.unmapOwn(REGISTER_PAGES + this.#options.pool * ADV_PAGE_BYTES, ADV_PAGE_BYTES);
    }
    this.#engine.arena.release(this.#window);
    for (const fd of [this.#kick, this.#call, this.#sent, this.#memory]) fd.close();
  }
}
