/** What a group may use of a fabric: the way to the ports' sockets, and the sockets. Everything else is its owner's. */
import { oneLine } from "./service.ts";

/** The number of a group, by its number or its name. Throws if there is none of that name. */
export function groupId(group: string): number {
  if (/^\d{1,10}$/.test(group)) return Number(group);
  for (const line of Deno.readTextFileSync("/etc/group").split("\n")) {
    const [name, , id] = line.split(":");
    if (name === group && id !== undefined) return Number(id);
  }
  throw new Error(`there is no group ${group}`);
}

function share(path: string, gid: number, mode: number): void {
  try {
    Deno.chownSync(path, null, gid);
    Deno.chmodSync(path, mode);
  } catch (error) {
    throw new Error(`Cannot give ${path} to group ${gid}: ${oneLine(error)}; its owner must be root, or in that group`);
  }
}

/** Lets a group pass through a directory: it may not list it. */
export function sharePassage(dir: string, gid: number): void {
  share(dir, gid, 0o710);
}

/** Lets a group connect to a socket. */
export function shareSocket(path: string, gid: number): void {
  share(path, gid, 0o660);
}
