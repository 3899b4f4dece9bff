/**
 * What is outstanding on a direct path: the guest's transmit buffers in the NIC's queue, and its receive buffers there.
 * Before anything changes under them they are recalled: what the NIC has done goes back to the guest, and the rest is as
 * if nobody had taken it. While it is halted nothing more is sent or offered.
 */
import {
  DIRECT_HALT,
  DIRECT_OFFERED,
  DIRECT_RX_COPIED,
  DIRECT_RX_FRAMES,
  DIRECT_SENT,
  DIRECT_TX_COPIED,
  DIRECT_TX_FRAMES,
  HALT_RX,
  HALT_TX,
  Q_LAST_AVAIL,
} from "../../shared/layout/nic.ts";
import type { PathFrames } from "../../shared/api/mod.ts";
import type { Engine } from "../../shared/engine/mod.ts";
import type { DriverPair } from "./driver_pair.ts";
import type { SwitchExports } from "./exports.ts";
import { directState, TX } from "./pair_layout.ts";

/** Both directions. */
export const HALT_ALL = HALT_TX | HALT_RX;

/** The direct path of one driver pair. */
export class DirectPath {
  readonly #engine: Engine<SwitchExports>;
  readonly #pair: DriverPair;
  readonly #state: number;

  constructor(engine: Engine<SwitchExports>, pair: DriverPair) {
    this.#engine = engine;
    this.#pair = pair;
    this.#state = directState(pair.memory);
  }

  #word(at: number): number {
    return this.#engine.view.getUint32(at, true);
  }

  #setHalt(bits: number): void {
    this.#engine.between(() => this.#engine.view.setUint32(this.#state + DIRECT_HALT, bits, true));
  }

  /**
   * Halts these directions, HALT_*, and takes back what is outstanding in them. If the NIC does not do its part its lease
   * ends, so that nothing of the guest's is left with it either way.
   */
  async recall(bits: number): Promise<void> {
    this.#setHalt(this.#word(this.#state + DIRECT_HALT) | bits);
    try {
      if (bits & HALT_TX) await this.#recallSent();
      if (bits & HALT_RX) await this.#recallReceived();
    } catch {
      await this.#pair.sever();
      this.settle();
    }
  }

  /** A transmit queue that is stopped keeps its frames: it goes on where it was, without those of this guest. */
  async #recallSent(): Promise<void> {
    const { tx } = this.#pair;
    if (this.#word(this.#state + DIRECT_SENT) === this.#word(tx + Q_LAST_AVAIL)) return;
    const { base } = await this.#pair.ask({ op: "queueStop", index: TX });
    this.#engine.between(() => this.#engine.wasm.settleSent(tx, Number(base)));
    await this.#pair.startTransmit(Number(base));
  }

  /** Receive buffers are exchanged for host buffers; those that the NIC had seen before it stood still it may have used. */
  async #recallReceived(): Promise<void> {
    const { rx } = this.#pair;
    if (this.#word(this.#state + DIRECT_OFFERED) === this.#word(rx + Q_LAST_AVAIL)) return;
    this.#engine.between(() => this.#engine.wasm.withdrawOffered(rx));
    await this.#pair.ask({ op: "fence" });
    this.#engine.between(() => this.#engine.wasm.settleReceived(rx));
  }

  /** Takes back what is outstanding with a NIC that is gone. */
  settle(): void {
    const { rx, tx } = this.#pair;
    this.#engine.between(() => {
      this.#engine.wasm.settleSent(tx, -1);
      this.#engine.wasm.withdrawOffered(rx);
      this.#engine.wasm.settleReceived(rx);
    });
  }

  /** Lets these directions go on. `queues`: the guest's transmit queues, which may have been left alone meanwhile. */
  resume(bits: number, queues: readonly number[]): void {
    this.#engine.between(() => {
      this.#setHalt(this.#word(this.#state + DIRECT_HALT) & ~bits);
      for (const queue of queues) this.#engine.wasm.heat(queue);
    });
  }

  /** How the guest's frames have gone so far. */
  get frames(): PathFrames {
    const of = (at: number) => Number(this.#engine.view.getBigUint64(this.#state + at, true));
    return {
      sentDirect: of(DIRECT_TX_FRAMES),
      sentCopied: of(DIRECT_TX_COPIED),
      receivedDirect: of(DIRECT_RX_FRAMES),
      receivedCopied: of(DIRECT_RX_COPIED),
    };
  }
}
