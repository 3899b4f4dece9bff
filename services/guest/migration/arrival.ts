/**
 * A guest comes from another host. Nothing of it is used before all of it is here and has been checked. Then it has its
 * rings, and waits for its address: it runs when its VF has that, or when whoever has moved it says so. A guest whose
 * address does not come is forgotten; it goes on where it came from.
 */
import { ApiError, type Arrival as View, log, oneLine } from "../../../shared/api/mod.ts";
import type { Machine } from "../machine.ts";
import type { Seat } from "../seat.ts";
import { clockDifference, clocksNow, shiftTimes } from "./clock.ts";
import { isMovedPage } from "./pages.ts";
import { type Clocks, StreamReader } from "./stream.ts";

/** A stream that stands still for so long is given up. */
const STALL_MS = 10_000;
/** How long a guest that has come waits for its address: longer than it is waited for where it came from. */
const ADDRESS_MS = 30_000;

/** What it is made with. */
export interface ArrivalParts {
  seat: Seat;
  machine: Machine;
  /** Asks for a seat's queue pairs. */
  queuePairs: number;
}

/** One guest's way in. */
export class Arrival {
  readonly #parts: ArrivalParts;
  readonly #ended = new AbortController();
  #clocks: Clocks | undefined;
  #running: Promise<void> | undefined;
  #downtimeMs: number | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** Begins. Throws ApiError if no guest is waited for. */
  constructor(parts: ArrivalParts) {
    parts.seat.mustBe("take a guest", "waiting");
    this.#parts = parts;
    parts.seat.state = "arriving";
  }

  get view(): View {
    const { state, mac } = this.#parts.seat;
    return { seat: state, mac, ...(this.#downtimeMs === undefined ? {} : { downtimeMs: this.#downtimeMs }) };
  }

  /** Reads the stream to its end. Throws ApiError, with the seat empty again, if it is not whole. */
  async read(body: ReadableStream<Uint8Array> | null): Promise<View> {
    const { seat, machine, queuePairs } = this.#parts;
    const ramBytes = machine.memory.buffer.byteLength;
    const reader = new StreamReader({ ramBytes, queuePairs, isMoved: (page) => isMovedPage(page, ramBytes) });
    try {
      const clocks = await this.#readAll(body, reader);
      await seat.take(reader.memory, (ram) => shiftTimes(ram, clockDifference(clocks, clocksNow())));
      if (this.#ended.signal.aborted) {
        await seat.empty();
        throw new ApiError(409, "the guest that has come is not wanted any more", "body", "cancelled");
      }
      this.#clocks = clocks;
    } catch (error) {
      seat.state = "waiting";
      if (error instanceof ApiError) throw error;
      throw new ApiError(422, `the stream was cut (${oneLine(error)})`, "body", "stream-cut");
    }
    seat.onConfig = (hasAddress) => {
      if (hasAddress) void this.run();
    };
    this.#timer = setTimeout(() => {
      log("warn", "guest", `a guest has come, and its address ${seat.mac} has not: it is forgotten`);
      void this.forget();
    }, ADDRESS_MS);
    Deno.unrefTimer(this.#timer as unknown as number);
    return this.view;
  }

  async #readAll(body: ReadableStream<Uint8Array> | null, reader: StreamReader): Promise<Clocks> {
    const parts = body?.getReader();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = Promise.withResolvers<never>();
    late.promise.catch(() => {});
    this.#ended.signal.addEventListener("abort", () => late.reject(new Error("it is not wanted any more")));
    try {
      for (;;) {
        clearTimeout(timer);
        timer = setTimeout(() => late.reject(new Error(`nothing came for ${STALL_MS / 1000} s`)), STALL_MS);
        const part = await Promise.race([parts?.read(), late.promise]);
        if (!part || part.done) return reader.end();
        reader.push(part.value);
      }
    } catch (error) {
      parts?.cancel().catch(() => {});
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** The guest runs. Whoever says so first, it is once. */
  async run(): Promise<void> {
    const { seat } = this.#parts;
    if (!this.#running) {
      seat.mustBe("run the guest", "arrived");
      this.#running = this.#run(seat);
    }
    await this.#running;
  }

  async #run(seat: Seat): Promise<void> {
    this.#end();
    await seat.run();
    if (this.#clocks) this.#downtimeMs = Math.round((clocksNow().wallMs - this.#clocks.wallMs) * 10) / 10;
  }

  /** What has come is forgotten; the seat waits for another guest. Nothing happens to one that runs. */
  async forget(): Promise<void> {
    const { seat } = this.#parts;
    this.#ended.abort();
    if (seat.state === "arrived") {
      this.#end();
      await seat.empty();
    }
  }

  #end(): void {
    clearTimeout(this.#timer);
    this.#parts.seat.onConfig = () => {};
  }
}
