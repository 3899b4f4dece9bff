/**
 * What a NIC's process tells the one that stands by for it, beside its engine's state: who drives which pool, with what
 * memory and which queues.
 */
import type { UplinkState } from "../../../shared/api/mod.ts";
import type { PoolName, Request } from "../../../shared/device/mod.ts";
import { Mirror } from "../../../shared/standby/mod.ts";
import type { LogPlace } from "../../../shared/engine/mod.ts";

/** Both ends speak the same, or there is no standby: bumped whenever a message or the engine's memory map changes. */
export const STANDBY_VERSION = 4;

/** A connection of the device socket that goes on with the standby. */
export interface KeptConnection {
  id: string;
  guest: boolean;
}

/** A change. */
export type Change =
  /** The first: the engine's state, how its threads are seen to die, then the listening sockets. */
  | { kind: "nic"; instance: string; heir: number; sockets: string[] }
  /** A memory file with the PF's programme, as JSON of so many bytes. */
  | { kind: "programme"; bytes: number }
  | { kind: "uplink"; pool: PoolName; uplink: UplinkState }
  /** A lease, and the connection that has it, if it is still there. */
  | {
    kind: "lease";
    pool: number;
    request: Extract<Request, { op: "attach" }>;
    hold: string | undefined;
    graceMs: number;
    inherited: [string, number][];
    connection: KeptConnection | undefined;
  }
  | { kind: "ended"; pool: number; reason: string }
  /** A connection that is told of the VFs. */
  | { kind: "watch"; connection: KeptConnection }
  /** A connection that has ended; a lease that it had goes on for its grace. */
  | { kind: "closed"; connection: string }
  /** The whole memory table of a pool; a descriptor for each region. */
  | { kind: "memory"; pool: number; regions: Extract<Request, { op: "dmaSet" }>["regions"] }
  /** The dirty log of a pool's guest: a place in the file that comes along, or none. */
  | { kind: "log"; pool: number; place: LogPlace | undefined }
  | { kind: "registers"; pool: number }
  /** A queue that runs, or has another call descriptor now. */
  | { kind: "queue"; pool: number; request: Omit<Extract<Request, { op: "queueStart" }>, "op"> }
  | { kind: "queueStopped"; pool: number; index: number }
  /** A pool's packet buffer. */
  | { kind: "buffer"; pool: number; count: number }
  | { kind: "hold"; pool: number; id: string; token: string | undefined; endsAtMs: number; isEnding: boolean }
  | { kind: "holdEnded"; pool: number };

/** What tells the changes. */
export type NicMirror = Mirror<Change>;

/** What tells the changes of an engine's process, whose memory `view` is. */
export function newMirror(view: DataView): NicMirror {
  return new Mirror(view, { service: "nic", version: STANDBY_VERSION });
}
