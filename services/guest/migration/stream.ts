/**
 * A guest on its way to another host, as bytes: whoever moves it carries them from the one seat's API to the other's. A
 * preamble names the format and its version, and records follow. Each has its number and its checksum, and the last one
 * says that the guest is whole: a stream that is cut, altered, repeated or of another version is refused, and nothing of
 * it is used before its end.
 *
 *      preamble   16 bytes  magic "RFGUEST\n", version u32, CRC-32 of what is before u32
 *      record     16 bytes  kind u32, number u32, bytes of the payload u32, CRC-32 of those 12 bytes and the payload u32
 *      BEGIN                RAM bytes u32, queue pairs u32
 *      PAGES                4 + 4096 bytes each: the page's number u32 for all of them, then their contents
 *      END                  monotonic clock f64 ns, wall clock f64 ms: when the guest was stopped
 */
import { crc32 } from "node:zlib";
import { ApiError } from "../../../shared/api/mod.ts";

export const STREAM_VERSION = 1;
export const PAGE_BYTES = 4096;
/** Pages of a record, at most. */
export const PAGES_MAX = 64;
/** Rounds in which pages are sent while the guest runs, at most. */
export const ROUNDS_MAX = 30;
const MAGIC = new TextEncoder().encode("RFGUEST\n");
const PREAMBLE_BYTES = 16;
const HEADER_BYTES = 16;
const BEGIN = 1;
const PAGES = 2;
const END = 3;
const KINDS_MAX_BYTES = new Map([[BEGIN, 8], [PAGES, PAGES_MAX * (4 + PAGE_BYTES)], [END, 16]]);

/** When a guest was stopped, by its host's clocks: what counts from an unknown moment, and what all hosts have. */
export interface Clocks {
  monotonicNs: number;
  wallMs: number;
}

/** Writes a stream, record by record. */
export class StreamWriter {
  #number = 0;

  /** What the stream begins with. */
  begin(ramBytes: number, queuePairs: number): Uint8Array<ArrayBuffer> {
    const preamble = new Uint8Array(PREAMBLE_BYTES);
    const view = new DataView(preamble.buffer);
    preamble.set(MAGIC);
    view.setUint32(8, STREAM_VERSION, true);
    view.setUint32(12, crc32(preamble.subarray(0, 12)), true);
    const record = this.#record(BEGIN, 8, (payload) => {
      payload.setUint32(0, ramBytes, true);
      payload.setUint32(4, queuePairs, true);
    });
    const all = new Uint8Array(preamble.length + record.length);
    all.set(preamble);
    all.set(record, preamble.length);
    return all;
  }

  /** Pages of `memory`, by their numbers. */
  pages(numbers: readonly number[], memory: Uint8Array): Uint8Array<ArrayBuffer> {
    const count = numbers.length;
    return this.#record(PAGES, count * (4 + PAGE_BYTES), (payload, bytes) => {
      numbers.forEach((number, i) => {
        payload.setUint32(i * 4, number, true);
        const at = number * PAGE_BYTES;
        bytes.set(memory.subarray(at, at + PAGE_BYTES), count * 4 + i * PAGE_BYTES);
      });
    });
  }

  /** The guest is whole. */
  end({ monotonicNs, wallMs }: Clocks): Uint8Array<ArrayBuffer> {
    return this.#record(END, 16, (payload) => {
      payload.setFloat64(0, monotonicNs, true);
      payload.setFloat64(8, wallMs, true);
    });
  }

  #record(kind: number, bytes: number, fill: (payload: DataView, bytes: Uint8Array) => void): Uint8Array<ArrayBuffer> {
    const record = new Uint8Array(HEADER_BYTES + bytes);
    const header = new DataView(record.buffer, 0, HEADER_BYTES);
    header.setUint32(0, kind, true);
    header.setUint32(4, this.#number++, true);
    header.setUint32(8, bytes, true);
    fill(new DataView(record.buffer, HEADER_BYTES), record.subarray(HEADER_BYTES));
    header.setUint32(12, checksumOf(record), true);
    return record;
  }
}

function checksumOf(record: Uint8Array): number {
  return crc32(record.subarray(HEADER_BYTES), crc32(record.subarray(0, 12)));
}

function refuse(reason: string, detail: string): ApiError {
  return new ApiError(422, `${detail}; the guest goes on where it came from`, "body", reason);
}

/** What a seat takes. */
export interface SeatSize {
  ramBytes: number;
  queuePairs: number;
  /** Whether a page may be among those that come. */
  isMoved(page: number): boolean;
}

/** Reads a stream in whatever pieces it comes. Throws ApiError at the first thing that is wrong with it. */
export class StreamReader {
  /** The guest's RAM: whole when `end` has answered. */
  readonly memory: Uint8Array<ArrayBuffer>;
  readonly #seat: SeatSize;
  #rest = new Uint8Array(0);
  #next = 0;
  #isBegun = false;
  #pagesLeft: number;
  #clocks: Clocks | undefined;

  constructor(seat: SeatSize) {
    this.#seat = seat;
    this.memory = new Uint8Array(seat.ramBytes);
    // Each page once a round, and once more when the guest has stopped.
    this.#pagesLeft = seat.ramBytes / PAGE_BYTES * (ROUNDS_MAX + 1);
  }

  /** Takes the next bytes. */
  push(bytes: Uint8Array): void {
    const all = new Uint8Array(this.#rest.length + bytes.length);
    all.set(this.#rest);
    all.set(bytes, this.#rest.length);
    let at = 0;
    for (let taken = this.#take(all.subarray(at)); taken > 0; taken = this.#take(all.subarray(at))) at += taken;
    this.#rest = all.slice(at);
  }

  /** The stream has ended: when the guest was stopped. Throws if it is not whole. */
  end(): Clocks {
    if (this.#clocks && this.#rest.length === 0) return this.#clocks;
    throw refuse("stream-cut", "the stream has ended before the guest was whole");
  }

  /** Takes what `bytes` begins with; answers how many bytes that are, 0 if it is not all there. */
  #take(bytes: Uint8Array): number {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    if (!this.#isBegun) {
      if (bytes.length < PREAMBLE_BYTES) return 0;
      this.#preamble(bytes, view);
      this.#isBegun = true;
      return PREAMBLE_BYTES;
    }
    if (this.#clocks && bytes.length > 0) throw refuse("stream-altered", "the stream goes on behind its end");
    if (bytes.length < HEADER_BYTES) return 0;
    const [kind, number, length] = [view.getUint32(0, true), view.getUint32(4, true), view.getUint32(8, true)];
    if (length > (KINDS_MAX_BYTES.get(kind) ?? -1)) {
      throw refuse(
        "stream-altered",
        `record ${this.#next} is of kind ${kind} with ${length} bytes: there is none such`,
      );
    }
    if (bytes.length < HEADER_BYTES + length) return 0;
    const record = bytes.subarray(0, HEADER_BYTES + length);
    if (number !== this.#next || checksumOf(record) !== view.getUint32(12, true)) {
      throw refuse("stream-altered", `record ${this.#next} is not as it was sent`);
    }
    this.#next++;
    this.#record(kind, record.subarray(HEADER_BYTES), number);
    return record.length;
  }

  #preamble(bytes: Uint8Array, view: DataView): void {
    const isOurs = MAGIC.every((byte, i) => bytes[i] === byte);
    if (!isOurs) throw refuse("stream-altered", "this is no stream of a built-in guest");
    if (crc32(bytes.subarray(0, 12)) !== view.getUint32(12, true)) {
      throw refuse("stream-altered", "the stream's beginning is not as it was sent");
    }
    const version = view.getUint32(8, true);
    if (version !== STREAM_VERSION) {
      const detail = `the stream is of version ${version}, and this seat takes version ${STREAM_VERSION}`;
      throw refuse("stream-version", detail);
    }
  }

  #record(kind: number, payload: Uint8Array, number: number): void {
    const view = new DataView(payload.buffer, payload.byteOffset, payload.length);
    if ((kind === BEGIN) !== (number === 0)) throw refuse("stream-altered", `record ${number} is out of its order`);
    if (kind === PAGES) return this.#pages(payload, view);
    if (payload.length !== KINDS_MAX_BYTES.get(kind)) {
      throw refuse("stream-altered", `record ${number} is too short`);
    }
    if (kind === END) {
      this.#clocks = { monotonicNs: view.getFloat64(0, true), wallMs: view.getFloat64(8, true) };
      return;
    }
    const { ramBytes, queuePairs } = this.#seat;
    const [ram, pairs] = [view.getUint32(0, true), view.getUint32(4, true)];
    if (ram !== ramBytes) throw refuse("seat-differs", `the guest has ${ram} bytes of RAM, and this seat ${ramBytes}`);
    if (pairs !== queuePairs) {
      const detail = `the guest has ${pairs} queue pairs, and this seat ${queuePairs} (--queue-pairs)`;
      throw refuse("seat-differs", detail);
    }
  }

  #pages(payload: Uint8Array, view: DataView): void {
    const count = payload.length / (4 + PAGE_BYTES);
    if (!Number.isInteger(count)) throw refuse("stream-altered", "a record has pages that are not whole");
    this.#pagesLeft -= count;
    if (this.#pagesLeft < 0) throw refuse("stream-too-large", "the stream has more pages than a guest sends");
    for (let i = 0; i < count; i++) {
      const page = view.getUint32(i * 4, true);
      if (!this.#seat.isMoved(page)) throw refuse("stream-altered", `page ${page} is none that a guest takes along`);
      const from = count * 4 + i * PAGE_BYTES;
      this.memory.set(payload.subarray(from, from + PAGE_BYTES), page * PAGE_BYTES);
    }
  }
}
