/**
 * What guests wish by their control queues, on its way to the PF and back. The PF listens to this service's events and
 * answers each wish by its number; this service has no right of its own at the PF, since it is what guests talk to.
 */
import { Pace } from "../../shared/async/mod.ts";
import type { LinkPatch, PortState, VhostEvent, WishAnswer, WishEvent } from "../../shared/api/mod.ts";

/** How long a guest's driver waits for the PF: it does nothing else meanwhile. */
const ANSWER_DEADLINE_MS = 2000;
/** A granted wish is written to disk. A driver that starts wishes some ten times. */
const GUEST_WISHES = { perSecond: 20, burst: 64 };
const ALL_WISHES = { perSecond: 200, burst: 512 };
/** Further addresses that the PF is told of: it grants them all, or none. */
const UNICAST_MAX = 64;

/** When the PF is told again of a guest that is gone. */
const RETRY_MS = 2000;
const STOPPED = "its queue has stopped";

type PortName = PortState["port"];

/** Wishes that wait for their answer. */
export class Wishes {
  readonly #listeners = new Set<(event: VhostEvent) => void>();
  readonly #waiting = new Map<string, (answer: WishAnswer) => void>();
  readonly #pace = new Pace(ALL_WISHES);
  /** Pending while a PF is expected that does not listen yet; and what says that it does. */
  #coming: Promise<void> | undefined;
  #comes: (() => void) | undefined;
  /** The ports', so that a guest that comes back has no new budget. */
  readonly #paces = new Map<PortName, Pace>();
  /** Turns that are paid for: a wish that is cancelled while it waits leaves its turn to the port's next one. */
  readonly #paidTurns = new Map<PortName, Promise<void>>();
  /** Ports whose guests are gone, and whose wishes the PF is to forget. */
  readonly #forgotten = new Set<PortName>();
  /** Those of them that the PF is being told of: one at a time each. */
  readonly #telling = new Set<PortName>();
  /** Ports that wait for their turn to say that their guests stand still. */
  readonly #pausing = new Set<PortName>();

  /** Calls `listener` with every event until the returned function is called. */
  subscribe(listener: (event: VhostEvent) => void): () => void {
    this.#listeners.add(listener);
    this.#comes?.();
    for (const port of this.#forgotten) void this.#tellForgotten(port);
    return () => this.#listeners.delete(listener);
  }

  /** Tells the PF something, if it listens. */
  tell(event: VhostEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  /** Tells the PF that a port's guest, which is being moved, stands still: no more often than it may wish something. */
  async paused(port: PortName): Promise<void> {
    if (this.#pausing.has(port)) return;
    this.#pausing.add(port);
    await this.#paceOf(port).step();
    this.#pausing.delete(port);
    this.tell({ type: "guest-paused", port });
  }

  /** A PF that has just lost this service's events listens again soon: wishes wait for it, as long as for an answer. */
  expectListener(): void {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, ANSWER_DEADLINE_MS);
    this.#comes = () => {
      clearTimeout(timer);
      resolve();
    };
    this.#coming = promise;
  }

  /** Asks the PF; answers why the wish is refused, if it is. */
  async ask(port: PortName, wish: LinkPatch, stopped: AbortSignal): Promise<string | undefined> {
    await this.#turnOf(port, stopped);
    // Whoever wishes is there: what it wants is newer.
    this.#forgotten.delete(port);
    const unicast = wish.unicast?.slice(0, UNICAST_MAX);
    return await this.#send(port, { ...wish, ...(unicast ? { unicast } : {}) }, stopped);
  }

  /** Waits for the port's turn, or until the wish is cancelled. */
  async #turnOf(port: PortName, stopped: AbortSignal): Promise<void> {
    if (stopped.aborted) return;
    const turn = this.#paidTurns.get(port) ?? this.#paceOf(port).step();
    this.#paidTurns.set(port, turn);
    const { promise: stop, resolve } = Promise.withResolvers<void>();
    const onStop = () => resolve();
    stopped.addEventListener("abort", onStop);
    await Promise.race([turn, stop]);
    stopped.removeEventListener("abort", onStop);
    if (!stopped.aborted) this.#paidTurns.delete(port);
  }

  #paceOf(port: PortName): Pace {
    let pace = this.#paces.get(port);
    if (!pace) this.#paces.set(port, pace = new Pace(GUEST_WISHES, this.#pace));
    return pace;
  }

  async #send(port: PortName, wish: LinkPatch, stopped: AbortSignal): Promise<string | undefined> {
    if (this.#coming) await this.#coming;
    if (stopped.aborted) return STOPPED;
    if (this.#listeners.size === 0) return "the PF is away";
    const id = crypto.randomUUID();
    const { promise, resolve } = Promise.withResolvers<WishAnswer>();
    this.#waiting.set(id, resolve);
    const refuse = (reason: string) => () => resolve({ granted: false, reason });
    const timer = setTimeout(refuse(`the PF did not answer within ${ANSWER_DEADLINE_MS / 1000} s`), ANSWER_DEADLINE_MS);
    const onStop = refuse(STOPPED);
    stopped.addEventListener("abort", onStop);
    const event: WishEvent = { type: "wish", id, port, wish, until: Date.now() + ANSWER_DEADLINE_MS };
    this.tell(event);
    const { granted, reason } = await promise;
    clearTimeout(timer);
    stopped.removeEventListener("abort", onStop);
    this.#waiting.delete(id);
    return granted ? undefined : reason ?? "the PF refuses it";
  }

  /** What the guest of `port` wished to receive is no longer wanted: the PF hears it until it has done it. */
  forget(port: PortName): void {
    this.#forgotten.add(port);
    void this.#tellForgotten(port);
  }

  async #tellForgotten(port: PortName): Promise<void> {
    if (this.#telling.has(port)) return;
    this.#telling.add(port);
    while (this.#forgotten.has(port) && this.#listeners.size > 0) {
      const refusal = await this.#send(port, { promisc: false, multicast: null }, new AbortController().signal);
      if (refusal === undefined) this.#forgotten.delete(port);
      else if (this.#listeners.size > 0) await new Promise((resolve) => Deno.unrefTimer(setTimeout(resolve, RETRY_MS)));
    }
    // A PF that is away is told when it comes back.
    this.#telling.delete(port);
  }

  /** The PF's answer to a wish. False if nobody waits for it (any more). */
  answer(id: string, answer: WishAnswer): boolean {
    const waiting = this.#waiting.get(id);
    waiting?.(answer);
    return waiting !== undefined;
  }
}
