/**
 * A guest leaves for another host: its pages are sent in rounds while it runs, each round those that have changed since,
 * until the rest is so little that the guest can be stopped for it. Whoever moves it reads the stream and says when it
 * has arrived (`commit`); from then on the guest is where its address is. Whatever fails before leaves it here.
 */
import { ApiError, type Departure as View, problemDocument } from "../../../shared/api/mod.ts";
import { GC_PATH, GC_QUEUE_PAIRS } from "../../../shared/layout/guest.ts";
import type { Host } from "../host.ts";
import type { Machine } from "../machine.ts";
import type { Seat } from "../seat.ts";
import { clocksNow } from "./clock.ts";
import { MovedPages } from "./pages.ts";
import { PAGE_BYTES, PAGES_MAX, ROUNDS_MAX, StreamWriter } from "./stream.ts";

/** A stream that nobody reads for so long is given up. */
const STALL_MS = 30_000;
/** A guest that was stopped, and of which nobody says that it has arrived, goes on here after so long. */
const STOPPED_MS = 5000;
/** A guest that is said to have arrived, and whose address is still this VF's, comes back after so long. */
const COMMITTED_MS = 10_000;
/** A guest that is said to have arrived, and whose address has been another's for so long, does not come back. */
const GONE_MS = 60_000;

const STOPPED = "the guest is stopped";

/** What it is made with. */
export interface DepartureParts {
  seat: Seat;
  machine: Machine;
  host: Host;
}

interface Request {
  maxDowntimeMs: number;
  maxRateMbps?: number | undefined;
}

/** One guest's way out. */
export class Departure {
  readonly #parts: DepartureParts;
  readonly #request: Request;
  readonly #pages: MovedPages;
  readonly #writer = new StreamWriter();
  readonly #id = crypto.randomUUID();
  readonly #key = crypto.randomUUID();
  readonly #startedAt = new Date().toISOString();
  #endedAt: string | undefined;
  #now = "the guest is copied";
  #error: ApiError | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #committedMs: number | undefined;
  #stopping: Promise<void> | undefined;
  /** Resolves when a guest whose move was cancelled is as it was. */
  #ending: Promise<void> | undefined;
  #rounds = 0;
  #sentBytes = 0;
  #remainingBytes = 0;
  #bytesPerSecond = 0;
  #expectedMs: number | undefined;

  /** Begins. Throws ApiError if the guest cannot be moved now. */
  constructor(parts: DepartureParts, request: Request) {
    const { seat, machine, host } = parts;
    seat.mustRun();
    seat.mustBe("move the guest", "running");
    mustDriveItself(host);
    this.#parts = parts;
    this.#request = request;
    this.#pages = new MovedPages(machine.memory.buffer);
    seat.state = "leaving";
    seat.onConfig = (hasAddress) => this.#heard(hasAddress);
    this.#within(STALL_MS, () => this.cancel(`nobody has read the stream for ${STALL_MS / 1000} s`));
  }

  /** Whether it is still to be seen where the guest goes on. */
  get isOpen(): boolean {
    return this.#endedAt === undefined;
  }

  get view(): View {
    const error = this.#error;
    return {
      id: this.#id,
      what: "the guest leaves",
      state: this.isOpen ? "running" : error ? "failed" : "done",
      ...(this.isOpen ? { now: this.#now } : {}),
      ...(error ? { problem: problemDocument(error.status, error.message, error) } : {}),
      startedAt: this.#startedAt,
      ...(this.#endedAt === undefined ? {} : { endedAt: this.#endedAt }),
      transfer: {
        rounds: this.#rounds,
        bytesSent: this.#sentBytes,
        bytesTotal: this.#sentBytes + this.#remainingBytes,
        bytesRemaining: this.#remainingBytes,
        bytesPerSecond: Math.round(this.#bytesPerSecond),
        ...(this.#expectedMs === undefined ? {} : { expectedDowntimeMs: Math.round(this.#expectedMs * 10) / 10 }),
      },
    };
  }

  /** The stream. It is read once; ending before its end leaves the guest here. */
  async *stream(): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    const { machine, host } = this.#parts;
    try {
      yield this.#writer.begin(machine.memory.buffer.byteLength, host.get(GC_QUEUE_PAIRS));
      for (let changed = this.#look(); !this.#isLittle(changed); changed = this.#look()) {
        yield* this.#send(changed, true);
      }
      this.#stopping = this.#stop();
      await this.#stopping;
      const clocks = clocksNow();
      yield* this.#send(this.#look(), false);
      this.#mustGoOn();
      this.#now = STOPPED;
      yield this.#writer.end(clocks);
    } catch (error) {
      await this.cancel((error as Error).message);
      throw error;
    } finally {
      // Whoever reads has gone away.
      if (this.#isSending) await this.cancel("the stream was not read to its end");
    }
  }

  get #isSending(): boolean {
    return this.isOpen && this.#committedMs === undefined && this.#now !== STOPPED;
  }

  #look(): number[] {
    this.#rounds++;
    const changed = this.#pages.changed();
    this.#remainingBytes = changed.length * PAGE_BYTES;
    return changed;
  }

  /** Whether the rest can be sent while the guest is stopped. */
  #isLittle({ length }: number[]): boolean {
    if (this.#rounds === 1) return false;
    const expectedMs = length * PAGE_BYTES / this.#bytesPerSecond * 1000;
    this.#expectedMs = expectedMs;
    return expectedMs <= this.#request.maxDowntimeMs || this.#rounds > ROUNDS_MAX;
  }

  async *#send(pages: readonly number[], paced: boolean): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    const { maxRateMbps } = this.#request;
    const startMs = performance.now();
    let bytes = 0;
    for (let i = 0; i < pages.length; i += PAGES_MAX) {
      this.#mustGoOn();
      const some = pages.slice(i, i + PAGES_MAX);
      this.#pages.take(some);
      const record = this.#writer.pages(some, this.#pages.sent);
      yield record;
      bytes += record.length;
      this.#sentBytes += some.length * PAGE_BYTES;
      this.#remainingBytes -= some.length * PAGE_BYTES;
      const dueMs = paced && maxRateMbps !== undefined ? bytes * 8 / maxRateMbps / 1000 : 0;
      const earlyMs = dueMs - (performance.now() - startMs);
      if (earlyMs > 0) await new Promise((resolve) => setTimeout(resolve, earlyMs));
      if (paced) this.#within(STALL_MS, () => this.cancel(`nobody has read the stream for ${STALL_MS / 1000} s`));
    }
    if (bytes > 0) this.#bytesPerSecond = bytes / Math.max(0.1, performance.now() - startMs) * 1000;
  }

  async #stop(): Promise<void> {
    this.#mustGoOn();
    this.#now = "the guest is being stopped";
    this.#within(STOPPED_MS, () => this.cancel(`nobody has said within ${STOPPED_MS / 1000} s that it has arrived`));
    await this.#parts.seat.stop();
    try {
      // Somebody may have cancelled meanwhile, and a change of mode had begun before the move did.
      this.#mustGoOn();
      mustDriveItself(this.#parts.host);
    } catch (error) {
      await this.#parts.seat.goOn();
      throw error;
    }
    this.#parts.seat.state = "stopped";
  }

  #mustGoOn(): void {
    if (!this.isOpen) throw this.#error ?? new ApiError(409, "the move has ended");
  }

  #within(ms: number, act: () => Promise<void>): void {
    clearTimeout(this.#timer);
    if (!this.isOpen) return;
    this.#timer = setTimeout(() => void act(), ms);
    Deno.unrefTimer(this.#timer as unknown as number);
  }

  #end(error?: ApiError): void {
    clearTimeout(this.#timer);
    this.#error = error;
    this.#endedAt = new Date().toISOString();
    this.#parts.seat.onConfig = () => {};
  }

  /** The guest goes on here. Whoever has said that it has arrived gives the key. A move that has ended stays as it is. */
  async cancel(reason: string, key?: string): Promise<void> {
    const { seat } = this.#parts;
    if (!this.isOpen) return await this.#ending;
    if (seat.state === "gone" && key !== this.#key) {
      throw new ApiError(409, "the guest has arrived: it goes on where its address is", "key", "committed");
    }
    this.#end(new ApiError(409, `the guest goes on here: ${reason}`, undefined, "cancelled"));
    this.#ending = this.#goOn();
    await this.#ending;
  }

  async #goOn(): Promise<void> {
    const { seat } = this.#parts;
    // A guest that is being stopped in this moment goes on as soon as it stands: only then is it as it was.
    await this.#stopping?.catch(() => {});
    if (seat.state === "leaving") seat.state = "running";
    else if (seat.state !== "running") await seat.goOn();
  }

  /** Everything has arrived: the guest is where its address is from now on. Answers the key to take that back with. */
  commit(): string {
    const { seat } = this.#parts;
    seat.mustBe("hand the guest over", "stopped");
    if (this.#isSending) {
      throw new ApiError(409, "cannot hand the guest over: it has not been sent to its end", "seat", "wrong-seat");
    }
    clearTimeout(this.#timer);
    this.#committedMs = performance.now();
    this.#now = "the guest is where its address is";
    seat.state = "gone";
    return this.#key;
  }

  /** The guest runs at the target: what it has left is cleared, and its seat waits for another one. */
  async finish(key: string): Promise<void> {
    if (!this.isOpen) return;
    this.#parts.seat.mustBe("clear the guest", "gone");
    if (key !== this.#key) throw new ApiError(409, "that is not the key of this move", "key", "wrong-key");
    await this.#clear();
  }

  async #clear(): Promise<void> {
    this.#end();
    await this.#parts.seat.empty();
  }

  /** Whoever has moved the guest may have died in the middle: then its VF's address says where it is. */
  #heard(hasAddress: boolean): void {
    if (this.#committedMs === undefined || !this.isOpen) return;
    const sinceMs = performance.now() - this.#committedMs;
    if (hasAddress && sinceMs > COMMITTED_MS) {
      void this.cancel("nobody has given its address to the target", this.#key);
    } else if (!hasAddress && sinceMs > GONE_MS) void this.#clear();
  }
}

/** Throws if a plugin drives the guest's VF. */
function mustDriveItself(host: Host): void {
  if (host.get(GC_PATH) === 0) return;
  throw new ApiError(409, "a plugin drives the guest's VF: leave it first (emulated mode)", "mode", "plugin-drives");
}
