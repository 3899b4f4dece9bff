/** A built-in guest as a stream: whole and as it was sent, in whatever pieces it comes, or refused with a reason. */
import { assertEquals, assertThrows } from "@std/assert";
import { crc32 } from "node:zlib";
import {
  type Clocks,
  PAGE_BYTES,
  PAGES_MAX,
  ROUNDS_MAX,
  STREAM_VERSION,
  StreamReader,
  StreamWriter,
} from "../../services/guest/migration/stream.ts";
import { ApiError } from "../../shared/api/mod.ts";
import { madeBytes } from "../support/made_bytes.ts";

const RAM_BYTES = 4 * PAGE_BYTES;
const CLOCKS: Clocks = { monotonicNs: 123_456_789.5, wallMs: 1_700_000_000_000.25 };
const SEAT = { ramBytes: RAM_BYTES, queuePairs: 2, isMoved: (page: number) => page === 1 || page === 3 };

/** RAM in which each page has its own number everywhere, and `salt`. */
function ram(salt: number): Uint8Array {
  return madeBytes(RAM_BYTES, (i) => Math.floor(i / PAGE_BYTES) * 16 + salt);
}

function joined(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  parts.reduce((at, part) => (all.set(part, at), at + part.length), 0);
  return all;
}

/** A guest's records: its beginning, two rounds, its end. */
function records(): Uint8Array<ArrayBuffer>[] {
  const writer = new StreamWriter();
  return [writer.begin(RAM_BYTES, 2), writer.pages([1, 3], ram(1)), writer.pages([3], ram(2)), writer.end(CLOCKS)];
}

function read(bytes: Uint8Array, step = bytes.length || 1): { memory: Uint8Array; clocks: Clocks } {
  const reader = new StreamReader(SEAT);
  for (let at = 0; at < bytes.length; at += step) reader.push(bytes.subarray(at, at + step));
  return { clocks: reader.end(), memory: reader.memory };
}

function reasonOf(bytes: Uint8Array): string | undefined {
  return assertThrows(() => read(bytes), ApiError, "; the guest goes on where it came from").reason;
}

/** The stream with a valid checksum again in its first 16 bytes, after `change`. */
function withPreamble(change: (view: DataView) => void): Uint8Array<ArrayBuffer> {
  const bytes = joined(records());
  const view = new DataView(bytes.buffer);
  change(view);
  view.setUint32(12, crc32(bytes.subarray(0, 12)), true);
  return bytes;
}

Deno.test("a guest's stream: each page as it was sent last, the rest zero, and when it was stopped; in any pieces", () => {
  const wanted = new Uint8Array(RAM_BYTES);
  wanted.set(ram(1).subarray(PAGE_BYTES, 2 * PAGE_BYTES), PAGE_BYTES);
  wanted.set(ram(2).subarray(3 * PAGE_BYTES), 3 * PAGE_BYTES);
  for (const step of [1, 7, 16, 4096, 4100, 100_000]) {
    const { memory, clocks } = read(joined(records()), step);
    assertEquals(clocks, CLOCKS);
    assertEquals(memory.every((byte, i) => byte === wanted[i]), true, `in pieces of ${step}`);
  }
});

Deno.test("a guest's stream that is cut, at whatever byte, is refused", () => {
  const bytes = joined(records());
  // Within the pages' contents every byte is as any other.
  const isContent = (at: number) => at > 100 && at < bytes.length - 100 && at % 97 !== 0;
  for (let at = 0; at < bytes.length; at++) {
    if (!isContent(at)) assertEquals(reasonOf(bytes.subarray(0, at)), "stream-cut", `cut at byte ${at}`);
  }
});

Deno.test("a guest's stream in which any bit is another one is refused", () => {
  const bytes = joined(records());
  const isContent = (at: number) => at > 100 && at < bytes.length - 100 && at % 97 !== 0;
  for (let at = 0; at < bytes.length; at++) {
    if (isContent(at)) continue;
    for (const bit of [0, 3, 7]) {
      const altered = bytes.slice();
      altered[at] = (altered[at] ?? 0) ^ (1 << bit);
      // A length that has become greater waits for bytes that do not come.
      const reason = reasonOf(altered) ?? "";
      assertEquals(["stream-altered", "stream-cut"].includes(reason), true, `byte ${at}, bit ${bit}: ${reason}`);
    }
  }
});

Deno.test("a guest's stream whose records are repeated, left out, exchanged or go on behind its end is refused", () => {
  const [begin, first, second, end] = records() as [Uint8Array, Uint8Array, Uint8Array, Uint8Array];
  const cases: Uint8Array[][] = [
    [begin, first, first, second, end],
    [begin, second, end],
    [begin, second, first, end],
    [begin, first, second, end, end],
    [begin, first, second, end, Uint8Array.of(0)],
    [begin, begin, first, second, end],
    [begin.subarray(0, 16), first, second, end],
  ];
  for (const [i, parts] of cases.entries()) assertEquals(reasonOf(joined(parts)), "stream-altered", `case ${i}`);
});

Deno.test("a guest's stream of another version is refused by its version, whatever comes behind", () => {
  for (const version of [0, STREAM_VERSION + 1, 0xffffffff]) {
    const bytes = withPreamble((view) => view.setUint32(8, version, true));
    assertEquals(reasonOf(bytes), "stream-version");
    const text = `the stream is of version ${version}, and this seat takes version ${STREAM_VERSION}`;
    assertThrows(() => read(bytes.subarray(0, 16)), ApiError, text);
  }
  assertEquals(reasonOf(withPreamble((view) => view.setUint8(0, 0x51))), "stream-altered");
});

Deno.test("a guest that a seat has no room for, with other queues, or with pages that no guest takes along, is refused", () => {
  const writer = () => new StreamWriter();
  const refusals: [() => Uint8Array[], string, string][] = [
    [() => [writer().begin(2 * RAM_BYTES, 2)], "seat-differs", "the guest has 32768 bytes of RAM, and this seat 16384"],
    [
      () => [writer().begin(RAM_BYTES, 4)],
      "seat-differs",
      "the guest has 4 queue pairs, and this seat 2 (--queue-pairs)",
    ],
    ...[0, 2, 4, 0xfffff].map((page): [() => Uint8Array[], string, string] => [
      () => {
        const one = writer();
        return [one.begin(RAM_BYTES, 2), one.pages([page], new Uint8Array((page + 1) * PAGE_BYTES & 0xffffff))];
      },
      "stream-altered",
      `page ${page} is none that a guest takes along`,
    ]),
  ];
  for (const [make, reason, text] of refusals) {
    const error = assertThrows(() => read(joined(make())), ApiError, text);
    assertEquals(error.reason, reason);
  }
});

Deno.test("a guest's stream of more pages than its rounds can have is refused before its end", () => {
  const reader = new StreamReader(SEAT);
  const writer = new StreamWriter();
  const many = Array.from({ length: PAGES_MAX }, () => 1);
  reader.push(writer.begin(RAM_BYTES, 2));
  const error = assertThrows(() => {
    for (let sent = 0; sent <= (ROUNDS_MAX + 2) * RAM_BYTES / PAGE_BYTES; sent += many.length) {
      reader.push(writer.pages(many, ram(0)));
    }
  }, ApiError);
  assertEquals(error.reason, "stream-too-large");
});
