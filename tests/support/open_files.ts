/**
 * Which open files this process's descriptors are of. Unit tests run side by side in one process, so how many
 * descriptors there are in all says nothing about one test's.
 */
import { fdTarget } from "../../shared/os/mod.ts";

/** A name of the open file behind a descriptor, its own for as long as a descriptor of it is open. */
export function openFileOf(fd: number): string {
  const target = fdTarget(fd);
  // All eventfds have one inode; each has a number.
  if (target === "anon_inode:[eventfd]") {
    return /^eventfd-id:.*$/m.exec(Deno.readTextFileSync(`/proc/self/fdinfo/${fd}`))?.[0] ?? target;
  }
  if (!target.startsWith("/memfd:")) return target;
  const { dev, ino } = Deno.statSync(`/proc/self/fd/${fd}`);
  return `${target} ${dev}:${ino}`;
}

/** How many descriptors of this process are of these open files. */
export function descriptorsOf(files: ReadonlySet<string>): number {
  return [...Deno.readDirSync("/proc/self/fd")].filter(({ name }) => {
    try {
      return files.has(openFileOf(Number(name)));
    } catch {
      // Another test has closed it since it was listed.
      return false;
    }
  }).length;
}
