/**
 * What of this process the one that stands by has: objects, which say what their parts are now. Only parts that differ from
 * what was told last are told.
 */
import type { Fd } from "../../../shared/os/mod.ts";
import type { VhostMirror } from "./messages.ts";

/** A part of an object, and its descriptors, which stay the object's. */
export interface Part {
  value: unknown;
  fds?: readonly Fd[];
}

/** What there is of an object, by name. */
export type Parts = Record<string, Part>;

/** A part as it was told. */
interface Told {
  text: string;
  fds: readonly Fd[];
}

/** An object that a standby has. */
export class Replicated {
  readonly #of: string;
  readonly #mirror: VhostMirror;
  readonly #end: () => void;
  readonly #parts: () => Parts;
  #told = new Map<string, Told>();
  #ended = false;

  constructor(of: string, parts: () => Parts, { mirror, end }: { mirror: VhostMirror; end: () => void }) {
    this.#of = of;
    this.#parts = parts;
    this.#mirror = mirror;
    this.#end = end;
  }

  /** Tells what has changed, at once. */
  tell(): void {
    if (!this.#mirror.isThere || this.#ended) return;
    const parts = wholeOrNothing(this.#parts());
    for (const [name, { value, fds = [] }] of Object.entries(parts)) {
      const text = JSON.stringify(value, plain);
      const told = this.#told.get(name);
      const isSame = told?.text === text && told.fds.length === fds.length && told.fds.every((fd, i) => fd === fds[i]);
      if (isSame) continue;
      this.#told.set(name, { text, fds });
      this.#mirror.note({ kind: "part", of: this.#of, name, value, fds: fds.length }, fds);
    }
    for (const name of [...this.#told.keys()]) {
      if (name in parts) continue;
      this.#told.delete(name);
      this.#mirror.note({ kind: "gone", of: this.#of, name });
    }
    this.#mirror.commit();
  }

  /** A new standby has come, and knows nothing. */
  tellAnew(): void {
    this.#told.clear();
    this.tell();
  }

  /** Pending while the standby has not been told of everything. */
  get told(): Promise<void> | undefined {
    return this.#mirror.told;
  }

  /** There is no such object any more. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#end();
    this.#mirror.note({ kind: "gone", of: this.#of });
  }
}

/** All objects that a standby has. */
export class Replica {
  readonly #mirror: VhostMirror;
  readonly #objects = new Map<string, Replicated>();

  constructor(mirror: VhostMirror) {
    this.#mirror = mirror;
  }

  /** Has an object told from now on; `parts` says what there is of it. */
  keep(of: string, parts: () => Parts): Replicated {
    const object = new Replicated(of, parts, { mirror: this.#mirror, end: () => this.#objects.delete(of) });
    this.#objects.set(of, object);
    object.tell();
    return object;
  }

  /** A name for a session that no other has, in this process or in the one before. */
  nextSession(): string {
    return `session ${this.#mirror.nextConnection()}`;
  }

  /** Tells a standby that has come of everything. */
  tellAll(): void {
    for (const object of this.#objects.values()) object.tellAnew();
  }
}

/** An object that is just ending has closed descriptors already: nobody is to go on with it. */
function wholeOrNothing(parts: Parts): Parts {
  return Object.values(parts).some(({ fds = [] }) => fds.some(({ closed }) => closed)) ? {} : parts;
}

/** As JSON, what JSON has no word for. */
function plain(_key: string, value: unknown): unknown {
  return typeof value === "bigint" ? `${value}n` : value;
}
