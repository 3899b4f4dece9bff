/**
 * A port's thread: rounds of the Wasm module (assembly/netdev) and of the kernel, for as long as there is something to
 * move; then it sleeps until the NIC, the file or the control thread has something. No JavaScript runs for a
 * frame, but where io_uring is forbidden.
 */
import * as N from "../layout/netdev.ts";
import {
  addEvents,
  EPOLLET,
  EPOLLIN,
  eventData,
  eventRoom,
  FileWait,
  waitBlocking,
  waitPrecisely,
  wakePunctually,
} from "../os/epoll.ts";
import { drainEventFd, signalEventFd } from "../os/fd.ts";
import { CaptureCalls } from "./capture_calls.ts";
import { PlainCalls } from "./calls.ts";
import { Gather, GATHER_NS } from "./gather.ts";
import { CallRounds, type PortExports, type Rounds, XdpRounds } from "./rounds.ts";
import { uringCalls } from "./uring_calls.ts";
import { type PortReport, type PortStart, RING, WAKE } from "./worker_messages.ts";

/** How often a port that is to be quiet looks whether it is. */
const QUIET_LOOK_MS = 1;

const FAULTS = new Map<number, string>([
  [N.FAULT_DEVICE, "the NIC has used a descriptor that it did not have"],
  [N.FAULT_FILE_GONE, "its interface is gone"],
]);

/** How a port's frames are moved. */
function roundsOf(module: PortExports, { memory, drive, plain }: PortStart): Rounds {
  if (drive.kind === "xdp") return new XdpRounds(module, memory, drive.file);
  const calls = drive.kind === "capture"
    ? new CaptureCalls(memory, drive, (text) => report({ told: "note", text }))
    : (plain ? undefined : uringCalls(memory, drive)) ?? new PlainCalls(memory, drive);
  return new CallRounds(module, calls);
}

class PortLoop {
  readonly #start: PortStart;
  readonly #words: Int32Array;
  readonly #view: DataView;
  readonly #module: PortExports;
  readonly #rounds: Rounds;
  readonly #events = eventRoom();
  readonly #eventView = new DataView(this.#events.buffer);
  readonly #fileWait: FileWait | undefined;
  #isQuiet = false;
  /** Whether the last sleep may have ended because of the file. */
  #mayBeReadable = false;
  readonly #gather = new Gather();

  constructor(start: PortStart) {
    this.#start = start;
    this.#words = new Int32Array(start.memory.buffer);
    this.#view = new DataView(start.memory.buffer);
    const imports = { env: { memory: start.memory } };
    this.#module = new WebAssembly.Instance(start.module, imports).exports as unknown as PortExports;
    this.#rounds = roundsOf(this.#module, start);
    this.#rounds.start();
    if (this.#rounds.pollFd !== undefined) {
      Atomics.store(this.#words, (N.ND_CONTROL + N.NS_RING_FD) / 4, this.#rounds.pollFd);
      addEvents(start.epollFd, this.#rounds.pollFd, EPOLLIN | EPOLLET, RING);
    }
    if (start.drive.kind !== "capture") this.#fileWait = new FileWait(start.epollFd, start.drive.file);
    report({ told: "ready", io: this.#rounds.io });
  }

  #add(counter: number, n: number): void {
    const at = N.ND_COUNTERS + counter;
    this.#view.setBigUint64(at, this.#view.getBigUint64(at, true) + BigInt(n), true);
  }

  get #request(): number {
    return Atomics.load(this.#words, (N.ND_CONTROL + N.NS_REQUEST) / 4);
  }

  run(): void {
    let reason: string | undefined;
    for (;;) {
      const before = this.#rounds.calls;
      const status = this.#rounds.round();
      if (this.#rounds.calls !== before) this.#add(N.NCO_CALLS, this.#rounds.calls - before);
      if (status & N.STATUS_KICK) this.#kick(this.#start.kickFd);
      if (status & N.STATUS_ROOM) this.#kick(this.#start.roomFd);
      if (status & N.STATUS_FAULT) {
        reason = this.#fault();
        this.#module.abandon();
        break;
      }
      if (status & N.STATUS_WORK) continue;
      if (this.#request === N.REQUEST_END && this.#inFlight === 0) break;
      if (this.#rounds.arm()) continue;
      this.#sleep();
    }
    this.#rounds.close();
    Atomics.store(this.#words, (N.ND_CONTROL + N.NS_RING_FD) / 4, 0);
    report({ told: "ended", ...(reason === undefined ? {} : { reason }) });
  }

  #kick(fd: number): void {
    signalEventFd(fd);
    this.#add(N.NCO_KICKS, 1);
  }

  get #inFlight(): number {
    return this.#view.getUint32(N.ND_CONTROL + N.NS_IN_FLIGHT, true);
  }

  /** Waits until there is something to do, for so long at most; answers how many events there are. */
  #wait(timeoutMs: number): number {
    // What is there and cannot be read would end each sleep at once.
    const fileWait = this.#module.mayRead() !== 0 ? this.#fileWait : undefined;
    if (fileWait === undefined) return waitBlocking(this.#start.epollFd, this.#events, timeoutMs);
    const ready = fileWait.wait(this.#events, timeoutMs);
    this.#mayBeReadable = fileWait.isReadable;
    return ready;
  }

  /** Whether the frames from the file come so fast that it lets some come before it looks again. */
  #gathers(): boolean {
    const frames = this.#view.getUint32(N.ND_COUNTERS + N.NCO_IN_FRAMES, true);
    this.#mayBeReadable = this.#start.drive.kind === "xdp" && this.#gather.isDue(frames);
    return this.#mayBeReadable;
  }

  #fault(): string {
    const fault = this.#view.getUint32(N.ND_CONTROL + N.NS_FAULT, true);
    return FAULTS.get(fault) ?? `fault ${fault}`;
  }

  #sleep(): void {
    const isToBeQuiet = this.#request === N.REQUEST_QUIET;
    if (isToBeQuiet && !this.#isQuiet && this.#module.unfinished() === 0) {
      this.#isQuiet = true;
      report({ told: "quiet" });
    }
    this.#add(N.NCO_SLEEPS, 1);
    const idleMs = this.#rounds.idle();
    const ready = this.#gathers()
      ? waitPrecisely(this.#start.epollFd, this.#events, GATHER_NS)
      : this.#wait(isToBeQuiet ? QUIET_LOOK_MS : idleMs);
    if (idleMs >= 0 || this.#mayBeReadable) this.#module.wake();
    for (let i = 0; i < ready; i++) {
      if (eventData(this.#eventView, i) !== WAKE) continue;
      drainEventFd(this.#start.wakeFd);
      // The port may read from now on.
      this.#module.wake();
    }
  }
}

function report(what: PortReport): void {
  (self as unknown as { postMessage(message: PortReport): void }).postMessage(what);
}

if (typeof WorkerGlobalScope !== "undefined" && self instanceof WorkerGlobalScope && self.name === "netdev") {
  self.addEventListener("message", (event) => {
    wakePunctually();
    new PortLoop((event as MessageEvent<PortStart>).data).run();
  }, { once: true });
}
