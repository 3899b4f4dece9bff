/**
 * The passthrough data path: a VF of the NIC that the guest drives itself, by a plugin that was injected. The VF is
 * reached through the NIC's socket for guests, with a token that is good once. The device is told of the plugin's
 * rings and of the buffers, and of nothing else in the guest's RAM.
 */
import { GC_QUEUE_PAIRS } from "../../shared/layout/guest.ts";
import { DeviceClient, DeviceRefusal } from "../../shared/device/mod.ts";
import type { CheckedImage } from "../../shared/plugin/mod.ts";
import type { Reactor } from "../../shared/os/mod.ts";
import { coherent, firstBase, inUse, isPacked, pathOffloads, ringSizeFor } from "./features.ts";
import type { Host } from "./host.ts";
import type { Machine } from "./machine.ts";
import type { PathMemory } from "./path_memory.ts";

/** Of the guest's 4096 buffers: half is for a plugin's receive rings, a quarter for the shell's own, the rest is to send. */
const RX_BUFFERS = 2048;
/** How long the NIC may take to let go of buffers. */
const DETACH_MS = 1000;

/** How a VF is reached, and what its rings are like. */
export interface VfPathOptions {
  socket: string;
  reactor: Reactor;
  vf: number;
  token: string;
  owner: string;
  ringSize: number;
  headerBytes: number;
  /** Features not to ask for. */
  declined: bigint;
}

/** A VF that is being driven. */
export class VfPath {
  readonly image: CheckedImage;
  readonly vf: number;
  readonly #options: VfPathOptions;
  #onFault: ((reason: string) => void) | undefined;
  #reason: string | undefined;
  readonly #machine: Machine;
  readonly #device: DeviceClient;
  #memory: PathMemory | undefined;
  #queues = 0;
  #ringSize: number;
  #ended = false;

  private constructor(machine: Machine, image: CheckedImage, options: VfPathOptions, device: DeviceClient) {
    this.#machine = machine;
    this.image = image;
    this.vf = options.vf;
    this.#options = options;
    this.#ringSize = options.ringSize;
    this.#device = device;
    device.onEvent = (event) => {
      if (event.event === "queueError") this.#fault(`the NIC stopped queue ${event.index}: ${event.reason}`);
      if (event.event === "revoked") this.#fault(`the NIC took the VF back: ${event.reason}`);
    };
    void device.closed.then(() => this.#fault("the connection to the NIC ended"));
  }

  #fault(reason: string): void {
    if (this.#ended) return;
    this.end(reason);
    this.#reason = reason;
    this.#onFault?.(reason);
  }

  /** Ends the plugin at once, wherever it is: it drives nothing any more. */
  end(reason: string): void {
    this.#ended = true;
    if (this.#memory) this.#machine.endPlugin(this.#memory, reason);
  }

  /** Told, once, when the path cannot go on; at once if that has happened already. */
  set onFault(listener: (reason: string) => void) {
    this.#onFault = listener;
    if (this.#reason !== undefined) listener(this.#reason);
  }

  /**
   * Attaches, instantiates the plugin and starts its queues. Nothing of the data path in use is touched; if anything
   * fails, everything is given back and the reason is thrown.
   */
  static async open(
    machine: Machine,
    host: Host,
    image: CheckedImage,
    options: VfPathOptions,
  ): Promise<VfPath> {
    const device = DeviceClient.connect(options.socket, options.reactor);
    const path = new VfPath(machine, image, options, device);
    try {
      await path.#open(host);
      path.mustDrive();
      return path;
    } catch (error) {
      await path.abandon((error as Error).message);
      throw error;
    }
  }

  async #open(host: Host): Promise<void> {
    const { vf, token, owner, headerBytes, declined } = this.#options;
    const { info, module } = this.image;
    const { ram } = this.#machine;
    const device = this.#device;
    const plugin = `${info.name} ${info.version}`;
    const attached = await device.request({ op: "attach", vf, owner, token, mode: "passthrough", plugin });
    const advanced = info.hardware === "advanced";
    using doorbells = advanced ? await device.requestFd({ op: "region", name: "registers" }) : undefined;
    const queuePairs = host.get(GC_QUEUE_PAIRS);
    const offered = coherent(BigInt(attached.features as bigint) & ~declined);
    const ringSize = this.#ringSize = ringSizeFor(this.#options.ringSize, !advanced && isPacked(offered));
    const memory = this.#machine.layOut(1, { queuePairs, ringSize, features: offered, headerBytes }, doorbells);
    this.#memory = memory;
    this.#queues = queuePairs * 2;
    await this.#machine.install(memory, module);
    // Which format its rings have is the plugin's choice: one that knows of split rings only has laid out those.
    const features = coherent(inUse(offered, memory.accepted));
    host.setOffloads(1, pathOffloads(features));
    const regions = memory.ranges.map(({ address, bytes }) => ({ iova: address, size: bytes, offset: address }));
    await device.request({ op: "dmaSet", regions }, regions.map(() => ram.number));
    for (let index = 0; index < this.#queues; index++) {
      const ring = memory.ring(index);
      const fds = [memory.kicks[index], memory.calls[index]].flatMap((fd) => fd ? [fd.number] : []);
      await device.request({
        op: "queueStart",
        index,
        flavour: advanced ? "advanced" : isPacked(features) ? "packed" : "split",
        ...ring,
        base: advanced ? 0 : firstBase(features),
        features,
        headerBytes: advanced ? headerBytes : 0,
        kick: true,
        call: true,
      }, fds);
    }
  }

  /** Buffers that each receive ring is to hold. */
  get rxWanted(): number {
    const { hardware } = this.image.info;
    const { headerBytes } = this.#options;
    const each = hardware === "advanced" && headerBytes > 0 ? 2 : 1;
    const share = Math.floor(RX_BUFFERS * 2 / this.#queues / each);
    return Math.min(hardware === "virtio" ? this.#ringSize : this.#ringSize - 1, share) * each;
  }

  /** Throws the reason if the plugin has ended meanwhile. */
  mustDrive(): void {
    const reason = this.#reason ?? (this.#memory && this.#machine.whyEnded(this.#memory));
    if (reason !== undefined) throw new Error(reason);
  }

  /** Lets the NIC deliver what it has held back while the data path changed. */
  async resume(): Promise<void> {
    await this.#device.request({ op: "resume" });
  }

  /** Stops the queues and takes in what they had received; the VF is given back. A plugin that is late is ended. */
  async close(deadlineMs: number): Promise<void> {
    this.#ended = true;
    const late = setTimeout(() => this.end(`the plugin did not give its VF back within ${deadlineMs} ms`), deadlineMs);
    try {
      for (let index = this.#queues - 1; index >= 0; index--) await this.#device.request({ op: "queueStop", index });
      await this.#machine.ask({ op: "drain" });
      await this.#device.request({ op: "detach", reason: "back to emulated mode" });
    } catch (error) {
      if (!(error instanceof DeviceRefusal)) throw error;
    } finally {
      await this.#giveBack();
      clearTimeout(late);
    }
  }

  /** Ends the plugin and gives everything back: the NIC may be gone, or has taken the VF. */
  async abandon(reason: string): Promise<void> {
    this.end(reason);
    await this.#giveBack();
  }

  async #giveBack(): Promise<void> {
    // Its answer says that the NIC reaches no buffer any more; only then are they used for something else.
    const late = new Promise((done) => setTimeout(done, DETACH_MS));
    await Promise.race([this.#device.request({ op: "detach", reason: "given up" }), late]).catch(() => {});
    this.#device.close();
    if (!this.#memory) return;
    await this.#machine.remove(this.#memory);
    this.#memory[Symbol.dispose]();
  }
}
