/**
 * The shell: the guest's network driver without any hardware's rings. It has a data path of its own (virtio), takes
 * plugins that the hypervisor injects, checks them for itself, and moves the host from one data path to the other
 * while the host's IP stack goes on. The hypervisor (the vf service) says when; each step here either succeeds or
 * leaves the path that was in use as it was.
 */
import { GC_RUNNING, GC_RX_WANTED, IMAGE_SLOT, IMAGE_SLOT_BYTES } from "../../shared/layout/guest.ts";
import { Turns } from "../../shared/async/mod.ts";
import { ApiError, type GuestMode, log } from "../../shared/api/mod.ts";
import { type CheckedImage, checkImage, IMAGE_BYTES_MAX, PluginRejected, type Trust } from "../../shared/plugin/mod.ts";
import type { Reactor } from "../../shared/os/mod.ts";
import type { Host } from "./host.ts";
import type { Machine } from "./machine.ts";
import { VfPath } from "./vf_path.ts";
import type { VirtioPath } from "./virtio_path.ts";

/** What is told of a fault. */
const FAULT_CHARACTERS_MAX = 1000;
/** A guest that was told to stop sending, and hears no more, sends again after so long. */
const REST_MS = 15_000;

/** Settings of the shell. */
export interface ShellOptions {
  /** The NIC's socket for guests. */
  deviceSocket: string | undefined;
  reactor: Reactor;
  owner: string;
  trust: Trust;
  ringSize: number;
  /** Bytes of header buffers, 0: frames are not split. */
  headerBytes: number;
  /** virtio features not to ask for. */
  declined: bigint;
}

/** The shell of one guest. */
export class Shell {
  readonly #machine: Machine;
  readonly #host: Host;
  readonly #virtio: VirtioPath;
  readonly #options: ShellOptions;
  #slotBytes = 0;
  #image: CheckedImage | undefined;
  #vf: VfPath | undefined;
  #lastFault: string | undefined;
  readonly #turns = new Turns();
  #closed = false;
  #rest: ReturnType<typeof setTimeout> | undefined;
  /** Whether the data path may change. */
  mayChange: () => boolean = () => true;
  /** Told when the data path has changed by itself. */
  onFault: () => void = () => {};

  constructor(machine: Machine, host: Host, virtio: VirtioPath, options: ShellOptions) {
    this.#machine = machine;
    this.#host = host;
    this.#virtio = virtio;
    this.#options = options;
    machine.onFault = (path, reason) => {
      if (path === 1) return this.#fault(reason);
      this.#lastFault = `the shell's own data path failed: ${reason}`;
      log("warn", "guest", this.#lastFault);
      virtio.reconnect();
    };
  }

  /** Steps happen one after the other. */
  #exclusively<T>(step: () => Promise<T>): Promise<T> {
    return this.#turns.take(() => {
      if (this.mayChange()) return step();
      throw new ApiError(409, "no guest is here, or it is being moved: its data path stays as it is", "mode");
    });
  }

  get mode(): GuestMode {
    const info = this.#vf?.image.info;
    return {
      mode: this.#vf ? "passthrough" : "emulated",
      ...(info ? { plugin: info.name, version: info.version } : {}),
      connected: this.#virtio.connected,
      ...(this.#lastFault === undefined ? {} : { lastFault: this.#lastFault.slice(0, FAULT_CHARACTERS_MAX) }),
    };
  }

  // Injection ------------------------------------------------------------------------------------------------

  /** Says where an image of `bytes` bytes is to be put. */
  openSlot(bytes: number): { address: number; bytes: number } {
    if (bytes < 1 || bytes > IMAGE_BYTES_MAX) {
      throw new ApiError(413, `an image of ${bytes} bytes: at most ${IMAGE_BYTES_MAX}`, "bytes", "too-large");
    }
    this.#slotBytes = bytes;
    return { address: IMAGE_SLOT, bytes };
  }

  /** Takes the image that was put into the slot, if it passes the shell's own checks. Throws PluginRejected. */
  async putImage(image: Uint8Array<ArrayBuffer>): Promise<{ name: string; version: string }> {
    if (this.#slotBytes === 0 || image.length !== this.#slotBytes || image.length > IMAGE_SLOT_BYTES) {
      throw new ApiError(409, `an image of ${image.length} bytes for a slot of ${this.#slotBytes}: open a slot first`);
    }
    new Uint8Array(this.#machine.memory.buffer, IMAGE_SLOT, image.length).set(image);
    this.#slotBytes = 0;
    // What is checked is a copy out of the guest's memory, and the copy is what runs.
    const copy = new Uint8Array(this.#machine.memory.buffer, IMAGE_SLOT, image.length).slice() as Uint8Array<
      ArrayBuffer
    >;
    const checked = await checkImage(copy, this.#options.trust);
    this.#image = checked;
    return { name: checked.info.name, version: checked.info.version };
  }

  // Steps of a change ----------------------------------------------------------------------------------------

  /** Stops handing frames to the data path in use, and waits until it has sent those it had, for at most `deadlineMs`. */
  quiesce(deadlineMs: number): Promise<void> {
    const endsMs = performance.now() + deadlineMs;
    return this.#exclusively(async () => {
      const leftMs = endsMs - performance.now();
      // Whoever has asked has gone on without it: nobody would have the guest send again.
      if (leftMs <= 0) throw new ApiError(409, `the guest could not stop sending within ${deadlineMs} ms`);
      try {
        await this.#machine.ask({ op: "quiesce", deadlineMs: leftMs });
        this.#restFor(REST_MS);
      } catch (error) {
        this.#host.allowTx();
        throw new ApiError(409, `the guest's data path did not come to rest: ${(error as Error).message}`);
      }
    });
  }

  /** At rest until the next step of the change; the hypervisor may be gone, and it does not come. */
  #restFor(ms: number): void {
    clearTimeout(this.#rest);
    this.#rest = setTimeout(() => {
      log("warn", "guest", "a change of mode does not go on: frames go out again");
      this.resume();
    }, ms);
    Deno.unrefTimer(this.#rest as unknown as number);
  }

  /** Goes over to the injected plugin and VF `vf`. Throws with the virtio path still in use, at rest. */
  passthrough(vf: number, token: string): Promise<GuestMode> {
    return this.#exclusively(async () => {
      const { deviceSocket, reactor, owner, ringSize, headerBytes, declined } = this.#options;
      const image = this.#image;
      this.#lastFault = undefined;
      if (!image) throw new ApiError(409, "no plugin has been injected", "plugin");
      if (!deviceSocket) throw new ApiError(409, "this guest has no way to a NIC: start it with --nic-socket", "vf");
      if (this.#vf) throw new ApiError(409, `the guest drives vf ${this.#vf.vf} already`, "vf");
      if (this.#host.get(GC_RUNNING) !== 0 || this.#host.txHeld > 0) {
        throw new ApiError(409, "the guest has not stopped sending: quiesce it first", "vf");
      }
      const path = await VfPath.open(this.#machine, this.#host, image, {
        ...{ socket: deviceSocket, reactor, vf, token, owner, ringSize, headerBytes, declined },
      }).catch((error) => {
        throw new ApiError(409, (error as Error).message, "plugin");
      });
      try {
        // What the old path still had comes before anything of the new one.
        await this.#machine.ask({ op: "drain" });
        await this.#machine.ask({ op: "use", path: 1 });
        this.#host.set(GC_RX_WANTED, path.rxWanted);
        // The worker has been round once more, and the new rings have their buffers, when it answers this.
        await this.#machine.ask({ op: "drain" });
        path.mustDrive();
        await path.resume();
      } catch (error) {
        await this.#backToVirtio(path, (error as Error).message);
        throw new ApiError(409, (error as Error).message, "plugin", "plugin-failed");
      }
      this.#vf = path;
      path.onFault = (reason) => this.#fault(reason);
      this.resume();
      return this.mode;
    });
  }

  /**
   * Gives the VF back; the virtio path is in use again, at rest until `resume`. A plugin that does not let go of its VF
   * within `deadlineMs` is ended.
   */
  emulated(deadlineMs: number): Promise<GuestMode> {
    return this.#exclusively(async () => {
      const path = this.#vf;
      if (!path) return this.mode;
      this.#vf = undefined;
      try {
        await path.close(deadlineMs);
      } catch (error) {
        // Its last frames may be lost, the guest is not.
        this.#lastFault = (error as Error).message;
        log("warn", "guest", `while the plugin gave its VF back: ${this.#lastFault}`);
      }
      await this.#useVirtio();
      this.#restFor(REST_MS);
      return this.mode;
    });
  }

  /** Frames go out again. */
  resume(): void {
    clearTimeout(this.#rest);
    if (this.#vf || this.#virtio.connected) this.#host.allowTx();
  }

  /** Ends a plugin, gives its VF up, and lets the host's frames go the shell's own way again. */
  async #backToVirtio(path: VfPath, reason: string): Promise<void> {
    await path.abandon(reason);
    await this.#useVirtio();
  }

  async #useVirtio(): Promise<void> {
    await this.#machine.ask({ op: "use", path: 0 });
    this.#host.set(GC_RX_WANTED, this.#virtio.rxWanted);
  }

  /** The guest ends: its VF is given back. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#rest);
    this.#vf?.end("the guest ends");
    await this.#turns.settled;
    await this.#vf?.abandon("the guest ends");
    this.#vf = undefined;
  }

  /** The plugin or its VF failed: back to the virtio path, and the hypervisor is told, which wires it up again. */
  #fault(reason: string): void {
    if (this.#closed) return;
    log("warn", "guest", reason);
    this.#lastFault = reason;
    // Another one may be in its place when this has its turn.
    const path = this.#vf;
    path?.end(reason);
    void this.#exclusively(async () => {
      if (!path || this.#vf !== path || this.#closed) return;
      this.#vf = undefined;
      this.#host.set(GC_RUNNING, 0);
      await this.#backToVirtio(path, reason);
      this.resume();
    }).catch((error) => log("error", "guest", `while going back to virtio: ${(error as Error).message}`))
      .then(() => this.onFault());
  }
}

/** The name of what is wrong with an image, for a problem document. */
export function rejection(error: unknown): ApiError {
  if (error instanceof PluginRejected) {
    return new ApiError(422, `plugin rejected: ${error.message}`, "plugin", error.code);
  }
  return error instanceof ApiError ? error : new ApiError(500, (error as Error).message);
}
