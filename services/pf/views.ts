/** What the API shows: the PF's settings, and what the NIC says, if it is there. Pure. */
import type { NicState, NicView, Vf, VfPolicy } from "../../shared/api/mod.ts";
import type { Settings } from "./store.ts";

/** VF `id` with its policy; the state is what a VF has that nobody drives, while the NIC is away. */
export function vfView(settings: Settings, id: number, state: NicState | undefined, runDir: string): Vf {
  const pool = state?.vfs[id];
  return {
    id,
    ...settings.vfs[id] as VfPolicy,
    vport: settings.vports.find(({ vf }) => vf === id)?.id ?? null,
    mode: pool?.mode ?? "passthrough",
    ...(pool?.plugin === undefined ? {} : { plugin: pool.plugin }),
    socket: `${runDir}/vf${id}.sock`,
    attached: pool?.attached ?? false,
    ...(pool?.owner === undefined ? {} : { owner: pool.owner }),
    memory: pool?.memory ?? { bytes: 0, regions: 0, sealed: true },
    queues: pool?.queues ?? [],
    ...(pool?.lastDetach === undefined ? {} : { lastDetach: pool.lastDetach }),
    learnedMacs: pool?.learnedMacs ?? 0,
  };
}

/** The NIC with its uplink. */
export function nicView(settings: Settings, state: NicState | undefined, runDir: string): NicView {
  const { vfs, switchMode, link, pfMac } = settings;
  return {
    ...{ numVfs: vfs.length, switchMode, link, pfMac, reachable: state !== undefined },
    uplink: {
      socket: `${runDir}/uplink.sock`,
      attached: state?.uplink.attached ?? false,
      counters: state?.uplink.counters ?? {},
    },
    ...(state ? { engine: state.engine } : {}),
  };
}
