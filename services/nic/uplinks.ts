/**
 * The uplinks of a NIC: at most one for each pool (the uplink's own, the PF's, any VF's). The NIC drives those pools
 * itself, by its own device socket, as any other driver does.
 */
import { Turns } from "../../shared/async/mod.ts";
import { ApiError, type UplinkSpec, type UplinkState } from "../../shared/api/mod.ts";
import { DeviceRefusal, type PoolName } from "../../shared/device/mod.ts";
import type { Reactor } from "../../shared/os/mod.ts";
import type { Nic } from "./nic.ts";
import { Uplink } from "./uplink.ts";

/** Ports that the NIC has at most: each has a thread. */
const UPLINKS_MAX = 64;
const LOOK_MS = 500;
/** How long a pool's frames are held while its uplink is replaced. */
const HOLD_MS = 3000;
/** How long the kernel may take to close what a process had that has died, and how often that is tried. */
const LET_GO_MS = 1000;
const LET_GO_LOOK_MS = 20;

/** What uplinks need. */
export interface UplinksParts {
  nic: Pick<Nic, "hold" | "release" | "macOf" | "tell" | "mirror">;
  deviceSocket: string;
  reactor: Reactor;
  /** One call of the kernel for each frame, whether there is io_uring or not. */
  plain?: boolean;
}

/** All uplinks. */
export class Uplinks {
  readonly #parts: UplinksParts;
  readonly #uplinks = new Map<PoolName, Uplink>();
  readonly #turns = new Turns();
  /** Uplinks that are replaced, or go over to another process, as they were: nobody's link goes down for that. */
  readonly #before = new Map<PoolName, UplinkState>();
  /** The state of each, as it was last told. */
  readonly #told = new Map<PoolName, string>();
  #timer: ReturnType<typeof setInterval>;
  #closed = false;

  constructor(parts: UplinksParts) {
    this.#parts = parts;
    this.#timer = setInterval(() => this.#look(), LOOK_MS);
  }

  /** The state of each pool's uplink, by the pool's name. */
  states(): Record<string, UplinkState> {
    return Object.fromEntries(this.all.map(([pool, state]) => [String(pool), state]));
  }

  /**
   * Gives a pool an uplink, another one, or none. Throws ApiError why it cannot be, with nothing changed; `keep`: it is
   * tried again until it can be.
   */
  set(pool: PoolName, spec: UplinkSpec, keep: boolean): Promise<UplinkState> {
    return this.#turns.take(async () => {
      if (this.#closed) throw new ApiError(503, "the NIC stops, or is upgraded: try again in a second");
      if (!this.#uplinks.has(pool) && this.#uplinks.size >= UPLINKS_MAX) {
        throw new ApiError(409, `the NIC has ${UPLINKS_MAX} uplinks already: take one away`, "pool");
      }
      const there = this.#uplinks.get(pool);
      const uplink = there ?? this.#make(pool);
      if (there) this.#before.set(pool, there.state);
      try {
        await uplink.set(spec, keep);
      } catch (error) {
        const status = error instanceof DeviceRefusal && error.code === "no-vf" ? 404 : 409;
        const reason = error instanceof DeviceRefusal ? error.code : undefined;
        throw new ApiError(status, error instanceof Error ? error.message : String(error), "kind", reason);
      } finally {
        this.#before.delete(pool);
      }
      const { state } = uplink;
      if (state.spec.kind === "none") this.#uplinks.delete(pool);
      else this.#uplinks.set(pool, uplink);
      this.#parts.nic.mirror.note({ kind: "uplink", pool, uplink: state });
      this.#tell();
      return state;
    });
  }

  /** Each pool's uplink, with its pool. */
  get all(): [PoolName, UplinkState][] {
    const own = [...this.#uplinks].map(([pool, uplink]): [PoolName, UplinkState] => [pool, uplink.state]);
    return [...new Map([...own, ...this.#before])];
  }

  /**
   * Puts behind the pools what was there in a process that has ended, and tries it until it can be. What comes for a pool
   * meanwhile is held.
   */
  async takeOver(uplinks: ReadonlyMap<PoolName, UplinkState>): Promise<void> {
    const { nic } = this.#parts;
    for (const [pool, uplink] of uplinks) this.#before.set(pool, uplink);
    await Promise.all([...uplinks].map(async ([pool, uplink]) => {
      this.#hold(pool);
      try {
        await this.#openAgain(pool, uplink);
      } finally {
        await nic.release(pool);
      }
    }));
  }

  /**
   * Opens an uplink of a process that has died, as soon as the kernel has closed it there: a TAP may have one queue. Who
   * gives the pool another one meanwhile, or none, has the last word.
   */
  async #openAgain(pool: PoolName, uplink: UplinkState): Promise<void> {
    const end = performance.now() + LET_GO_MS;
    while (!this.#closed && performance.now() < end) {
      try {
        return void await this.set(pool, uplink.spec, false);
      } catch {
        if (this.#uplinks.has(pool)) return;
        this.#before.set(pool, uplink);
        await new Promise((resolve) => setTimeout(resolve, LET_GO_LOOK_MS));
        if (this.#before.get(pool) !== uplink) return;
      }
    }
    await this.set(pool, uplink.spec, true);
  }

  /** Holds a pool's frames, unless they are held already: the process before was about to hand its uplink over. */
  #hold(pool: PoolName): void {
    try {
      this.#parts.nic.hold(pool, HOLD_MS);
    } catch (error) {
      if (!(error instanceof DeviceRefusal) || error.code !== "held") throw error;
    }
  }

  /** Holds the pools' frames, finishes what is outstanding and closes all: another process opens them again. */
  async handOver(): Promise<void> {
    this.#closed = true;
    await this.#turns.settled;
    for (const [pool, uplink] of this.all) {
      this.#before.set(pool, uplink);
      this.#hold(pool);
    }
    await this.close();
  }

  /** Opens again what `handOver` has closed: nobody else does. */
  takeBack(): Promise<void> {
    this.#uplinks.clear();
    this.#closed = false;
    this.#timer = setInterval(() => this.#look(), LOOK_MS);
    return this.takeOver(new Map(this.#before));
  }

  #make(pool: PoolName): Uplink {
    const { nic, deviceSocket, reactor, plain = false } = this.#parts;
    return new Uplink({
      ...{ pool, deviceSocket, reactor, plain },
      mac: () => nic.macOf(pool),
      hold: () => void nic.hold(pool, HOLD_MS),
      release: () => nic.release(pool),
    });
  }

  #look(): void {
    for (const uplink of this.#uplinks.values()) uplink.look();
    this.#tell();
    if (![...this.#uplinks.values()].some(({ isDue }) => isDue)) return;
    void this.#turns.take(async () => {
      for (const uplink of this.#uplinks.values()) if (uplink.isDue) await uplink.retry();
      this.#tell();
    });
  }

  /** Tells of those whose state is another one than when it was last told. */
  #tell(): void {
    for (const pool of this.#told.keys()) {
      if (this.#uplinks.has(pool) || this.#before.has(pool)) continue;
      this.#told.delete(pool);
      this.#parts.nic.tell({ type: "uplink", pool, state: "none" });
    }
    for (const [pool, uplink] of this.all) {
      const { state, reason } = uplink;
      const now = JSON.stringify([state, reason]);
      if (this.#told.get(pool) === now) continue;
      this.#told.set(pool, now);
      this.#parts.nic.mirror.note({ kind: "uplink", pool, uplink });
      this.#parts.nic.tell({ type: "uplink", pool, state, ...(reason === undefined ? {} : { reason }) });
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#timer);
    await this.#turns.settled;
    await Promise.all([...this.#uplinks.values()].map((uplink) => uplink.close()));
  }
}
