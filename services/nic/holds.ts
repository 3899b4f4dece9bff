/**
 * Changes of hands: while a VF's driver changes, its frames are held. A hold gives its VF's next driver a token, the
 * right to attach, good once and only until the hold ends: done, undone, cancelled or timed out. So a guest that keeps a
 * token for later has nothing.
 */
import { encodeHex } from "@std/encoding/hex";
import { DeviceRefusal } from "../../shared/device/mod.ts";
import type { HoldGrant } from "../../shared/api/nic.ts";
import { type BufferTakeOver, type Engine, PACKET_BUFFERS, poolName } from "../../shared/engine/mod.ts";
import type { NicExports } from "./exports.ts";
import { Hold, type HoldTerms } from "./hold.ts";
import type { NicMirror } from "./standby/messages.ts";
import { noteHold } from "./standby/notes.ts";

const TOKEN_BYTES = 16;
/** Frames of a hold that are handed on in one pause of the engine. */
const RELEASE_FRAMES = 256;
/** Looks at a receiver that took every held frame but has less than half its ring free: some never post more. */
const RELEASE_WAITS_MAX = 20;
const RELEASE_PAUSE_MS = 1;
/** How long a receiver is waited for that does not take what is held. */
const RELEASE_DEADLINE_MS = 1000;

/** What holds need of the rest of the NIC. */
export interface HoldParts {
  engine: Engine<NicExports>;
  mirror: NicMirror;
  /** Has the switch deliver a pool's frames to a hold's queue, or to the pool's driver again. */
  divert(pool: number, queue: number | undefined): void;
  /** Queues may have stopped by themselves. */
  reportErrors(): void;
}

/** All holds of the NIC. */
export class Holds {
  readonly #parts: HoldParts;
  readonly #holds = new Map<number, Hold>();

  constructor(parts: HoldParts) {
    this.#parts = parts;
  }

  /** The hold on a pool. */
  of(pool: number): Hold | undefined {
    return this.#holds.get(pool);
  }

  /** Holds a pool's frames for at most `deadlineMs`. Nothing is lost while the hold has room. */
  begin(pool: number, deadlineMs: number): HoldGrant {
    if (this.#holds.has(pool)) {
      const detail = `vf ${poolName(pool)} is changing hands already: try again in a moment`;
      throw new DeviceRefusal("held", detail);
    }
    const { engine, mirror, divert } = this.#parts;
    const token = encodeHex(crypto.getRandomValues(new Uint8Array(TOKEN_BYTES)));
    const hold = new Hold(engine, pool, { id: crypto.randomUUID(), token, endsAtMs: Date.now() + deadlineMs });
    this.#holds.set(pool, hold);
    // A standby knows it before the first frame goes there.
    noteHold(mirror, hold);
    mirror.commit();
    engine.between(() => divert(pool, hold.queue));
    hold.timer = setTimeout(() => void this.end(pool), deadlineMs);
    return { token, id: hold.id };
  }

  /** All of them. */
  get all(): Iterable<Hold> {
    return this.#holds.values();
  }

  /** Goes on with a hold of a NIC that has ended. The engine stands still. */
  takeOver(pool: number, terms: HoldTerms & { isEnding: boolean }, before: BufferTakeOver): void {
    const { engine, divert } = this.#parts;
    const hold = new Hold(engine, pool, terms, before);
    this.#holds.set(pool, hold);
    divert(pool, hold.queue);
    const leftMs = terms.isEnding ? 0 : Math.max(0, terms.endsAtMs - Date.now());
    hold.timer = setTimeout(() => void this.end(pool), leftMs);
  }

  /** Uses a token up, whatever the answer: the hold that gave it, if that was for `pool`. */
  redeem(token: string, pool: number): Hold | undefined {
    const hold = [...this.#holds.values()].find((hold) => hold.token === token);
    if (hold) this.#void(hold);
    return hold?.pool === pool ? hold : undefined;
  }

  /** From now on nobody can attach with the token of a pool's hold. */
  voidToken(pool: number): void {
    const hold = this.#holds.get(pool);
    if (hold) this.#void(hold);
  }

  #void(hold: Hold): void {
    hold.token = undefined;
    noteHold(this.#parts.mirror, hold);
  }

  /** Ends the hold on a pool at once: what it holds was for an owner that is no longer there, and is dropped. */
  drop(pool: number): void {
    const hold = this.#holds.get(pool);
    if (!hold) return;
    const { engine, divert } = this.#parts;
    this.#holds.delete(pool);
    engine.between(() => {
      divert(pool, undefined);
      engine.wasm.releaseHeld(hold.queue, pool, PACKET_BUFFERS, 1);
    });
    this.#close(hold);
  }

  #close(hold: Hold): void {
    hold.close();
    this.#parts.mirror.note({ kind: "holdEnded", pool: hold.pool });
  }

  /** Drops what a pool's hold has taken so far: it came in a VLAN that the pool has left. */
  discard(pool: number): void {
    const hold = this.#holds.get(pool);
    const { engine } = this.#parts;
    if (hold) engine.between(() => engine.wasm.discardHeld(hold.queue, pool));
  }

  /** Ends the hold on a pool; resolves when what came meanwhile has been delivered. */
  async end(pool: number): Promise<void> {
    const hold = this.#holds.get(pool);
    if (!hold) return;
    hold.token = undefined;
    clearTimeout(hold.timer);
    hold.released ??= this.#release(hold);
    if (!hold.closed) noteHold(this.#parts.mirror, hold);
    await hold.released;
  }

  /**
   * Delivers what is held, in order, to the queues that run now, some of it in each of several short pauses of the
   * engine. A receiver that has no buffers yet is waited for, a while; what it then still does not take is dropped.
   */
  async #release(hold: Hold): Promise<void> {
    const { pool } = hold;
    const { engine, divert, reportErrors } = this.#parts;
    const { wasm } = engine;
    const end = performance.now() + RELEASE_DEADLINE_MS;
    let emptied = 0;
    let leftBefore = Infinity;
    // It may be dropped between two looks.
    while (!hold.closed) {
      const last = performance.now() > end;
      const { done, room, left } = engine.between(() => {
        divert(pool, undefined);
        const left = wasm.releaseHeld(hold.queue, pool, last ? PACKET_BUFFERS : RELEASE_FRAMES, last ? 1 : 0);
        const room = wasm.hasRoom(pool) !== 0;
        // A receiver that is full now would lose what comes before its driver wakes up.
        const done = left === 0 && (room || last || ++emptied === RELEASE_WAITS_MAX);
        // New frames queue up behind those that are left.
        if (!done) divert(pool, hold.queue);
        return { done, room, left };
      });
      reportErrors();
      if (done) break;
      // The engine does not stand still while a receiver is waited for, be it for room or for what one frame needs.
      const goesOn = room && left < leftBefore;
      leftBefore = left;
      await new Promise<void>((resolve) => goesOn ? setImmediate(resolve) : setTimeout(resolve, RELEASE_PAUSE_MS));
    }
    if (hold.closed) return;
    this.#holds.delete(pool);
    this.#close(hold);
  }

  /** The NIC stops: nothing is delivered any more. */
  close(): void {
    for (const hold of this.#holds.values()) clearTimeout(hold.timer);
  }
}
