/**
 * What a NIC's process tells the one that stands by for it. The engine's own state is in a memory file that both have;
 * here go the descriptors, and what the control thread knows: who drives which pool, with what memory and which queues. A
 * message is an entry: what one request, or one step of the NIC's own, has changed, together with how it was answered. So
 * the other one knows all of it or nothing.
 */
import type { UplinkSpec } from "../../../shared/api/mod.ts";
import type { PoolName, Reply, Request } from "../../../shared/device/mod.ts";
import type { LogPlace } from "../../../shared/engine/mod.ts";

/** Both ends speak the same, or there is no standby: bumped whenever a message or the engine's memory map changes. */
export const STANDBY_VERSION = 3;

/** What the one that stands by says first, and once it knows everything. */
export type FromStandby = { standsBy: number; pid: number } | { ready: true };

/** A connection of the device socket that goes on with the standby. */
export interface KeptConnection {
  id: string;
  guest: boolean;
}

/** A change. The descriptors of an entry are those of its changes, in their order. */
export type Change =
  /** The first: the engine's state, how its threads are seen to die, then the listening sockets. */
  | { kind: "nic"; instance: string; heir: number; sockets: string[] }
  /** A memory file with the PF's programme, as JSON of so many bytes. */
  | { kind: "programme"; bytes: number }
  | { kind: "uplink"; pool: PoolName; spec: UplinkSpec }
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

/** Changes that belong together. */
export interface Entry {
  changes: Change[];
  /** The request that made them, and what it was answered. */
  answered?: { connection: string; reply: Reply };
}

/** The last entry of what there was when the standby came: it knows everything now. */
export interface Complete {
  complete: true;
}
