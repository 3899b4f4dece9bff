/**
 * Who drives a port's rings: the NIC itself (passthrough), this service's engine with a wire to the NIC (emulated), or
 * this service's software switch (a vport). A session asks all of them the same things, in the words of the device
 * socket, so that one can take over from the other while the guest runs.
 */
import type { RequestInput } from "../../shared/device/mod.ts";
import type { PoolName } from "../../shared/device/mod.ts";
import type { DataPath } from "../../shared/api/mod.ts";
import type { Pace } from "../../shared/async/mod.ts";
import type { Notifier, Reactor } from "../../shared/os/mod.ts";
import type { PipeThreads } from "./wakeups.ts";

/** What a port belongs to: a VF, the uplink, or a guest without a VF. */
export type PortName = number | "uplink" | `vport${number}`;

/** Asks a driver something. */
export type Ask = (body: RequestInput, fds?: readonly number[]) => Promise<Record<string, unknown>>;

/** A port's surroundings. */
export interface PortContext {
  name: PortName;
  deviceSocket: string;
  reactor: Reactor;
  /** What the port's front-ends may ask of engines: the port's, so that a new connection has no new budget. */
  pace: Pace;
  /** Raises error descriptors. */
  notifier: Notifier;
  /** For front-ends that send pipes; the port's, so that new connections get no more of them. */
  pipeThreads: PipeThreads;
  log(level: "info" | "warn", message: string): void;
  /** Makes the driver of a data path; none where the guest drives its VF by itself. */
  makeDriver(path: DataPath, events: DriverEvents): Driver | undefined;
}

/** What a VF's or the uplink's port is called on the device socket. */
export function poolOf(name: PortName): PoolName {
  if (typeof name === "number" || name === "uplink") return name;
  throw new Error(`Cannot attach ${name} to the NIC: it has no VF`);
}

/** Whom a driver tells. */
export interface DriverEvents {
  /** What drove the rings has gone and come back: put everything in force again, with `ask`. */
  resume(ask: Ask): Promise<void>;
  lost(): void;
  queueFailed(index: number, reason: string): void;
}

/** Drives the rings of one session. */
export interface Driver {
  /** Gets hold of what it drives; answers the features that queues may have. Throws DeviceRefusal with the reason. */
  attach(): Promise<bigint>;
  request: Ask;
  /**
   * Delivers what is on its way: called when the guest's transmit rings have been stopped and its receive rings still
   * run. Throws if it does not get through; everything is then as before.
   */
  drain(): Promise<void>;
  /** Gives back what it holds; its queues stop. */
  release(reason: string): Promise<void>;
}
