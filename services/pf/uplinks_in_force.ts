/**
 * The uplinks, in force in the NIC: put there at every change and whenever the NIC has come back, tried again while they
 * have failed, and told of when their state changes.
 */
import { ApiError, log, type NicEvent, type PoolName, type UplinkSpec } from "../../shared/api/mod.ts";
import type { Events } from "./events.ts";
import type { Links } from "./links.ts";
import type { Settings } from "./store.ts";
import { isSameSpec, type Outcome, poolWords, specOf } from "./uplink_rules.ts";

/** The pool that a key of the settings or of the NIC's state names. */
function poolOf(key: string): PoolName {
  return key === "uplink" || key === "pf" ? key : Number(key);
}

/** What became of each spec. */
export class UplinksInForce {
  readonly #nic: Links["nic"];
  readonly #events: Events;
  readonly #outcomes = new Map<PoolName, Outcome>();

  constructor(nic: Links["nic"], events: Events) {
    this.#nic = nic;
    this.#events = events;
  }

  /** What became of the spec of a pool; nothing is known of one that has none. */
  outcome(pool: PoolName): Outcome | undefined {
    return this.#outcomes.get(pool);
  }

  /** Whether one of them is to be tried again. */
  hasFailed({ uplinks }: Settings): boolean {
    return Object.keys(uplinks).some((key) => this.outcome(poolOf(key))?.state === "failed");
  }

  /** The NIC has been found: what it says of the uplinks holds. */
  async learn(settings: Settings): Promise<void> {
    const { uplinks } = await this.#nic.state();
    this.#outcomes.clear();
    for (const [key, { spec, state, reason }] of Object.entries(uplinks)) {
      const pool = poolOf(key);
      // What it has beside the settings, such as after a change that was taken back half-way, goes.
      if (settings.uplinks[key] === undefined && state !== "none") await this.#tryPut(pool, { kind: "none" });
      else if (isSameSpec(spec, specOf(settings, pool))) this.#outcomes.set(pool, { state, reason });
    }
  }

  /** Puts those that are not in force. One that cannot be is said to have failed, and stays for the next time. */
  async restore({ uplinks }: Settings): Promise<void> {
    for (const [key, spec] of Object.entries(uplinks)) {
      const pool = poolOf(key);
      const state = this.outcome(pool)?.state;
      if (state !== "up" && state !== "down") await this.#tryPut(pool, spec);
    }
  }

  /** Throws only if the NIC does not answer. */
  async #tryPut(pool: PoolName, spec: UplinkSpec): Promise<void> {
    try {
      await this.#put(pool, spec);
    } catch (error) {
      if (!(error instanceof ApiError) || error.status === 503) throw error;
      this.#hear(pool, { state: "failed", reason: error.message });
    }
  }

  /** Puts those in force that `next` has otherwise than `before`. Throws what the NIC refuses. */
  async change(next: Settings, before: Settings): Promise<void> {
    for (const key of new Set([...Object.keys(before.uplinks), ...Object.keys(next.uplinks)])) {
      const pool = poolOf(key);
      const spec = specOf(next, pool);
      if (!isSameSpec(spec, specOf(before, pool))) await this.#put(pool, spec);
    }
  }

  /** Tries one that has failed again, since somebody asks for it. Throws why it still cannot be. */
  async again(settings: Settings, pool: PoolName): Promise<void> {
    if (this.outcome(pool)?.state === "failed") await this.#put(pool, specOf(settings, pool));
  }

  async #put(pool: PoolName, spec: UplinkSpec): Promise<void> {
    const { state, reason } = await this.#nic.putUplink(pool, spec);
    if (state === "failed") throw new ApiError(409, `${poolWords(pool)}: ${reason}`, "kind", "uplink-failed");
    this.#hear(pool, { state, reason });
  }

  /** The NIC tells of one. */
  relay({ pool, state, reason }: Extract<NicEvent, { type: "uplink" }>): void {
    this.#hear(pool, { state, reason });
  }

  #hear(pool: PoolName, { state, reason }: Outcome): void {
    const before = this.#outcomes.get(pool);
    if (state === "none") this.#outcomes.delete(pool);
    else this.#outcomes.set(pool, { state, reason });
    if (state === "none" || (before?.state === state && before.reason === reason)) return;
    this.#events.emit({ type: `uplink-${state}`, vf: pool, ...(reason === undefined ? {} : { reason }) });
    const said = `${poolWords(pool)}: its interface is ${state}${reason === undefined ? "" : `: ${reason}`}`;
    log(state === "failed" ? "warn" : "info", "pf", said);
  }
}
