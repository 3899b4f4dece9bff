/**
 * One-way latency between two of our built-in guests, each a process of its own with its worker on CPU 1, over one
 * back-end core: testpmd's net_vhost, which polls, and this NIC, polling and sleeping. The guests stand alone, so they
 * take any vhost-user socket.
 */
import { FlowState, type GeneratorState } from "../../shared/api/mod.ts";
import { READY_PREFIX } from "../../shared/api/service.ts";
import { ROOT } from "../../shared/wasm/load.ts";
import { table } from "../../services/cli/views.ts";
import { TestGuest } from "../support/guests.ts";
import { TestProcess } from "../support/process.ts";
import { until } from "../support/wait.ts";
import { type BackEnd, FRONT_CPU, MACS, missingPackages, startNetVhost, startRingfabric } from "./back_ends.ts";
import { type CoreProbe, NEAR_NS, untilNear } from "./core_distance.ts";
import { figureText, type Goal, goalText, isMissed, missedFirst } from "./judged.ts";
import type { PairedRowOptions } from "./options.ts";
import { median } from "./stats.ts";

/** What one run at one rate showed. */
interface LatencySample {
  p50: number;
  p99: number;
  p999: number;
  /** Frames that were sent and have not come. */
  lost: number;
  near: boolean;
}

/** One back-end at one rate. */
export interface LatencyResult {
  rate: number;
  backEnd: string;
  p50Us: number;
  p99Us: number;
  p999Us: number;
  lost: number;
  /** Against net_vhost at the same rate. */
  p50Ratio: number;
  p99Ratio: number;
  p50Goal?: Goal;
  p99Goal?: Goal;
  missed: boolean;
  /** Whether the CPUs were near each other. If they never were, all samples count. */
  gated: boolean;
  samples: LatencySample[];
}

const RATES = [1000, 10_000, 100_000] as const;
const SECONDS: Record<typeof RATES[number], number> = { 1000: 4, 10_000: 2, 100_000: 2 };
const FRAME_BYTES = 128;
/** The flow's counters stand still for so long: what has not come by then is lost. */
const SETTLE_MS = 300;
const NEAR_WAIT_MS = 10_000;

/** Names of the parts, for `--only`. */
export const LATENCY_NAMES: readonly string[] = RATES.map((rate) => `latency ${rate}`);

/** A back-end and its goals against net_vhost. */
interface Contestant extends BackEnd {
  p50Goal?: Goal;
  p99Goal?: Goal;
}

const NET_VHOST = "net_vhost, polling";

function contestants({ against }: PairedRowOptions): Contestant[] {
  const polling = ["--spin-us", "1000000"];
  return [
    { name: NET_VHOST, start: startNetVhost },
    { name: "ringfabric, polling", start: () => startRingfabric(undefined, polling), p99Goal: { atMost: 1 } },
    { name: "ringfabric, sleeping", start: () => startRingfabric(), p50Goal: { atMost: 2 } },
    ...(against === undefined ? [] : [
      { name: "other build, polling", start: () => startRingfabric(against, polling) },
      { name: "other build, sleeping", start: () => startRingfabric(against) },
    ]),
  ];
}

/** A guest that stands alone on a vhost-user socket. */
class LoneGuest extends TestGuest implements AsyncDisposable {
  readonly #process: TestProcess;

  private constructor(process: TestProcess, info: { api: string; ip: string }) {
    super(info);
    this.#process = process;
  }

  static async start(socket: string, index: 0 | 1): Promise<LoneGuest> {
    const process = new TestProcess(`guest ${index}`, Deno.execPath(), [
      ...["run", "--quiet", "-A", "--no-check", "services/guest/main.ts", "--listen", "127.0.0.1:0"],
      ...["--socket", socket, "--ip", `10.77.0.${index + 1}/24`, "--mac", MACS[index], "--cpus", String(FRONT_CPU)],
    ], { cwd: ROOT });
    try {
      const [line] = await process.expect(new RegExp(`^${READY_PREFIX}.*$`, "m"), 30_000);
      return new LoneGuest(process, JSON.parse(line.slice(READY_PREFIX.length)));
    } catch (error) {
      await process.end("SIGKILL");
      throw error;
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#process[Symbol.asyncDispose]();
  }
}

/** Sends for some seconds and waits until nothing more comes: the generator, and what its flow has become. */
async function stream(
  from: TestGuest,
  to: TestGuest,
  rate: number,
  seconds: number,
): Promise<[GeneratorState, FlowState]> {
  const { id, flow } = await from.send(to.ip, { rate, seconds, size: FRAME_BYTES });
  const generator = await until(
    "the generator to be done",
    async () => {
      const state = await from.generator(id);
      return state.state === "done" ? state : undefined;
    },
    (seconds + 10) * 1000,
    50,
  );
  let [seen, since] = [-1, performance.now()];
  const got = await until("the flow to end", async () => {
    const state = await to.flow(flow);
    if (!state) return undefined;
    if (state.received !== seen) [seen, since] = [state.received, performance.now()];
    return state.received >= generator.sent || performance.now() - since > SETTLE_MS ? state : undefined;
  });
  return [generator, got];
}

/** One turn of a back-end: all rates that are wanted. */
async function turn(end: BackEnd, rates: readonly typeof RATES[number][], probe: CoreProbe) {
  await using running = await end.start();
  await using a = await LoneGuest.start(running.sockets[0], 0);
  await using b = await LoneGuest.start(running.sockets[1], 1);
  await a.reaches(b.ip);
  await stream(a, b, 10_000, 0.5);
  const samples = new Map<number, LatencySample>();
  for (const rate of rates) {
    const before = await untilNear(probe, NEAR_WAIT_MS);
    const [{ sent }, { received, latencyUs: { p50, p99, p999 } }] = await stream(a, b, rate, SECONDS[rate]);
    const near = before < NEAR_NS && await probe.measure() < NEAR_NS;
    samples.set(rate, { p50, p99, p999, lost: sent - received, near });
  }
  return samples;
}

/** Runs the back-ends in turn. */
export async function latency(probe: CoreProbe, options: PairedRowOptions): Promise<LatencyResult[]> {
  const rates = RATES.filter((rate) => options.wanted(`latency ${rate}`));
  if (rates.length === 0) return [];
  if (missingPackages().has("dpdk-dev")) {
    options.report("Missing: apt-get install dpdk-dev (testpmd, all latency)");
    return [];
  }
  const ends = contestants(options);
  const samples = new Map<string, LatencySample[]>();
  for (let round = 0; round < options.rounds; round++) {
    for (const end of round % 2 === 0 ? ends : [...ends].reverse()) {
      for (const [rate, sample] of await turn(end, rates, probe)) {
        const key = `${rate} ${end.name}`;
        samples.set(key, [...samples.get(key) ?? [], sample]);
        const [p50, p99, p999] = [sample.p50, sample.p99, sample.p999].map((us) => us.toFixed(0));
        options.report(`${end.name}, ${rate} frames/s: p50 ${p50}, p99 ${p99}, p99.9 ${p999} us, ${sample.lost} lost`);
      }
    }
  }
  return rates.flatMap((rate) => ends.map((end) => judge(rate, end, samples)));
}

function judge(rate: number, end: Contestant, all: ReadonlyMap<string, LatencySample[]>): LatencyResult {
  const counting = (name: string) => {
    const samples = all.get(`${rate} ${name}`) ?? [];
    const near = samples.filter((sample) => sample.near);
    return near.length > 0 ? near : samples;
  };
  const of = (name: string, key: "p50" | "p99" | "p999") => median(counting(name).map((sample) => sample[key]));
  const p50Ratio = of(end.name, "p50") / of(NET_VHOST, "p50");
  const p99Ratio = of(end.name, "p99") / of(NET_VHOST, "p99");
  return {
    ...{ rate, backEnd: end.name, p50Ratio, p99Ratio, samples: all.get(`${rate} ${end.name}`) ?? [] },
    ...{ p50Us: of(end.name, "p50"), p99Us: of(end.name, "p99"), p999Us: of(end.name, "p999") },
    ...(end.p50Goal === undefined ? {} : { p50Goal: end.p50Goal }),
    ...(end.p99Goal === undefined ? {} : { p99Goal: end.p99Goal }),
    missed: isMissed(p50Ratio, end.p50Goal) || isMissed(p99Ratio, end.p99Goal),
    lost: counting(end.name).reduce((sum, { lost }) => sum + lost, 0),
    gated: counting(end.name).every(({ near }) => near),
  };
}

/** The figures side by side. */
export function latencyTable(results: readonly LatencyResult[]): string {
  const goals = ({ p50Goal, p99Goal }: LatencyResult) => {
    const parts = [...(p50Goal ? [`p50 ${goalText(p50Goal)}`] : []), ...(p99Goal ? [`p99 ${goalText(p99Goal)}`] : [])];
    return parts.join(", ") || "-";
  };
  return table(
    ["", "FRAMES/S", "BACK-END", "P50 US", "P99 US", "P99.9 US", "LOST", "P50 RATIO", "P99 RATIO", "TARGET", ""],
    missedFirst(results, ({ missed }) => missed).map((row) => [
      row.missed ? "MISSED" : "",
      row.rate,
      row.backEnd,
      ...[row.p50Us, row.p99Us, row.p999Us].map((us) => figureText(us, 1)),
      row.lost,
      ...[row.p50Ratio, row.p99Ratio].map((ratio) => figureText(ratio)),
      goals(row),
      row.gated ? "" : "not gated",
    ]),
  );
}
