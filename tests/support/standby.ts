/** A service that has a standby, and what a stream of numbered frames sees of its deaths. */
import { assert } from "@std/assert";
import type { TestFabric } from "./fabric.ts";
import { must } from "./guests.ts";
import type { NumberedStream } from "./numbered_stream.ts";
import { childrenOf } from "./process.ts";
import { until } from "./wait.ts";

const FRAMES_AFTER = 500;
const DEADLINE_MS = 20_000;

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
