/**
 * The control queue of a front-end that leaves it to its back-end (User-Mode Linux does): commands come one by one, are
 * carried out, and go back with an answer. Its kick is waited for by the service's reactor, never by the engine. A
 * command may wait for the PF: no turn of the session is held meanwhile, so a guest cannot hold up its own end.
 */
import type { Pace } from "../../../shared/async/mod.ts";
import { drainEventFd, type Fd, type Reactor } from "../../../shared/os/mod.ts";
import { VIRTIO_NET_ERR, VIRTIO_NET_OK } from "../../../shared/layout/virtio.ts";
import { type Command, readCommand } from "./commands.ts";
import { PackedControlRing } from "./packed.ts";
import type { ControlRequest, ControlRing, GuestMemory, RingPlace } from "./ring.ts";
import { SplitControlRing } from "./split.ts";

/** How often a queue without a kick descriptor is looked at. */
const POLL_MS = 20;

/** What a control queue works with. */
export interface ControlQueueParts {
  reactor: Pick<Reactor, "readable" | "forget">;
  pace: Pick<Pace, "step">;
  /** Does what a command asks for; answers why not, if it is refused. `stopped` says that nobody waits any more. */
  carryOut(command: Command, stopped: AbortSignal): Promise<string | undefined>;
  log(level: "info" | "warn", message: string): void;
  /** Told when `kept` has changed; resolves when whoever stands by knows. */
  changed(): Promise<void>;
}

/** Where a queue goes on if this process dies: at `next` if the request at `position` has been given back. */
export interface KeptControl {
  position: number;
  next: number;
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
  stop: AbortController;
}

/** A session's control queue. */
export class ControlQueue {
  readonly #parts: ControlQueueParts;
  #run: Run | undefined;
  /** Where it goes on when the request that is being given back is. */
  #next: number | undefined;

  constructor(parts: ControlQueueParts) {
    this.#parts = parts;
  }

  /** Serves the ring from now on. Throws RingFault if it cannot be. */
  start(start: ControlStart): void {
    const { packed, memory, place, kick } = start;
    const ring = packed ? new PackedControlRing(memory, place) : new SplitControlRing(memory, place);
    const run = { ...start, ring, kickNumber: kick?.number, stop: new AbortController() };
    this.#run = run;
    void this.#serve(run);
  }

  /** What whoever stands by has of it, while it runs. */
  get kept(): KeptControl | undefined {
    const position = this.#run?.ring.position;
    return position === undefined ? undefined : { position, next: this.#next ?? position };
  }

  /** Stops; answers where the ring would go on. */
  stop(): number {
    const run = this.#run;
    this.#run = undefined;
    run?.stop.abort();
    if (run?.kickNumber !== undefined) this.#parts.reactor.forget(run.kickNumber);
    return run?.ring.position ?? 0;
  }

  async #serve(run: Run): Promise<void> {
    try {
      while (this.#run === run) {
        const request = nextOf(run);
        if (request) await this.#answer(run, request);
        else await this.#kicked(run);
      }
    } catch (error) {
      // Whoever has stopped the queue has ended the wait.
      if (this.#run !== run) return;
      this.stop();
      run.failed((error as Error).message);
    }
  }

  /** Waits for a kick, which costs a unit, whether a command comes with it or not; or until it is time to look again. */
  async #kicked({ kickNumber }: Run): Promise<void> {
    if (kickNumber === undefined) return await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    await this.#parts.reactor.readable(kickNumber);
    drainEventFd(kickNumber);
    await this.#parts.pace.step();
  }

  /** Carries a command out and gives it back; if the queue stops meanwhile, whoever serves it next takes it again. */
  async #answer(run: Run, request: ControlRequest): Promise<void> {
    const command = readCommand(request.bytes);
    const refusal = command ? await this.#parts.carryOut(command, run.stop.signal) : "it is no command of this device";
    await this.#parts.pace.step();
    if (this.#run !== run) return;
    if (refusal !== undefined) this.#parts.log("warn", `control queue: ${refusal}`);
    const answer = Uint8Array.of(refusal === undefined ? VIRTIO_NET_OK : VIRTIO_NET_ERR);
    const { answerAt } = request;
    const written = answerAt !== undefined && run.memory.write(answerAt, answer) ? 1 : 0;
    this.#next = run.ring.behind(request);
    await this.#parts.changed();
    if (this.#run !== run) return;
    const wantsInterrupt = run.ring.give(request, written);
    this.#next = undefined;
    if (wantsInterrupt) run.raise();
  }
}

/** The next command. If there is none, a kick has been asked for, where there is something to kick. */
function nextOf({ ring, kickNumber }: Run): ControlRequest | undefined {
  const request = ring.take();
  if (request || kickNumber === undefined) return request;
  ring.arm();
  return ring.take();
}
