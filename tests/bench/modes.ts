/**
 * NPA's question: what does passthrough bring over emulated mode? Two built-in guests, one sending probes to the other's
 * echo service with so many on their way at a time, in each mode in turn. What counts is frames for CPU time, all
 * processes of the fabric together; latency is taken at a rate that leaves everybody time.
 */
import { TestFabric } from "../support/fabric.ts";
import { checkedStream, MODES, must, setMode, TestGuest } from "../support/guests.ts";
import { cpuSeconds, median } from "./system.ts";

/** One mode's figures. */
export interface ModeResult {
  mode: string;
  bytes: number;
  /** Frames that went through the NIC, both ways together, in millions a second. */
  mpps: number;
  cpuSecondsPerMillionFrames: number;
  framesPerCpuSecond: number;
  p50Us: number;
  p99Us: number;
  /** Frames for CPU time, against emulated mode of the same size. */
  ratio: number;
}

const SECONDS = 3;
const WINDOW = 512;
const LATENCY_RATE = 10_000;

function pids(fabric: TestFabric): number[] {
  return [...Object.values(fabric.pids()), ...fabric.info.guests.map((_, i) => fabric.guestPid(i))];
}

/** Frames a second and CPU seconds of one closed-loop run. */
async function load(fabric: TestFabric, bytes: number): Promise<{ frames: number; cpu: number; seconds: number }> {
  const [a, b] = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)];
  const { id } = await a.send(b.ip, { rate: 0, size: bytes, echo: true, window: WINDOW });
  await new Promise((resolve) => setTimeout(resolve, 500));
  const all = pids(fabric);
  const counters = async () => (await fabric.counters(0)).rx_frames! + (await fabric.counters(1)).rx_frames!;
  const [before, cpuBefore, start] = [
    await counters(),
    all.reduce((sum, pid) => sum + cpuSeconds(pid), 0),
    performance.now(),
  ];
  await new Promise((resolve) => setTimeout(resolve, SECONDS * 1000));
  const [after, cpuAfter] = [await counters(), all.reduce((sum, pid) => sum + cpuSeconds(pid), 0)];
  const seconds = (performance.now() - start) / 1000;
  await a.stop(id);
  await must(`${a.api}/api/v1/traffic`, "DELETE");
  await new Promise((resolve) => setTimeout(resolve, 100));
  return { frames: after - before, cpu: cpuAfter - cpuBefore, seconds };
}

/** All modes, taking turns `rounds` times, for each frame size. */
export async function modes(sizes: readonly number[], rounds: number): Promise<ModeResult[]> {
  // Little spinning: time that is spent waiting would blur what the frames cost.
  await using fabric = await TestFabric.start(2, [
    "--guests",
    "2",
    "--spin-us",
    "20",
    "--guest-args",
    "--spin-us 20 --ring-size 512",
  ]);
  const [a, b] = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)];
  await a.reaches(b.ip);
  const results: ModeResult[] = [];
  for (const bytes of sizes) {
    const samples: Record<string, { mpps: number; cost: number; p50: number; p99: number }[]> = {};
    for (let round = 0; round < rounds; round++) {
      for (const [name, mode] of Object.entries(MODES)) {
        for (const vf of [0, 1]) await setMode(fabric, vf, mode);
        const { frames, cpu, seconds } = await load(fabric, bytes);
        const { latencyUs } = await checkedStream(a, b, { rate: LATENCY_RATE, size: bytes, count: LATENCY_RATE });
        const sample = {
          mpps: frames / seconds / 1e6,
          cost: cpu / (frames / 1e6),
          p50: latencyUs.p50,
          p99: latencyUs.p99,
        };
        (samples[name] ??= []).push(sample);
        console.error(
          `${name} ${bytes} B: ${sample.mpps.toFixed(2)} Mpps, ${sample.cost.toFixed(2)} CPU s for a million frames`,
        );
      }
    }
    const cost = (name: string) => median((samples[name] ?? []).map(({ cost }) => cost));
    for (const name of Object.keys(MODES)) {
      const of = (key: "mpps" | "p50" | "p99") => median((samples[name] ?? []).map((sample) => sample[key]));
      results.push({
        mode: name,
        bytes,
        mpps: of("mpps"),
        cpuSecondsPerMillionFrames: cost(name),
        framesPerCpuSecond: 1e6 / cost(name),
        p50Us: of("p50"),
        p99Us: of("p99"),
        ratio: cost("emulated") / cost(name),
      });
    }
  }
  return results;
}
