/** One virtqueue as the front-end describes it, message by message, until it can run. */
import type { Fd } from "../../shared/os/mod.ts";

/** What is known of a vring. Addresses are the front-end's own virtual ones. */
export class Vring {
  readonly index: number;
  size = 0;
  descUser: bigint | undefined;
  availUser: bigint | undefined;
  usedUser: bigint | undefined;
  base = 0;
  kick: Fd | undefined;
  /** A kick message has come: the ring may start, with or without a descriptor to wait on. */
  kicked = false;
  call: Fd | undefined;
  err: Fd | undefined;
  enabled = false;
  /** Whether the NIC drives it now. */
  running = false;
  error: string | undefined;

  constructor(index: number) {
    this.index = index;
  }

  /** Whether everything that a start needs has been said, but for the enable. */
  get ready(): boolean {
    return this.kicked && this.size > 0 && this.descUser !== undefined;
  }

  /** Gives back all descriptors. */
  close(): void {
    for (const fd of [this.kick, this.call, this.err]) fd?.close();
    this.kick = this.call = this.err = undefined;
  }
}
