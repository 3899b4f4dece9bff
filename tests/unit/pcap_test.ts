/** Capture files: what is written is read, in every format and byte order; what is damaged is said where. */
import { assertEquals, assertThrows } from "@std/assert";
import { CaptureReader, pcapngHeader, pcapngPacketBytes, putPcapngPacket, type ReadAt } from "../../shared/pcap/mod.ts";

/** Reads a file that is in memory, in small parts. */
function file(bytes: Uint8Array, partBytes = 7): ReadAt {
  return (into, offset) => {
    const part = bytes.subarray(offset, offset + Math.min(partBytes, into.byteLength));
    into.set(part);
    return part.byteLength;
  };
}

function bytesOf(...parts: (Uint8Array | number[])[]): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

/** Numbers of 4 bytes each, or of 2 where an array has them in pairs. */
function words(isLittle: boolean, ...values: (number | [number, number])[]): Uint8Array<ArrayBuffer> {
  const view = new DataView(new ArrayBuffer(values.length * 4));
  values.forEach((value, i) => {
    if (typeof value === "number") return view.setUint32(i * 4, value, isLittle);
    value.forEach((half, k) => view.setUint16(i * 4 + k * 2, half, isLittle));
  });
  return new Uint8Array(view.buffer);
}

/** All frames of a file: bytes, whole length, ns, whether it is Ethernet. */
function all(bytes: Uint8Array): [number[], number, number, boolean][] {
  const reader = new CaptureReader(file(bytes));
  const frames: [number[], number, number, boolean][] = [];
  for (let frame = reader.next(); frame; frame = reader.next()) {
    frames.push([[...frame.bytes], frame.length, frame.ns, frame.isEthernet]);
  }
  return frames;
}

Deno.test("what is written as pcapng is read again, as often as it is wanted", () => {
  const view = new DataView(new ArrayBuffer(pcapngPacketBytes(5) + pcapngPacketBytes(4)));
  const first = { bytes: Uint8Array.of(1, 2, 3, 4, 5), length: 5, ns: 1_000_000_123n, sent: true };
  const at = putPcapngPacket(view, 0, first);
  assertEquals(at, pcapngPacketBytes(5));
  putPcapngPacket(view, at, { bytes: Uint8Array.of(6, 7, 8, 9), length: 60, ns: 2_000_000_000n, sent: false });
  const bytes = bytesOf(pcapngHeader(["eth0"]), new Uint8Array(view.buffer));
  assertEquals(all(bytes), [
    [[1, 2, 3, 4, 5], 5, 1_000_000_123, true],
    [[6, 7, 8, 9], 60, 2_000_000_000, true],
  ]);
  // A file may have several sections, one behind the other.
  assertEquals(all(bytesOf(bytes, bytes)).length, 4);
  const reader = new CaptureReader(file(bytes));
  assertEquals([reader.next()?.length, reader.next()?.length, reader.next()], [5, 60, undefined]);
  reader.rewind();
  assertEquals(reader.next()?.length, 5);
});

Deno.test("pcap of both byte orders, in microseconds and nanoseconds", () => {
  for (const isLittle of [true, false]) {
    for (const [magic, ns] of [[0xa1b2c3d4, 3_000_007_000], [0xa1b23c4d, 3_000_000_007]] as const) {
      const header = words(isLittle, magic, [2, 4], 0, 0, 65535, 1);
      const bytes = bytesOf(header, words(isLittle, 3, 7, 4, 9), [1, 2, 3, 4], words(isLittle, 3, 8, 1, 1), [5]);
      assertEquals(all(bytes)[0], [[1, 2, 3, 4], 9, ns, true]);
      assertEquals(all(bytes)[1]?.[0], [5]);
    }
  }
  const other = bytesOf(words(true, 0xa1b2c3d4, [2, 4], 0, 0, 65535, 113), words(true, 0, 0, 1, 1), [5]);
  assertEquals(all(other)[0]?.[3], false);
});

Deno.test("pcapng of the other byte order: several interfaces, their clocks, packets of every kind", () => {
  const section = words(false, 0x0a0d0d0a, 28, 0x1a2b3c4d, [1, 0], 0xffffffff, 0xffffffff, 28);
  // Ticks of 2^-10 s, and of a microsecond, on a wireless one.
  const ticks = words(false, 1, 32, [1, 0], 0, [9, 1], 0x8a000000, 0, 32);
  const radio = words(false, 1, 20, [105, 0], 0, 20);
  const comment = words(false, 5, 16, 0xabad1dea, 16);
  const enhanced = words(false, 6, 36, 0, 0, 1024, 3, 60, 0x01020300, 36);
  const simple = words(false, 3, 20, 2, 0x08090000, 20);
  const old = words(false, 2, 36, [1, 0], 0, 5, 4, 4, 0x0a0b0c0d, 36);
  assertEquals(all(bytesOf(section, ticks, radio, comment, enhanced, simple, old)), [
    [[1, 2, 3], 60, 1e9, true],
    [[8, 9], 2, 0, true],
    [[10, 11, 12, 13], 4, 5000, false],
  ]);
});

Deno.test("what is wrong with a file is said, and where", () => {
  const section = words(true, 0x0a0d0d0a, 28, 0x1a2b3c4d, [1, 0], 0xffffffff, 0xffffffff, 28);
  const ethernet = words(true, 1, 20, [1, 0], 0, 20);
  const cases: [Uint8Array, string][] = [
    [new Uint8Array(0), "it is empty"],
    [words(true, 1, 2, 3), "it is no pcap or pcapng file"],
    [words(true, 0xa1b2c3d4, [2, 4]), "its header is cut off"],
    [bytesOf(words(true, 0xa1b2c3d4, [2, 4], 0, 0, 65535, 1), [1, 2]), "at byte 24: a record's header is cut off"],
    [words(true, 0xa1b2c3d4, [2, 4], 0, 0, 65535, 1, 0, 0, 9, 9), "at byte 24: a frame is cut off"],
    [words(true, 0xa1b2c3d4, [2, 4], 0, 0, 65535, 1, 0, 0, 0xfffffff, 9), "at byte 24: a frame of 268435455 bytes"],
    [words(true, 0x0a0d0d0a, 28, 7, 28), "at byte 0: a section of no byte order"],
    [bytesOf(section, words(true, 1, 4, 0)), "at byte 28: a block of 4 bytes"],
    [bytesOf(section, words(true, 1, 64, 0)), "at byte 28: a block is cut off"],
    [bytesOf(section, words(true, 1, 20, [1, 0], 0, 24)), "at byte 28: a block's two lengths differ"],
    [
      bytesOf(section, words(true, 6, 36, 0, 0, 0, 4, 4, 0, 36)),
      "at byte 28: a packet of an interface that was not described",
    ],
    [
      bytesOf(section, ethernet, words(true, 6, 36, 0, 0, 0, 5, 5, 0, 36)),
      "at byte 48: a packet that is longer than its block",
    ],
  ];
  for (const [bytes, said] of cases) assertThrows(() => all(bytes), Error, said);
});
