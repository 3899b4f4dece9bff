/** What the guest's control thread and its worker tell each other. */
import type { MessagePort } from "node:worker_threads";

/** What the control thread hands over at the start. */
export interface GuestStart {
  memory: WebAssembly.Memory;
  module: WebAssembly.Module;
  port: MessagePort;
  epollFd: number;
  wakeFd: number;
  cpus: number[];
  spinNs: number;
}

/** A data path as the worker gets it: a plugin, its memory, and an eventfd for each of its queues, each way. */
export interface PathInstall {
  module: WebAssembly.Module;
  memory: WebAssembly.Memory;
  /** Whose first word ends the plugin when it is not 0. The shell's own plugin does not look at it. */
  guard: WebAssembly.Memory;
  kicks: number[];
  calls: number[];
}

/** What the control thread may ask of the worker. `path` 0 is the shell's own, 1 the injected plugin's. */
export type GuestRequest =
  | { op: "install"; path: 0 | 1; install: PathInstall }
  | { op: "remove"; path: 0 | 1 }
  | { op: "use"; path: 0 | 1 }
  | { op: "quiesce"; deadlineMs: number }
  | { op: "drain" }
  /** Nothing: the answer says that a burst has ended since. */
  | { op: "settle" }
  /** Takes in what has been received, and does nothing more until `thaw`. */
  | { op: "freeze" }
  | { op: "thaw" }
  /** The host's state is that of a guest that has just booted. */
  | { op: "boot" }
  | { op: "end" };

/** The worker's answers: `error` is a sentence; a fault comes unasked. */
export type GuestReply = { id: number; value?: unknown; error?: string } | { fault: string; path: number };
