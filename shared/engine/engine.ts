/**
 * The control thread's side of the engine: the arena, the worker, and `between`, which runs a change while the worker
 * stands still between two bursts. So nothing ever changes under a burst: the quiescence that RCU gave vhost_net. The
 * module is instantiated here too, over the same memory, so that both threads use one filter table and one ring code.
 */
import {
  CALL_LIST,
  CTL,
  CTL_CALL_COUNT,
  CTL_COOL_NS,
  CTL_FAULTS,
  CTL_GENERATION,
  CTL_PARKED,
  CTL_PAUSE,
  FAULTS_BYTES,
  PAUSE_END,
  Q_CALL_PENDING,
  WINDOWS,
} from "../layout/nic.ts";
import {
  Arena,
  createEventFd,
  createMemfd,
  Epoll,
  EPOLLIN,
  type Fd,
  holdForLife,
  installSigbusGuard,
  Life,
  type LifePlace,
  monotonicNs,
  sealSize,
  signalEventFd,
  takeFaults,
} from "../os/mod.ts";
import { writeActive } from "./active_list.ts";
import { type EngineThread, startEngineThread } from "./engine_thread.ts";
import type { EngineExports, WorkerReport, WorkerStart } from "./engine_worker.ts";

/** Threads that touch the rings: the control thread and the worker. */
export const ENGINE_THREADS = 2;

/** How long the worker may take to stand still before it counts as dead. */
const PARK_DEADLINE_MS = 5000;
const PARK_CHECK_MS = 20;
/** How long a queue may have no work, where many are polled, before it is left alone until its driver kicks. */
const COOL_NS = 200_000;

/** Settings of an engine. */
export interface EngineOptions {
  /** CPUs the worker runs on; empty for any. */
  cpus: number[];
  /** How long it polls without work before it sleeps; adaptive if it is not said (`spin.ts`). */
  spinUs?: number | undefined;
  /** It stands still from the start, until it takes over from another one (`takeOver`). */
  standsBy?: boolean;
  /** Its thread, if that has been started already. */
  thread?: EngineThread | undefined;
}

/** The engine as the control thread sees it; `Exports` are its functions. */
export class Engine<Exports extends EngineExports = EngineExports> {
  readonly arena: Arena;
  readonly view: DataView;
  readonly epoll = new Epoll();
  /** Whether a guest that truncates its memory is survived (shared/os/sigbus.ts). */
  readonly guarded: boolean;
  onReport: (report: WorkerReport) => void = () => {};
  onDeath: (reason: string) => void = () => {};
  /**
   * Told where memory faults were caught since the last time: the arena offset of each 2 MiB. It is called inside
   * `between`, before the change, so that whoever had a window when the fault happened still has it.
   */
  onMemoryFaults: (offsets: readonly number[]) => void = () => {};

  readonly #words: Int32Array;
  readonly #wasm: Exports;
  readonly #wake = createEventFd();
  readonly #worker: Worker;
  /** The memory file of its own state, all that lies below the windows: it outlives the process. */
  #state: Fd;
  /** By which others see the threads die that touch the rings: this one and the worker. */
  readonly #life = new Life(ENGINE_THREADS);
  #standsBy = false;
  #paused = false;
  /** Odd while the worker is to stand still, even while it may run. */
  #ticket = 0;

  private constructor(module: WebAssembly.Module, worker: Worker, { cpus, spinUs }: EngineOptions) {
    const arena = this.arena = new Arena(WINDOWS);
    holdForLife(this.#life.lock(0));
    this.#state = createMemfd("ringfabric-engine-state", WINDOWS);
    sealSize(this.#state.number);
    arena.mapOwn(0, this.#state.number, WINDOWS);
    this.view = new DataView(arena.buffer);
    this.#words = new Int32Array(arena.buffer);
    this.view.setFloat64(CTL + CTL_COOL_NS, COOL_NS, true);
    this.guarded = installSigbusGuard(arena, CTL + CTL_FAULTS);
    this.epoll.add(this.#wake.number, EPOLLIN, 0);
    this.#worker = worker;
    const start: WorkerStart = {
      memory: arena.memory,
      module,
      epollFd: this.epoll.number,
      wakeFd: this.#wake.number,
      life: this.#life.lock(1),
      cpus,
      spinNs: spinUs === undefined ? undefined : spinUs * 1000,
    };
    worker.postMessage(start);
    // The worker makes its instance meanwhile.
    const imports = { env: { memory: arena.memory, now: monotonicNs } };
    this.#wasm = new WebAssembly.Instance(module, imports).exports as unknown as Exports;
  }

  /** Builds the arena and starts the worker; resolves when it polls. */
  static async start<Exports extends EngineExports>(options: EngineOptions): Promise<Engine<Exports>> {
    const thread = options.thread ?? startEngineThread();
    const engine = new Engine<Exports>(await thread.module, thread.worker, options);
    const ready = new Promise<void>((resolve) => {
      thread.worker.addEventListener("message", (event: MessageEvent<WorkerReport>) => {
        if (event.data === "ready") resolve();
        else engine.onReport(event.data);
      });
    });
    await Promise.race([ready, thread.failed]).catch((error) => {
      throw new Error(`the engine's worker failed: ${error.message}`);
    });
    thread.failed.catch((error) => engine.onDeath(error.message));
    if (options.standsBy) engine.standBy();
    return engine;
  }

  /** Stands still from now on, until it takes over from another engine (`takeOver`). */
  standBy(): void {
    this.#pause();
    this.#standsBy = true;
  }

  /** Whether it waits to take over from another engine, which uses the same rings: it must not touch them. */
  get standsBy(): boolean {
    return this.#standsBy;
  }

  /** The memory file of its own state, for whoever stands by for it. It stays the engine's. */
  get state(): Fd {
    return this.#state;
  }

  /** The memory by which others see its threads die (`whenDead`). It stays the engine's. */
  get life(): Fd {
    return this.#life.file;
  }

  /** Where its life is, for whoever has no descriptor of it. */
  get lifePlace(): LifePlace {
    return { fd: this.life.number, threads: ENGINE_THREADS };
  }

  /**
   * Takes over from an engine that has ended or stands still for good, whose state is in the file `state`: it goes on with
   * the same queues. `restore` finds again what lies elsewhere in this arena; it is told whether the other one ended while
   * its tables were being changed.
   */
  takeOver(state: Fd, restore: (wasChanging: boolean) => void): void {
    this.arena.mapOwn(0, state.number, WINDOWS);
    this.#state.close();
    this.#state = state;
    const [pause, parked] = [(CTL + CTL_PAUSE) / 4, (CTL + CTL_PARKED) / 4];
    const wasChanging = (Atomics.load(this.#words, pause) & 1) === 1;
    Atomics.store(this.#words, parked, this.#ticket);
    Atomics.store(this.#words, pause, this.#ticket);
    // Faults of another arena are nobody's here: whose memory is gone has this process fault anew.
    new Uint8Array(this.arena.buffer, CTL + CTL_FAULTS, FAULTS_BYTES).fill(0);
    this.#standsBy = false;
    try {
      restore(wasChanging);
      this.#wasm.endAdoption();
    } finally {
      this.#goOn();
    }
  }

  /** Stands still for good, between two bursts, for whoever takes over; answers how to go on after all. */
  standStill(): () => void {
    this.#pause();
    return () => this.#goOn();
  }

  #goOn(): void {
    const generation = this.view.getUint32(CTL + CTL_GENERATION, true);
    this.view.setUint32(CTL + CTL_GENERATION, generation + 1, true);
    this.#resume();
  }

  /** The engine's functions. Those that change state may only be called inside `between`. */
  get wasm(): Exports {
    return this.#wasm;
  }

  /**
   * Runs `change` while the worker stands still, and makes it forget its cached decisions. Nested calls join the outer
   * one. The pause lasts as long as `change`, so that must be short. Memory faults up to now are attributed first: no
   * window changes hands before that.
   */
  between<T>(change: () => T): T {
    if (this.#paused) return change();
    this.#pause();
    try {
      this.#attributeFaults();
      return change();
    } finally {
      this.#goOn();
    }
  }

  #pause(): void {
    const parked = (CTL + CTL_PARKED) / 4;
    const ticket = this.#nextTicket();
    Atomics.store(this.#words, (CTL + CTL_PAUSE) / 4, ticket);
    signalEventFd(this.#wake.number);
    const deadline = performance.now() + PARK_DEADLINE_MS;
    for (;;) {
      const seen = Atomics.load(this.#words, parked);
      if (seen === ticket) break;
      if (Atomics.wait(this.#words, parked, seen, PARK_CHECK_MS) !== "timed-out") continue;
      if (performance.now() > deadline) {
        this.onDeath(`the engine did not stand still within ${PARK_DEADLINE_MS} ms`);
        throw new Error(`Cannot change the engine: it did not stand still within ${PARK_DEADLINE_MS} ms`);
      }
    }
    this.#paused = true;
  }

  #nextTicket(): number {
    this.#ticket = (this.#ticket + 1) & 0x7fff_ffff;
    return this.#ticket;
  }

  #resume(): void {
    this.#paused = false;
    Atomics.store(this.#words, (CTL + CTL_PAUSE) / 4, this.#nextTicket());
    Atomics.notify(this.#words, (CTL + CTL_PAUSE) / 4);
  }

  /** Takes a queue's interrupt off the lists of what the worker has not raised yet. Only inside `between`. */
  forgetCall(at: number): void {
    this.#wasm.forgetDeferral(at);
    if (this.view.getUint32(at + Q_CALL_PENDING, true) === 0) return;
    const count = this.view.getUint32(CTL + CTL_CALL_COUNT, true);
    const list = new Uint32Array(this.arena.buffer, CALL_LIST, count);
    const rest = list.filter((pointer) => pointer !== at);
    list.set(rest);
    this.view.setUint32(CTL + CTL_CALL_COUNT, rest.length, true);
    this.view.setUint32(at + Q_CALL_PENDING, 0, true);
  }

  /**
   * The queues that send, as arena offsets. New ones are polled at first; those that have gone cold stay so. Only inside
   * `between`.
   */
  setActive(queues: readonly number[]): void {
    writeActive(this.view, queues);
  }

  /** Memory faults the guard has caught so far. */
  faults(): { count: number } {
    return { count: this.view.getUint32(CTL + CTL_FAULTS, true) };
  }

  #attributed = 0;

  /** Has the faults attributed that nobody has been told of yet. The worker stands still. */
  #attributeFaults(): void {
    const { count } = this.faults();
    if (count === this.#attributed) return;
    this.#attributed = count;
    this.onMemoryFaults(takeFaults(this.arena, CTL + CTL_FAULTS));
  }

  /** Stops the worker and closes everything. */
  async close(): Promise<void> {
    const ended = Promise.withResolvers<void>();
    this.#worker.addEventListener("message", (event: MessageEvent<WorkerReport>) => {
      if (event.data === "ended") ended.resolve();
    });
    if (!this.#paused) this.#pause();
    Atomics.store(this.#words, (CTL + CTL_PAUSE) / 4, PAUSE_END);
    Atomics.notify(this.#words, (CTL + CTL_PAUSE) / 4);
    await ended.promise;
    this.#worker.terminate();
    this.epoll.close();
    this.#wake.close();
    this.#state.close();
    this.#life.file.close();
  }
}
