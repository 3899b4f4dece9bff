/**
 * A session's hold on its VF: the connection to the NIC's device socket. If the NIC goes away the lease attaches to
 * its successor and lets the session put everything in force again, while the guest waits and knows nothing of it.
 */
import { DeviceClient, DeviceRefusal, type RequestInput } from "../../shared/device/mod.ts";
import type { Reactor } from "../../shared/os/mod.ts";

const REATTACH_DEADLINE_MS = 20_000;
const REATTACH_PAUSE_MS = 100;

/** How a session reaches the NIC, and whom it tells. */
export interface SessionContext {
  vf: number | "uplink";
  deviceSocket: string;
  reactor: Reactor;
  log(level: "info" | "warn", message: string): void;
}

/** Whom the lease tells. */
export interface LeaseEvents {
  resume(): Promise<void>;
  lost(): void;
  queueFailed(index: number, reason: string): void;
}

/** One VF's lease. */
export class NicLease {
  readonly #context: SessionContext;
  readonly #events: LeaseEvents;
  #device: DeviceClient | undefined;
  #ended = false;

  constructor(context: SessionContext, events: LeaseEvents) {
    this.#context = context;
    this.#events = events;
  }

  /** Takes the lease; answers the features of the NIC's queues. Throws DeviceRefusal or what connecting threw. */
  async attach(): Promise<bigint> {
    const device = DeviceClient.connect(this.#context.deviceSocket, this.#context.reactor);
    let features: bigint;
    try {
      const attached = await device.request({
        op: "attach",
        vf: this.#context.vf,
        owner: `vhost (pid ${Deno.pid})`,
      });
      features = BigInt(attached.features as bigint);
    } catch (error) {
      device.close();
      throw error;
    }
    device.onEvent = (event) => {
      if (event.event === "queueError") this.#events.queueFailed(event.index, event.reason);
    };
    this.#device = device;
    void device.closed.then(() => this.#lost(device));
    return features;
  }

  /** Asks the NIC. */
  request(body: RequestInput, fds: readonly number[] = []): Promise<Record<string, unknown>> {
    if (!this.#device) throw new DeviceRefusal("nic-gone", "not attached to the NIC");
    return this.#device.request(body, fds);
  }

  async #lost(device: DeviceClient): Promise<void> {
    if (this.#ended || this.#device !== device) return;
    this.#context.log("warn", "the NIC went away; attaching again");
    const deadline = performance.now() + REATTACH_DEADLINE_MS;
    for (;;) {
      await new Promise((resolve) => setTimeout(resolve, REATTACH_PAUSE_MS));
      if (this.#ended) return;
      try {
        await this.attach();
        await this.#events.resume();
        this.#context.log("info", "attached to the NIC again");
        return;
      } catch (error) {
        const halfway = this.#device;
        this.#device = undefined;
        halfway?.close();
        if (performance.now() < deadline) continue;
        this.#context.log("warn", `cannot attach again: ${(error as Error).message}`);
        this.#events.lost();
        return;
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
