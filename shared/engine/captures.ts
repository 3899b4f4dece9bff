/**
 * Captures of an engine's frames: the control side. The engine writes blocks of a pcapng file into a ring of each
 * capture (assembly/engine/capture/); here a ring is made, read and given back. Nobody waits for a reader: what its ring
 * has no room for is lost, counted, and told in the file.
 */
import * as L from "../layout/nic.ts";
import { COUNTERS } from "../layout/counter_names.ts";
import { DeviceRefusal } from "../device/refusal.ts";
import { ArenaFullError, monotonicNs, type Window } from "../os/mod.ts";
import { commentOption, DROP_COUNTERS, pcapngHeader, statisticsBlock } from "../pcap/mod.ts";
import type { Engine } from "./engine.ts";

/** Bytes that are taken out of a ring at a time, and how long it is left alone after that: so much is copied at most. */
const CHUNK_BYTES = 1 << 20;
const PACE_MS = 10;
/** How often a file says what was lost, if anything was; and how often it says so anyhow, so that a dead end is noticed. */
const STATISTICS_MS = 250;
const SIGN_OF_LIFE_MS = 2000;
/** What lies before the ring in its window: what is known of each pool, and the filter. */
const POOLS_BYTES = 8192;
const FILTER_AT = POOLS_BYTES;
const RING_AT = 16384;

/** What is captured. */
export interface CaptureRequest {
  /** Pools, each an interface of the file with this name. */
  interfaces: readonly { pool: number; name: string }[];
  /** Bytes of each frame that are kept at the most. */
  snapBytes: number;
  /** Steps of a filter, as `compileFilter` makes them; none: every frame is wanted. */
  filter: Uint8Array;
  /** Only frames that were dropped. */
  isDroppedOnly: boolean;
}

type Parts = Pick<Engine, "arena" | "view" | "between">;

/** The captures of one engine. */
export class Captures {
  readonly #engine: Parts;
  readonly #open = new Map<number, Capture>();

  constructor(engine: Parts) {
    this.#engine = engine;
    const bytes = new Uint8Array(engine.arena.buffer);
    const put = (place: number, text: string) => {
      const option = commentOption(text);
      const at = L.CAPTURE_OPTIONS + place * L.CAPTURE_OPTION_STRIDE;
      engine.view.setUint32(at, option.length, true);
      bytes.set(option, at + 4);
    };
    COUNTERS.forEach(([name], i) => DROP_COUNTERS.includes(name) && put(i, `dropped: ${name}`));
    put(L.OPTION_PARTIAL, "the checksum is left to be filled in");
    put(L.OPTION_TO_BE_CUT, "left to be cut into segments");
  }

  /** How many are open. */
  get count(): number {
    return this.#open.size;
  }

  /** Opens one. Throws DeviceRefusal `capture-limit` or `arena-full`. */
  open(request: CaptureRequest): Capture {
    const place = Array.from({ length: L.CAPTURES_MAX }, (_, i) => i).find((i) => !this.#open.has(i));
    if (place === undefined) {
      throw new DeviceRefusal("capture-limit", `${L.CAPTURES_MAX} captures are open already: end one first`);
    }
    const capture = new Capture(this.#engine, place, request, () => this.#open.delete(place));
    this.#open.set(place, capture);
    return capture;
  }

  /**
   * Goes on in an engine's state that another process has left, while the engine stands still: nobody reads that one's
   * captures any more, and their rings are gone.
   */
  takeOver(): void {
    for (let pool = 0; pool < L.POOL_COUNT; pool++) {
      this.#engine.view.setUint32(L.POOLS + pool * L.POOL_STRIDE + L.P_WATCH, 0, true);
    }
  }

  /** Ends all. */
  close(): void {
    for (const capture of [...this.#open.values()]) capture.close();
  }
}

/** One capture that is open. */
export class Capture {
  readonly #engine: Parts;
  readonly #place: number;
  readonly #request: CaptureRequest;
  readonly #window: Window;
  readonly #words: Int32Array;
  readonly #onClose: () => void;
  readonly #epochNs = BigInt(Date.now()) * 1_000_000n - BigInt(Math.round(monotonicNs()));
  #lostTold = 0n;
  #toldMs = performance.now();
  #isOpen = true;
  #ended = Promise.withResolvers<void>();

  constructor(engine: Parts, place: number, request: CaptureRequest, onClose: () => void) {
    this.#engine = engine;
    this.#place = place;
    this.#request = request;
    this.#onClose = onClose;
    this.#words = new Int32Array(engine.arena.buffer);
    try {
      this.#window = engine.arena.allocate(RING_AT + L.CAPTURE_RING_BYTES);
    } catch (error) {
      if (!(error instanceof ArenaFullError)) throw error;
      throw new DeviceRefusal("arena-full", `no room for a capture: ${error.message}`);
    }
    this.#begin();
  }

  get #at(): number {
    return L.CAPTURES + this.#place * L.CAPTURE_STRIDE;
  }

  /** Tells the engine, which stands still only for that. */
  #begin(): void {
    const { view, arena, between } = this.#engine;
    const { interfaces, filter, snapBytes, isDroppedOnly } = this.#request;
    const { offset } = this.#window;
    const bytes = new Uint8Array(arena.buffer);
    bytes.fill(0, offset, offset + RING_AT);
    bytes.set(filter, offset + FILTER_AT);
    interfaces.forEach(({ pool }, id) => {
      view.setUint32(offset + pool * L.CAPTURE_POOL_STRIDE + L.XP_INTERFACE, id, true);
    });
    const bit = 1 << (this.#place + (isDroppedOnly ? L.WATCH_DROPPED_SHIFT : 0));
    between.call(this.#engine, () => {
      bytes.fill(0, this.#at, this.#at + L.CAPTURE_STRIDE);
      view.setUint32(this.#at + L.X_RING, offset + RING_AT, true);
      view.setUint32(this.#at + L.X_POOLS, offset, true);
      view.setUint32(this.#at + L.X_FILTER, offset + FILTER_AT, true);
      view.setUint32(this.#at + L.X_STEPS, filter.length / L.CAPTURE_STEP_STRIDE, true);
      view.setUint32(this.#at + L.X_SNAP, snapBytes, true);
      view.setBigUint64(this.#at + L.X_EPOCH_NS, this.#epochNs, true);
      for (const { pool } of interfaces) this.#watch(pool, bit, true);
    });
  }

  #watch(pool: number, bits: number, on: boolean): void {
    const { view } = this.#engine;
    const at = L.POOLS + pool * L.POOL_STRIDE + L.P_WATCH;
    const before = view.getUint32(at, true);
    view.setUint32(at, on ? before | bits : before & ~bits, true);
  }

  /** Frames that were lost so far, of all interfaces. */
  get lost(): bigint {
    return this.#lostOf().reduce((sum, lost) => sum + lost, 0n);
  }

  #lostOf(): bigint[] {
    const { offset } = this.#window;
    return this.#request.interfaces.map(({ pool }) =>
      this.#engine.view.getBigUint64(offset + pool * L.CAPTURE_POOL_STRIDE + L.XP_LOST_TOTAL, true)
    );
  }

  #word(offset: number): number {
    return Atomics.load(this.#words, (this.#at + offset) / 4) >>> 0;
  }

  /** Whole blocks that the engine has written, 1 MiB at the most, out of the ring; none: there is nothing. */
  take(): Uint8Array<ArrayBuffer> | undefined {
    if (!this.#isOpen) return undefined;
    const write = this.#word(L.X_WRITE);
    let read = this.#word(L.X_READ);
    const round = (read - read % L.CAPTURE_RING_BYTES + L.CAPTURE_RING_BYTES) >>> 0;
    const isBehind = write - read >>> 0 > (round - read >>> 0);
    // Blocks of this round end before the ring does where the next one had no room.
    let end = isBehind ? this.#word(L.X_END) : write;
    if (isBehind && read === end) {
      read = round;
      end = write;
    }
    if (read === end) {
      Atomics.store(this.#words, (this.#at + L.X_READ) / 4, read | 0);
      return undefined;
    }
    const from = this.#window.offset + RING_AT + read % L.CAPTURE_RING_BYTES;
    const bytes = this.#wholeBlocks(from, end - read >>> 0);
    const chunk = new Uint8Array(this.#engine.arena.buffer, from, bytes).slice();
    Atomics.store(this.#words, (this.#at + L.X_READ) / 4, (read + bytes) | 0);
    return chunk;
  }

  /** How many of the `bytes` bytes at `from` are whole blocks and no more than a chunk. */
  #wholeBlocks(from: number, bytes: number): number {
    if (bytes <= CHUNK_BYTES) return bytes;
    const lengthAt = (at: number) => this.#engine.view.getUint32(at + 4, true);
    let taken = 0;
    while (taken + lengthAt(from + taken) <= CHUNK_BYTES) taken += lengthAt(from + taken);
    return taken;
  }

  /** What was lost, if it is time to say so. */
  #statistics(): Uint8Array<ArrayBuffer> | undefined {
    const sinceMs = performance.now() - this.#toldMs;
    const { lost } = this;
    if (sinceMs < (lost === this.#lostTold ? SIGN_OF_LIFE_MS : STATISTICS_MS)) return undefined;
    this.#toldMs = performance.now();
    this.#lostTold = lost;
    const nowNs = this.#epochNs + BigInt(Math.round(monotonicNs()));
    const blocks = this.#lostOf().flatMap((lost, id) =>
      lost > 0n || id === 0 ? [statisticsBlock(id, nowNs, lost)] : []
    );
    return Uint8Array.from(blocks.flatMap((block) => [...block]));
  }

  /** The capture as a pcapng file that goes on until whoever reads it goes away; then it is closed. */
  stream(): ReadableStream<Uint8Array<ArrayBuffer>> {
    const { interfaces, snapBytes } = this.#request;
    let tookMs = 0;
    return new ReadableStream<Uint8Array<ArrayBuffer>>({
      start: (out) => out.enqueue(pcapngHeader(interfaces.map(({ name }) => name), snapBytes)),
      pull: async (out) => {
        const ended = this.#ended.promise.then(() => true);
        for (;;) {
          const waitMs = Math.max(1, tookMs + PACE_MS - performance.now());
          let timer: ReturnType<typeof setTimeout> | undefined;
          const waited = new Promise<false>((done) => timer = setTimeout(() => done(false), waitMs));
          const isOver = await Promise.race([ended, waited]);
          clearTimeout(timer);
          if (isOver) return out.close();
          tookMs = performance.now();
          const chunk = this.take() ?? this.#statistics();
          if (chunk) return out.enqueue(chunk);
        }
      },
      cancel: () => this.close(),
    }, { highWaterMark: 0 });
  }

  /** Ends it, and gives its memory back. */
  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    const { arena, between } = this.#engine;
    const bits = (1 << this.#place) | (1 << (this.#place + L.WATCH_DROPPED_SHIFT));
    between.call(this.#engine, () => {
      for (const { pool } of this.#request.interfaces) this.#watch(pool, bits, false);
    });
    arena.release(this.#window);
    this.#onClose();
    this.#ended.resolve();
  }
}
