/**
 * NPA's question: what does passthrough bring over emulated mode? Two built-in guests, one sending probes to the other's
 * echo service with so many on their way at a time, in each mode in turn. What counts is frames for CPU time, all
 * processes of the fabric together; latency is taken at a rate that leaves everybody time.
 */
import { assertEquals } from "@std/assert";
import { table } from "../../services/cli/views.ts";
import { TestFabric } from "../support/fabric.ts";
import { checkedStream, MODES, must, setMode, TestGuest } from "../support/guests.ts";
import { figureText, type Goal, goalText, isMissed, missedFirst } from "./judged.ts";
import { median } from "./stats.ts";
import { cpuSeconds } from "./system.ts";

/** One mode's figures. */
export interface ModeResult {
  /** The checkout that was measured: this one, or the one it is held against. */
  build: string;
  mode: string;
  bytes: number;
  /** Frames that went through the NIC, both ways together, in millions a second. */
  mpps: number;
  cpuSecondsPerMillionFrames: number;
  framesPerCpuSecond: number;
  /** Of that, what the host spends (all services), the guests' own work left out. */
  hostCpuSecondsPerMillionFrames: number;
  p50Us: number;
  p99Us: number;
  /** Frames for CPU time, against emulated mode of the same size: all CPU time, and the host's. */
  ratio: number;
  hostRatio: number;
}

const SECONDS = 3;
const WINDOW = 512;
const LATENCY_RATE = 10_000;

/** CPU seconds so far: the host's services, and the guests. */
function cpu(fabric: TestFabric): { host: number; guests: number } {
  const services = Object.entries(fabric.pids()).filter(([name]) => name !== "guest").map(([, pid]) => pid);
  const sum = (pids: number[]) => pids.reduce((total, pid) => total + cpuSeconds(pid), 0);
  return { host: sum(services), guests: sum(fabric.info.guests.map((_, i) => fabric.guestPid(i) ?? NaN)) };
}

/** Frames and CPU seconds of one closed-loop run. */
async function load(fabric: TestFabric, bytes: number) {
  const [a, b] = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)];
  const { id } = await a.send(b.ip, { rate: 0, size: bytes, echo: true, window: WINDOW });
  await new Promise((resolve) => setTimeout(resolve, 500));
  const frames = async () => {
    const counters = await Promise.all([0, 1].map((vf) => fabric.counters(vf)));
    return counters.reduce((sum, { rx_frames = 0 }) => sum + rx_frames, 0);
  };
  const [framesBefore, before, start] = [await frames(), cpu(fabric), performance.now()];
  await new Promise((resolve) => setTimeout(resolve, SECONDS * 1000));
  const [framesAfter, after, end] = [await frames(), cpu(fabric), performance.now()];
  await a.stop(id);
  await must(`${a.api}/api/v1/traffic`, "DELETE");
  await new Promise((resolve) => setTimeout(resolve, 100));
  const millions = (framesAfter - framesBefore) / 1e6;
  const host = (after.host - before.host) / millions;
  return { mpps: millions / (end - start) * 1000, host, cost: host + (after.guests - before.guests) / millions };
}

interface ModeSample {
  mpps: number;
  cost: number;
  host: number;
  p50: number;
  p99: number;
}

/** Both guests of a fabric in one mode: one sample. */
async function sampleMode(fabric: TestFabric, name: string, bytes: number): Promise<ModeSample> {
  const [a, b] = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)];
  const mode = MODES[name] ?? {};
  for (const vf of [0, 1]) await setMode(fabric, vf, mode);
  await a.reaches(b.ip);
  const loaded = await load(fabric, bytes);
  const { latencyUs } = await checkedStream(a, b, { rate: LATENCY_RATE, size: bytes, count: LATENCY_RATE });
  // A plugin that was ended on the way would have been measured as something else.
  for (const vf of [0, 1]) {
    const now = await must(`${fabric.info.api}/api/v1/vfs/${vf}/mode`);
    assertEquals([now.mode, now.plugin], [mode.mode, mode.plugin]);
  }
  return { ...loaded, p50: latencyUs.p50, p99: latencyUs.p99 };
}

/** No spinning: time that is spent waiting would blur what the frames cost. */
const ARGS = ["--guests", "2", "--spin-us", "0", "--guest-args", "--ring-size 512"];

/** Which modes are measured, and against what. */
export interface ModeOptions {
  /** Another checkout, built, whose fabric takes turns with this one's. */
  against?: string;
  /** Only the modes in whose names this is. */
  mode?: string;
}

/** The modes, taking turns `rounds` times, for each frame size. */
export async function modes(
  sizes: readonly number[],
  rounds: number,
  { against, mode: only = "" }: ModeOptions,
): Promise<ModeResult[]> {
  const names = Object.keys(MODES).filter((name) => name.includes(only));
  await using own = await TestFabric.start(2, ARGS);
  await using other = against === undefined ? undefined : await TestFabric.start(2, ARGS, undefined, against);
  const builds: [string, TestFabric][] = [["this", own], ...(other ? [["other", other] as [string, TestFabric]] : [])];
  const results: ModeResult[] = [];
  for (const bytes of sizes) {
    const samples: Record<string, ModeSample[]> = {};
    for (let round = 0; round < rounds; round++) {
      for (const name of names) {
        for (const [build, fabric] of round % 2 === 0 ? builds : [...builds].reverse()) {
          const sample = await sampleMode(fabric, name, bytes);
          (samples[`${build} ${name}`] ??= []).push(sample);
          console.error(
            `${build} ${name} ${bytes} B: ${sample.mpps.toFixed(2)} Mpps, ${sample.cost.toFixed(3)} CPU s/M frames`,
          );
        }
      }
    }
    for (const [build, name] of builds.flatMap(([build]) => names.map((name) => [build, name] as const))) {
      const of = (key: keyof ModeSample, mode = name) =>
        median((samples[`${build} ${mode}`] ?? []).map((sample) => sample[key]));
      results.push({
        build,
        mode: name,
        bytes,
        mpps: of("mpps"),
        cpuSecondsPerMillionFrames: of("cost"),
        framesPerCpuSecond: 1e6 / of("cost"),
        hostCpuSecondsPerMillionFrames: of("host"),
        p50Us: of("p50"),
        p99Us: of("p99"),
        ratio: of("cost", "emulated") / of("cost"),
        hostRatio: of("host", "emulated") / of("host"),
      });
    }
  }
  return results;
}

const GOAL: Goal = { atLeast: 2 };
const goalOf = ({ mode }: ModeResult) => mode === "emulated" ? undefined : GOAL;

/** The figures in a table. */
export function modesTable(results: readonly ModeResult[]): string {
  const missed = (row: ModeResult) => isMissed(row.ratio, goalOf(row));
  const figures = ["MPPS", "CPU S/M FRAMES", "OF IT HOST", "FRAMES/CPU S", "P50 US", "P99 US", "RATIO", "HOST RATIO"];
  return table(
    ["", "BUILD", "MODE", "BYTES", ...figures, "TARGET"],
    missedFirst(results, missed).map((row) => [
      missed(row) ? "MISSED" : "",
      row.build,
      row.mode,
      row.bytes,
      row.mpps.toFixed(2),
      row.cpuSecondsPerMillionFrames.toFixed(2),
      row.hostCpuSecondsPerMillionFrames.toFixed(2),
      Math.round(row.framesPerCpuSecond),
      row.p50Us.toFixed(0),
      row.p99Us.toFixed(0),
      figureText(row.ratio),
      figureText(row.hostRatio),
      goalText(goalOf(row)),
    ]),
  );
}
