/**
 * What each data path costs between two guests: emulated mode's three, and passthrough, at three lengths of frames. The
 * paths take turns. All services of the host share CPU 0 and the guests' drivers have CPU 1 (data_path_driver.ts), so
 * frames a second are what one CPU of the host moves. Copies are counted by the services; kernel calls by perf, in a run
 * of its own.
 */
import { table } from "../../services/cli/views.ts";
import { setAffinity } from "../../shared/os/mod.ts";
import { TestFabric } from "../support/fabric.ts";
import { must, setMode } from "../support/guests.ts";
import { run } from "../support/judges.ts";
import { TestProcess } from "../support/process.ts";
import { until } from "../support/wait.ts";
import { BACK_CPU, FRONT_CPU } from "./back_ends.ts";
import { connectGuest, DataPathDriver } from "./data_path_driver.ts";
import { figureText, type Goal, goalText, isMissed, missedFirst } from "./judged.ts";
import type { RowOptions } from "./options.ts";
import { median } from "./stats.ts";
import { cpuSeconds } from "./system.ts";

/** What is measured, by its name. */
const PATHS: Record<string, Record<string, unknown>> = {
  "copy": { mode: "emulated", dataPath: "copy" },
  "zerocopy": { mode: "emulated", dataPath: "zerocopy" },
  "headersplit": { mode: "emulated", dataPath: "headersplit" },
  "passthrough": { mode: "passthrough" },
};
/** The path against which the others are held. */
const BASE = "copy";
/** 30 % less CPU time a GiB. */
const ZERO_COPY_GOAL: Goal = { atLeast: 1.43 };
const ZERO_COPY_BYTES_MIN = 1514;

/** Lengths of frames without FCS, by how people call them. */
const SIZES: Record<string, number> = { "64 B": 60, "1518 B": 1514, "64 KiB": 65_549 };
const NAME = "data paths";
/** Names of the parts, for `--only`. */
export const DATA_PATH_NAMES: readonly string[] = Object.keys(SIZES).map((size) => `${NAME} ${size}`);

const SECONDS = 2;
const WARM_UP_SECONDS = 0.3;
const CALLS_SECONDS = 0.5;
const GIB = 1024 ** 3;
const PERF = "/usr/bin/perf";

/** What one turn showed. */
interface Sample {
  framesPerS: number;
  gbitPerS: number;
  /** CPU time of the NIC and vhost. */
  cpuSecondsPerGiB: number;
  copies: number;
  /** System calls of the NIC and vhost a frame; NaN without perf. */
  calls: number;
}

/** One path at one length. */
export interface DataPathResult {
  path: string;
  size: string;
  samples: Sample[];
}

/** A fabric with two guests, and who serves them. */
interface World {
  fabric: TestFabric;
  driver: DataPathDriver;
  /** The NIC and vhost. */
  pids: number[];
}

function hasPerf(): boolean {
  try {
    return Deno.statSync(PERF).isFile;
  } catch {
    return false;
  }
}

/** Frames that vhost's own engine has copied so far: out of the sender's memory, and into the receiver's. */
async function copiedByVhost(fabric: TestFabric, path: string): Promise<number> {
  const ports = await Promise.all([0, 1].map((vf) => must(`${fabric.url("vhost")}/api/v1/ports/${vf}`)));
  if (ports.every(({ session }) => session.frames)) {
    const [from, to] = ports.map(({ session }) => session.frames);
    return from.sentCopied + to.receivedCopied;
  }
  const ofKind = (port: number, kind: string) =>
    ports[port].session.queues.find((queue: { kind: string }) => queue.kind === kind).frames;
  return path === BASE ? ofKind(0, "tx") + ofKind(1, "rx") : 0;
}

/** System calls of the NIC and vhost for each frame of a run. */
async function callsPerFrame({ driver, pids }: World): Promise<number> {
  if (!hasPerf()) return NaN;
  const counter = ["stat", "-x,", "-e", "raw_syscalls:sys_enter", "-p", pids.join(",")];
  await using perf = new TestProcess("perf", PERF, counter);
  const isCounting = () =>
    [...Deno.readDirSync(`/proc/${perf.pid}/fd`)].some(({ name }) => {
      try {
        return Deno.readLinkSync(`/proc/${perf.pid}/fd/${name}`).includes("perf_event");
      } catch {
        return false;
      }
    });
  await until("perf to count", isCounting);
  const { frames } = driver.run(CALLS_SECONDS);
  await perf.end("SIGINT");
  const [calls = ""] = /^\d+(?=,)/m.exec(perf.errors) ?? [];
  if (calls === "") throw new Error(`perf counted nothing: ${perf.errors}`);
  return Number(calls) / frames;
}

async function sample(world: World, path: string, bytes: number): Promise<Sample> {
  const { fabric, driver, pids } = world;
  for (const vf of [0, 1]) await setMode(fabric, vf, PATHS[path] ?? {});
  driver.run(WARM_UP_SECONDS);
  const delivered = async () => (await fabric.counters(1)).rx_frames ?? 0;
  const cpu = () => pids.reduce((sum, pid) => sum + cpuSeconds(pid), 0);
  const [deliveredBefore, copiedBefore] = [await delivered(), await copiedByVhost(fabric, path)];
  const cpuBefore = cpu();
  const { frames, seconds } = driver.run(SECONDS);
  const cpuAfter = cpu();
  const [deliveredAfter, copiedAfter] = [await delivered(), await copiedByVhost(fabric, path)];
  return {
    framesPerS: frames / seconds,
    gbitPerS: frames * bytes * 8 / seconds / 1e9,
    cpuSecondsPerGiB: (cpuAfter - cpuBefore) / (frames * bytes) * GIB,
    // The NIC copies a frame once for whoever gets it.
    copies: (deliveredAfter - deliveredBefore + copiedAfter - copiedBefore) / frames,
    calls: await callsPerFrame(world),
  };
}

/** All paths in turn, at each length that is wanted. */
export async function dataPaths({ rounds, wanted, report }: RowOptions): Promise<DataPathResult[]> {
  const sizes = Object.entries(SIZES).filter(([size]) => wanted(`${NAME} ${size}`));
  if (sizes.length === 0) return [];
  if (!hasPerf()) report("Missing: apt-get install linux-perf (kernel calls a frame)");
  await using fabric = await TestFabric.start(2, ["--spin-us", "0"]);
  const [from, to] = [fabric.vf(0), fabric.vf(1)];
  await using sender = await connectGuest(from.socket);
  await using receiver = await connectGuest(to.socket);
  const driver = new DataPathDriver({ front: sender, mac: from.mac }, { front: receiver, mac: to.mac });
  const pids = [fabric.pid("nic"), fabric.pid("vhost")];
  for (const pid of pids) await run("taskset", ["-a", "-c", "-p", String(BACK_CPU), String(pid)]);
  setAffinity([FRONT_CPU]);
  const results: DataPathResult[] = [];
  for (const [size, bytes] of sizes) {
    driver.prepare(bytes);
    const rows = Object.keys(PATHS).map((path): DataPathResult => ({ path, size, samples: [] }));
    for (let round = 0; round < rounds; round++) {
      for (const { path, samples } of round % 2 === 0 ? rows : rows.toReversed()) {
        const seen = await sample({ fabric, driver, pids }, path, bytes);
        samples.push(seen);
        report(`${NAME} ${size}, ${path}: ${JSON.stringify(seen)}`);
      }
    }
    results.push(...rows);
  }
  setAffinity(Array.from({ length: navigator.hardwareConcurrency }, (_, cpu) => cpu));
  return results;
}

/** The medians in a table. */
export function dataPathsTable(results: readonly DataPathResult[]): string {
  const of = ({ samples }: DataPathResult, key: keyof Sample) => median(samples.map((sample) => sample[key]));
  const saving = (row: DataPathResult) => {
    const base = results.find(({ path, size }) => path === BASE && size === row.size);
    return base ? of(base, "cpuSecondsPerGiB") / of(row, "cpuSecondsPerGiB") : NaN;
  };
  const goal = ({ path, size }: DataPathResult) =>
    path === "zerocopy" && (SIZES[size] ?? 0) >= ZERO_COPY_BYTES_MIN ? ZERO_COPY_GOAL : undefined;
  const missed = (row: DataPathResult) => isMissed(saving(row), goal(row));
  return table(
    [
      ...["", "FRAMES", "DATA PATH", "FRAMES/S", "GBIT/S", "HOST CPU S/GIB", "COPIES A FRAME", "CALLS A FRAME"],
      ...["COPY'S CPU TIME TO ITS", "TARGET"],
    ],
    missedFirst(results, missed).map((row) => [
      missed(row) ? "MISSED" : "",
      row.size,
      row.path,
      of(row, "framesPerS").toFixed(0),
      figureText(of(row, "gbitPerS")),
      figureText(of(row, "cpuSecondsPerGiB"), 3),
      figureText(of(row, "copies")),
      figureText(of(row, "calls"), 4),
      figureText(saving(row)),
      goalText(goal(row)),
    ]),
  );
}
