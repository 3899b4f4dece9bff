/** One virtqueue as the front-end describes it, message by message, until it can run. */
import type { Fd } from "../../shared/os/mod.ts";
import type { KeptPart, Part } from "./standby/mod.ts";

const DESCRIPTORS = ["kick", "call", "err"] as const;
const FIELDS = [
  ...["size", "descUser", "availUser", "usedUser", "usedLog", "base", "isBaseOurs"],
  ...["kicked", "enabled", "running", "error", "hasRun"],
] as const;

/** What of a session's rings is none's own, for whoever stands by. */
export interface KeptRings {
  features: bigint | undefined;
  startEnabled: boolean;
  pairs: number;
  declined: bigint;
  offered: number;
  protocolFeatures: bigint;
}

/** What is known of a vring. Addresses are the front-end's own virtual ones. */
export class Vring {
  readonly index: number;
  size = 0;
  descUser: bigint | undefined;
  availUser: bigint | undefined;
  usedUser: bigint | undefined;
  /** The guest address at which writes into the used ring are logged, if they are to be. */
  usedLog: bigint | undefined;
  /**
   * Where the ring goes on, as SET_VRING_BASE says it; a ring that nobody has said it of begins anew. While the ring runs
   * its backend knows better.
   */
  base: number | undefined;
  /** `base` is where this back-end has stopped. */
  isBaseOurs = false;
  kick: Fd | undefined;
  /** A kick message has come: the ring may start, with or without a descriptor to wait on. */
  kicked = false;
  call: Fd | undefined;
  err: Fd | undefined;
  enabled = false;
  /** Whether a backend serves it now. */
  running = false;
  error: string | undefined;

  /** It has run in this session: its base is known, and not what somebody remembers. */
  hasRun = false;

  constructor(index: number) {
    this.index = index;
  }

  /** Whether everything that a start needs has been said, but for the enable. */
  get ready(): boolean {
    return this.kicked && this.size > 0 && this.descUser !== undefined;
  }

  /** It runs now. */
  started(): void {
    this.running = this.hasRun = true;
    this.error = undefined;
  }

  /**
   * Puts the stopped ring into its initial state: disabled, with no size, addresses, kick or call. Two things stay.
   * The base stays because QEMU 7.2–8.0 sends SET_STATUS 0 first when it stops a device, asks GET_VRING_BASE for the
   * base after that, and starts the ring there again. The error descriptor stays because QEMU sends it only once, when
   * it creates the device.
   */
  reset(): void {
    for (const fd of [this.kick, this.call]) fd?.close();
    this.kick = this.call = undefined;
    this.kicked = this.enabled = false;
    this.size = 0;
    this.descUser =
      this.availUser =
      this.usedUser =
      this.usedLog =
        undefined;
    this.error = undefined;
  }

  /** What whoever stands by has of it. */
  get kept(): Part {
    const there = DESCRIPTORS.filter((name) => this[name] !== undefined);
    const fields = Object.fromEntries(FIELDS.map((name) => [name, this[name as keyof this]]));
    return { value: { index: this.index, there, fields }, fds: there.flatMap((name) => this[name] ?? []) };
  }

  /** A ring of a process that has ended. */
  static adopt({ value, fds }: KeptPart): Vring {
    const { index, there, fields } = value as { index: number; there: typeof DESCRIPTORS[number][]; fields: Vring };
    const ring = Object.assign(new Vring(index), fields);
    for (const name of there) ring[name] = fds.shift();
    return ring;
  }

  /** Gives back all descriptors. */
  close(): void {
    for (const fd of [this.kick, this.call, this.err]) fd?.close();
    this.kick = this.call = this.err = undefined;
  }
}
