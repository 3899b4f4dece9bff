/** What a port gives its sessions and their ring backends. */
import type { PoolName, VfLink } from "../../shared/device/mod.ts";
import { COALESCE_ADAPTIVE, type LinkPatch, MTU_DEFAULT } from "../../shared/api/mod.ts";
import { QUEUE_PAIRS_MAX } from "../../shared/layout/nic.ts";
import type { Pace } from "../../shared/async/mod.ts";
import type { Notifier, Reactor } from "../../shared/os/mod.ts";
import type { PipeThreads } from "./wakeups.ts";
import type { RingBackend, RingBackendEvents, RingPath } from "./ring_backend.ts";
import type { Replica } from "./standby/mod.ts";

/** What a port belongs to: a VF, the uplink, or a guest without a VF. */
export type PortName = number | "uplink" | `vport${number}`;

/** What the guest of a port sees that nobody has set. */
export const NO_LINK: VfLink = {
  ...{ mac: "00:00:00:00:00:00", up: false, mtu: MTU_DEFAULT, queuePairs: QUEUE_PAIRS_MAX },
  coalesce: COALESCE_ADAPTIVE,
};

/** What a session needs of its port. */
export interface SessionContext {
  /** What the port's front-ends may ask of engines: the port's, so that a new connection has no new budget. */
  pace: Pace;
  /** Raises error descriptors. */
  notifier: Pick<Notifier, "raise">;
  /** For front-ends that send pipes; the port's, so that new connections get no more of them. */
  pipeThreads: PipeThreads;
  reactor: Reactor;
  log(level: "info" | "warn", message: string): void;
  /** What the guest sees of its port. */
  link(): VfLink;
  /** Asks the PF for what the guest wishes; answers why it is refused, if it is, or that nobody waits any more. */
  wish(wish: LinkPatch, stopped: AbortSignal): Promise<string | undefined>;
  /** Tells the PF, as soon as it listens, that what the guest wished to receive is no longer wanted. */
  forgetWishes(): void;
  /** Tells the PF that the guest, which is being moved, stands still. */
  paused(): void;
  /** Announces an address of the guest to everybody in its VLAN (RFC 903's request, as front-ends ask for it). */
  announce(mac: string): Promise<void>;
  /** Makes the backend of a data path; none where the guest drives its VF by itself. */
  makeBackend(path: RingPath, events: RingBackendEvents): RingBackend | undefined;
}

/** A port's surroundings. */
export interface PortContext extends SessionContext {
  name: PortName;
  deviceSocket: string;
  /** What a standby is told of the port goes there. */
  replica: Replica;
  /** Told that the port's rings wait for a new NIC, and when they run again or are given up. */
  recovers(isRecovering: boolean): void;
}

/** What a VF's or the uplink's port is called on the device socket. */
export function poolOf(name: PortName): PoolName {
  if (typeof name === "number" || name === "uplink") return name;
  throw new Error(`Cannot attach ${name} to the NIC: it has no VF`);
}
