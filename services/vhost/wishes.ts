/**
 * What guests wish by their control queues, on its way to the PF and back. The PF listens to this service's events and
 * answers each wish by its number; this service has no right of its own at the PF, since it is what guests talk to.
 */
import type { LinkPatch, PortState, VhostEvent, WishAnswer } from "../../shared/api/mod.ts";

/** How long a guest's driver waits for the PF: it does nothing else meanwhile. */
const ANSWER_DEADLINE_MS = 2000;

/** Wishes that wait for their answer. */
export class Wishes {
  readonly #listeners = new Set<(event: VhostEvent) => void>();
  readonly #waiting = new Map<string, (answer: WishAnswer) => void>();

  /** Calls `listener` with every wish until the returned function is called. */
  subscribe(listener: (event: VhostEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Asks the PF; answers why the wish is refused, if it is. */
  async ask(port: PortState["port"], wish: LinkPatch): Promise<string | undefined> {
    if (this.#listeners.size === 0) return "the PF is away";
    const id = crypto.randomUUID();
    const { promise, resolve } = Promise.withResolvers<WishAnswer>();
    this.#waiting.set(id, resolve);
    const late = `the PF did not answer within ${ANSWER_DEADLINE_MS / 1000} s`;
    const timer = setTimeout(() => resolve({ granted: false, reason: late }), ANSWER_DEADLINE_MS);
    for (const listener of this.#listeners) listener({ type: "wish", id, port, wish });
    const { granted, reason } = await promise;
    clearTimeout(timer);
    this.#waiting.delete(id);
    return granted ? undefined : reason ?? "the PF refuses it";
  }

  /** The PF's answer to a wish. False if nobody waits for it (any more). */
  answer(id: string, answer: WishAnswer): boolean {
    const waiting = this.#waiting.get(id);
    waiting?.(answer);
    return waiting !== undefined;
  }
}
