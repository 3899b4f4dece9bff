/**
 * The loads of the throughput tables, and what is wanted of each: against net_vhost with the same front-end, against
 * OVS-DPDK, and against another build of our own. The back-ends take turns and start anew each turn.
 */
import { type BackEnd, missingPackages, startNetVhost, startOvs, startRingfabric } from "./back_ends.ts";
import type { CoreProbe } from "./core_distance.ts";
import type { Goal, Judged } from "./judged.ts";
import type { PairedRowOptions } from "./options.ts";
import { median } from "./stats.ts";
import { type Load, measure, type Sample } from "./throughput.ts";

/** A load and its goals. */
interface Row extends Load {
  netVhost?: Goal;
  /** Busy time a frame against another build's. */
  busy?: Goal;
}

const OVS_GOAL: Goal = { atLeast: 1.8 };
const BUSY_GOAL: Goal = { atMost: 0.85 };
const closed = { queueSize: 256, loop: "closed" } as const;

const ROWS: readonly Row[] = [
  { name: "plain", frontEnd: "plain", bytes: 64, ...closed, netVhost: { atLeast: 1.2 }, busy: BUSY_GOAL },
  { name: "plain", frontEnd: "plain", bytes: 1518, ...closed, netVhost: { atLeast: 2 } },
  { name: "vector", frontEnd: "vector", bytes: 64, ...closed, netVhost: { atLeast: 1.4 } },
  { name: "vector", frontEnd: "vector", bytes: 1518, ...closed, netVhost: { atLeast: 2 } },
  { name: "packed", frontEnd: "packed", bytes: 64, ...closed, netVhost: { atLeast: 1.1 }, busy: BUSY_GOAL },
  { name: "packed", frontEnd: "packed", bytes: 1518, ...closed, netVhost: { atLeast: 1.8 } },
  { name: "packed vector", frontEnd: "packed vector", bytes: 64, ...closed, netVhost: { atLeast: 1.2 } },
  { name: "packed vector", frontEnd: "packed vector", bytes: 1518, ...closed, netVhost: { atLeast: 1.8 } },
  { name: "plain, queue 1024", frontEnd: "plain", bytes: 64, queueSize: 1024, loop: "closed" },
  { name: "plain, open loop", frontEnd: "plain", bytes: 64, queueSize: 256, loop: "open", netVhost: { atLeast: 1 } },
];

const nameOf = ({ name, bytes }: Load) => `${name} ${bytes}`;

/** Names of all loads, for `--only`. */
export const THROUGHPUT_NAMES: readonly string[] = ROWS.map(nameOf);

/** What is run. */
export interface ThroughputOptions extends PairedRowOptions {
  samples: number;
}

/** One load's figures. */
export interface ThroughputResult extends Row {
  /** By back-end: every sample, and the median of those that count. */
  samples: Record<string, Sample[]>;
  mpps: Record<string, number>;
  busyNsPerFrame: Record<string, number>;
  /** Why a back-end has no figures. */
  errors: Record<string, string>;
}

const THIS = "ringfabric";
const OTHER = "other build";
const NET_VHOST = "net_vhost";
const OVS = "OVS-DPDK";

function backEnds({ against, report }: ThroughputOptions): BackEnd[] {
  const missing = missingPackages();
  for (const [name, use] of missing) report(`Missing: apt-get install ${name} (${use})`);
  if (missing.has("dpdk-dev")) return [];
  return [
    { name: THIS, start: () => startRingfabric() },
    { name: NET_VHOST, start: startNetVhost },
    ...(missing.has("openvswitch-switch-dpdk") ? [] : [{ name: OVS, start: startOvs }]),
    ...(against === undefined ? [] : [{ name: OTHER, start: () => startRingfabric(against) }]),
  ];
}

const near = (samples: Sample[] = []) => samples.filter((sample) => sample.near);

/** One load over all back-ends in turn. A peer that fails is left out, with its reason; this NIC may not fail. */
async function measureRow(row: Row, ends: BackEnd[], probe: CoreProbe, options: ThroughputOptions) {
  const samples: Record<string, Sample[]> = {};
  const errors: Record<string, string> = {};
  for (let round = 0; round < options.rounds; round++) {
    for (const end of round % 2 === 0 ? ends : [...ends].reverse()) {
      if (end.name in errors) continue;
      try {
        (samples[end.name] ??= []).push(...await measure(end, row, options.samples, probe));
      } catch (error) {
        if (end.name === THIS) throw error;
        errors[end.name] = error instanceof Error ? error.message : String(error);
        options.report(`${nameOf(row)}: ${end.name} failed: ${errors[end.name]}`);
      }
    }
  }
  const medians = (of: (sample: Sample) => number) =>
    Object.fromEntries(ends.map(({ name }) => [name, median(near(samples[name]).map(of))]));
  const result: ThroughputResult = {
    ...{ ...row, samples, errors },
    mpps: medians(({ mpps }) => mpps),
    busyNsPerFrame: medians(({ busyNsPerFrame }) => busyNsPerFrame ?? NaN),
  };
  const figures = Object.entries(result.mpps).map(([name, mpps]) => `${name} ${mpps.toFixed(2)}`);
  options.report(`${nameOf(row)} B: ${figures.join(", ")} Mpps`);
  return result;
}

/** Runs the loads. */
export async function throughput(probe: CoreProbe, options: ThroughputOptions): Promise<ThroughputResult[]> {
  const rows = ROWS.filter((row) => options.wanted(nameOf(row)));
  if (rows.length === 0) return [];
  const ends = backEnds(options);
  const results: ThroughputResult[] = [];
  if (ends.length === 0) return results;
  for (const row of rows) results.push(await measureRow(row, ends, probe, options));
  return results;
}

/** The comparisons that the figures make. */
export function judgeThroughput(results: readonly ThroughputResult[]): Judged[] {
  return results.flatMap((row) => {
    const peers: [string, Goal | undefined][] = [[NET_VHOST, row.netVhost], [OVS, OVS_GOAL], [OTHER, undefined]];
    const what = `${row.name}, ${row.bytes} B`;
    const gated = (peer: string) => `${near(row.samples[THIS]).length}/${near(row.samples[peer]).length} samples`;
    const rates = peers.filter(([peer]) => peer in row.mpps).map(([peer, goal]): Judged => ({
      ...{ what, against: peer, unit: "Mpps", note: row.errors[peer] === undefined ? gated(peer) : "failed" },
      ...{ ours: row.mpps[THIS] ?? NaN, theirs: row.mpps[peer] ?? NaN },
      ...(goal === undefined ? {} : { goal }),
    }));
    const busy: Judged = {
      ...{ what: `${what}, engine busy`, against: OTHER, unit: "ns/frame", note: gated(OTHER) },
      ...{ ours: row.busyNsPerFrame[THIS] ?? NaN, theirs: row.busyNsPerFrame[OTHER] ?? NaN },
      ...(row.busy === undefined ? {} : { goal: row.busy }),
    };
    return OTHER in row.mpps ? [...rates, busy] : rates;
  });
}
