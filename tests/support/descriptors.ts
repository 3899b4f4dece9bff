/**
 * What a process holds open, by kind, to see that nothing leaks. IP connections do not count: HTTP clients and servers
 * keep them for later requests, as many as there were requests at once, which says nothing about leaks.
 */
import { until } from "./wait.ts";

/** Open descriptors by kind. */
type Kinds = ReadonlyMap<string, number>;
/** Open descriptors of processes, by pid. */
export type Descriptors = ReadonlyMap<number, Kinds>;

function ipSockets(pid: number): Set<string> {
  const inodes = ["tcp", "tcp6"].flatMap((table) =>
    Deno.readTextFileSync(`/proc/${pid}/net/${table}`).trim().split("\n").slice(1)
      .map((line) => line.trim().split(/\s+/)[9] ?? "")
  );
  return new Set(inodes);
}

function ofProcess(pid: number): Kinds {
  const kinds = new Map<string, number>();
  // The tables are read before and after: a connection may begin or end meanwhile.
  const ip = ipSockets(pid);
  const links = [...Deno.readDirSync(`/proc/${pid}/fd`)].flatMap(({ name }) => {
    try {
      return [Deno.readLinkSync(`/proc/${pid}/fd/${name}`)];
    } catch {
      return []; // closed since the folder was read
    }
  });
  for (const inode of ipSockets(pid)) ip.add(inode);
  for (const link of links) {
    const [, kind = link, inode = ""] = /^(.*):\[(\d+)\]$/.exec(link) ?? [];
    if (kind === "socket" && ip.has(inode)) continue;
    kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
  }
  return kinds;
}

/** Reads what processes hold open now. */
export function openDescriptors(...pids: number[]): Descriptors {
  return new Map(pids.map((pid) => [pid, ofProcess(pid)]));
}

/** What is open beyond what was, as text; empty if nothing is. */
function growth(before: Kinds, now: Kinds): string {
  return [...now].filter(([kind, count]) => count > (before.get(kind) ?? 0))
    .map(([kind, count]) => `${kind}: ${before.get(kind) ?? 0} before, ${count} now`).join("; ");
}

/** Waits until none of these processes holds more of anything than it did; throws naming what is too much. */
export async function untilNoMoreDescriptors(before: Descriptors): Promise<void> {
  let more = "";
  try {
    await until("all descriptors to be closed", () => {
      more = [...before].map(([pid, kinds]) => {
        const grown = growth(kinds, ofProcess(pid));
        return grown && `process ${pid} holds ${grown}`;
      }).filter(Boolean).join("\n");
      return more === "";
    });
  } catch (cause) {
    throw new Error(`${(cause as Error).message}\n${more}`, { cause });
  }
}
