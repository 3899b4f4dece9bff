/** A guest that drives its VF itself, with advanced rings over the NIC's socket for guests: honest, or not. */
import { ADV_PAGE_BYTES } from "../../shared/layout/advanced.ts";
import { DeviceClient, type DeviceEvent } from "../../shared/device/mod.ts";
import { createEventFd, type Fd, Reactor, signalEventFd, WasmMemory } from "../../shared/os/mod.ts";
import { AdvancedGuest } from "./advanced_guest.ts";
import type { TestFabric } from "./fabric.ts";
import { SharedMemory } from "./front_end.ts";
import { must } from "./guests.ts";

const BYTES = 4 * 1024 ** 2;
const IOVA = 0x4000_0000n;

/** A driver of one VF. */
export class DirectGuest implements AsyncDisposable {
  /** Size of its memory. */
  static readonly bytes = BYTES;
  readonly reactor: Reactor;
  readonly memory: SharedMemory;
  readonly device: DeviceClient;
  readonly guest: AdvancedGuest;
  readonly kick = createEventFd();
  readonly call = createEventFd();
  readonly events: DeviceEvent[] = [];
  readonly #page: Fd;

  private constructor(device: DeviceClient, reactor: Reactor, page: Fd, memory: SharedMemory) {
    this.device = device;
    this.memory = memory;
    this.reactor = reactor;
    this.#page = page;
    const registers = new WasmMemory(65536);
    registers.map(0, page.number, 0, ADV_PAGE_BYTES);
    this.guest = new AdvancedGuest(this.memory.view, registers.view, 0, { offset: 0, bytes: BYTES, iova: IOVA });
    device.onEvent = (event) => this.events.push(event);
  }

  /** Has VF `vf` held, and `use` its token meanwhile. */
  static async whileHeld<T>(fabric: TestFabric, vf: number, use: (token: string) => Promise<T>): Promise<T> {
    const hold = `${fabric.url("nic")}/api/v1/vfs/${vf}/hold`;
    const { token } = await must(hold, "POST", { deadlineMs: 5000 });
    try {
      return await use(token);
    } finally {
      await must(hold, "DELETE");
    }
  }

  /** Attaches and starts a queue pair. `file`: its memory file, if it is to be a special one. */
  static attach(fabric: TestFabric, vf: number, file?: Fd): Promise<DirectGuest> {
    return DirectGuest.whileHeld(fabric, vf, (token) => DirectGuest.attachWith(fabric, vf, token, file));
  }

  /** As `attach`, with a token that the guest has. */
  static async attachWith(fabric: TestFabric, vf: number, token: string, file?: Fd): Promise<DirectGuest> {
    const reactor = new Reactor();
    const device = DeviceClient.connect(`${fabric.runDir}/passthrough.sock`, reactor);
    try {
      await device.request({ op: "attach", vf, owner: "test", token });
      const page = await device.requestFd({ op: "region", name: "registers" });
      const direct = new DirectGuest(device, reactor, page, new SharedMemory(BYTES, file));
      await direct.map();
      await direct.start(0);
      await direct.start(1);
      return direct;
    } catch (error) {
      device.close();
      await reactor.close();
      throw error;
    }
  }

  /** Has its memory in the VF's domain. */
  async map(): Promise<void> {
    const regions = [{ iova: IOVA, size: BYTES, offset: 0 }];
    await this.device.request({ op: "dmaSet", regions }, [this.memory.fd.number]);
  }

  /** Starts queue `index` at head `base`. */
  async start(index: number, base = 0): Promise<void> {
    const ring = this.guest.rings[index];
    await this.device.request({
      op: "queueStart",
      index,
      flavour: "advanced",
      size: ring?.size ?? 0,
      desc: this.guest.iova(ring?.ring ?? 0),
      base,
      kick: index === 1,
      call: index === 0,
    }, [(index === 1 ? this.kick : this.call).number]);
  }

  /** Has the NIC look at the doorbells. */
  signal(): void {
    signalEventFd(this.kick.number);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.device.close();
    await this.reactor.close();
    for (const fd of [this.kick, this.call, this.#page]) fd.close();
    this.memory[Symbol.dispose]();
  }
}
