/** Two guests over an engine whose clock stands still but for what a test says: when is the receiver interrupted? */
import { CTL, CTL_PAUSE, QUEUE_F_EVENT_IDX, QUEUE_F_INDIRECT } from "../../shared/layout/nic.ts";
import type { VfPolicy } from "../../shared/api/mod.ts";
import { AdvancedGuest } from "./advanced_guest.ts";
import { type AnyRigGuest, EngineRig, FORMATS, rigMac } from "./engine_rig.ts";
import type { FormatName } from "./formats.ts";
import { frame } from "./mock_guest.ts";
import { PackedDriver } from "./packed_guest.ts";

/** The ways in which drivers ask for interrupts: all formats, virtqueues with EVENT_IDX and without. */
export const DRIVERS: readonly [string, FormatName, number][] = FORMATS.flatMap((
  format,
): [string, FormatName, number][] =>
  format === "advanced" ? [[format, format, 0]] : [
    [format, format, 0],
    [`${format}, EVENT_IDX`, format, QUEUE_F_EVENT_IDX],
  ]
);

/** What the second guest's VF is set to. */
type Settings = Partial<Pick<VfPolicy, "adaptiveRx" | "rxUsecs" | "rxFrames" | "adaptiveTx" | "txUsecs" | "txFrames">>;

/** A sender that wants no interrupts, and a receiver that wants one for each frame. */
export class InterruptWorld {
  readonly rig: EngineRig;
  readonly sender: AnyRigGuest;
  readonly receiver: AnyRigGuest;
  readonly #one = [frame({ dst: rigMac(1), src: rigMac(0) })];

  constructor(format: FormatName, flags: number, settings: Settings, queueSize = 256) {
    this.rig = new EngineRig(2, { 0: { rxUsecs: 0, txUsecs: 0 }, 1: settings });
    this.rig.isClockStill = true;
    const attach = (vf: number) => this.rig.attachAs(format, vf, { queueSize }, QUEUE_F_INDIRECT | flags);
    this.sender = attach(0);
    this.receiver = attach(1);
    // Nothing has happened yet, for longer than anybody calls busy.
    this.rig.nowNs += 1e9;
    this.never(this.sender, 1);
    this.never(this.receiver, 1);
    this.receiver.fill(queueSize - 1);
    this.ask();
  }

  /** Time goes by; answers how many interrupts it brought. */
  pass(us: number): number {
    this.rig.nowNs += us * 1000;
    this.rig.wasm.run(this.rig.nowNs, 20);
    return this.rig.takeCalls();
  }

  /** Frames reach the receiver, all at once; answers how many interrupts they brought. */
  deliver(frames: number): number {
    this.sender.room();
    this.sender.send(Array.from({ length: frames }, () => this.#one).flat());
    return this.pass(0);
  }

  /** The receiver takes what has come, gives the buffers back, and asks for the next interrupt. */
  serve(): number {
    const came = this.receiver.receive().length;
    this.receiver.fill(came);
    this.ask();
    return came;
  }

  /** Has the receiver ask for an interrupt for the next frame. */
  ask(): void {
    const guest = this.receiver;
    if (guest instanceof AdvancedGuest) {
      guest.rx().interrupt = true;
      return;
    }
    const queue = guest.rx();
    queue.noInterrupt = false;
    if (!guest.options.eventIdx) return;
    if (queue instanceof PackedDriver) queue.interruptAt(queue.nextUsed);
    else queue.view.setUint16(queue.avail + 4 + 2 * queue.size, queue.lastUsed, true);
  }

  /** Has a guest ask for no interrupt of its queue `index`. */
  never(guest: AnyRigGuest, index = 0): void {
    if (guest instanceof AdvancedGuest) {
      (index === 0 ? guest.rx() : guest.tx()).interrupt = false;
      return;
    }
    const queue = index === 0 ? guest.rx() : guest.tx();
    queue.noInterrupt = true;
    if (!guest.options.eventIdx || queue instanceof PackedDriver) return;
    queue.view.setUint16(queue.avail + 4 + 2 * queue.size, (queue.lastUsed + 40_000) & 0xffff, true);
  }

  /** The control thread wants the worker to stand still; answers how many interrupts that brought. */
  pause(): number {
    this.rig.view.setInt32(CTL + CTL_PAUSE, 1, true);
    const calls = this.pass(0);
    this.rig.view.setInt32(CTL + CTL_PAUSE, 2, true);
    return calls;
  }

  /** Interrupts of the receiver: raised, and saved. */
  get counted(): (number | undefined)[] {
    const { rx_interrupts, rx_interrupts_saved } = this.rig.counters(1);
    return [rx_interrupts, rx_interrupts_saved];
  }
}
