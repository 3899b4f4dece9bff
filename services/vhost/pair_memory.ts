/**
 * What a driver pair holds of this process: its memory in the arena, the NIC's doorbells, and the descriptors by which both
 * sides wake each other. All of it lies in files, so that another process can go on with the pair where it is.
 */
import { ADV_PAGE_BYTES } from "../../shared/layout/advanced.ts";
import { QUEUE_STRIDE, REGISTER_PAGES } from "../../shared/layout/nic.ts";
import { DeviceRefusal } from "../../shared/device/mod.ts";
import type { Engine } from "../../shared/engine/mod.ts";
import {
  ArenaFullError,
  createEventFd,
  createMemfd,
  EPOLLET,
  EPOLLIN,
  type Fd,
  sealShrink,
  signalEventFd,
  type Window,
} from "../../shared/os/mod.ts";
import type { SwitchExports } from "./exports.ts";
import { PAIR_BYTES, PAIR_SHARED_BYTES } from "./pair_layout.ts";

/** The two queues, as arena offsets, and the pool of this engine that they belong to. */
export interface PairQueues {
  rx: number;
  tx: number;
  pool: number;
}

/** The memory and the descriptors of one driver pair. */
export class PairMemory {
  readonly file: Fd;
  readonly kick: Fd;
  readonly call: Fd;
  readonly sent: Fd;
  /** The NIC's doorbells, while they are mapped. */
  #page: Fd | undefined;
  readonly #engine: Engine<SwitchExports>;
  readonly #queues: PairQueues;
  readonly #window: Window;

  /** `before`: the files of a process that has ended, as `fds` has them. Throws DeviceRefusal `arena-full`. */
  constructor(engine: Engine<SwitchExports>, queues: PairQueues, before: readonly Fd[] = []) {
    this.#engine = engine;
    this.#queues = queues;
    const [file, kick, call, sent, page] = before;
    this.kick = kick ?? createEventFd();
    this.call = call ?? createEventFd();
    this.sent = sent ?? createEventFd();
    this.#page = page;
    try {
      this.#window = engine.arena.allocate(PAIR_BYTES);
    } catch (error) {
      for (const fd of [this.kick, this.call, this.sent, file, page]) fd?.close();
      if (error instanceof ArenaFullError) throw new DeviceRefusal("arena-full", `emulated mode: ${error.message}`);
      throw error;
    }
    this.file = file ?? createMemfd("ringfabric-driver-pair", PAIR_SHARED_BYTES);
    sealShrink(this.file.number);
    engine.arena.map(this.#window, this.file.number, 0, PAIR_SHARED_BYTES);
    engine.epoll.add(this.call.number, EPOLLIN | EPOLLET, queues.rx);
    engine.epoll.add(this.sent.number, EPOLLIN | EPOLLET, queues.tx);
  }

  /** Its files, for whoever stands by: they stay the pair's. */
  get fds(): Fd[] {
    return [this.file, this.kick, this.call, this.sent, ...(this.#page ? [this.#page] : [])];
  }

  /** Where it is in the arena. */
  get offset(): number {
    return this.#window.offset;
  }

  /** Where the doorbells are in the arena. */
  get registers(): number {
    return REGISTER_PAGES + this.#queues.pool * ADV_PAGE_BYTES;
  }

  /** Maps the NIC's doorbells, whose page becomes the pair's. Both queues stand still. */
  mapRegisters(page: Fd | undefined = this.#page): void {
    if (!page) return;
    this.#engine.arena.mapOwn(this.registers, page.number, ADV_PAGE_BYTES);
    if (page !== this.#page) this.#page?.close();
    this.#page = page;
  }

  /** Wakes both sides: what was published last may have gone unannounced. */
  wake(): void {
    for (const fd of [this.kick, this.call]) signalEventFd(fd.number);
  }

  /** Gives everything back. The engine no longer polls the queues. */
  close(): void {
    const { arena, epoll } = this.#engine;
    this.#engine.between(() => {
      for (const fd of [this.call, this.sent]) epoll.remove(fd.number);
      for (const at of [this.#queues.rx, this.#queues.tx]) {
        this.#engine.forgetCall(at);
        new Uint8Array(arena.buffer, at, QUEUE_STRIDE).fill(0);
      }
    });
    if (this.#page) arena.unmapOwn(this.registers, ADV_PAGE_BYTES);
    arena.release(this.#window);
    for (const fd of this.fds) fd.close();
  }
}
