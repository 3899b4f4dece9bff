/** Uplinks as people ask for them: what of the host is behind the uplink's pool, the PF's, or a VF's. */
import { log, type PoolName, type UplinkSpec, type UplinkView } from "../../shared/api/mod.ts";
import type { Events } from "./events.ts";
import type { Links } from "./links.ts";
import { findVf } from "./policy.ts";
import type { SettingsInForce } from "./settings_in_force.ts";
import { mustBeFree, poolWords, setUplink } from "./uplink_rules.ts";
import { uplinkView } from "./views.ts";

/** What uplinks are made with. */
export interface UplinkParts {
  settings: SettingsInForce;
  links: Links;
  events: Events;
}

/** The uplinks. */
export class Uplinks {
  readonly #parts: UplinkParts;

  constructor(parts: UplinkParts) {
    this.#parts = parts;
  }

  async get(pool: PoolName): Promise<UplinkView> {
    const { settings, links } = this.#parts;
    if (typeof pool === "number") findVf(settings.now, pool);
    const state = await links.nic.state().catch(() => undefined);
    return uplinkView(settings.now, pool, { state, outcome: (pool) => settings.uplinks.outcome(pool) });
  }

  /** Puts `spec` behind `pool`, in force and on disk; throws why that cannot be. The same again changes nothing. */
  async put(pool: PoolName, spec: UplinkSpec): Promise<UplinkView> {
    const { settings, links, events } = this.#parts;
    let isNew = false;
    await settings.change(async (before) => {
      if (typeof pool === "number") findVf(before, pool);
      const next = setUplink(before, pool, spec);
      isNew = next !== before;
      if (isNew && spec.kind !== "none") mustBeFree(pool, await links.nic.state());
      return next;
    });
    if (!isNew) {
      await settings.retryUplink(pool);
      return await this.get(pool);
    }
    log("info", "pf", `${poolWords(pool)}: ${JSON.stringify(spec)}`);
    if (typeof pool === "number") events.emit({ type: "vf-changed", vf: pool, changes: { uplink: spec } });
    else events.emit({ type: "nic-changed", changes: pool === "pf" ? { pfUplink: spec } : { uplink: spec } });
    return await this.get(pool);
  }
}
