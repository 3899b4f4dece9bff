/**
 * One pool's uplink: a backend of the host, and the port that drives the pool with it. What is to be there is tried for
 * as long as it is wanted: an interface that goes takes its port along, and it is tried again, less and less often.
 */
import { log, oneLine, type UplinkSpec, type UplinkState } from "../../shared/api/mod.ts";
import { addCounters, type Backend, type Link, Port, type PortOptions } from "../../shared/netdev/mod.ts";
import { openBackend, type OpenSpec, sharesFile } from "./uplink_backends.ts";

const RETRY_MS_MIN = 500;
const RETRY_MS_MAX = 5000;

/** How a pool is reached, and held while its driver changes. */
export interface UplinkParts extends Omit<PortOptions, "owner"> {
  /** The address of whoever drives the pool, if the PF has set one. */
  mac(): string | undefined;
  hold(): void;
  release(): Promise<void>;
}

/** A backend and the port that drives the pool with it. */
interface Running {
  backend: Backend;
  port: Port;
}

/** The uplink of one pool. Its functions are called one after the other. */
export class Uplink {
  readonly #parts: UplinkParts;
  #spec: UplinkSpec = { kind: "none" };
  #running: Running | undefined;
  #failure: string | undefined;
  #link: Link | undefined;
  /** What the ports before counted. */
  #counters: Record<string, number> = {};
  #retryMs = RETRY_MS_MIN;
  #retryAtMs = 0;
  #isHeld = false;

  constructor(parts: UplinkParts) {
    this.#parts = parts;
  }

  get #name(): string {
    const { pool } = this.#parts;
    return typeof pool === "number" ? `vf ${pool}` : pool;
  }

  get state(): UplinkState {
    this.look();
    const { backend, port } = this.#running ?? {};
    const link = this.#link;
    const reason = this.#failure ?? link?.reason;
    const state = this.#failure !== undefined ? "failed" : !port ? "none" : link?.isUp ? "up" : "down";
    return {
      spec: this.#spec,
      state,
      ...(reason === undefined ? {} : { reason }),
      ...(backend?.interface === undefined ? {} : { interface: backend.interface }),
      ...(port?.io === undefined ? {} : { io: port.io }),
      ...(link?.mtu === undefined ? {} : { mtu: link.mtu }),
      ...(link?.mac === undefined ? {} : { mac: link.mac }),
      counters: addCounters(this.#counters, port?.counters ?? {}),
      offloads: port?.offloads ?? [],
    };
  }

  /**
   * Puts a spec in force. Throws why it cannot be, with what was in force before going on; `keep`: it is in force all the
   * same, and is tried again until it can be.
   */
  async set(spec: UplinkSpec, keep: boolean): Promise<void> {
    const before = this.#spec;
    if (spec.kind === "none") {
      await this.#stop("the uplink was taken away");
      this.#become(spec);
      return;
    }
    try {
      await this.#exchange(spec);
      this.#become(spec);
    } catch (error) {
      if (!keep && this.#running) throw error;
      if (keep) this.#become(spec);
      await this.#stop("the uplink is replaced");
      if (!keep && before.kind !== "none") await this.#exchange(before).catch((error) => this.#fail(oneLine(error)));
      if (!keep) throw error;
      this.#fail(oneLine(error));
    } finally {
      await this.#release();
    }
  }

  /** Holds the pool's frames until `#release`: its driver changes. */
  #hold(): void {
    if (this.#isHeld || !this.#running) return;
    this.#parts.hold();
    this.#isHeld = true;
  }

  async #release(): Promise<void> {
    if (!this.#isHeld) return;
    this.#isHeld = false;
    await this.#parts.release();
  }

  #become(spec: UplinkSpec): void {
    this.#spec = spec;
    this.#failure = undefined;
    this.#retryMs = RETRY_MS_MIN;
    this.look();
  }

  /** Opens `spec` in place of what runs, which goes on until the new one is ready, where both can be open. */
  async #exchange(spec: OpenSpec): Promise<void> {
    const before = this.#spec;
    if (before.kind !== "none" && sharesFile(before, spec)) {
      this.#hold();
      await this.#stop("the uplink is replaced");
    }
    const backend = openBackend(spec, this.#parts.mac());
    try {
      const port = await Port.prepare(backend, { ...this.#parts, owner: `uplink ${backend.name}` });
      await this.#succeed(port);
      this.#running = { backend, port };
      void port.ended.then((reason) => {
        if (reason !== undefined && this.#running?.port === port) this.#fail(reason);
      });
    } catch (error) {
      backend.close();
      throw error;
    }
  }

  /** Has a port that is ready take the pool over. */
  async #succeed(port: Port): Promise<void> {
    try {
      this.#hold();
      await this.#stop("the uplink is replaced");
    } catch (error) {
      await port.close("it is not wanted");
      throw error;
    }
    await port.start();
  }

  #fail(reason: string): void {
    if (this.#failure !== reason) log("warn", "nic", `the uplink of ${this.#name}: ${reason}`);
    this.#failure = reason;
    this.#retryAtMs = performance.now() + this.#retryMs;
    this.#retryMs = Math.min(this.#retryMs * 2, RETRY_MS_MAX);
  }

  /** Looks how the interface is. */
  look(): void {
    if (!this.#running || this.#failure !== undefined) return;
    this.#link = this.#running.port.link;
    if (!this.#link) this.#fail("its interface is gone");
  }

  /** Whether it has failed, and is to be tried again now. */
  get isDue(): boolean {
    return this.#failure !== undefined && performance.now() >= this.#retryAtMs;
  }

  /** Tries again what has failed. */
  async retry(): Promise<void> {
    const spec = this.#spec;
    if (this.#failure === undefined || spec.kind === "none") return;
    await this.#stop(this.#failure);
    try {
      await this.#exchange(spec);
      this.#failure = undefined;
      this.#retryMs = RETRY_MS_MIN;
      this.look();
      log("info", "nic", `the uplink of ${this.#name} is there again`);
    } catch (error) {
      this.#fail(oneLine(error));
    }
  }

  /** Closes what runs: what is outstanding is finished. */
  async #stop(reason: string): Promise<void> {
    const running = this.#running;
    this.#running = undefined;
    this.#link = undefined;
    if (!running) return;
    await running.port.close(reason);
    this.#counters = addCounters(this.#counters, running.port.counters);
    running.backend.close();
  }

  async close(): Promise<void> {
    await this.#stop("the NIC stops");
    this.#spec = { kind: "none" };
  }
}
