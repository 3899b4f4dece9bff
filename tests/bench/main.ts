/**
 * `deno task bench`: the engine alone over all kinds of traffic; this NIC with its switch on against testpmd's
 * net_vhost, which does not switch, against OVS-DPDK, which does, and against another build of our own; latency; what
 * passthrough brings; TCP between Linux guests; and what else an operator asks. Everything that is compared takes turns;
 * figures are medians of gated samples. Prints tables, with what misses its target first, and writes them with every
 * sample as JSON.
 */
import { Command } from "commander";
import { lendHugePages } from "../support/huge_pages.ts";
import { CoreProbe } from "./core_distance.ts";
import { DATA_PATH_NAMES, dataPaths, dataPathsTable } from "./data_paths.ts";
import { engineRows } from "./engine/compare.ts";
import { engineTable } from "./engine/view.ts";
import { judgedTable } from "./judged.ts";
import { interrupts, INTERRUPTS_NAME, interruptsTable } from "./interrupts.ts";
import { latency, LATENCY_NAMES, latencyTable } from "./latency.ts";
import { modes, modesTable } from "./modes.ts";
import { system, systemTable } from "./system.ts";
import { takeBacks, takeBackTable } from "./take_back.ts";
import { tcp, tcpTable } from "./tcp.ts";
import { UPLINK_FRAMES_NAMES, uplinkFrames, uplinkFramesTable } from "./uplink_frames.ts";
import { UPLINK_TCP_NAME, uplinkTcp, uplinkTcpTable } from "./uplinks.ts";
import { judgeThroughput, throughput, THROUGHPUT_NAMES } from "./throughput_rows.ts";

interface Options {
  rounds: string;
  samples: string;
  only?: string;
  json: string;
  skipSystem: boolean;
  skipModes: boolean;
  against?: string;
  mode?: string;
}

const TAKE_BACKS = 200;
const MODE_SIZES = [128, 1514];
/** Of 2 MiB: OVS-DPDK's and testpmd's together. */
const HUGE_PAGES = 768;
/** Share of all CPU time that others may take. */
const BUSY_MAX = 0.05;

const options = new Command("bench")
  .option("--rounds <n>", "how often those that are compared take turns", "3")
  .option("--samples <n>", "one-second samples a turn", "3")
  .option(
    "--only <text>",
    "only what is called so: 'engine', 'plain 64', 'packed', 'latency', 'modes 128', 'data paths', 'interrupts', 'tcp', 'uplinks', 'system'",
  )
  .option("--json <file>", "where the figures go", ".bench/results.json")
  .option("--skip-system", "leave out start-up, PATCH and idle", false)
  .option("--skip-modes", "leave out emulated mode against passthrough", false)
  .option("--mode <text>", "of the modes only what is called so, such as 'virtio'")
  .option("--against <dir>", "another checkout, built: all its figures are taken in turn with this one's")
  .parse().opts<Options>();

const modeName = (bytes: number) => `modes ${bytes}`;
const parts = [
  "engine",
  ...THROUGHPUT_NAMES,
  ...LATENCY_NAMES,
  ...MODE_SIZES.map(modeName),
  ...DATA_PATH_NAMES,
  "tcp",
  UPLINK_TCP_NAME,
  ...UPLINK_FRAMES_NAMES,
  INTERRUPTS_NAME,
  "take back",
  "system",
];
const { only = "" } = options;
/** Whether a part of the whole is wanted: the one that is called so, or all in whose names the text is. */
const wanted = (name: string) => parts.includes(only) ? name === only : name.includes(only);
if (!parts.some(wanted)) {
  console.error(`Cannot run --only '${only}': there are ${parts.join(", ")}`);
  Deno.exit(1);
}

/** The machine, as far as it matters. */
function machine(): Record<string, unknown> {
  const cpuinfo = Deno.readTextFileSync("/proc/cpuinfo");
  return {
    cpu: /model name\s*:\s*(.*)/.exec(cpuinfo)?.[1],
    cpus: navigator.hardwareConcurrency,
    memoryGiB: Math.round(Deno.systemMemoryInfo().total / 1024 ** 3),
    kernel: Deno.osRelease(),
    deno: Deno.version.deno,
    v8: Deno.version.v8,
  };
}

/** Says so if something else takes the CPUs: whatever is measured beside it is noise. */
async function warnIfBusy(): Promise<void> {
  const read = () =>
    Deno.readTextFileSync("/proc/stat").split("\n", 1)[0]?.trim().split(/\s+/).slice(1).map(Number) ?? [];
  const before = read();
  await new Promise((resolve) => setTimeout(resolve, 500));
  const ticks = read().map((value, i) => value - (before[i] ?? 0));
  const [, , , idle = 0, iowait = 0] = ticks;
  const busy = 1 - (idle + iowait) / ticks.slice(0, 8).reduce((sum, value) => sum + value, 0);
  if (busy < BUSY_MAX) return;
  console.error(`Something else takes ${Math.round(busy * 100)} % of the CPUs: end it, or take the figures for noise`);
}

/** Prints a table unless it is empty. */
function show<T>(results: readonly T[], view: (results: readonly T[]) => string): void {
  if (results.length > 0) console.log(`${view(results)}\n`);
}

/** Throughput, latency, and frames through an uplink: what DPDK has a part in. */
async function withDpdk(common: { rounds: number; against?: string }) {
  const each = { ...common, wanted, report: (line: string) => console.error(line) };
  const isWanted = [...THROUGHPUT_NAMES, ...LATENCY_NAMES, ...UPLINK_FRAMES_NAMES].some(wanted);
  if (!isWanted) return { throughput: [], latency: [], uplinkFrames: [] };
  const giveBack = await lendHugePages(HUGE_PAGES);
  using probe = new CoreProbe(0, 1);
  try {
    const rates = await throughput(probe, { ...each, samples: Number(options.samples) });
    show(judgeThroughput(rates), (rows) => judgedTable("THROUGHPUT", rows));
    const latencies = await latency(probe, each);
    show(latencies, latencyTable);
    const outside = await uplinkFrames(each);
    show(outside, uplinkFramesTable);
    return { throughput: rates, latency: latencies, uplinkFrames: outside };
  } finally {
    await giveBack();
  }
}

async function main(): Promise<void> {
  await warnIfBusy();
  const common = {
    rounds: Number(options.rounds),
    ...(options.against === undefined ? {} : { against: options.against }),
  };
  const engine = wanted("engine") ? await engineRows(common) : [];
  show(engine, engineTable);
  const dpdk = await withDpdk(common);
  const modeSizes = options.skipModes ? [] : MODE_SIZES.filter((bytes) => wanted(modeName(bytes)));
  const modeResults = modeSizes.length > 0 ? await modes(modeSizes, common.rounds, options) : [];
  show(modeResults, modesTable);
  const report = (line: string) => console.error(line);
  const paths = await dataPaths({ rounds: common.rounds, wanted, report });
  show(paths, dataPathsTable);
  const tcpResults = wanted("tcp") ? await tcp(common.rounds) : [];
  show(tcpResults, tcpTable);
  const outside = wanted(UPLINK_TCP_NAME) ? await uplinkTcp(common.rounds, report) : [];
  show(outside, uplinkTcpTable);
  const raised = wanted(INTERRUPTS_NAME) ? await interrupts(common.rounds, report) : [];
  show(raised, interruptsTable);
  const taken = wanted("take back") ? await takeBacks(TAKE_BACKS) : [];
  show(taken, (rows) => takeBackTable(rows, TAKE_BACKS));
  const others = !options.skipSystem && wanted("system") ? await system() : undefined;
  if (others) console.log(`${systemTable(others)}\n`);
  const all = {
    ...{ at: new Date().toISOString(), command: "deno task bench", machine: machine(), engine, ...dpdk },
    ...{
      modes: modeResults,
      dataPaths: paths,
      tcp: tcpResults,
      uplinkTcp: outside,
      interrupts: raised,
      takeBacks: taken,
      system: others ?? {},
    },
  };
  await Deno.mkdir(options.json.replace(/[^/]*$/, "") || ".", { recursive: true });
  await Deno.writeTextFile(options.json, JSON.stringify(all, null, 2) + "\n");
  console.log(`${JSON.stringify(machine())}\nwritten to ${options.json}`);
}

await main();
Deno.exit(0);
