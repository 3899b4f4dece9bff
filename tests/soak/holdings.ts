/** What a fabric holds at rest, to see that nothing leaks: processes, descriptors, mapped memory files, windows, memory. */
import { ARENA_BYTES, WINDOW_BYTES } from "../../shared/os/mod.ts";
import { openDescriptors } from "../support/descriptors.ts";
import { must } from "../support/guests.ts";
import { childrenOf } from "../support/process.ts";
import { until } from "../support/wait.ts";
import { Cost } from "./cost.ts";
import { GUESTS, PAIRS, SERVICES, type World } from "./world.ts";

/** A garbage collector may be so late, by MiB; a leak of an hour is more. */
const HEAP_SLACK_MIB = 192;
const LET_GO_MS = 20_000;
/** vhost makes it when it first reads a guest's memory itself, and keeps it. */
const MADE_ONCE = "vhost: descriptors of /memfd:ringfabric-scratch (deleted)";

/**
 * An event loop of a thread of the runtime's. A minute of soak may end with one more of them, and so may half an hour;
 * an hour has ended with none more. So nothing grows with the steps; which thread it is, is not known.
 */
const EVENT_LOOP = /: descriptors of anon_inode:\[(eventpoll|eventfd)\]$/;

/** Amounts by name, such as `nic: mapped memory files`. */
export type Holdings = ReadonlyMap<string, number>;

/** Memory files that a process has mapped, each counted once. */
function mappedFiles(pid: number): number {
  const lines = Deno.readTextFileSync(`/proc/${pid}/maps`).split("\n").filter((line) => line.includes("/memfd:"));
  return new Set(lines.map((line) => line.split(/\s+/).slice(3, 5).join(" "))).size;
}

function heapMib(pid: number): number {
  const [, kib = "0"] = /^RssAnon:\s+(\d+) kB/m.exec(Deno.readTextFileSync(`/proc/${pid}/status`)) ?? [];
  return Math.round(Number(kib) / 1024);
}

function descendants(pid: number): number[] {
  return childrenOf(pid).flatMap((child) => [child, ...descendants(child)]);
}

/** Every process of the world, by name. */
function processesOf(world: World): [string, number | undefined][] {
  const { fabric, far } = world;
  const services = SERVICES.flatMap((name) =>
    world.processes(name).map((pid, i): [string, number] => [i === 0 ? name : `${name}'s standby`, pid])
  );
  const guests = Array.from({ length: GUESTS }, (_, i): [string, number | undefined] => [
    `guest ${i}`,
    fabric.guestPid(i),
  ]);
  const there = Object.entries(far?.fabric.pids() ?? {}).map(([name, pid]): [string, number] => [`far ${name}`, pid]);
  return [["up", fabric.process.pid], ...services, ...guests, ...there, ["far guest", far?.fabric.guestPid(0)]];
}

/** Reads what the world holds now. */
async function readHoldings(world: World): Promise<Holdings> {
  const found = new Map<string, number>();
  for (const [name, pid] of processesOf(world)) {
    if (pid === undefined) continue;
    for (const [kind, count] of openDescriptors(pid).get(pid) ?? []) {
      // A successor has threads of other numbers.
      const file = kind.replace(/\/proc\/\d+\/task\/\d+\//, "/proc/PID/task/TID/");
      found.set(`${name}: descriptors of ${file}`, count);
    }
    found.set(`${name}: mapped memory files`, mappedFiles(pid));
    found.set(`${name}: heap in MiB`, heapMib(pid));
  }
  for (const [where, fabric] of [["", world.fabric], ["far ", world.far?.fabric]] as const) {
    if (!fabric) continue;
    found.set(`${where}processes`, descendants(fabric.process.pid).length);
    const { engine, vfs } = await must(`${fabric.url("nic")}/api/v1/state`);
    // A successor's memory lies elsewhere, and its first window up to one window's size higher: only whole ones count.
    found.set(`${where}nic: windows`, Math.floor((ARENA_BYTES - engine.arenaFreeBytes) / WINDOW_BYTES));
    for (const [i, { memory, limits }] of vfs.entries()) {
      found.set(`${where}vf ${i}: regions`, memory.regions);
      found.set(`${where}vf ${i}: bytes mapped`, limits.memory.used);
    }
  }
  return found;
}

function slackOf(name: string): number {
  if (name === MADE_ONCE || EVENT_LOOP.test(name)) return 1;
  return name.endsWith("heap in MiB") ? HEAP_SLACK_MIB : 0;
}

/** What is more than it was, beyond what a collector may be late with. */
function growth(before: Holdings, now: Holdings): string[] {
  return [...now].filter(([name, count]) => count > (before.get(name) ?? 0) + slackOf(name)).map(([name, count]) =>
    `${name}: ${before.get(name) ?? 0} before, ${count} now`
  );
}

/** Everything is made that is made at first use, and whoever works has taken over from somebody. */
async function warmUp(world: World): Promise<void> {
  const cost = new Cost(GUESTS);
  await world.useUplink("nic");
  await world.capture("capture", 0);
  if (world.far) await world.moveGuest(0, cost);
  for (const name of PAIRS) {
    await world.end(name, "active", cost);
    await until(
      `${name} to answer`,
      () => must(`${world.fabric.url(name)}/api/v1/state`).then(() => true, () => false),
    );
  }
}

/** Reads what a world at rest holds in which everything has been made that is made at first use. */
export async function holdingsOf(world: World): Promise<Holdings> {
  await warmUp(world);
  await world.rest();
  return await readHoldings(world);
}

/** What a world at rest holds beyond `before`; empty if nothing leaked. */
export async function leaks(world: World, before: Holdings): Promise<string[]> {
  await world.rest();
  let more: string[] = [];
  await until(
    "everything to be let go",
    async () => {
      more = growth(before, await readHoldings(world));
      return more.length === 0;
    },
    LET_GO_MS,
    200,
  ).catch(() => {});
  return more;
}

/** Processes that still have something to do with a run directory after its fabric has ended. */
export function leftBehind(runDir: string): string[] {
  return [...Deno.readDirSync("/proc")].filter(({ name }) => /^\d+$/.test(name) && Number(name) !== Deno.pid)
    .flatMap(({ name }) => {
      try {
        const command = Deno.readTextFileSync(`/proc/${name}/cmdline`).replaceAll("\0", " ");
        return command.includes(runDir) ? [`process ${name} is left: ${command}`] : [];
      } catch {
        return []; // it has ended since
      }
    });
}
