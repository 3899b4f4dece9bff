/**
 * Which pages of a guest's RAM move with it, and which of them the target does not have as they are. The host's Wasm, a
 * plugin and the device all write that RAM, and no one log sees all three: so what was sent is kept, and compared. That
 * costs a second copy of the RAM while the guest is moved, and about half a millisecond for each MiB that is looked at.
 *
 * Rings, exchange lists and the plugin's image do not move: the target lays out its own. Of the packet buffers only
 * those move in which the host has something to send: nobody reads the free ones, nor those that are to be filled.
 */
import {
  BUFFER_OWNERS,
  BUFFERS,
  CAPTURE,
  GC,
  OWNER_HOST,
  TX_QUEUE_STRIDE,
  TX_QUEUES,
  USER_MEMORY,
} from "../../../shared/layout/guest.ts";
import { PLUGIN_BUFFER_BYTES, PLUGIN_BUFFER_COUNT, PLUGIN_QUEUE_PAIRS_MAX } from "../../../shared/layout/plugin.ts";
import { PAGE_BYTES } from "./stream.ts";

const PAGE_WORDS = PAGE_BYTES / 4;
const BUFFERS_OF_A_PAGE = PAGE_BYTES / PLUGIN_BUFFER_BYTES;
const BUFFERS_END = BUFFERS + PLUGIN_BUFFER_COUNT * PLUGIN_BUFFER_BYTES;
/** From, and up to. The host's tables, its transmit queues, its buffers, and the user's memory behind them. */
const AREAS: readonly (readonly [number, number])[] = [
  [GC, CAPTURE],
  [TX_QUEUES, TX_QUEUES + PLUGIN_QUEUE_PAIRS_MAX * TX_QUEUE_STRIDE],
  [BUFFERS, BUFFERS_END],
  [USER_MEMORY, Infinity],
];

/** Whether a page of a RAM of `ramBytes` is one that moves. */
export function isMovedPage(page: number, ramBytes: number): boolean {
  const at = page * PAGE_BYTES;
  return at < ramBytes && AREAS.some(([from, to]) => at >= from && at < to);
}

/** A guest's pages on their way. */
export class MovedPages {
  readonly #words: Int32Array;
  readonly #owners: Uint8Array;
  readonly #sentWords: Int32Array;
  readonly #candidates: readonly number[];
  /** What the target has. */
  readonly sent: Uint8Array;

  constructor(ram: SharedArrayBuffer) {
    this.#words = new Int32Array(ram);
    this.#owners = new Uint8Array(ram, BUFFER_OWNERS, PLUGIN_BUFFER_COUNT);
    // The target begins with zeros, as this does: a page that has never been written is not sent.
    this.sent = new Uint8Array(ram.byteLength);
    this.#sentWords = new Int32Array(this.sent.buffer);
    this.#candidates = Array.from({ length: ram.byteLength / PAGE_BYTES }, (_, page) => page)
      .filter((page) => isMovedPage(page, ram.byteLength));
  }

  /** The pages that the target does not have as they are now. */
  changed(): number[] {
    return this.#candidates.filter((page) => this.#isNeeded(page) && !this.#isSent(page));
  }

  /** Notes that the pages are sent as they are in this moment; a write that comes between makes one changed again. */
  take(pages: readonly number[]): void {
    for (const page of pages) {
      const at = page * PAGE_WORDS;
      this.#sentWords.set(this.#words.subarray(at, at + PAGE_WORDS), at);
    }
  }

  #isNeeded(page: number): boolean {
    const at = page * PAGE_BYTES;
    if (at < BUFFERS || at >= BUFFERS_END) return true;
    const first = (at - BUFFERS) / PLUGIN_BUFFER_BYTES;
    for (let i = 0; i < BUFFERS_OF_A_PAGE; i++) if (this.#owners[first + i] === OWNER_HOST) return true;
    return false;
  }

  #isSent(page: number): boolean {
    const [words, sent] = [this.#words, this.#sentWords];
    const end = (page + 1) * PAGE_WORDS;
    for (let i = page * PAGE_WORDS; i < end; i++) if (words[i] !== sent[i]) return false;
    return true;
  }
}
