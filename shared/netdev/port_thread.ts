/** A port's worker as the control thread sees it: begun, told to be quiet, told to end. */
import { ND_CONTROL, NS_REQUEST, NS_RING_FD, REQUEST_END, REQUEST_QUIET, REQUEST_RUN } from "../layout/netdev.ts";
import {
  closeNumber,
  createEventFd,
  Epoll,
  EPOLLET,
  EPOLLIN,
  type Fd,
  signalEventFd,
  type WasmMemory,
} from "../os/mod.ts";

import type { Drive } from "./backend.ts";
import { CALL, type PortIo, type PortReport, type PortStart, WAKE } from "./worker_messages.ts";

/** How long the worker may take to write what the NIC has handed over. */
const END_MS = 1000;

/** What a port's thread is given. */
export interface ThreadParts {
  memory: WasmMemory;
  module: WebAssembly.Module;
  drive: Drive;
  plain: boolean;
  /** The eventfds between the port and the NIC. */
  kick: Fd;
  room: Fd;
  call: Fd;
}

/** A port's worker. */
export class PortThread {
  /** Resolves when it has ended: why, if nobody told it to. */
  readonly ended: Promise<string | undefined>;
  /** What it has said last of what is behind the port. */
  note: string | undefined;
  readonly #worker: Worker;
  readonly #wake = createEventFd();
  readonly #epoll = new Epoll();
  readonly #words: Int32Array;
  readonly #ready = Promise.withResolvers<PortIo>();
  readonly #quiet = Promise.withResolvers<void>();

  constructor(parts: ThreadParts) {
    this.#words = new Int32Array(parts.memory.buffer);
    this.#epoll.add(this.#wake.number, EPOLLIN | EPOLLET, WAKE);
    this.#epoll.add(parts.call.number, EPOLLIN | EPOLLET, CALL);
    this.#worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module", name: "netdev" });
    const ended = Promise.withResolvers<string | undefined>();
    this.ended = ended.promise;
    this.#worker.addEventListener("message", ({ data }: MessageEvent<PortReport>) => {
      if (data.told === "ready") this.#ready.resolve(data.io);
      else if (data.told === "quiet") this.#quiet.resolve();
      else if (data.told === "note") this.note = data.text;
      else ended.resolve(data.reason);
    });
    this.#worker.addEventListener("error", (event) => {
      event.preventDefault();
      const reason = `its thread failed: ${event.message}`;
      this.#ready.reject(new Error(reason));
      ended.resolve(reason);
    });
    this.#ready.promise.catch(() => {});
    const { memory: { memory }, module, drive, plain, kick, room } = parts;
    const start: PortStart = {
      ...{ memory, module, drive, plain },
      ...{ epollFd: this.#epoll.number, wakeFd: this.#wake.number, kickFd: kick.number, roomFd: room.number },
    };
    this.#worker.postMessage(start);
  }

  /** Resolves when the rings are laid out, with how frames will be moved. */
  get ready(): Promise<PortIo> {
    return this.#ready.promise;
  }

  #request(what: number): void {
    Atomics.store(this.#words, (ND_CONTROL + NS_REQUEST) / 4, what);
    signalEventFd(this.#wake.number);
  }

  /** Lets it read what comes from outside. */
  run(): void {
    this.#request(REQUEST_RUN);
  }

  /** Has it read no more; resolves when the NIC has taken what was read, or `deadlineMs` later. */
  async quiet(deadlineMs: number): Promise<void> {
    this.#request(REQUEST_QUIET);
    await within(deadlineMs, Promise.race([this.#quiet.promise, this.ended]));
  }

  /** Has it write what the NIC has handed over, and end. Nothing of it is left then. */
  async close(): Promise<void> {
    this.#request(REQUEST_END);
    await within(END_MS, this.ended);
    this.#worker.terminate();
    const ring = Atomics.exchange(this.#words, (ND_CONTROL + NS_RING_FD) / 4, 0);
    if (ring > 0) closeNumber(ring);
    this.#epoll.close();
    this.#wake.close();
  }
}

/** Waits for a promise, but no longer than that. */
export async function within(deadlineMs: number, promise: Promise<unknown>): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise((resolve) => timer = setTimeout(resolve, deadlineMs));
  await Promise.race([promise, late]);
  clearTimeout(timer);
}
