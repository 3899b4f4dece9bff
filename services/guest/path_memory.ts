/**
 * The memory of a data path's plugin, into which exactly what that plugin may touch is mapped, out of the guest's RAM
 * and the VF's page of doorbells; and its guard, by which the machine can end it.
 */
import { AREA_EXCHANGE, AREA_RINGS, AREA_STATE, BUFFERS, PLUGIN_AREA, VIRTIO_AREA } from "../../shared/layout/guest.ts";
import * as P from "../../shared/layout/plugin.ts";
import { createEventFd, type Fd, WasmMemory } from "../../shared/os/mod.ts";
import { GUARD_IMPORT } from "../../shared/plugin/mod.ts";
import type { PathInstall } from "./worker_messages.ts";

/** A range of the guest's RAM that a device may reach. */
export interface DeviceRange {
  address: number;
  bytes: number;
}

/** Rings as a plugin has laid them out. */
export interface RingPlace {
  desc: bigint;
  avail: bigint;
  used: bigint;
  size: number;
}

/** How a data path is set up. */
export interface PathOptions {
  queuePairs: number;
  ringSize: number;
  features: bigint;
  headerBytes: number;
}

/**
 * The Wasm memories of one data path: its plugin's, and that of the plugin's guard. They are used by one plugin after
 * the other, since each takes gigabytes of address space until a garbage collector has found it.
 */
export class PathRoom {
  readonly memory = new WasmMemory(P.PLUGIN_MEMORY_BYTES);
  readonly guard = new WasmMemory(GUARD_IMPORT.pages * 65536);

  /** Nothing of the plugin before is left. No plugin runs in it. */
  clear(): void {
    this.memory.clear();
    this.guard.clear();
  }
}

/** A data path's plugin memory and eventfds. `path` 0 is the shell's own, 1 the injected one. */
export class PathMemory implements Disposable {
  readonly path: 0 | 1;
  readonly memory: WasmMemory;
  readonly #guard: WasmMemory;
  readonly #drivesVf: boolean;
  readonly kicks: Fd[];
  readonly calls: Fd[];
  readonly ranges: DeviceRange[];

  /** Lays out `room`, in which no plugin runs. */
  constructor(path: 0 | 1, ram: Fd, options: PathOptions, doorbells: Fd | undefined, room = new PathRoom()) {
    this.path = path;
    room.clear();
    this.memory = room.memory;
    this.#guard = room.guard;
    this.#drivesVf = doorbells !== undefined;
    const area = path === 0 ? VIRTIO_AREA : PLUGIN_AREA;
    this.memory.map(P.PLUGIN_STATE, ram.number, area + AREA_STATE, P.PLUGIN_STATE_BYTES);
    this.memory.map(P.PLUGIN_EXCHANGE, ram.number, area + AREA_EXCHANGE, P.PLUGIN_EXCHANGE_BYTES);
    this.memory.map(P.PLUGIN_RINGS, ram.number, area + AREA_RINGS, P.PLUGIN_RINGS_BYTES);
    this.memory.map(P.PLUGIN_BUFFERS, ram.number, BUFFERS, P.PLUGIN_BUFFER_COUNT * P.PLUGIN_BUFFER_BYTES);
    if (doorbells) this.memory.map(P.PLUGIN_DOORBELLS, doorbells.number, 0, P.PLUGIN_DOORBELLS_BYTES);
    // What the device may reach is what the plugin may reach: rings and buffers, by guest physical address.
    this.ranges = [
      { address: area + AREA_RINGS, bytes: P.PLUGIN_RINGS_BYTES },
      { address: BUFFERS, bytes: P.PLUGIN_BUFFER_COUNT * P.PLUGIN_BUFFER_BYTES },
    ];
    // These are pages of the guest's RAM: what the plugin before has left there is nobody's.
    for (
      const [at, bytes] of [
        [P.PLUGIN_STATE, P.PLUGIN_STATE_BYTES],
        [P.PLUGIN_EXCHANGE, P.PLUGIN_EXCHANGE_BYTES],
        [P.PLUGIN_RINGS, P.PLUGIN_RINGS_BYTES],
      ] as const
    ) new Uint8Array(this.memory.buffer, at, bytes).fill(0);
    const { view } = this.memory;
    view.setUint32(P.PLUGIN_STATE + P.PC_QUEUE_PAIRS, options.queuePairs, true);
    view.setUint32(P.PLUGIN_STATE + P.PC_RING_SIZE, options.ringSize, true);
    view.setBigUint64(P.PLUGIN_STATE + P.PC_FEATURES, options.features, true);
    view.setBigUint64(P.PLUGIN_STATE + P.PC_RINGS_IOVA, BigInt(area + AREA_RINGS), true);
    view.setBigUint64(P.PLUGIN_STATE + P.PC_BUFFERS_IOVA, BigInt(BUFFERS), true);
    view.setUint32(P.PLUGIN_STATE + P.PC_HEADER_BYTES, options.headerBytes, true);
    this.kicks = Array.from({ length: options.queuePairs * 2 }, () => createEventFd());
    this.calls = Array.from({ length: options.queuePairs * 2 }, () => createEventFd());
  }

  /** What the worker needs of it. */
  install(module: WebAssembly.Module): PathInstall {
    return {
      module,
      memory: this.memory.memory,
      guard: this.#guard.memory,
      kicks: this.kicks.map((fd) => fd.number),
      calls: this.calls.map((fd) => fd.number),
    };
  }

  /** Ends the plugin that runs in it: it traps wherever it is, and at every call from now on. */
  end(): void {
    Atomics.store(new Int32Array(this.#guard.buffer), 0, 1);
  }

  /** Which of the features that a plugin has to accept it says that it uses. */
  get accepted(): bigint {
    return this.memory.view.getBigUint64(P.PLUGIN_STATE + P.PC_ACCEPTED, true);
  }

  /** Where the plugin has laid out the rings of a queue. The device checks that they are where it may reach. */
  ring(queue: number): RingPlace {
    const at = P.PLUGIN_QUEUES + queue * P.PLUGIN_QUEUE_STRIDE;
    const { view } = this.memory;
    return {
      desc: view.getBigUint64(at + P.PQ_DESC, true),
      avail: view.getBigUint64(at + P.PQ_AVAIL, true),
      used: view.getBigUint64(at + P.PQ_USED, true),
      size: view.getUint32(at + P.PQ_SIZE, true),
    };
  }

  /** Its plugin has been taken away. What it had of the VF is let go: its doorbells, which would outlive their NIC. */
  [Symbol.dispose](): void {
    if (this.#drivesVf) this.memory.clear();
    for (const fd of [...this.kicks, ...this.calls]) fd.close();
  }
}
