/**
 * A driver pair: this service's engine as the driver of a pool of the NIC, with an advanced queue pair in memory of its
 * own. Emulated guests and the software switch reach the NIC through one each. If the NIC restarts the pair attaches
 * again; what was in it is lost, as on a cable that was pulled.
 */
import {
  DIRECT_HEADER_BYTES,
  DRIVER_BUFFER_BYTES,
  DRIVER_PAIR_STRIDE,
  DRIVER_PAIRS,
  Q_STATE,
  QUEUE_RUNNING,
  QUEUE_STOPPED,
  QUEUE_STRIDE,
} from "../../shared/layout/nic.ts";
import { beforeNextLook } from "../../shared/async/mod.ts";
import { DeviceClient, DeviceRefusal, type MemoryRegion, type RequestInput } from "../../shared/device/mod.ts";
import type { Engine } from "../../shared/engine/mod.ts";
import type { Fd } from "../../shared/os/mod.ts";
import type { SwitchExports } from "./exports.ts";
import type { DriverPairOptions } from "./pair_options.ts";
import {
  describePair,
  movePair,
  PAIR_RING_BYTES,
  PAIR_SHARED_BYTES,
  PAIR_SIZE,
  type PairPlace,
  RX,
  TX,
} from "./pair_layout.ts";
import { drainPair } from "./pair_drain.ts";
import { PairMemory } from "./pair_memory.ts";
import type { KeptPart, Part } from "./standby/mod.ts";

/** A queue pair of the NIC, driven from here. */
export class DriverPair {
  /** Its queues, as arena offsets: frames from the NIC, frames to it. */
  readonly rx: number;
  readonly tx: number;
  readonly #engine: Engine<SwitchExports>;
  readonly #options: DriverPairOptions;
  readonly #memory: PairMemory;
  #device: DeviceClient | undefined;
  #attaching: Promise<void> = Promise.resolve();
  #isRecovering = false;
  #closed = false;

  private constructor(engine: Engine<SwitchExports>, options: DriverPairOptions, before?: readonly Fd[]) {
    this.#engine = engine;
    this.#options = options;
    this.rx = DRIVER_PAIRS + options.pool * DRIVER_PAIR_STRIDE;
    this.tx = this.rx + QUEUE_STRIDE;
    this.#memory = new PairMemory(engine, { rx: this.rx, tx: this.tx, pool: options.pool }, before);
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
    return this.#memory.offset;
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
      this.#reset(await device.requestFd({ op: "region", name: "registers" }));
      const guest = this.#options.guestMemory?.() ?? { regions: [], fds: [] };
      const regions = [this.region, ...guest.regions];
      await device.request({ op: "dmaSet", regions }, [this.file, ...guest.fds]);
      await this.#start(device, RX, 0);
      await this.#start(device, TX, 0);
      if (this.#closed) throw new Error("the driver pair is closed");
      this.#setState(QUEUE_RUNNING);
    } catch (error) {
      device.close();
      throw error;
    }
    this.#keep(device);
  }

  #keep(device: DeviceClient): void {
    this.#device = device;
    device.onEvent = (event) => {
      if (event.event === "queueError") this.#options.onFailed?.(event.reason);
    };
    void device.closed.then(() => {
      if (!this.#closed && this.#device === device) this.#attaching = this.#reattach();
    });
    this.#options.onChange();
  }

  /** What whoever stands by has of it. */
  get kept(): Part {
    const { fds } = this.#memory;
    const device = this.#device ? [this.#device.fd] : [];
    return { value: { files: fds.length, isAttached: device.length > 0 }, fds: [...fds, ...device] };
  }

  /** Goes on with the pair of a process that has ended, whose engine is about to be taken over. */
  static adopt(engine: Engine<SwitchExports>, options: DriverPairOptions, { value, fds }: KeptPart): DriverPair {
    const { files, isAttached } = value as { files: number; isAttached: boolean };
    const pair = new DriverPair(engine, options, fds.splice(0, files));
    const device = isAttached ? fds.shift() : undefined;
    if (device) pair.#keep(DeviceClient.adopt(device, options.reactor));
    return pair;
  }

  /** Finds its rings again, in an engine that is being taken over. */
  goOnInEngine(): void {
    const { view, wasm } = this.#engine;
    const { kick, call, sent } = this.#memory;
    this.#memory.mapRegisters();
    movePair(view, this.#place([kick, call, sent]));
    for (const at of [this.rx, this.tx]) wasm.adoptQueue(at);
  }

  /** Goes on, when the engine does. */
  goOn(): void {
    this.#memory.wake();
    if (!this.#device) this.#attaching = this.#reattach();
  }

  #place([kick, call, sent]: [Fd, Fd, Fd]): PairPlace {
    const { rx, tx, memory } = this;
    const { pool, emulated, directness } = this.#options;
    const fds = { kick: kick.number, call: call.number, sent: sent.number };
    return { ...{ rx, tx, memory, registers: this.#memory.registers, pool, emulated, directness }, ...fds };
  }

  /** The pair's own memory, as a region of its domain at the NIC; its file goes with it. */
  get region(): MemoryRegion {
    return { iova: BigInt(this.#memory.offset), size: PAIR_SHARED_BYTES, offset: 0, perm: "rw" };
  }

  /** The file of `region`. */
  get file(): number {
    return this.#memory.file.number;
  }

  async #start(device: DeviceClient, index: number, base: number): Promise<void> {
    const { directness } = this.#options;
    const { kick, call, sent } = this.#memory;
    const eventfds = index === RX ? [call] : this.#isDirect ? [kick, sent] : [kick];
    await device.request({
      op: "queueStart",
      index,
      flavour: "advanced",
      size: PAIR_SIZE,
      desc: BigInt(this.#memory.offset + index * PAIR_RING_BYTES),
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
    if (this.#closed) {
      page.close();
      throw new Error("the driver pair is closed");
    }
    const { view, wasm } = this.#engine;
    const { kick, call, sent } = this.#memory;
    // Both queues are stopped, so the engine reads no doorbell while its page is exchanged.
    this.#memory.mapRegisters(page);
    this.#engine.between(() => {
      describePair(view, this.#place([kick, call, sent]));
      if (this.#isDirect) wasm.fillDirect(this.rx);
      else wasm.fillDriverRx(this.rx);
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
    this.#options.onChange();
    this.#isRecovering = true;
    this.#setState(QUEUE_STOPPED);
    this.#options.onLost?.();
    this.#options.log("warn", "the NIC went away; attaching again");
    const sinceMs = performance.now();
    while (!this.#closed) {
      await beforeNextLook(sinceMs);
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

  /** Waits until the NIC has taken what was sent, and the guest what was received; throws if the NIC does not. */
  async drain(): Promise<void> {
    await drainPair(this.#engine.wasm, this, () => this.#device !== undefined);
  }

  /** Detaches and gives the memory back. The engine no longer polls rx. */
  async close(reason: string): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#attaching;
    this.#setState(QUEUE_STOPPED);
    await this.#device?.request({ op: "detach", reason: reason.slice(0, 500) }).catch(() => {});
    this.#device?.close();
    this.#memory.close();
  }
}
