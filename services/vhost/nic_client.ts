/**
 * The NIC as a session's ring backend: the connection to its device socket, which has the lease of one VF. If the NIC
 * goes away the client attaches to its successor and has the session put everything in force again; requests wait for
 * that, so that a front-end is never told what is not true.
 */
import { beforeNextLook } from "../../shared/async/mod.ts";
import { DeviceClient, DeviceRefusal, type RequestInput } from "../../shared/device/mod.ts";
import { ADV_PAGE_BYTES, ADV_REG_NEXT, ADV_REG_POSITION, ADV_REGISTER_STRIDE } from "../../shared/layout/advanced.ts";
import { type Fd, WasmMemory } from "../../shared/os/mod.ts";
import { poolOf, type PortContext } from "./port_context.ts";
import type { Ask, RingBackend, RingBackendEvents, Succession } from "./ring_backend.ts";
import type { KeptPart, Part } from "./standby/mod.ts";

const REATTACH_DEADLINE_MS = 20_000;

/** What of it is kept. */
interface KeptClient {
  hasRegisters: boolean;
  isAttached: boolean;
}

/** A session's end of one VF's lease. */
export class NicClient implements RingBackend {
  /** They are the NIC's. */
  readonly rings = undefined;
  readonly #context: PortContext;
  readonly #events: RingBackendEvents;
  #device: DeviceClient | undefined;
  /** The pool's register page, where the NIC keeps the positions of packed rings; it outlives the NIC. */
  #registers: Fd | undefined;
  /** Pending while the NIC is away. */
  #reattaching: Promise<void> | undefined;
  #ended = false;

  constructor(context: PortContext, events: RingBackendEvents) {
    this.#context = context;
    this.#events = events;
  }

  get kept(): Part {
    const fds = [this.#registers, this.#device?.fd].filter((fd) => fd !== undefined);
    const value: KeptClient = { hasRegisters: this.#registers !== undefined, isAttached: this.#device !== undefined };
    return { value, fds };
  }

  /** The NIC has gone on with the rings meanwhile. */
  adopt({ value, fds }: KeptPart): Promise<boolean> {
    const { hasRegisters, isAttached } = value as KeptClient;
    if (hasRegisters) this.#registers = fds.shift();
    const socket = isAttached ? fds.shift() : undefined;
    if (socket) this.#keep(DeviceClient.adopt(socket, this.#context.reactor));
    return Promise.resolve(true);
  }

  async goOn(succession: Succession): Promise<void> {
    const device = this.#device;
    try {
      if (device && succession.wasAsked) await this.#reconcile(device, succession);
    } catch {
      // It has ended meanwhile, or is somebody else's.
      device?.close();
      await device?.closed;
    }
    if (!this.#device && !this.#reattaching) this.#attachAnew();
  }

  /** The process that has ended had asked the NIC for more than this one knows: what is in force is what this one knows. */
  async #reconcile(device: DeviceClient, { rings, ringAt, tellMemory, startAgain }: Succession): Promise<void> {
    const ask: Ask = (body, fds) => device.request(continued(body, this.#registers), fds);
    const running = (await device.request({ op: "queues" })).running as number[];
    for (const index of running) {
      if (rings.some((ring) => ring.index === index)) continue;
      const ring = ringAt(index);
      ring.base = Number((await device.request({ op: "queueStop", index })).base);
      ring.isBaseOurs = ring.hasRun = true;
    }
    await tellMemory(ask);
    for (const ring of rings) if (!running.includes(ring.index)) await startAgain(ask, ring);
  }

  /** The NIC knows it: the PF has set it there. */
  settingsChanged(): void {}

  /** Takes the lease. Throws DeviceRefusal or what connecting threw. */
  async attach(): Promise<void> {
    this.#keep(await this.#connect());
  }

  async #connect(): Promise<DeviceClient> {
    const device = DeviceClient.connect(this.#context.deviceSocket, this.#context.reactor);
    try {
      const owner = `vhost (pid ${Deno.pid})`;
      await device.request({ op: "attach", vf: poolOf(this.#context.name), owner });
      return device;
    } catch (error) {
      device.close();
      throw error;
    }
  }

  #keep(device: DeviceClient): void {
    this.#device = device;
    device.onEvent = (event) => {
      if (event.event === "queueError") this.#events.queueFailed(event.index, event.reason);
    };
    void device.closed.then(() => {
      if (this.#ended || this.#device !== device) return;
      this.#context.log("warn", "the NIC went away; attaching again");
      this.#attachAnew();
    });
    void this.#events.changed();
  }

  #attachAnew(): void {
    this.#device = undefined;
    void this.#events.changed();
    this.#context.recovers(true);
    this.#reattaching = this.#reattach().finally(() => {
      this.#reattaching = undefined;
      this.#context.recovers(false);
    });
    this.#reattaching.catch(() => {});
  }

  /** Asks the NIC; while it is away the request waits for its successor. */
  async request(body: RequestInput, fds: readonly number[] = []): Promise<Record<string, unknown>> {
    for (;;) {
      if (this.#reattaching) await this.#reattaching;
      const device = this.#device;
      if (!device) throw new DeviceRefusal("nic-gone", "the NIC is gone");
      try {
        if (body.op === "queueStart" && body.flavour === "packed") this.#registers ??= await registersOf(device);
        return await device.request(body, fds);
      } catch (error) {
        if (!(error instanceof DeviceRefusal) || error.code !== "nic-gone" || this.#ended) throw error;
        // Let the end of the connection be noticed, then wait for the successor.
        await device.closed;
      }
    }
  }

  /** The NIC takes frames from the guest's memory and puts them there: nothing is ever on its way. */
  drain(): Promise<void> {
    return Promise.resolve();
  }

  async #reattach(): Promise<void> {
    const sinceMs = performance.now();
    const deadline = sinceMs + REATTACH_DEADLINE_MS;
    for (;;) {
      await beforeNextLook(sinceMs);
      if (this.#ended) return;
      let device: DeviceClient | undefined;
      try {
        device = await this.#connect();
        const before = this.#registers;
        this.#registers = before && await registersOf(device);
        await this.#events.restoreRings((body, fds) => (device as DeviceClient).request(continued(body, before), fds));
        before?.close();
        if (this.#ended) {
          await device.request({ op: "detach" });
          device.close();
          return;
        }
        this.#keep(device);
        this.#context.log("info", "attached to the NIC again");
        return;
      } catch (error) {
        device?.close();
        if (performance.now() < deadline && !this.#ended) continue;
        this.#context.log("warn", `cannot attach again: ${(error as Error).message}`);
        this.#events.lost();
        throw error;
      }
    }
  }

  /** Gives the lease back: the NIC stops the queues and unmaps the memory. */
  async release(reason: string): Promise<void> {
    this.#ended = true;
    try {
      await this.#device?.request({ op: "detach", reason: reason.slice(0, 500) });
    } catch {
      // The NIC is gone, and with it everything that a detach would end.
    }
    this.#device?.close();
    this.#registers?.close();
    this.#registers = undefined;
  }
}

function registersOf(device: DeviceClient): Promise<Fd> {
  return device.requestFd({ op: "region", name: "registers" });
}

/**
 * A packed ring does not say where it goes on; the NIC that died has kept it in its register page. NEXT is right if the
 * used descriptor at POSITION has been written: then the driver has seen what the NIC had done last.
 */
function continued(body: RequestInput, page: Fd | undefined): RequestInput {
  if (body.op !== "queueStart" || body.flavour !== "packed" || !page) return body;
  const registers = new WasmMemory(ADV_PAGE_BYTES);
  registers.map(0, page.number, 0, ADV_PAGE_BYTES);
  const { view } = registers;
  const at = body.index * ADV_REGISTER_STRIDE;
  const [position, next] = [ADV_REG_POSITION, ADV_REG_NEXT].map((field) => view.getUint32(at + field, true));
  return { ...body, base: position ?? 0, next: next ?? 0 };
}
