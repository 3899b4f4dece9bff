/** Who serves a session's rings now: the data path, its backend, and what the port may still ask of it. */
import type { PathFrames } from "../../shared/api/mod.ts";
import { closeAll, type RequestInput } from "../../shared/device/mod.ts";
import { requestCost } from "../../shared/engine/mod.ts";
import type { SessionContext } from "./port_context.ts";
import type { RingBackend, RingBackendEvents, RingPath, Succession } from "./ring_backend.ts";
import { fdsOf, type KeptObject, type Parts, valueOf } from "./standby/mod.ts";

/** What it costs to get a backend, and to give it back when the front-end goes away. */
const ATTACH_COST = 2;

/** How long what serves the rings may still be a process's that has ended. */
const BEGIN_DEADLINE_MS = 5000;
const BEGIN_PAUSE_MS = 5;

/** What of the slot is kept. */
export interface KeptSlot {
  path: RingPath;
  isTaken: boolean;
  wasAsked: boolean;
  backend: unknown;
}

/** The backend of one session, or none: a guest that drives its VF by itself has none. */
export class BackendSlot {
  readonly #context: SessionContext;
  readonly #events: RingBackendEvents;
  #path: RingPath;
  #backend: RingBackend | undefined;
  /** In this step of the session the backend has been asked for something. */
  #isAsked = false;
  /** Whether that has to be told, since the process that asked has ended. */
  #wasAsked = false;
  /** A backend has to be got, for rings that a process served which has ended. */
  #mustBegin = false;

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
    const backend = this.#context.makeBackend(path, this.#events);
    try {
      await backend?.attach();
    } catch (error) {
      await backend?.release((error as Error).message);
      throw error;
    }
    [this.#path, this.#backend] = [path, backend];
  }

  /** Asks the backend when the port's budget has what it costs; without a backend there is nothing to be done. */
  async ask(body: RequestInput, fds: readonly number[] = []): Promise<Record<string, unknown>> {
    await this.#context.pace.step(requestCost(body));
    await this.#asks();
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

  // Standing by ----------------------------------------------------------------------------------------------

  /** Whoever takes over has to know that more is under way than it was told. */
  async #asks(): Promise<void> {
    if (this.#isAsked) return;
    this.#isAsked = true;
    await this.#events.changed();
  }

  /** As `asks`, before the backend is another one. */
  beginChange(): Promise<void> {
    return this.#asks();
  }

  /** A step of the session is over: what has come of it is told. */
  endStep(): void {
    this.#isAsked = false;
    void this.#events.changed();
  }

  /** What whoever stands by has of it. */
  get kept(): Parts {
    const { value, fds = [] } = this.#backend?.kept ?? { value: undefined };
    const slot: KeptSlot = { path: this.#path, isTaken: this.isTaken, wasAsked: this.#isAsked, backend: value };
    return { backend: { value: slot, fds } };
  }

  /** Goes on with the backend of a process that has ended. */
  async adopt(object: KeptObject, part: Omit<Succession, "wasAsked">): Promise<void> {
    const { path, isTaken, wasAsked, backend: value } = valueOf<KeptSlot>(object, "backend");
    this.#path = path;
    this.#wasAsked = wasAsked;
    // That process was getting one, or changing it.
    this.#mustBegin = !isTaken;
    if (!isTaken) return;
    const backend = this.#context.makeBackend(path, this.#events);
    const kept = { value, fds: fdsOf(object, "backend") };
    try {
      const isAdopted = await backend?.adopt?.(kept, { ...part, wasAsked }) ?? false;
      if (isAdopted) this.#backend = backend;
      this.#mustBegin = !isAdopted;
    } catch (error) {
      await backend?.release((error as Error).message);
      throw error;
    } finally {
      closeAll(kept.fds);
    }
  }

  /** Serves the rings again; `begin` gets a backend for rings that have none. */
  async goOn(part: Omit<Succession, "wasAsked">, begin: () => Promise<void>): Promise<void> {
    const wasAsked = this.#wasAsked;
    // Where they are is in the rings themselves. A base that was told when a packed ring stood still last is laps ago, and
    // half of the time looks as if it were right.
    for (const ring of wasAsked || this.#mustBegin ? part.rings : []) {
      ring.hasRun = false;
      if (ring.running) ring.base = undefined;
    }
    if (!this.#mustBegin) return await this.#backend?.goOn?.({ ...part, wasAsked });
    for (const ring of part.rings) ring.running = false;
    const deadline = performance.now() + BEGIN_DEADLINE_MS;
    for (;;) {
      try {
        return await begin();
      } catch (error) {
        if (performance.now() > deadline) throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, BEGIN_PAUSE_MS));
    }
  }

  /** Gives the backend back. Whoever takes over is not to go on with it. */
  async release(reason: string): Promise<void> {
    const backend = this.#backend;
    if (!backend) return;
    this.#backend = undefined;
    await this.#events.changed();
    await backend.release(reason);
  }
}
