/** What the API shows: the PF's settings, and what the NIC says, if it is there. Pure. */
import { type NicState, type NicView, socketPath, type Vf, type VfPolicy } from "../../shared/api/mod.ts";
import type { Settings } from "./store.ts";

/** VF `id` with its policy. What only the NIC knows is null while it does not answer. */
export function vfView(settings: Settings, id: number, state: NicState | undefined, runDir: string): Vf {
  const pool = state?.vfs[id];
  return {
    id,
    ...settings.vfs[id] as VfPolicy,
    vport: settings.vports.find(({ vf }) => vf === id)?.id ?? null,
    mode: pool ? pool.mode ?? "passthrough" : null,
    ...(pool?.plugin === undefined ? {} : { plugin: pool.plugin }),
    socket: socketPath(runDir, `vf${id}`),
    attached: pool?.attached ?? null,
    ...(pool?.owner === undefined ? {} : { owner: pool.owner }),
    memory: pool?.memory ?? null,
    queues: pool?.queues ?? null,
    ...(pool?.lastDetach === undefined ? {} : { lastDetach: pool.lastDetach }),
    learnedMacs: pool?.learnedMacs ?? null,
  };
}

/** The NIC with its uplink. */
export function nicView(settings: Settings, state: NicState | undefined, runDir: string): NicView {
  const { vfs, switchMode, link, pfMac } = settings;
  return {
    ...{ numVfs: vfs.length, switchMode, link, pfMac, reachable: state !== undefined },
    uplink: {
      socket: socketPath(runDir, "uplink"),
      attached: state?.uplink.attached ?? null,
      counters: state?.uplink.counters ?? null,
    },
    ...(state ? { engine: state.engine } : {}),
  };
}
