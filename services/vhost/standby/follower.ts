/** What vhost's process that stands by knows: the parts of every object, as they were told last. */
import { closeAll } from "../../../shared/device/mod.ts";
import type { Channel } from "../../../shared/device/mod.ts";
import type { Fd } from "../../../shared/os/mod.ts";
import { type Entry, Follower, take } from "../../../shared/standby/mod.ts";
import { type Change, STANDBY_VERSION } from "./messages.ts";

/** A part of an object of the process that has ended, and its descriptors, for whoever takes them. */
export interface KeptPart {
  value: unknown;
  fds: Fd[];
}

/** What is kept of an object. */
export type KeptObject = ReadonlyMap<string, KeptPart>;

/** The side that stands by. */
export class VhostFollower extends Follower<Change> {
  readonly #objects = new Map<string, Map<string, KeptPart>>();

  constructor(channel: Channel) {
    super(channel, { service: "vhost", version: STANDBY_VERSION });
  }

  protected override apply({ changes }: Entry<Change>, fds: Fd[]): void {
    for (const change of changes) this.#change(change, fds);
    closeAll(fds);
  }

  #change(change: Change, fds: Fd[]): void {
    switch (change.kind) {
      case "engine":
        return this.begin(change.heir, take(fds), take(fds));
      case "part": {
        const { of, name, value } = change;
        const object = this.#objects.get(of) ?? new Map<string, KeptPart>();
        this.#objects.set(of, object);
        closeAll(object.get(name)?.fds ?? []);
        object.set(name, { value, fds: Array.from({ length: change.fds }, () => take(fds)) });
        return;
      }
      case "gone":
        return this.#forget(change);
    }
  }

  #forget({ of, name }: Extract<Change, { kind: "gone" }>): void {
    const object = this.#objects.get(of);
    if (!object) return;
    for (const [part, { fds }] of object) {
      if (name !== undefined && part !== name) continue;
      closeAll(fds);
      object.delete(part);
    }
    if (object.size === 0) this.#objects.delete(of);
  }

  /** The objects whose names begin so. */
  objects(kind: string): [string, KeptObject][] {
    return [...this.#objects].filter(([name]) => name.startsWith(kind));
  }

  /** The memory file of the engine's state, to go on with. */
  get engineState(): Fd {
    return this.state;
  }
}
