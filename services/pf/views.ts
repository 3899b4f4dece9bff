/** What the API shows: the PF's settings, and what the NIC says, if it is there. Pure. */
import {
  type Latency,
  latencyView,
  type NicState,
  type NicView,
  type PoolName,
  type PortState,
  socketPath,
  type UplinkView,
  type Vf,
  type VfPolicy,
  type VfStats,
  type VhostState,
} from "../../shared/api/mod.ts";
import type { Settings } from "./store.ts";
import { isSameSpec, type Outcome, specOf } from "./uplink_rules.ts";

/** What the NIC says of its pools, if it is there, what vhost says of its ports, and what became of each uplink. */
export interface Seen {
  state: NicState | undefined;
  ports: readonly PortState[];
  vhost: VhostState | undefined;
  outcome(pool: PoolName): Outcome | undefined;
}

/** What is to be behind a pool, and whether it is. */
export function uplinkView(
  settings: Settings,
  pool: PoolName,
  { state, outcome }: Pick<Seen, "state" | "outcome">,
): UplinkView {
  const spec = specOf(settings, pool);
  const found = state?.uplinks[pool];
  if (found && isSameSpec(found.spec, spec)) return { pool, ...found };
  const nothing = { pool, spec, counters: {}, offloads: [] };
  if (!state) return { ...nothing, state: null };
  return { ...nothing, ...(spec.kind === "none" ? { state: "none" } : outcome(pool) ?? { state: "down" }) };
}

/** The same in short, where it stands beside other things. */
function uplinkLine(settings: Settings, pool: PoolName, seen: Seen) {
  const { spec, state, reason, interface: name } = uplinkView(settings, pool, seen);
  return {
    ...{ spec, state },
    ...(reason === undefined ? {} : { reason }),
    ...(name === undefined ? {} : { interface: name }),
  };
}

/** VF `id` with its policy. What only the NIC knows is null while it does not answer. */
export function vfView(settings: Settings, id: number, seen: Seen, runDir: string): Vf {
  const pool = seen.state?.vfs[id];
  // An emulated guest's rings are the vhost service's; the VF's own are its engine's.
  const guest = pool?.mode === "emulated" ? seen.ports.find(({ port }) => port === id)?.session : undefined;
  return {
    id,
    ...settings.vfs[id] as VfPolicy,
    vport: settings.vports.find(({ vf }) => vf === id)?.id ?? null,
    mode: pool ? pool.mode ?? "passthrough" : null,
    ...(pool?.plugin === undefined ? {} : { plugin: pool.plugin }),
    uplink: settings.uplinks[id] ? uplinkLine(settings, id, seen) : null,
    ...(pool?.dataPath === undefined ? {} : { dataPath: pool.dataPath }),
    socket: socketPath(runDir, `vf${id}`),
    attached: pool?.attached ?? null,
    ...(pool?.owner === undefined ? {} : { owner: pool.owner }),
    memory: pool?.memory ?? null,
    queues: guest?.queues ?? pool?.queues ?? null,
    limits: guest?.limits ?? pool?.limits ?? null,
    ...(pool?.lastDetach === undefined ? {} : { lastDetach: pool.lastDetach }),
    learnedMacs: pool?.learnedMacs ?? null,
  };
}

/** What a VF or vport has counted. */
export function statsOf(
  id: number,
  seen: { counters: VfStats["counters"] | null; latency: Latency | null } | undefined,
): VfStats {
  return { id, counters: seen?.counters ?? {}, latency: latencyView(seen?.latency ?? undefined) };
}

/** The NIC with its uplink. */
export function nicView(settings: Settings, carrier: NicView["carrier"], seen: Seen, runDir: string): NicView {
  const { state, vhost } = seen;
  const { vfs, switchMode, link, pfMac, uplinkTrunk, uplinkNativeVlan, pfMirror } = settings;
  return {
    ...{ numVfs: vfs.length, switchMode, link, carrier, pfMac, reachable: state !== undefined },
    ...{ uplinkTrunk, uplinkNativeVlan, pfMirror },
    uplink: {
      ...uplinkLine(settings, "uplink", seen),
      socket: socketPath(runDir, "uplink"),
      attached: state?.uplink.attached ?? null,
      counters: state?.uplink.counters ?? null,
    },
    ...(state ? { engine: state.engine, standby: state.standby } : {}),
    ...(vhost ? { vhostStandby: vhost.standby } : {}),
  };
}
