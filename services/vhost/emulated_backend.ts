/** Emulated mode: the rings of a guest with a VF are served by this service's engine, which has a driver pair to the VF. */
import { Q_CARRY_TO, QUEUE_STRIDE, QUEUES, QUEUES_PER_POOL } from "../../shared/layout/nic.ts";
import type { Tenant } from "../../shared/engine/mod.ts";
import type { DriverPair } from "./driver_pair.ts";
import { LocalBackend } from "./local_backend.ts";
import type { DriverPairOptions } from "./pair_options.ts";
import { poolOf } from "./port_context.ts";
import type { Succession } from "./ring_backend.ts";
import type { KeptPart, Part } from "./standby/mod.ts";

/** What of a pair's options says how frames go. */
export type PairPath = Pick<
  DriverPairOptions,
  "directness" | "features" | "guestMemory" | "guestQueues" | "onLost" | "onFailed"
>;

/** Emulated mode of a guest with a VF. */
export class EmulatedBackend extends LocalBackend {
  protected pair: DriverPair | undefined;

  /** How the pair is driven. */
  protected pairOptions(): PairPath {
    return { directness: "copy" };
  }

  protected override enter(): Tenant {
    return this.emulation.enter();
  }

  get #options(): DriverPairOptions {
    const { deviceSocket, reactor, name, log } = this.context;
    return {
      ...{ deviceSocket, reactor, log, remote: poolOf(name), pool: this.tenant?.pool ?? 0 },
      ...{ owner: `vhost (pid ${Deno.pid})`, emulated: true, ...this.pairOptions() },
      isReceiving: () => this.tenant?.queues.isReceiving ?? false,
      onChange: () => void this.events.changed(),
    };
  }

  override get kept(): Part {
    const { value, fds = [] } = super.kept;
    const pair = this.pair?.kept ?? { value: undefined, fds: [] };
    return { value: { local: value, pair: pair.value }, fds: [...fds, ...pair.fds ?? []] };
  }

  override async adopt({ value, fds }: KeptPart, succession: Succession): Promise<boolean> {
    const { local, pair } = value as { local: unknown; pair: unknown };
    if (pair === undefined || !await super.adopt({ value: local, fds }, succession)) return false;
    this.pair = this.emulation.adoptPair(this.#options, { value: pair, fds });
    return true;
  }

  override async attach(): Promise<void> {
    await super.attach();
    this.settingsChanged();
    try {
      this.pair = await this.emulation.connect(this.#options);
    } catch (error) {
      await super.release((error as Error).message);
      throw error;
    }
  }

  /** The guest's interrupts are this engine's. */
  override settingsChanged(): void {
    if (this.tenant) this.emulation.setCoalesce(this.tenant.pool, this.context.link().coalesce);
  }

  protected override started(tenant: Tenant, index: number): void {
    if (index % 2 === 0 || !this.pair) return;
    const queue = QUEUES + (tenant.pool * QUEUES_PER_POOL + index) * QUEUE_STRIDE;
    this.emulation.engine.view.setUint32(queue + Q_CARRY_TO, this.pair.tx, true);
  }

  override async drain(): Promise<void> {
    await this.pair?.drain();
  }

  override async release(reason: string): Promise<void> {
    // The guest's queues first: nothing may be sent into a pair that is being taken down. The pool stays claimed.
    if (this.tenant) this.emulation.tenants.remove(this.tenant);
    const pair = this.pair;
    this.pair = undefined;
    if (pair) await this.emulation.disconnect(pair, reason);
    await super.release(reason);
  }
}
