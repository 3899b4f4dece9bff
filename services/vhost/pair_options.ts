/** What a driver pair is told at its beginning. */
import type { MemoryRegion, PoolName } from "../../shared/device/mod.ts";
import type { Reactor } from "../../shared/os/mod.ts";
import type { Directness } from "./pair_layout.ts";

/** Where a driver pair leads, and who is told. */
export interface DriverPairOptions {
  deviceSocket: string;
  reactor: Reactor;
  /** The NIC's pool that it drives, and the pool of this engine that its frames belong to. */
  remote: PoolName;
  pool: number;
  owner: string;
  /** Emulated mode's path: frames go straight between the pair and the pool's queues, past the switch. */
  emulated: boolean;
  /** How much goes past the pair's own buffers. */
  directness: Directness;
  /** On a direct path, the virtio features of the guest's rings: offloads are between it and the NIC. */
  features?(): bigint;
  /** What the NIC sees of the guest's memory beside the pair's own, as regions of its domain, with their files. */
  guestMemory?(): { regions: MemoryRegion[]; fds: number[] };
  /** On a direct path, the guest's transmit queues, as arena offsets. */
  guestQueues?(): readonly number[];
  /** Told before the pair attaches anew: what is outstanding at the NIC that has gone will not be done. */
  onLost?(): void;
  /** Told why, when the NIC has stopped one of the pair's queues. */
  onFailed?(reason: string): void;
  /** Whether there is anybody for the frames from the NIC; while there is not, rx is not polled. */
  isReceiving(): boolean;
  /** Told when what a standby has of it has changed. */
  onChange(): void;
  log(level: "info" | "warn", message: string): void;
}
