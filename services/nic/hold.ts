/**
 * The hold on a pool, as the control thread sees it: a packet buffer to which the switch delivers while the pool's driver
 * changes hands. A change of hands that takes milliseconds loses nothing.
 */
import { type BufferTakeOver, PACKET_BUFFERS, PacketBuffer } from "../../shared/engine/mod.ts";
import type { Arena } from "../../shared/os/mod.ts";

/** A hold as whoever stands by for this process knows it. */
export interface HoldTerms {
  id: string;
  token: string | undefined;
  /** When it ends by itself, in milliseconds since the epoch. */
  endsAtMs: number;
}

/** One pool's hold. */
export class Hold extends PacketBuffer {
  /** By which a lease says with which hold it came. */
  readonly id: string;
  readonly endsAtMs: number;
  /** The right to attach to the VF while it is held; used up by the first who shows it, gone with the hold. */
  token: string | undefined;
  /** Resolves when what it holds has been handed on; `undefined` until somebody ends the hold. */
  released: Promise<void> | undefined;
  /** Nothing is in it any more, and its memory is not its own. */
  closed = false;
  timer: ReturnType<typeof setTimeout> | undefined;

  constructor(engine: { arena: Arena; view: DataView }, pool: number, terms: HoldTerms, before?: BufferTakeOver) {
    super(engine.arena, engine.view, pool, PACKET_BUFFERS, before);
    this.id = terms.id;
    this.token = terms.token;
    this.endsAtMs = terms.endsAtMs;
  }

  /** Gives the memory back; the engine no longer knows the ring. */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.token = undefined;
    clearTimeout(this.timer);
    this.release();
  }
}
