/**
 * Emulated mode and the software switch: this service's own engine, which is the NIC's over another arena. A VF's guest
 * has its virtqueues here, and a driver pair to the VF; guests without a VF are on the switch, whose uplink is a driver
 * pair to the PF's pool. The VFs' guests have pools from the top down, the switch's from 0 up.
 */
import { P_RX_COUNT, P_RX_QUEUES, POOL_STRIDE, POOL_UPLINK, POOLS, VF_MAX } from "../../shared/layout/nic.ts";
import { beforeNextLook } from "../../shared/async/mod.ts";
import { DeviceRefusal } from "../../shared/device/mod.ts";
import {
  announce,
  coalescePatch,
  Engine,
  type EngineThread,
  Tenant,
  type TenantLimits,
  Tenants,
} from "../../shared/engine/mod.ts";
import { type Coalesce, log, VPORTS_MAX } from "../../shared/api/mod.ts";
import type { Fd } from "../../shared/os/mod.ts";
import { DriverPair } from "./driver_pair.ts";
import type { SwitchExports } from "./exports.ts";
import type { DriverPairOptions } from "./pair_options.ts";
import type { KeptPart, Part } from "./standby/mod.ts";

/** Settings of emulated mode's engine. */
export interface EmulationOptions extends TenantLimits {
  cpus: number[];
  spinUs: number;
  /** Its engine stands still until it takes over from another one. */
  standsBy?: boolean;
  /** Its engine's thread, if that has been started already. */
  thread?: EngineThread;
}

/** Where the NIC is, for the switch's uplink. */
export type UplinkOptions = Pick<DriverPairOptions, "deviceSocket" | "reactor">;

/** The engine of emulated mode, and who has which of its pools. */
export class Emulation {
  readonly engine: Engine<SwitchExports>;
  readonly tenants: Tenants;
  /** What one guest may have. */
  readonly limits: TenantLimits;
  readonly #pairs = new Set<DriverPair>();
  readonly #claimed = new Set<number>();
  #uplink: DriverPair | undefined;
  /** How the switch reaches the PF's pool, while it is the switch's. */
  #uplinkOptions: UplinkOptions | undefined;
  #connecting: Promise<void> | undefined;
  #closed = false;

  private constructor(engine: Engine<SwitchExports>, limits: TenantLimits) {
    this.engine = engine;
    this.limits = limits;
    this.tenants = new Tenants(engine, () => {});
    this.tenants.extraActive = () => [...this.#pairs].flatMap(({ active }) => active);
  }

  /** Starts the engine. */
  static async start({ cpus, spinUs, standsBy = false, thread, ...limits }: EmulationOptions): Promise<Emulation> {
    return new Emulation(
      await Engine.start<SwitchExports>({ cpus, spinUs, standsBy, thread }),
      limits,
    );
  }

  /** Lets a guest into a pool of its own, from the top down. */
  enter(): Tenant {
    for (let pool = VF_MAX - 1; pool >= VPORTS_MAX; pool--) {
      if (!this.#claimed.has(pool)) return this.enterAt(pool);
    }
    throw new DeviceRefusal("too-many-guests", `at most ${VF_MAX - VPORTS_MAX} VFs can be emulated at a time`);
  }

  /** Lets a guest into a pool that is known to be its own. */
  enterAt(pool: number): Tenant {
    if (this.#claimed.has(pool)) throw new DeviceRefusal("in-use", `pool ${pool} is taken`);
    const tenant = new Tenant(this.engine, pool, this.limits);
    this.#claimed.add(pool);
    this.tenants.add(tenant);
    return tenant;
  }

  /** Its queues stop, its memory is unmapped. */
  leave(tenant: Tenant): void {
    this.tenants.remove(tenant);
    this.#claimed.delete(tenant.pool);
  }

  /** Has the guest of a pool that has no policy here interrupted like this. */
  setCoalesce(pool: number, coalesce: Coalesce): void {
    const { at, bytes } = coalescePatch(pool, coalesce);
    const inForce = new Uint8Array(this.engine.arena.buffer, at, bytes.length);
    if (bytes.every((byte, i) => byte === inForce[i])) return;
    this.engine.between(() => inForce.set(bytes));
  }

  /** Connects a pool of this engine to one of the NIC. */
  async connect(options: DriverPairOptions): Promise<DriverPair> {
    const pair = await DriverPair.connect(this.engine, options);
    this.#pairs.add(pair);
    this.engine.between(() => this.tenants.writeActive());
    return pair;
  }

  // Standing by ----------------------------------------------------------------------------------------------

  /** Packet buffers of an engine that has ended, by pool. */
  readonly #buffers = new Map<number, { count: number; file: Fd }>();

  /** Has a pool's packet buffer gone on with when the engine is taken over. */
  adoptBuffer(pool: number, buffer: { count: number; file: Fd }): void {
    this.#buffers.set(pool, buffer);
  }

  /** Goes on with a driver pair of the engine that has ended. */
  adoptPair(options: DriverPairOptions, kept: KeptPart): DriverPair {
    const pair = DriverPair.adopt(this.engine, options, kept);
    this.#pairs.add(pair);
    return pair;
  }

  /** Goes on where that engine was, whose state is in the file `state`. `policies`: what the PF has set of the switch. */
  takeOver(state: Fd, policies: { takeOver(wasChanging: boolean): void }): void {
    this.engine.takeOver(state, (wasChanging) => {
      policies.takeOver(wasChanging);
      for (const pair of this.#pairs) pair.goOnInEngine();
      this.tenants.takeOver(this.#buffers);
      this.#plugUplink();
    });
    for (const pair of this.#pairs) pair.goOn();
  }

  /** How many driver pairs wait for a new NIC. */
  get recovering(): number {
    return [...this.#pairs].filter(({ isRecovering }) => isRecovering).length;
  }

  /** Takes a driver pair away again. */
  async disconnect(pair: DriverPair, reason: string): Promise<void> {
    this.#pairs.delete(pair);
    this.engine.between(() => this.tenants.writeActive());
    await pair.close(reason);
  }

  /**
   * Has the switch drive the PF's pool as soon as that is free, or, without `options`, let go of it: nothing of the
   * switch is left there when this answers.
   */
  async useUplink(options: UplinkOptions | undefined): Promise<void> {
    this.#uplinkOptions = options;
    if (options) {
      this.#connecting ??= this.#openUplink().finally(() => this.#connecting = undefined);
      return;
    }
    await this.#connecting;
    const pair = this.#uplink;
    if (!pair) return;
    this.#uplink = undefined;
    this.engine.between(() => this.#plugUplink());
    this.onUplink();
    await this.disconnect(pair, "the PF's pool is bound to something of the host");
  }

  /** Tries until the switch is connected to the PF's pool, or is not to be any more. */
  async #openUplink(): Promise<void> {
    const sinceMs = performance.now();
    for (let options = this.#uplinkOptions; !this.#closed && options && !this.#uplink; options = this.#uplinkOptions) {
      try {
        this.#uplink = await this.connect(this.#pairOptions(options));
        this.engine.between(() => this.#plugUplink());
        this.onUplink();
      } catch {
        // The NIC is not there yet, or a predecessor's lease has not run out.
        await beforeNextLook(sinceMs);
      }
    }
  }

  #pairOptions(options: UplinkOptions): DriverPairOptions {
    return {
      ...options,
      ...{ remote: "pf", pool: POOL_UPLINK, owner: `vhost switch (pid ${Deno.pid})` },
      ...{ emulated: false, directness: "copy", isReceiving: () => true },
      onChange: () => this.onUplink(),
      log: (level, message) => log(level, "vhost", `switch: ${message}`),
    };
  }

  /** Told when what a standby has of the switch's uplink has changed. */
  onUplink: () => void = () => {};

  /** What whoever stands by has of the switch's uplink, if there is one. */
  get uplinkKept(): Part | undefined {
    return this.#uplink?.kept;
  }

  /** Goes on with the switch's uplink. */
  adoptUplink(options: UplinkOptions, kept: KeptPart): void {
    this.#uplinkOptions = options;
    this.#uplink = this.adoptPair(this.#pairOptions(options), kept);
  }

  /** Waits until the switch has taken in what came by the uplink, and the NIC what was sent. */
  async drainUplink(): Promise<void> {
    await this.#uplink?.drain();
  }

  /** Sends a frame of one of the switch's ports that announces an address. */
  announce(pool: number, mac: string): void {
    announce(this.engine, pool, mac);
  }

  #plugUplink(): void {
    const at = POOLS + POOL_UPLINK * POOL_STRIDE;
    const { view } = this.engine;
    view.setUint32(at + P_RX_QUEUES, this.#uplink?.tx ?? 0, true);
    view.setUint32(at + P_RX_COUNT, this.#uplink ? 1 : 0, true);
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#connecting;
    for (const pair of [...this.#pairs]) await this.disconnect(pair, "the vhost service stops");
    await this.engine.close();
  }
}
