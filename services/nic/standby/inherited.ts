/** What a NIC's process that has ended leaves to the one that stood by for it, beside its engine's state. */
import type { Fd } from "../../../shared/os/mod.ts";
import type { HoldTerms } from "../hold.ts";

/** A hold of a NIC that has ended, and the memory of its packet buffer. */
export interface InheritedHold extends HoldTerms {
  isEnding: boolean;
  file: Fd;
}

/** What of a NIC that has ended lies in memory, beside its engine's state. */
export interface Inherited {
  holds: ReadonlyMap<number, InheritedHold>;
  /** Packet buffers of pools that have a lease. */
  buffers: ReadonlyMap<number, { count: number; file: Fd }>;
}
