/**
 * A VF as an interface of the host: a TAP, in this network namespace or another one, that drives the VF as a guest does.
 * Programs that are no virtual machines have a VF so, with everything that the PF sets of it. The TAP has the VF's
 * address, MTU and link, and follows them; it stays while the NIC is away.
 */
import { DeviceClient, type DeviceEvent, DeviceRefusal, type VfLink } from "../../shared/device/mod.ts";
import { log, oneLine } from "../../shared/api/mod.ts";
import { Port, TapBackend } from "../../shared/netdev/mod.ts";
import { namespaceAt, type Reactor } from "../../shared/os/mod.ts";

const RETRY_MS = 200;
const LOOK_MS = 1000;
/** How long the NIC may take to say what the VF's link is. */
const FIRST_LINK_MS = 2000;

/** Which VF, and what it is to be. */
export interface NetdevOptions {
  deviceSocket: string;
  reactor: Reactor;
  vf: number;
  name: string;
  /** Path of the network namespace; `undefined`: this process's own. */
  namespace?: string | undefined;
  /** An address and its network's length, and both as text. */
  address?: { bytes: readonly number[]; bits: number; text: string } | undefined;
}

/** One VF's interface. */
export class Netdev {
  readonly #options: NetdevOptions;
  readonly #backend: TapBackend;
  /** Which namespace it was made in. */
  readonly #namespace: string | undefined;
  readonly #ended = Promise.withResolvers<never>();
  readonly #timer: ReturnType<typeof setInterval>;
  #link: VfLink | undefined;
  #watch: DeviceClient | undefined;
  #port: Port | undefined;
  #following: Promise<void> = Promise.resolve();
  #driving: Promise<void> = Promise.resolve();
  #closed = false;

  private constructor(options: NetdevOptions) {
    this.#options = options;
    this.#backend = new TapBackend(options);
    this.#namespace = options.namespace === undefined ? undefined : namespaceAt(options.namespace);
    this.#ended.promise.catch(() => {});
    this.#timer = setInterval(() => this.#look(), LOOK_MS);
  }

  /** Makes the interface and takes the VF. Throws what to do if either cannot be; nothing is left then. */
  static async start(options: NetdevOptions): Promise<Netdev> {
    const netdev = new Netdev(options);
    try {
      await netdev.#start();
      return netdev;
    } catch (error) {
      await netdev.close();
      throw error;
    }
  }

  async #start(): Promise<void> {
    const { address } = this.#options;
    const first = Promise.withResolvers<void>();
    this.#following = this.#follow(first.resolve);
    const late = setTimeout(() => first.resolve(), FIRST_LINK_MS);
    await first.promise;
    clearTimeout(late);
    if (address) this.#backend.setAddress(address.bytes, address.bits, address.text);
    this.#backend.switchOn();
    this.#port = await this.#open();
    this.#driving = this.#drive(this.#port);
  }

  /** Rejects with the reason when the interface is gone, so that there is nothing left to do. */
  get ended(): Promise<never> {
    return this.#ended.promise;
  }

  /** What the VF's link is, as the PF has set it. */
  get link(): VfLink | undefined {
    return this.#link;
  }

  #open(): Promise<Port> {
    const { deviceSocket, reactor, vf } = this.#options;
    const owner = `netdev ${this.#backend.interface} (pid ${Deno.pid})`;
    return Port.open(this.#backend, { deviceSocket, reactor, pool: vf, owner });
  }

  /** Drives the VF until it is closed, with a new port whenever the NIC is a new one. */
  async #drive(first: Port): Promise<void> {
    let port: Port | undefined = first;
    let trouble = "";
    while (!this.#closed) {
      const reason: string | undefined = await port?.ended;
      if (this.#closed) return;
      if (port && reason !== undefined) {
        this.#tell("warn", `${reason}; trying again`);
        await port.close(reason);
        port = this.#port = undefined;
        this.#look();
      }
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      if (this.#closed) return;
      try {
        port = this.#port = await this.#open();
        this.#tell("info", "the VF is driven again");
        trouble = "";
      } catch (error) {
        const text = oneLine(error);
        if (text !== trouble) this.#tell("info", `waiting for the VF: ${text}`);
        trouble = text;
      }
    }
  }

  #tell(level: "info" | "warn", message: string): void {
    log(level, "netdev", `vf ${this.#options.vf}, ${this.#backend.interface}: ${message}`);
  }

  /** Follows what the PF sets of the VF. */
  async #follow(first: () => void): Promise<void> {
    const { deviceSocket, reactor, vf } = this.#options;
    while (!this.#closed) {
      try {
        const watch = DeviceClient.connect(deviceSocket, reactor);
        this.#watch = watch;
        watch.onEvent = (event: DeviceEvent) => {
          if (event.event !== "vfs") return;
          // A NIC that has just started knows nothing of its VFs: the interface keeps what was last said of it.
          const link = event.links[vf];
          if (link) this.#apply(link);
          first();
        };
        await watch.request({ op: "watch" });
        await watch.closed;
      } catch (error) {
        if (error instanceof DeviceRefusal) this.#tell("info", oneLine(error));
      }
      if (!this.#closed) await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }

  #apply(link: VfLink): void {
    this.#link = link;
    try {
      this.#backend.setLink(link);
      this.#backend.setCarrier(link.up);
    } catch (error) {
      this.#tell("warn", `its address, MTU or link cannot be set: ${oneLine(error)}`);
    }
  }

  /**
   * Who takes the interface away, or its namespace, has no use for it any more. The namespace of a process that has ended
   * lives on for as long as the TAP does, but nobody is in it.
   */
  #look(): void {
    if (this.#closed) return;
    const { vf, namespace } = this.#options;
    const isThere = namespace === undefined || namespaceAt(namespace) === this.#namespace;
    const gone = !isThere
      ? `its network namespace is gone: ${namespace}`
      : this.#backend.link() === undefined
      ? `its interface is gone: ${this.#backend.interface}`
      : undefined;
    if (gone !== undefined) this.#ended.reject(new Error(`vf ${vf}: ${gone}`));
  }

  /** Gives the VF back; the interface goes. */
  async close(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#timer);
    this.#watch?.close();
    await this.#port?.close("the interface was taken away");
    await this.#driving;
    // One that was being opened meanwhile.
    await this.#port?.close("the interface was taken away");
    await this.#following;
    this.#backend.close();
  }
}
