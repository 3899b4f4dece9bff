/**
 * Who serves a port's rings: the NIC itself (passthrough), this service's engine with a driver pair to the NIC
 * (emulated), or this service's software switch (a vport). A session asks all of them the same things, in the words of
 * the device socket, so that one can take over from the other while the guest runs.
 */
import type { DataPath, Limits, PathFrames, PortState, QueueState } from "../../shared/api/mod.ts";
import type { RequestInput } from "../../shared/device/mod.ts";
import type { KeptPart, Part } from "./standby/mod.ts";
import type { Vring } from "./vring.ts";

/** Who serves the rings, and in emulated mode how: `emulated` copies. */
export type RingPath = DataPath | "zerocopy" | "headersplit";

/** The path of a port that is to be served so. */
export function ringPathOf(
  { dataPath, emulatedPath = "copy" }: Pick<PortState, "dataPath" | "emulatedPath">,
): RingPath {
  return dataPath === "emulated" && emulatedPath !== "copy" ? emulatedPath : dataPath;
}

/** Whether a path has the guest's own buffers on the VF's queues. */
export function isDirectPath(path: RingPath): path is "zerocopy" | "headersplit" {
  return path === "zerocopy" || path === "headersplit";
}

/** Asks a backend something. */
export type Ask = (body: RequestInput, fds?: readonly number[]) => Promise<Record<string, unknown>>;

/** Whom a backend tells. */
export interface RingBackendEvents {
  /** What served the rings has gone and come back: put everything in force again, with `ask`. */
  restoreRings(ask: Ask): Promise<void>;
  /** What a standby has of it has changed; resolves when the standby has been told. */
  changed(): Promise<void>;
  lost(): void;
  queueFailed(index: number, reason: string): void;
}

/** How a backend succeeds that of a process which has ended. */
export interface Succession {
  /** Whether that process had asked it for something, and nobody knows what has become of it. */
  wasAsked: boolean;
  /** The rings that ran. */
  rings: readonly Vring[];
  ringAt(index: number): Vring;
  /** Says to a backend what memory and which dirty log there are. */
  tellMemory(ask: Ask): Promise<void>;
  /** Says to it where a ring goes on that ran. */
  startAgain(ask: Ask, ring: Vring): Promise<void>;
}

/** Serves the rings of one session. */
export interface RingBackend {
  /** Gets hold of what it serves them with. Throws DeviceRefusal. */
  attach(): Promise<void>;
  request: Ask;
  /** The guest's queues, and what it has of its limits, if they are this service's. */
  readonly rings: { queues: QueueState[]; limits: Limits } | undefined;
  /** What the PF has set of the port has changed. */
  settingsChanged(): void;
  /**
   * Delivers what is on its way: called when the guest's transmit rings have been stopped and its receive rings still
   * run. Throws if it does not get through; everything is then as before.
   */
  drain(): Promise<void>;
  /** How the guest's frames have gone, of a path that tells. */
  readonly frames?: PathFrames | undefined;
  /** What whoever stands by has of it. */
  readonly kept?: Part;
  /**
   * Goes on with what a process had that has ended, before its engine is taken over; `tellAll` says to it what it was told.
   * False if it cannot: then it has nothing of it, and begins anew.
   */
  adopt?(kept: KeptPart, succession: Succession): Promise<boolean>;
  /** Goes on, when this process's engine has taken over. */
  goOn?(succession: Succession): Promise<void>;
  /** Gives back what it has; its queues stop. */
  release(reason: string): Promise<void>;
}
