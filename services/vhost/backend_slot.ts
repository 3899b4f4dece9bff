/** Who serves a session's rings now: the data path, its backend, and what the port may still ask of it. */
import type { PathFrames } from "../../shared/api/mod.ts";
import type { RequestInput } from "../../shared/device/mod.ts";
import { requestCost } from "../../shared/engine/mod.ts";
import type { SessionContext } from "./port_context.ts";
import type { RingBackend, RingBackendEvents, RingPath } from "./ring_backend.ts";

/** What it costs to get a backend, and to give it back when the front-end goes away. */
const ATTACH_COST = 2;

/** The backend of one session, or none: a guest that drives its VF by itself has none. */
export class BackendSlot {
  readonly #context: SessionContext;
  readonly #events: RingBackendEvents;
  #path: RingPath;
  #backend: RingBackend | undefined;

  constructor(context: SessionContext, path: RingPath, events: RingBackendEvents) {
    this.#context = context;
    this.#path = path;
    this.#events = events;
  }

  get path(): RingPath {
    return this.#path;
  }

  /** The guest's queues, and what it has of its limits, if this service's engine serves them. */
  get rings(): RingBackend["rings"] {
    return this.#backend?.rings;
  }

  /** How the guest's frames have gone, of a path that tells. */
  get frames(): PathFrames | undefined {
    return this.#backend?.frames;
  }

  /** Whether anybody serves the rings. */
  get isTaken(): boolean {
    return this.#backend !== undefined;
  }

  /** Gets a backend for the path that the session begins with; what that costs is the port's. */
  async attach(): Promise<void> {
    await this.#context.pace.step(ATTACH_COST);
    await this.take(this.#path);
  }

  /** Gets the backend of a path; none for a guest that drives its VF by itself. */
  async take(path: RingPath): Promise<void> {
    this.#path = path;
    const backend = this.#context.makeBackend(path, this.#events);
    try {
      await backend?.attach();
    } catch (error) {
      await backend?.release((error as Error).message);
      throw error;
    }
    this.#backend = backend;
  }

  /** Asks the backend when the port's budget has what it costs; without a backend there is nothing to be done. */
  async ask(body: RequestInput, fds: readonly number[] = []): Promise<Record<string, unknown>> {
    await this.#context.pace.step(requestCost(body));
    return await this.#backend?.request(body, fds) ?? {};
  }

  /** What the PF has set of the port has changed. */
  settingsChanged(): void {
    this.#backend?.settingsChanged();
  }

  /** Delivers what is on its way. */
  async drain(): Promise<void> {
    await this.#backend?.drain();
  }

  /** Gives the backend back. */
  async release(reason: string): Promise<void> {
    const backend = this.#backend;
    this.#backend = undefined;
    await backend?.release(reason);
  }
}
