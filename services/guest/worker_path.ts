/**
 * A data path in the worker: its plugin's functions, each of which may lie, trap, or have been ended from outside by the
 * guard (shared/plugin/code.ts). What a plugin answers is checked against what it was handed before the host takes it
 * in; whatever cannot be is thrown, with a sentence that becomes the plugin's fault.
 */
import { LIST_MAX } from "../../shared/layout/plugin.ts";
import { GC, GC_NOW_NS } from "../../shared/layout/guest.ts";
import { signalEventFd } from "../../shared/os/fd.ts";
import { monotonicNs } from "../../shared/os/mod.ts";
import type { HostExports } from "./exports.ts";
import { whyNotBelieved } from "./reports.ts";
import type { PathInstall } from "./worker_messages.ts";

interface PluginInstance {
  start(): number;
  stop(): void;
  tx(pair: number, n: number): number;
  txDone(pair: number, max: number): number;
  post(pair: number, n: number): number;
  rx(pair: number, max: number): number;
  arm(pair: number): number;
  disarm(pair: number): void;
}

/** A plugin that has frames to send and reports none of them as sent for so long is ended. */
const TX_STUCK_NS = 5e9;

/** A plugin that is installed, between its device and the host. */
export class WorkerPath {
  /** The eventfds by which the device says that frames have come. What was sent is looked at in passing. */
  readonly calls: number[];
  readonly #host: HostExports;
  readonly #ram: DataView;
  readonly #plugin: PluginInstance;
  readonly #guard: Int32Array;
  /** When it last reported frames as sent, or had none to send. */
  #sentNs = 0;

  /** Instantiates a plugin over its memory and has it lay out its rings. Throws if it does not start. */
  constructor(install: PathInstall, host: HostExports, ram: DataView) {
    const notify = (queue: number) => {
      const fd = install.kicks[queue];
      if (fd !== undefined) signalEventFd(fd);
    };
    const imports = { env: { memory: install.memory }, shell: { notify, guard: install.guard } };
    this.#host = host;
    this.#ram = ram;
    this.#plugin = new WebAssembly.Instance(install.module, imports).exports as unknown as PluginInstance;
    this.#guard = new Int32Array(install.guard.buffer);
    this.calls = install.calls.filter((_, queue) => queue % 2 === 0);
    if (this.#plugin.start() !== 0) throw new Error("the plugin refused to start with these rings");
  }

  /** From now on it is the one in use: its time to send begins. */
  use(nowNs: number): void {
    this.#sentNs = nowNs;
  }

  /** Moves frames of one queue pair both ways, to the device only if `sends`; answers how many. */
  move(pair: number, sends: boolean, nowNs: number): number {
    const sent = sends ? this.#send(pair, nowNs) : 0;
    const done = this.#complete(pair, nowNs);
    const received = this.receive(pair);
    this.#post(pair);
    return sent + done + received;
  }

  #send(pair: number, nowNs: number): number {
    const n = this.#host.prepareTx(pair);
    if (n <= 0) return 0;
    const wasIdle = this.#host.txHeld() === 0;
    const taken = this.#plugin.tx(pair, n);
    this.#mustLive();
    if (taken < 0 || taken > n) throw new Error(`tx took ${taken} of ${n} entries`);
    if (this.#host.txAccepted(pair, taken) === 0) {
      throw new Error(`tx took ${taken} entries, which are not whole frames`);
    }
    // Its time begins with the first of them, however long the guest had nothing to send.
    if (wasIdle) this.#sentNs = nowNs;
    return taken;
  }

  #complete(pair: number, nowNs: number): number {
    const done = this.#plugin.txDone(pair, LIST_MAX);
    this.#mustLive();
    if (done === 0) return 0;
    if (this.#host.txCompleted(pair, done) === 0) throw new Error(whyNotBelieved(this.#ram, "txDone", pair, done));
    this.#sentNs = nowNs;
    return done;
  }

  #post(pair: number): void {
    const wanted = this.#host.preparePost(pair);
    if (wanted <= 0) return;
    const taken = this.#plugin.post(pair, wanted);
    this.#mustLive();
    if (taken < 0 || taken > wanted) throw new Error(`post took ${taken} of ${wanted} buffers`);
    this.#host.posted(pair, wanted, taken);
  }

  /** Takes in what the plugin reports as received; answers how many entries. */
  receive(pair: number): number {
    const filled = this.#plugin.rx(pair, LIST_MAX);
    this.#mustLive();
    // What was sent in this very pass may be answered already: it has taken some time all the same.
    if (filled !== 0) this.#ram.setFloat64(GC + GC_NOW_NS, monotonicNs(), true);
    if (filled !== 0 && this.#host.received(pair, filled) === 0) {
      throw new Error(whyNotBelieved(this.#ram, "rx", pair, filled));
    }
    return filled;
  }

  /**
   * Throws if the plugin has had frames to send for long, and has reported none as sent. Asked before it is handed more:
   * a guest that was idle has none.
   */
  checkProgress(nowNs: number): void {
    if (nowNs - this.#sentNs < TX_STUCK_NS) return;
    const held = this.#host.txHeld();
    if (held > 0) throw new Error(`it has sent none of the ${held} buffers it took for ${TX_STUCK_NS / 1e9} s`);
    this.#sentNs = nowNs;
  }

  /** Asks for interrupts; answers whether there is work already. */
  arm(pairs: number): boolean {
    let work = 0;
    for (let pair = 0; pair < pairs; pair++) work |= this.#plugin.arm(pair);
    this.#mustLive();
    return work !== 0;
  }

  /** Asks for no more interrupts. */
  disarm(pairs: number): void {
    for (let pair = 0; pair < pairs; pair++) this.#plugin.disarm(pair);
  }

  /** It does not run again, not even to be told that it is over. */
  shut(): void {
    Atomics.store(this.#guard, 0, 1);
  }

  /** Tells the plugin that it is over. */
  stop(): void {
    try {
      this.#plugin.stop();
    } catch {
      // It is gone, whatever it says; one that has been ended says nothing any more.
    }
  }

  /** Throws if the plugin has been ended: what it answered meanwhile is not looked at. */
  #mustLive(): void {
    if (Atomics.load(this.#guard, 0) !== 0) throw new Error("it has been ended");
  }
}
