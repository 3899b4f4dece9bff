/** The live stream's documents: the fabric, one VF's queues, one VF alone. Pure. */
import {
  isLinkUp,
  type Latency,
  type LatencySummary,
  latencySummary,
  latencyView,
  type LiveState,
  type NicState,
  type NicView,
  policyTag,
  socketPath,
  type Vf,
  type VportState,
} from "../../shared/api/mod.ts";
import { withoutNulls } from "./merge_patch.ts";
import type { Settings } from "./store.ts";
import { nicView, type Seen, vfView } from "./views.ts";

/** What was read at a moment, with the PF's settings then. */
export interface Reading extends Seen {
  settings: Settings;
  carrier: NicView["carrier"];
  runDir: string;
  services: LiveState["services"];
  vports: readonly VportState[];
  atMs: number;
  /** When the NIC answered last; `state` is from then. */
  readAtMs: number | undefined;
  /** How long the frames of a port (vf0, vport0, uplink) waited in the last seconds. */
  recentLatency(port: string): LatencySummary | undefined;
}

type Counters = Record<string, number>;

function counted(counters: Counters = {}): Counters {
  return Object.fromEntries(Object.entries(counters).filter(([, n]) => n !== 0));
}

function running(queues: Vf["queues"]): { queuesRunning?: number; queuesInError?: number } {
  if (!queues) return {};
  const inError = queues.filter(({ state }) => state === "error").length;
  return { queuesRunning: queues.length - inError, queuesInError: inError };
}

/** How long a port's frames waited; null: it has sent none. `isWhole`: with the histogram. */
function waited({ recentLatency }: Reading, port: string, latency: Latency | undefined, isWhole: boolean) {
  if (!latency?.counts.some((count) => count > 0)) return null;
  return {
    ...(isWhole ? latencyView(latency) : latencySummary(latency.counts)),
    recent: recentLatency(port) ?? null,
  };
}

/** Tags of policies, which never change themselves: another policy is another object. */
const tags = new WeakMap<object, string>();

function tagOf<P extends object>(policy: P | undefined): string | null {
  if (policy === undefined) return null;
  const tag = tags.get(policy) ?? policyTag(policy as Record<string, unknown>);
  tags.set(policy, tag);
  return tag;
}

function liveVf(reading: Reading, id: number, withQueues: boolean) {
  const { settings, carrier, state, runDir } = reading;
  const { queues, limits, ...vf } = vfView(settings, id, reading, runDir);
  const pool: NicState["vfs"][number] | undefined = state?.vfs[id];
  return {
    ...vf,
    link: isLinkUp(vf.linkState, carrier) ? "up" : "down",
    ...(pool ? { held: pool.held, ...running(queues) } : {}),
    counters: counted(pool?.counters),
    latency: waited(reading, `vf${id}`, pool?.latency, withQueues),
    ...(withQueues ? { queues, limits, tag: tagOf(settings.vfs[id]) } : {}),
  };
}

function head({ atMs, readAtMs, services }: Reading) {
  return { at: atMs, readAt: readAtMs, services };
}

/** The whole fabric, without what only one VF's panel shows. */
export function fabricDocument(reading: Reading): unknown {
  const { settings, carrier, state, runDir, vports } = reading;
  const nic = nicView(settings, carrier, reading, runDir);
  return withoutNulls({
    ...head(reading),
    nic: {
      ...nic,
      uplink: {
        ...{ ...nic.uplink, counters: counted(state?.uplink.counters) },
        latency: waited(reading, "uplink", state?.uplink.latency, false),
      },
      counters: counted(state?.pf.counters),
    },
    vfs: Object.fromEntries(settings.vfs.map((_, id) => [id, liveVf(reading, id, false)])),
    vports: Object.fromEntries(settings.vports.map((vport) => {
      const seen = vports.find(({ id }) => id === vport.id);
      const { id, linkState } = vport;
      const link = isLinkUp(linkState, carrier) ? "up" : "down";
      const socket = socketPath(runDir, `vport${id}`);
      const latency = waited(reading, `vport${id}`, seen?.latency, true);
      const counters = counted(seen?.counters);
      return [id, { ...vport, link, socket, attached: seen?.attached ?? null, counters, latency, tag: tagOf(vport) }];
    })),
  });
}

/** What is added to the fabric for whoever looks at VF `id`. */
export function queuesDocument(reading: Reading, id: number): unknown {
  if (id >= reading.settings.vfs.length) return { vfs: {} };
  const { queues, limits } = vfView(reading.settings, id, reading, reading.runDir);
  const latency = waited(reading, `vf${id}`, reading.state?.vfs[id]?.latency, true);
  return withoutNulls({ vfs: { [id]: { queues, limits, latency, tag: tagOf(reading.settings.vfs[id]) } } });
}

/** VF `id` alone, for who may look at nothing else. */
export function vfDocument(reading: Reading, id: number): unknown {
  const vfs = id < reading.settings.vfs.length ? { [id]: liveVf(reading, id, true) } : {};
  return withoutNulls({ ...head(reading), vfs });
}
