/** What a port's control thread hands its worker, and what that tells. */
import type { Drive } from "./backend.ts";

/** How frames are moved. */
export type PortIo = "io_uring" | "readv" | "af_xdp" | "file";

/** What the worker is given at the start. */
export interface PortStart {
  memory: WebAssembly.Memory;
  module: WebAssembly.Module;
  epollFd: number;
  wakeFd: number;
  /** The eventfd by which the NIC is told of frames. */
  kickFd: number;
  /** The eventfd by which it is told of room for what it has for the port. */
  roomFd: number;
  drive: Drive;
  /** No io_uring, whether there is one or not. */
  plain: boolean;
}

/** What waits in the worker's epoll, by data number. */
export const WAKE = 0;
export const CALL = 1;
export const RING = 2;

/** What the worker tells: first `ready`, last `ended`; `quiet` answers REQUEST_QUIET. */
export type PortReport =
  | { told: "ready"; io: PortIo }
  | { told: "quiet" }
  /** Something that whoever looks at the port is to know. */
  | { told: "note"; text: string }
  | { told: "ended"; reason?: string };
