/** A service that has a standby, and what a stream of numbered frames sees of its deaths. */
import { assert } from "@std/assert";
import type { TestFabric } from "./fabric.ts";
import type { VirtqueueName } from "./formats.ts";
import { must, setMode } from "./guests.ts";
import type { NumberedStream } from "./numbered_stream.ts";
import { childrenOf } from "./process.ts";
import { StreamedPair } from "./streamed_pair.ts";
import { until } from "./wait.ts";

const FRAMES_AFTER = 500;
const DEADLINE_MS = 20_000;
/** Deaths of a service in one test. */
export const KILLS = Number(Deno.env.get("STANDBY_KILLS") ?? 4);

/** How two guests are attached: the format of their rings, and the data path of emulated mode; undefined: passthrough. */
export type Way = readonly [VirtqueueName, "copy" | "zerocopy" | undefined];

/** A way as tests name it. */
export function nameOf([format, dataPath]: Way): string {
  return dataPath === undefined ? format : `${format}, emulated by ${dataPath}`;
}

/** The process of a service that works, once another one stands by for it. */
export async function activeOf(fabric: TestFabric, service: "nic" | "vhost"): Promise<number> {
  let standby = 0;
  await until("a process to stand by", async () => {
    const state = await must(`${fabric.url(service)}/api/v1/state`).catch(() => undefined);
    standby = state?.standby.pid ?? 0;
    return state?.standby.state === "ready";
  }, 20_000);
  const all = childrenOf(fabric.process.pid).filter((pid) =>
    Deno.readTextFileSync(`/proc/${pid}/cmdline`).includes(`services/${service}/main.ts`)
  );
  const active = all.filter((pid) => pid !== standby);
  assert(active.length === 1 && all.includes(standby), `processes ${all}, of them ${standby} stands by`);
  return active[0] as number;
}

/** The longest time without a frame until some hundreds have come, in milliseconds. */
export async function outage(stream: NumberedStream): Promise<number> {
  const goal = stream.received + FRAMES_AFTER;
  let [longestMs, seen, sinceMs] = [0, stream.received, performance.now()];
  const deadline = sinceMs + DEADLINE_MS;
  while (stream.received < goal) {
    stream.step();
    const nowMs = performance.now();
    if (stream.received > seen) {
      longestMs = Math.max(longestMs, nowMs - sinceMs);
      [seen, sinceMs] = [stream.received, nowMs];
    }
    if (nowMs > deadline) throw new Error(`no frame came for ${DEADLINE_MS} ms`);
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
  return longestMs;
}

/** Outages as they are looked at: each of a few, the middle and the last of many. */
export function told(outages: readonly number[]): string {
  const sorted = outages.toSorted((a, b) => a - b).map((ms) => ms.toFixed(1));
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
  return sorted.length < 10 ? `${sorted.join(", ")} ms` : `p50 ${at(0.5)} ms, p99 ${at(0.99)} ms`;
}

/**
 * Kills the process of `service` again and again under a stream of numbered frames from VF 0 to VF 1, each time once
 * another one stands by. Each frame arrives once, and each buffer comes back.
 */
export async function killUnderStream(fabric: TestFabric, service: "nic" | "vhost", way: Way): Promise<void> {
  const [format, dataPath] = way;
  for (const vf of dataPath === undefined ? [] : [0, 1]) await setMode(fabric, vf, { mode: "emulated", dataPath });
  await using pair = await StreamedPair.attach(fabric, format);
  const { stream } = pair;
  const outages: number[] = [];
  for (let kill = 0; kill < KILLS; kill++) {
    let active = 0;
    await stream.during("a process to stand by", async () => (active = await activeOf(fabric, service)) > 0);
    await stream.more(300 + Math.floor(Math.random() * 300));
    Deno.kill(active, "SIGKILL");
    outages.push(await outage(stream));
  }
  await pair.endWhole();
  console.log(`${nameOf(way)}: ${stream.sent} frames, outages of ${told(outages)}`);
  pair.checkBuffers();
}
