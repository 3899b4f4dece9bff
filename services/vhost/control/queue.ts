/**
 * The control queue of a front-end that leaves it to its back-end (User-Mode Linux does): commands come one by one, are
 * carried out, and go back with an answer. Its kick is waited for by the service's reactor, never by the engine.
 */
import type { Pace } from "../../../shared/async/mod.ts";
import { drainEventFd, type Fd, type Reactor } from "../../../shared/os/mod.ts";
import { VIRTIO_NET_ERR, VIRTIO_NET_OK } from "../../../shared/layout/virtio.ts";
import { type Command, readCommand } from "./commands.ts";
import { PackedControlRing } from "./packed.ts";
import type { ControlRing, GuestMemory, RingPlace } from "./ring.ts";
import { SplitControlRing } from "./split.ts";

/** Commands answered in a row before the front-end's messages have their turn. */
const TURN_COMMANDS = 16;
/** How often a queue without a kick descriptor is looked at. */
const POLL_MS = 20;

/** What a control queue works with. */
export interface ControlQueueParts {
  reactor: Pick<Reactor, "readable" | "forget">;
  pace: Pick<Pace, "step">;
  /** Runs a step while no message of the front-end is dealt with. */
  exclusively(step: () => Promise<void>): Promise<void>;
  /** Does what a command asks for; answers why not, if it is refused. */
  carryOut(command: Command): Promise<string | undefined>;
  log(level: "info" | "warn", message: string): void;
}

/** Where a control queue runs, and who is told. */
export interface ControlStart {
  packed: boolean;
  place: RingPlace;
  memory: GuestMemory;
  kick: Fd | undefined;
  /** Interrupts the guest. */
  raise(): void;
  /** The guest broke the ring's protocol: the queue has stopped. */
  failed(reason: string): void;
}

/** One run of the queue, from its start to its stop. */
interface Run extends ControlStart {
  ring: ControlRing;
  kickNumber: number | undefined;
}

/** A session's control queue. */
export class ControlQueue {
  readonly #parts: ControlQueueParts;
  #run: Run | undefined;

  constructor(parts: ControlQueueParts) {
    this.#parts = parts;
  }

  /** Serves the ring from now on. Throws RingFault if it cannot be. */
  start(start: ControlStart): void {
    const { packed, memory, place, kick } = start;
    const ring = packed ? new PackedControlRing(memory, place) : new SplitControlRing(memory, place);
    const run = { ...start, ring, kickNumber: kick?.number };
    this.#run = run;
    void this.#serve(run);
  }

  /** Stops; answers where the ring would go on. */
  stop(): number {
    const run = this.#run;
    this.#run = undefined;
    if (run?.kickNumber !== undefined) this.#parts.reactor.forget(run.kickNumber);
    return run?.ring.position ?? 0;
  }

  async #serve(run: Run): Promise<void> {
    try {
      while (this.#run === run) {
        let isDone = false;
        await this.#parts.exclusively(async () => {
          if (this.#run === run) isDone = await this.#turn(run);
        });
        if (isDone && this.#run === run) await this.#kicked(run);
      }
    } catch (error) {
      // Whoever has stopped the queue has ended the wait.
      if (this.#run !== run) return;
      this.stop();
      run.failed((error as Error).message);
    }
  }

  async #kicked({ kickNumber }: Run): Promise<void> {
    if (kickNumber === undefined) return await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    await this.#parts.reactor.readable(kickNumber);
    drainEventFd(kickNumber);
  }

  /** Answers what is there, up to a turn's worth; whether there is no more. */
  async #turn({ ring, memory, raise }: Run): Promise<boolean> {
    for (let i = 0; i < TURN_COMMANDS; i++) {
      let request = ring.take();
      if (!request) {
        ring.arm();
        request = ring.take();
        if (!request) return true;
      }
      await this.#parts.pace.step();
      const command = readCommand(request.bytes);
      const refusal = command ? await this.#parts.carryOut(command) : "it is no command of this device";
      if (refusal !== undefined) this.#parts.log("warn", `control queue: ${refusal}`);
      const answer = Uint8Array.of(refusal === undefined ? VIRTIO_NET_OK : VIRTIO_NET_ERR);
      const { answerAt } = request;
      const written = answerAt !== undefined && memory.write(answerAt, answer) ? 1 : 0;
      if (ring.give(request, written)) raise();
    }
    return false;
  }
}
