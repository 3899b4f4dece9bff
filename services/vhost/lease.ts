/**
 * A session's hold on its VF: the connection to the NIC's device socket. If the NIC goes away the lease attaches to
 * its successor and lets the session put everything in force again; requests wait for that, so that a front-end is
 * never told what is not true.
 */
import { DeviceClient, DeviceRefusal, type RequestInput } from "../../shared/device/mod.ts";
import type { Reactor } from "../../shared/os/mod.ts";

const REATTACH_DEADLINE_MS = 20_000;
const REATTACH_PAUSE_MS = 100;
/** Requests in a row, each of which makes the engine stand still, before a session has to wait. */
const REQUEST_BURST = 256;
const REQUEST_PAUSE_MS = 20;
const REQUEST_WINDOW_MS = 200;

/** How a session reaches the NIC, and whom it tells. */
export interface SessionContext {
  vf: number | "uplink";
  deviceSocket: string;
  reactor: Reactor;
  log(level: "info" | "warn", message: string): void;
}

/** Asks the NIC something. */
export type Ask = (body: RequestInput, fds?: readonly number[]) => Promise<Record<string, unknown>>;

/** Whom the lease tells. */
export interface LeaseEvents {
  /** A new NIC is attached: put everything in force again, with `ask`. */
  resume(ask: Ask): Promise<void>;
  lost(): void;
  queueFailed(index: number, reason: string): void;
}

/** One VF's lease. */
export class NicLease {
  readonly #context: SessionContext;
  readonly #events: LeaseEvents;
  #device: DeviceClient | undefined;
  /** Pending while the NIC is away. */
  #reattaching: Promise<void> | undefined;
  #ended = false;
  #recent = 0;
  #windowStart = 0;

  constructor(context: SessionContext, events: LeaseEvents) {
    this.#context = context;
    this.#events = events;
  }

  /** Takes the lease; answers the features of the NIC's queues. Throws DeviceRefusal or what connecting threw. */
  async attach(): Promise<bigint> {
    const { device, features } = await this.#connect();
    this.#hold(device);
    return features;
  }

  async #connect(): Promise<{ device: DeviceClient; features: bigint }> {
    const device = DeviceClient.connect(this.#context.deviceSocket, this.#context.reactor);
    try {
      const owner = `vhost (pid ${Deno.pid})`;
      const attached = await device.request({ op: "attach", vf: this.#context.vf, owner });
      device.onEvent = (event) => {
        if (event.event === "queueError") this.#events.queueFailed(event.index, event.reason);
      };
      return { device, features: BigInt(attached.features as bigint) };
    } catch (error) {
      device.close();
      throw error;
    }
  }

  #hold(device: DeviceClient): void {
    this.#device = device;
    void device.closed.then(() => {
      if (this.#ended || this.#device !== device) return;
      this.#device = undefined;
      this.#reattaching = this.#reattach().finally(() => this.#reattaching = undefined);
      this.#reattaching.catch(() => {});
    });
  }

  /** Asks the NIC; while it is away the request waits for its successor. */
  async request(body: RequestInput, fds: readonly number[] = []): Promise<Record<string, unknown>> {
    await this.#pace();
    for (;;) {
      if (this.#reattaching) await this.#reattaching;
      const device = this.#device;
      if (!device) throw new DeviceRefusal("nic-gone", "the NIC is gone");
      try {
        return await device.request(body, fds);
      } catch (error) {
        if (!(error instanceof DeviceRefusal) || error.code !== "nic-gone" || this.#ended) throw error;
        // Let the end of the connection be noticed, then wait for the successor.
        await device.closed;
      }
    }
  }

  /** A front-end that has its VF changed without end must not have the engine stand still without end. */
  async #pace(): Promise<void> {
    const now = performance.now();
    if (now - this.#windowStart > REQUEST_WINDOW_MS) {
      this.#windowStart = now;
      this.#recent = 0;
    }
    if (++this.#recent > REQUEST_BURST) await new Promise((resolve) => setTimeout(resolve, REQUEST_PAUSE_MS));
  }

  async #reattach(): Promise<void> {
    this.#context.log("warn", "the NIC went away; attaching again");
    const deadline = performance.now() + REATTACH_DEADLINE_MS;
    for (;;) {
      await new Promise((resolve) => setTimeout(resolve, REATTACH_PAUSE_MS));
      if (this.#ended) return;
      let device: DeviceClient | undefined;
      try {
        ({ device } = await this.#connect());
        await this.#events.resume((body, fds) => (device as DeviceClient).request(body, fds));
        if (this.#ended) {
          await device.request({ op: "detach" });
          device.close();
          return;
        }
        this.#hold(device);
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
  }
}
