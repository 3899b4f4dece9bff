/** Prometheus metrics of the NIC and its VFs, read from the NIC at each scrape. */
import { Counter, Gauge, Registry } from "prom-client";
import { COUNTERS, ENGINE_TIMES } from "../../shared/layout/counter_names.ts";
import {
  type EngineState,
  LATENCY_LIMITS_US,
  type Limits,
  type NicState,
  type VhostState,
} from "../../shared/api/mod.ts";
import type { CapturesTold } from "./capture_places.ts";

const NS = 1e-9;

const ENGINE_COUNTERS: [string, string, (engine: EngineState) => number][] = [
  ["engine_frames_total", "Frames taken from transmit queues", (e) => e.framesTotal],
  ["engine_passes_total", "Polls of all active queues", (e) => e.passesTotal],
  ["engine_busy_passes_total", "Polls that found work", (e) => e.busyPassesTotal],
  ["engine_sleeps_total", "Times the engine went to sleep", (e) => e.sleepsTotal],
  ["engine_calls_total", "Interrupts raised", (e) => e.callsTotal],
  ["engine_spurious_kicks_total", "Kicks that brought no work", (e) => e.spuriousKicksTotal],
  ["engine_memory_faults_total", "Accesses to memory that its guest had truncated", (e) => e.faultsTotal],
  ["engine_busy_seconds_total", "Time spent on frames", (e) => e.busyNsTotal * NS],
  ["engine_slept_seconds_total", "Time asleep", (e) => e.sleptNsTotal * NS],
];

/** What the PF itself knows. */
export interface Told {
  numVfs: number;
  carrier: "up" | "down";
  /** What the vhost service says, if it answers. */
  vhost: VhostState | undefined;
  captures: CapturesTold;
}

/** Captures that VFs' tokens have open, and those that they were refused. */
function captureMetrics({ ofVfs, refused }: CapturesTold, registers: Registry[]): void {
  const open = new Gauge({
    name: "ringfabric_vf_captures",
    help: "Captures that the VF's tokens have open",
    labelNames: ["vf"],
    registers,
  });
  for (const [vf, count] of ofVfs) open.set({ vf }, count);
  const refusals = new Counter({
    name: "ringfabric_capture_refusals_total",
    help: "Captures that VFs' tokens were refused since they had as many as they may",
    labelNames: ["reason"],
    registers,
  });
  for (const [reason, times] of refused) refusals.inc({ reason }, times);
}

/** What of the host is behind pools, whether it is up, and what it counts. */
function countUplinks({ uplinks }: NicState, registry: Registry): void {
  const registers = [registry];
  const gauge = (name: string, help: string, labelNames: string[]) =>
    new Gauge({ name: `ringfabric_uplink_${name}`, help, labelNames, registers });
  const up = gauge("up", "Whether the host's interface behind a pool is up", ["pool"]);
  const info = gauge("info", "What is behind a pool, and how its frames are moved", [
    "pool",
    "kind",
    "interface",
    "io",
  ]);
  const counters = new Map<string, Counter>();
  for (
    const [pool, { spec: { kind }, state, interface: name = "", io = "", counters: counted }] of Object.entries(uplinks)
  ) {
    if (state === "none") continue;
    up.set({ pool }, state === "up" ? 1 : 0);
    info.set({ pool, kind, interface: name, io }, 1);
    for (const [counter, value] of Object.entries(counted)) {
      const metric = counters.get(counter) ?? new Counter({
        name: `ringfabric_uplink_${counter}_total`,
        help: `${counter} of the host's interface behind a pool`,
        labelNames: ["pool"],
        registers,
      });
      counters.set(counter, metric);
      metric.inc({ pool }, value);
    }
  }
}

/** What each VF's guest has and may have: name, what it is, and where it stands. */
const LIMITED: [string, string, (limits: Limits) => Limits["memory"]][] = [
  ["memory_bytes", "Memory that the guest has mapped, in whole windows", ({ memory }) => memory],
  ["buffered_bytes", "Frames that wait for the guest while it has no room", ({ buffered }) => buffered],
  ["receive_entries", "Entries of the guest's receive rings", ({ receives }) => receives],
  ["transmit_entries", "Entries of the guest's transmit rings", ({ submissions }) => submissions],
];

/** Each limit beside what is in use of it, and refusals by the limit's name. */
function limitMetrics({ vfs }: NicState, registers: Registry[]): void {
  const labelNames = ["vf"];
  for (const [name, help, read] of LIMITED) {
    const used = new Gauge({ name: `ringfabric_vf_${name}`, help, labelNames, registers });
    const limit = new Gauge({ name: `ringfabric_vf_limit_${name}`, help: `Limit: ${help}`, labelNames, registers });
    vfs.forEach(({ limits }, vf) => {
      used.set({ vf }, read(limits).used);
      limit.set({ vf }, read(limits).limit);
    });
  }
  const refusals = new Counter({
    name: "ringfabric_vf_limit_refusals_total",
    help: "Requests of the VF's guest that a limit refused",
    labelNames: ["vf", "limit"],
    registers,
  });
  vfs.forEach(({ limits }, vf) => {
    for (const [limit, times] of Object.entries(limits.refused)) refusals.inc({ vf, limit }, times);
  });
}

const LATENCY = "ringfabric_vf_latency_seconds";

/** The pools' latency, as Prometheus has histograms: each bucket counts those below it too. */
function latencyText(pools: readonly [string, NicState["pf"]][]): string {
  const lines = pools.flatMap(([vf, { latency: { counts, sumNs } }]) => {
    let sum = 0;
    const buckets = counts.map((count, i) => {
      const us = LATENCY_LIMITS_US[i];
      return `${LATENCY}_bucket{vf="${vf}",le="${us === undefined ? "+Inf" : us / 1e6}"} ${sum += count}`;
    });
    return [...buckets, `${LATENCY}_sum{vf="${vf}"} ${sumNs * NS}`, `${LATENCY}_count{vf="${vf}"} ${sum}`];
  });
  const help = "From when a frame that the VF sent is seen in its ring until it is delivered, sampled";
  return [`# HELP ${LATENCY} ${help}`, `# TYPE ${LATENCY} histogram`, ...lines, ""].join("\n");
}

/** The last scrape's busy and up time, for the ratio between two scrapes. */
export class Metrics {
  #busyNs = 0;
  #uptimeNs = 0;
  #instance = "";

  /** The text of one scrape. */
  async text(state: NicState | undefined, { numVfs, carrier, captures, vhost }: Told): Promise<string> {
    const registry = new Registry();
    const registers = [registry];
    const gauge = (name: string, help: string, value: number) =>
      new Gauge({ name: `ringfabric_${name}`, help, registers }).set(value);
    gauge("nic_up", "Whether the NIC is reachable", state ? 1 : 0);
    gauge("vfs", "VFs that exist", numVfs);
    gauge("carrier", "Whether VFs with link state auto have a carrier", carrier === "up" ? 1 : 0);
    captureMetrics(captures, registers);
    gauge("vhost_up", "Whether the vhost service is reachable", vhost ? 1 : 0);
    const ready = vhost?.standby.state === "ready" ? 1 : 0;
    gauge("vhost_standby_ready", "Whether a process takes over if the vhost service's dies", ready);
    if (!state) return await registry.metrics();

    for (const [name, help, read] of ENGINE_COUNTERS) {
      new Counter({ name: `ringfabric_${name}`, help, registers }).inc(read(state.engine));
    }
    gauge("engine_busy_ratio", "Share of time spent on frames since the scrape before", this.#busyRatio(state));
    gauge(
      "nic_standby_ready",
      "Whether a process takes over if the NIC's dies",
      state.standby.state === "ready" ? 1 : 0,
    );
    gauge("captures", "Captures of the NIC that are open", state.engine.captures);
    gauge("filters", "Entries of the filter table", state.engine.filters);
    gauge("arena_free_bytes", "Room for more guest memory", state.engine.arenaFreeBytes);

    const attached = new Gauge({
      name: "ringfabric_vf_attached",
      help: "Whether a guest is attached",
      labelNames: ["vf"],
      registers,
    });
    const failed = new Gauge({
      name: "ringfabric_vf_queues_in_error",
      help: "Queues that stopped because the guest broke the protocol",
      labelNames: ["vf"],
      registers,
    });
    state.vfs.forEach((pool, vf) => {
      attached.set({ vf }, pool.attached ? 1 : 0);
      failed.set({ vf }, pool.queues.filter((queue) => queue.state === "error").length);
    });
    const pools: [string, NicState["pf"]][] = [
      ...state.vfs.map((pool, vf): [string, NicState["pf"]] => [String(vf), pool]),
      ["uplink", state.uplink],
    ];
    limitMetrics(state, registers);
    for (const [name, help] of COUNTERS) {
      const counter = new Counter({ name: `ringfabric_vf_${name}_total`, help, labelNames: ["vf"], registers });
      for (const [vf, pool] of pools) counter.inc({ vf }, pool.counters[name] ?? 0);
    }
    for (const [name, help] of ENGINE_TIMES) {
      const metric = `ringfabric_vf_${name.replace("_ns", "")}_seconds_total`;
      const counter = new Counter({ name: metric, help, labelNames: ["vf"], registers });
      for (const [vf, pool] of pools) counter.inc({ vf }, (pool.counters[name] ?? 0) * NS);
    }
    countUplinks(state, registry);
    return `${await registry.metrics()}\n${latencyText(pools)}`;
  }

  #busyRatio({ instance, engine }: NicState): number {
    const fresh = instance !== this.#instance;
    const busy = engine.busyNsTotal - (fresh ? 0 : this.#busyNs);
    const time = engine.uptimeNs - (fresh ? 0 : this.#uptimeNs);
    this.#instance = instance;
    this.#busyNs = engine.busyNsTotal;
    this.#uptimeNs = engine.uptimeNs;
    return time > 0 ? Math.min(1, Math.max(0, busy / time)) : 0;
  }
}
