/**
 * What vhost's process tells the one that stands by for it: parts of objects (a port, a session, the switch), each as a
 * whole whenever it changes. The one that stands by keeps them as they come, and makes ports and sessions of them only when
 * it takes over: so it costs little, and there is nothing in it that could differ.
 */
import type { Mirror } from "../../../shared/standby/mod.ts";

/** Both ends speak the same, or there is no standby: bumped whenever a part or the engine's memory map changes. */
export const STANDBY_VERSION = 2;

/** A change. */
export type Change =
  /** The first: the engine's state, and how its threads are seen to die. */
  | { kind: "engine"; heir: number }
  /** A part as it is now, with so many descriptors. */
  | { kind: "part"; of: string; name: string; value: unknown; fds: number }
  /** A part that is not there any more, or a whole object. */
  | { kind: "gone"; of: string; name?: string };

/** What tells the changes. */
export type VhostMirror = Mirror<Change>;
