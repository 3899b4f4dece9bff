/**
 * The uplinks, in force in the NIC: put there at every change and whenever the NIC has come back, and told of when their
 * state changes. One that was in force and cannot be any more the NIC tries again by itself.
 */
import { log, type NicEvent, type PoolName, type UplinkSpec } from "../../shared/api/mod.ts";
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

  /** The NIC has been found: what it says of the uplinks holds. */
  async learn(settings: Settings): Promise<void> {
    const { uplinks } = await this.#nic.state();
    this.#outcomes.clear();
    for (const [key, { spec, state, reason }] of Object.entries(uplinks)) {
      const pool = poolOf(key);
      // What it has beside the settings, such as after a change that was taken back half-way, goes.
      if (settings.uplinks[key] === undefined && state !== "none") await this.#put(pool, { kind: "none" }, true);
      else if (isSameSpec(spec, specOf(settings, pool))) this.#outcomes.set(pool, { state, reason });
    }
  }

  /** Puts those that the NIC does not have. One that cannot be has failed, and the NIC goes on trying. */
  async restore({ uplinks }: Settings): Promise<void> {
    for (const [key, spec] of Object.entries(uplinks)) {
      const pool = poolOf(key);
      if (!this.#outcomes.has(pool)) await this.#put(pool, spec, true);
    }
  }

  /** Puts those in force that `next` has otherwise than `before`. Throws what the NIC refuses. */
  async change(next: Settings, before: Settings): Promise<void> {
    for (const key of new Set([...Object.keys(before.uplinks), ...Object.keys(next.uplinks)])) {
      const pool = poolOf(key);
      const spec = specOf(next, pool);
      if (!isSameSpec(spec, specOf(before, pool))) await this.#put(pool, spec, false);
    }
  }

  /** Tries one that has failed again, since somebody asks for it. Throws why it still cannot be. */
  async again(settings: Settings, pool: PoolName): Promise<void> {
    if (this.outcome(pool)?.state === "failed") await this.#put(pool, specOf(settings, pool), false);
  }

  async #put(pool: PoolName, spec: UplinkSpec, keep: boolean): Promise<void> {
    const { state, reason } = await this.#nic.putUplink(pool, spec, keep);
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
