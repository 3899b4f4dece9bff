/** One round of a port's thread: the Wasm module's part and the kernel's, and how they are put together. */
import * as N from "../layout/netdev.ts";
import { sendXdp } from "../os/xdp_socket.ts";
import type { Calls } from "./calls.ts";
import type { PortIo } from "./worker_messages.ts";

/** Exports of assembly/netdev. */
export interface PortExports {
  start(): void;
  compose(): number;
  settle(): number;
  wake(): void;
  arm(): number;
  unfinished(): number;
  abandon(): void;
  mayRead(): number;
  startXdp(): void;
  xdpRound(): number;
  unsent(): number;
  armXdp(): number;
  abandonXdp(): number;
}

/** How a port's frames are moved. */
export interface Rounds {
  readonly io: PortIo;
  readonly pollFd: number | undefined;
  /** Calls of the kernel so far. */
  readonly calls: number;
  start(): void;
  /** One round: answers STATUS_* bits. */
  round(): number;
  /** Asks for interrupts; whether there is something to do already. */
  arm(): boolean;
  /** There is nothing to do: how long at most, in ms; -1: until something comes. */
  idle(): number;
  close(): void;
}

/** Rounds of reads and writes. */
export class CallRounds implements Rounds {
  calls = 0;
  readonly #module: PortExports;
  readonly #calls: Calls;

  constructor(module: PortExports, calls: Calls) {
    this.#module = module;
    this.#calls = calls;
  }

  get io(): PortIo {
    return this.#calls.io;
  }

  get pollFd(): number | undefined {
    return this.#calls.pollFd;
  }

  start(): void {
    this.#module.start();
  }

  round(): number {
    const count = this.#module.compose();
    if (count > 0) this.calls += this.#calls.submit(count);
    return this.#module.settle();
  }

  arm(): boolean {
    return this.#module.arm() !== 0;
  }

  idle(): number {
    const ms = this.#calls.idle();
    // Whose time has come needs a descriptor too.
    return this.#module.mayRead() !== 0 ? ms : -1;
  }

  close(): void {
    this.#calls.close();
  }
}

// asm-generic/errno.h
const ENXIO = 6;
const ENETDOWN = 100;
/** How often a thread that has nothing else to do looks whether the kernel has sent what it has. */
const COMPLETION_MS = 1;

/** Rounds of an AF_XDP socket's rings. */
export class XdpRounds implements Rounds {
  readonly io = "af_xdp";
  readonly pollFd = undefined;
  calls = 0;
  readonly #module: PortExports;
  readonly #view: DataView;
  readonly #file: number;

  constructor(module: PortExports, memory: WebAssembly.Memory, file: number) {
    this.#module = module;
    this.#view = new DataView(memory.buffer);
    this.#file = file;
  }

  start(): void {
    this.#module.startXdp();
  }

  round(): number {
    const status = this.#module.xdpRound();
    if ((status & N.STATUS_SEND) === 0) return status;
    const before = this.#module.unsent();
    const code = sendXdp(this.#file);
    this.calls++;
    if (code === ENETDOWN || code === ENXIO) {
      return this.#module.abandonXdp() !== 0 ? status | N.STATUS_ROOM : status;
    }
    // It takes some at a time. If it takes none it has no room, and there will be some when others are sent.
    return this.#module.unsent() < before ? status | N.STATUS_WORK : status;
  }

  arm(): boolean {
    return this.#module.armXdp() !== 0;
  }

  /** Nobody says that a frame has been sent, and the NIC may wait for its buffer. */
  idle(): number {
    return this.#view.getUint32(N.ND_CONTROL + N.NS_IN_FLIGHT, true) > 0 ? COMPLETION_MS : -1;
  }

  close(): void {}
}
