/**
 * `deno task bench`: this NIC with its switch on against testpmd's net_vhost without one, side by side, alternating,
 * medians of gated samples. Prints tables and writes them, with every sample, as JSON.
 */
import { Command } from "commander";
import { table } from "../../services/cli/views.ts";
import { CoreProbe } from "./core_distance.ts";
import { engineRows } from "./engine/compare.ts";
import { engineTable } from "./engine/view.ts";
import { modes } from "./modes.ts";
import { takeBacks } from "./take_back.ts";
import { median } from "./stats.ts";
import { idle, patchLatency, startUp } from "./system.ts";
import { type BackEnd, type Load, measure, type Sample } from "./throughput.ts";

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

const LOADS: (Load & { target?: number })[] = [
  { name: "plain", frontEnd: "plain", bytes: 64, queueSize: 256, loop: "closed", target: 1.0 },
  { name: "plain", frontEnd: "plain", bytes: 512, queueSize: 256, loop: "closed" },
  { name: "plain", frontEnd: "plain", bytes: 1518, queueSize: 256, loop: "closed", target: 1.5 },
  { name: "vector", frontEnd: "vector", bytes: 64, queueSize: 256, loop: "closed", target: 1.2 },
  { name: "vector", frontEnd: "vector", bytes: 512, queueSize: 256, loop: "closed" },
  { name: "vector", frontEnd: "vector", bytes: 1518, queueSize: 256, loop: "closed", target: 1.8 },
  { name: "plain, queue 1024", frontEnd: "plain", bytes: 64, queueSize: 1024, loop: "closed" },
  { name: "plain, open loop", frontEnd: "plain", bytes: 64, queueSize: 256, loop: "open" },
];

const options = new Command("bench")
  .option("--rounds <n>", "how often the back-ends take turns", "3")
  .option("--samples <n>", "one-second samples a turn", "3")
  .option("--only <text>", "only what is called so: 'engine', 'plain 64', 'modes 128', 'modes', 'system'")
  .option("--json <file>", "where the figures go", ".bench/results.json")
  .option("--skip-system", "leave out start-up, PATCH and idle", false)
  .option("--skip-modes", "leave out emulated mode against passthrough", false)
  .option("--mode <text>", "of the modes only what is called so, such as 'virtio'")
  .option("--against <dir>", "another checkout, built: its engine and its modes are measured in turn with this one's")
  .parse().opts<Options>();

const MODE_SIZES = [128, 1514];
const nameOf = (load: Load) => `${load.name} ${load.bytes}`;
/** Whether a part of the whole is wanted. */
const wanted = (name: string) => !options.only || name.includes(options.only);
const parts = [...LOADS.map(nameOf), ...MODE_SIZES.map((bytes) => `modes ${bytes}`), "engine", "take back", "system"];
if (!parts.some(wanted)) {
  console.error(`Cannot run --only '${options.only}': there are ${parts.join(", ")}`);
  Deno.exit(1);
}

const BACK_ENDS: BackEnd[] = ["ringfabric", "net_vhost"];

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

const nearMpps = (samples: Sample[]) => samples.filter(({ near }) => near).map(({ mpps }) => mpps);

async function throughput(probe: CoreProbe) {
  const results = [];
  for (const load of LOADS.filter((load) => wanted(nameOf(load)))) {
    const samples: Record<BackEnd, Sample[]> = { ringfabric: [], net_vhost: [] };
    for (let round = 0; round < Number(options.rounds); round++) {
      for (const backEnd of round % 2 === 0 ? BACK_ENDS : [...BACK_ENDS].reverse()) {
        samples[backEnd].push(...await measure(backEnd, load, Number(options.samples), probe));
      }
    }
    const [ours, theirs] = BACK_ENDS.map((backEnd) => median(nearMpps(samples[backEnd])));
    const busy = samples.ringfabric.filter(({ near }) => near).map(({ busyNsPerFrame }) => busyNsPerFrame ?? NaN);
    const result = {
      ...load,
      mpps: { ringfabric: ours ?? NaN, net_vhost: theirs ?? NaN },
      ratio: (ours ?? NaN) / (theirs ?? NaN),
      engineBusyNsPerFrame: median(busy),
      samples,
    };
    results.push(result);
    console.error(
      `${load.name} ${load.bytes} B: ${ours?.toFixed(2)} against ${theirs?.toFixed(2)} Mpps, ratio ${
        result.ratio.toFixed(2)
      }`,
    );
  }
  return results;
}

const engine = wanted("engine")
  ? await engineRows({
    rounds: Number(options.rounds),
    ...(options.against === undefined ? {} : { against: options.against }),
  })
  : [];
if (engine.length > 0) console.log(engineTable(engine));

const probe = new CoreProbe(0, 1);
const results = await throughput(probe);
probe[Symbol.dispose]();
if (results.length > 0) {
  console.log(table(
    ["LOAD", "BYTES", "RINGFABRIC MPPS", "NET_VHOST MPPS", "RATIO", "TARGET", "BUSY NS/FRAME", "GATED SAMPLES"],
    results.map((row) => [
      row.name,
      row.bytes,
      row.mpps.ringfabric.toFixed(2),
      row.mpps.net_vhost.toFixed(2),
      row.ratio.toFixed(2),
      row.target ? `>= ${row.target}` : "-",
      row.engineBusyNsPerFrame.toFixed(1),
      `${nearMpps(row.samples.ringfabric).length}/${nearMpps(row.samples.net_vhost).length}`,
    ]),
  ));
}

let modeResults: Awaited<ReturnType<typeof modes>> = [];
const modeSizes = options.skipModes ? [] : MODE_SIZES.filter((bytes) => wanted(`modes ${bytes}`));
if (modeSizes.length > 0) {
  modeResults = await modes(modeSizes, Number(options.rounds), options);
  console.log();
  console.log(table(
    [
      "BUILD",
      "MODE",
      "BYTES",
      "MPPS",
      "CPU S/M FRAMES",
      "OF IT HOST",
      "FRAMES/CPU S",
      "P50 US",
      "P99 US",
      "RATIO",
      "HOST RATIO",
      "TARGET",
    ],
    modeResults.map((row) => [
      row.build,
      row.mode,
      row.bytes,
      row.mpps.toFixed(2),
      row.cpuSecondsPerMillionFrames.toFixed(2),
      row.hostCpuSecondsPerMillionFrames.toFixed(2),
      Math.round(row.framesPerCpuSecond),
      row.p50Us.toFixed(0),
      row.p99Us.toFixed(0),
      row.ratio.toFixed(2),
      row.hostRatio.toFixed(2),
      row.mode === "emulated" ? "-" : ">= 2",
    ]),
  ));
}

const taken = wanted("take back") ? await takeBacks(TAKE_BACKS) : [];
if (taken.length > 0) {
  console.log();
  console.log(table(
    [`TAKING A VF BACK, ${TAKE_BACKS} TIMES`, "MEDIAN MS", "P99 MS", "LONGEST MS"],
    taken.map((
      { what, medianMs, p99Ms, longestMs },
    ) => [what, ...[medianMs, p99Ms, longestMs].map((ms) => ms.toFixed(1))]),
  ));
}

let system: Record<string, unknown> = {};
if (!options.skipSystem && wanted("system")) {
  const upMs = median(await startUp(5));
  const patch = await patchLatency(40);
  const quiet = await idle(20);
  system = {
    upMs,
    patchInForceMs: median(patch.inForceMs),
    patchAnsweredMs: median(patch.answeredMs),
    idleCpuPercent: quiet.cpuPercent,
    rssMiB: quiet.rssMiB,
  };
  console.log();
  console.log(table(["WHAT", "FIGURE"], [
    ["up to ready (built)", `${upMs.toFixed(0)} ms`],
    ["PATCH sent to in force, under traffic", `${median(patch.inForceMs).toFixed(1)} ms`],
    ["PATCH sent to answered", `${median(patch.answeredMs).toFixed(1)} ms`],
    ["idle CPU of all services, two silent QEMU guests", `${quiet.cpuPercent.toFixed(2)} % of one core`],
    ["memory (RSS)", Object.entries(quiet.rssMiB).map(([name, mib]) => `${name} ${mib}`).join(", ") + " MiB"],
  ]));
}
const report = {
  at: new Date().toISOString(),
  command: "deno task bench",
  machine: machine(),
  engine,
  throughput: results,
  modes: modeResults,
  takeBacks: taken,
  system,
};
await Deno.mkdir(options.json.replace(/[^/]*$/, "") || ".", { recursive: true });
await Deno.writeTextFile(options.json, JSON.stringify(report, null, 2) + "\n");
console.log(`\n${JSON.stringify(machine())}\nwritten to ${options.json}`);
Deno.exit(0);
