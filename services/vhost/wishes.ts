/**
 * What guests wish by their control queues, on its way to the PF and back. The PF listens to this service's events and
 * answers each wish by its number; this service has no right of its own at the PF, since it is what guests talk to.
 */
import { Pace } from "../../shared/async/mod.ts";
import type { LinkPatch, PortState, VhostEvent, WishAnswer } from "../../shared/api/mod.ts";

/** How long a guest's driver waits for the PF: it does nothing else meanwhile. */
const ANSWER_DEADLINE_MS = 2000;
/** A granted wish is written to disk. A driver that starts wishes some ten times. */
const GUEST_WISHES = { perSecond: 20, burst: 64 };
const ALL_WISHES = { perSecond: 200, burst: 512 };
/** Further addresses that the PF is told of: it grants them all, or none. */
const UNICAST_MAX = 64;

type PortName = PortState["port"];

/** Wishes that wait for their answer. */
export class Wishes {
  readonly #listeners = new Set<(event: VhostEvent) => void>();
  readonly #waiting = new Map<string, (answer: WishAnswer) => void>();
  readonly #pace = new Pace(ALL_WISHES);
  readonly #paces = new Map<PortName, Pace>();
  /** Ports whose guests are gone, and whose wishes the PF is to forget. */
  readonly #forgotten = new Set<PortName>();

  /** Calls `listener` with every wish until the returned function is called. */
  subscribe(listener: (event: VhostEvent) => void): () => void {
    this.#listeners.add(listener);
    for (const port of this.#forgotten) this.#tellForgotten(port);
    return () => this.#listeners.delete(listener);
  }

  /** Asks the PF; answers why the wish is refused, if it is. */
  async ask(port: PortName, wish: LinkPatch, stopped: AbortSignal): Promise<string | undefined> {
    await this.#paceOf(port).step();
    if (this.#listeners.size === 0) return "the PF is away";
    const id = crypto.randomUUID();
    const { promise, resolve } = Promise.withResolvers<WishAnswer>();
    this.#waiting.set(id, resolve);
    const refuse = (reason: string) => () => resolve({ granted: false, reason });
    const timer = setTimeout(refuse(`the PF did not answer within ${ANSWER_DEADLINE_MS / 1000} s`), ANSWER_DEADLINE_MS);
    const onStop = refuse("its queue has stopped");
    if (stopped.aborted) onStop();
    else {
      stopped.addEventListener("abort", onStop, { once: true });
      const unicast = wish.unicast?.slice(0, UNICAST_MAX);
      this.#tell({
        ...{ type: "wish", id, port, wish: { ...wish, ...(unicast ? { unicast } : {}) } },
        until: Date.now() + ANSWER_DEADLINE_MS,
      });
    }
    const { granted, reason } = await promise;
    clearTimeout(timer);
    stopped.removeEventListener("abort", onStop);
    this.#waiting.delete(id);
    return granted ? undefined : reason ?? "the PF refuses it";
  }

  /** What the guest of `port` wished to receive is no longer wanted: the PF hears it now, or when it comes back. */
  forget(port: PortName): void {
    if (this.#listeners.size > 0) this.#tellForgotten(port);
    else this.#forgotten.add(port);
  }

  #tellForgotten(port: PortName): void {
    this.#forgotten.delete(port);
    this.#tell({ type: "wish", id: crypto.randomUUID(), port, wish: { promisc: false, multicast: null } });
  }

  #tell(event: VhostEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  /** The port's, so that a guest that comes back has no new budget. */
  #paceOf(port: PortName): Pace {
    let pace = this.#paces.get(port);
    if (!pace) this.#paces.set(port, pace = new Pace(GUEST_WISHES, this.#pace));
    return pace;
  }

  /** The PF's answer to a wish. False if nobody waits for it (any more). */
  answer(id: string, answer: WishAnswer): boolean {
    const waiting = this.#waiting.get(id);
    waiting?.(answer);
    return waiting !== undefined;
  }
}
