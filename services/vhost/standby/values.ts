/** Reading what was kept of an object. Who wrote it is of the same version: it is believed. */
import type { Fd } from "../../../shared/os/mod.ts";
import type { KeptObject } from "./follower.ts";

/** The value of a part. */
export function valueOf<T>(object: KeptObject, name: string): T {
  const part = object.get(name);
  if (!part) throw new Error(`the process that has ended has not said what its ${name} is`);
  return part.value as T;
}

/** Takes a part's descriptors. */
export function fdsOf(object: KeptObject, name: string): Fd[] {
  return object.get(name)?.fds.splice(0) ?? [];
}
