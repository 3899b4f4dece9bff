/**
 * What of the host may be behind which pool, and what the link of the fabric is with an uplink. Pure: settings in,
 * settings or an error out.
 */
import {
  ApiError,
  formatUplinkSpec,
  type NicState,
  type PoolName,
  type PoolState,
  type UplinkSpec,
  type UplinkState,
} from "../../shared/api/mod.ts";
import type { Settings } from "./store.ts";

/** What came of a spec, as far as the PF knows. */
export type Outcome = Pick<UplinkState, "state"> & { reason?: string | undefined };

/** What is to be behind a pool. */
export function specOf({ uplinks }: Pick<Settings, "uplinks">, pool: PoolName): UplinkSpec {
  return uplinks[pool] ?? { kind: "none" };
}

/** Whether two specs ask for the same. */
export function isSameSpec(a: UplinkSpec, b: UplinkSpec): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

/** A pool, in a sentence. */
export function poolWords(pool: PoolName): string {
  return pool === "uplink" ? "the uplink" : pool === "pf" ? "the PF's pool" : `vf ${pool}`;
}

/** How a pool's uplink is taken away on the command line. */
function removal(pool: PoolName): string {
  return `fabric uplink none${pool === "uplink" ? "" : pool === "pf" ? " --pf" : ` --vf ${pool}`}`;
}

/** What of the host a spec takes for itself: no two pools can have it. */
function hostThings(spec: UplinkSpec): string[] {
  switch (spec.kind) {
    case "tap":
      return [`interface ${spec.name}`];
    case "packet":
    case "xdp":
      return [`interface ${spec.interface}`];
    case "pcap":
      // A file may be replayed to many, and is written by one.
      return spec.record === undefined ? [] : [`file ${spec.record}`];
    case "none":
      return [];
  }
}

/** The settings with `spec` behind `pool`. Throws ApiError with the reason if that cannot be. */
export function setUplink(settings: Settings, pool: PoolName, spec: UplinkSpec): Settings {
  if (typeof pool === "number") {
    const holder = settings.vports.find(({ vf }) => vf === pool);
    if (holder && spec.kind !== "none") {
      const detail = `vf ${pool} is allotted to the guest of vport ${holder.id}: take another VF, or put that guest ` +
        `into emulated mode first (fabric vport mode ${holder.id} emulated)`;
      throw new ApiError(409, detail, "id", "vf-allotted");
    }
  }
  if (isSameSpec(specOf(settings, pool), spec)) return settings;
  if (pool === "pf" && spec.kind !== "none" && settings.vports.length > 0) {
    const ids = settings.vports.map(({ id }) => id).join(", ");
    const detail = `the PF's pool is where vports are (${ids}): remove them first (fabric vport remove N)`;
    throw new ApiError(409, detail, "kind", "vports-there");
  }
  const { [pool]: _, ...others } = settings.uplinks;
  const mine = hostThings(spec);
  for (const [name, other] of Object.entries(others)) {
    const shared = hostThings(other).find((thing) => mine.includes(thing));
    if (shared === undefined) continue;
    const holder: PoolName = name === "pf" || name === "uplink" ? name : Number(name);
    const detail = `${shared} is behind ${poolWords(holder)} already: take it away there first (${removal(holder)})`;
    throw new ApiError(409, detail, "kind", "uplink-taken");
  }
  return { ...settings, uplinks: spec.kind === "none" ? others : { ...others, [pool]: spec } };
}

/** Throws if somebody drives the pool: a guest's VF is not taken away from it. */
export function mustBeFree(pool: PoolName, { vfs, uplink, uplinks }: NicState): void {
  // The PF's pool is left to it by the software switch, and nobody else can have it.
  const state: PoolState | undefined = pool === "uplink" ? uplink : pool === "pf" ? undefined : vfs[pool];
  const own = uplinks[pool]?.state;
  if (!state || own === "up" || own === "down") return;
  const remedy = typeof pool === "number"
    ? "stop its guest, or take another VF"
    : `disconnect the front-end at its socket first`;
  if (state.held) {
    throw new ApiError(409, `${poolWords(pool)} changes its driver just now: try again`, "id", "vf-in-use");
  }
  if (state.attached) {
    throw new ApiError(
      409,
      `${poolWords(pool)} is driven by ${state.owner ?? "a guest"}: ${remedy}`,
      "id",
      "vf-in-use",
    );
  }
}

/** Throws if there can be no vports, since something of the host is where they would be. */
export function mustHaveSwitch({ uplinks: { pf } }: Settings): void {
  if (!pf) return;
  const detail = `the PF's pool is bound to ${formatUplinkSpec(pf)}, and vports would be there: ${removal("pf")} first`;
  throw new ApiError(409, detail, "id", "pf-bound");
}

/** Throws if a VF is bound to something of the host: no guest can drive it then. */
export function mustBeUnbound({ uplinks }: Settings, vf: number): void {
  const spec = uplinks[vf];
  if (!spec) return;
  const detail = `vf ${vf} is bound to ${formatUplinkSpec(spec)}: no guest drives it; ${removal(vf)} frees it`;
  throw new ApiError(409, detail, "id", "vf-in-use");
}

/** Throws if one of the VFs from `count` on, which are to go, is bound to something of the host. */
export function mustKeepBound({ uplinks }: Settings, count: number): void {
  for (const [pool, spec] of Object.entries(uplinks)) {
    if (!/^\d+$/.test(pool) || Number(pool) < count) continue;
    const detail = `vf ${pool} cannot be removed: it is bound to ${formatUplinkSpec(spec)}; ${
      removal(Number(pool))
    } first`;
    throw new ApiError(409, detail, "numVfs", "vf-in-use");
  }
}

/**
 * The link that ports with linkState auto have. As with a NIC of hardware it is that of the cable: down while there is an
 * uplink whose interface is not up. A fabric without one has none to wait for, and a capture file is no cable.
 */
export function carrierOf({ link, uplinks: { uplink: spec } }: Settings, uplink: Outcome | undefined): "up" | "down" {
  if (link !== "auto") return link;
  return spec === undefined || spec.kind === "pcap" || uplink?.state === "up" ? "up" : "down";
}
