/** What is behind a netdev port: a file of the kernel whose frames go to the NIC, and to which those of the NIC go. */

/** How the worker moves a backend's frames. */
export type Drive =
  /** One frame a read or write, the virtio-net header of 12 bytes before it. */
  | { kind: "frames"; file: number }
  /** One frame a message, the header of 10 bytes before it (packet sockets). */
  | { kind: "messages"; file: number };

/** How the interface behind a port is. */
export interface Link {
  isUp: boolean;
  /** Why it is not up, or why nobody can say. */
  reason?: string;
  mtu?: number;
  mac?: string;
}

/** One backend. It outlives the ports that drive it. */
export interface Backend extends Disposable {
  /** Whom it is of, for people: `tap rf0`. */
  readonly name: string;
  /** The interface. */
  readonly interface: string;
  readonly drive: Drive;
  /** The virtio-net offloads (feature bits) that it can have. */
  readonly features: bigint;
  /** These features are in force: what the kernel hands over may ask for what the NIC finishes, and nothing else. */
  accept(features: bigint): void;
  /** How the interface is; `undefined`: it is gone. */
  link(): Link | undefined;
  /** Frames that the kernel has dropped on their way here, by name. */
  kernelDrops(): Record<string, number>;
  close(): void;
}
