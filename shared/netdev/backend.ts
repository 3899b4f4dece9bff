/** What is behind a netdev port: a file of the kernel whose frames go to the NIC, and to which those of the NIC go. */
import type { WasmMemory } from "../os/mod.ts";

/**
 * A file of the kernel that has one frame for each call: "frames": a read or a write, the virtio-net header of 12 bytes
 * before the frame; "messages": a message of a packet socket, the header of 10 bytes before it.
 */
export interface FileDrive {
  kind: "frames" | "messages";
  file: number;
}

/** Capture files: one whose frames come in, one into which those go that go out. */
export interface CaptureDrive {
  kind: "capture";
  replay?: number;
  record?: number;
  /** At the pace at which they were seen; else as fast as they are taken. */
  isPaced: boolean;
  /** After the last frame comes the first one again. */
  loops: boolean;
}

/** An AF_XDP socket whose packet memory and rings are in the port's memory. */
export interface XdpDrive {
  kind: "xdp";
  file: number;
}

/** How the worker moves a backend's frames. */
export type Drive = FileDrive | CaptureDrive | XdpDrive;

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
  /** The interface, if it is one. */
  readonly interface: string | undefined;
  /** The virtio-net offloads (feature bits) that it can have. */
  readonly features: bigint;
  /** These features are in force: what the kernel hands over may ask for what the NIC finishes, and nothing else. */
  accept(features: bigint): void;
  /** What the worker of a port with this memory is to drive. */
  open(memory: WasmMemory): Drive | Promise<Drive>;
  /** That worker has begun. */
  begin?(): void;
  /** That worker has ended. */
  release?(): void;
  /** How it is; `undefined`: it is gone. `note`: what its port's worker has said of it last. */
  link(note?: string): Link | undefined;
  /** Frames that the kernel has dropped on their way here, by name. */
  kernelDrops(): Record<string, number>;
  close(): void;
}
