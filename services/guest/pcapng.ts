/**
 * Captures as pcapng (IETF draft-ietf-opsawg-pcapng): a section header, one interface, an enhanced packet block for each
 * frame, with nanosecond times and the direction in its flags. Wireshark and tshark open it.
 */
import * as L from "../../shared/layout/guest.ts";
import type { Machine } from "./machine.ts";
import { monotonicNs } from "../../shared/os/mod.ts";

const SECTION_HEADER = 0x0a0d0d0a;
const INTERFACE = 1;
const ENHANCED_PACKET = 6;
const BYTE_ORDER_MAGIC = 0x1a2b3c4d;
const LINKTYPE_ETHERNET = 1;
const OPT_END = 0;
const OPT_IF_NAME = 2;
const OPT_IF_TSRESOL = 9;
const OPT_EPB_FLAGS = 2;
const POLL_MS = 20;

function block(type: number, body: Uint8Array): Uint8Array {
  const padded = Math.ceil(body.length / 4) * 4;
  const bytes = new Uint8Array(12 + padded);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, type, true);
  view.setUint32(4, bytes.length, true);
  bytes.set(body, 8);
  view.setUint32(8 + padded, bytes.length, true);
  return bytes;
}

function option(code: number, value: Uint8Array): number[] {
  const head = new Uint8Array(new Uint16Array([code, value.length]).buffer);
  return [...head, ...value, ...new Array((4 - value.length % 4) % 4).fill(0)];
}

/** The blocks that a capture of interface `name` begins with. */
function pcapngHeader(name: string): Uint8Array {
  const section = new Uint8Array(16);
  const view = new DataView(section.buffer);
  view.setUint32(0, BYTE_ORDER_MAGIC, true);
  view.setUint16(4, 1, true);
  view.setBigInt64(8, -1n, true);
  const fixed = new Uint8Array(8);
  new DataView(fixed.buffer).setUint16(0, LINKTYPE_ETHERNET, true);
  const options = [
    ...option(OPT_IF_NAME, new TextEncoder().encode(name)),
    ...option(OPT_IF_TSRESOL, Uint8Array.of(9)),
    ...option(OPT_END, new Uint8Array()),
  ];
  const parts = [block(SECTION_HEADER, section), block(INTERFACE, Uint8Array.from([...fixed, ...options]))];
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

/** One frame of `length` bytes, of which `bytes` were kept, at `ns` nanoseconds since 1970. */
function pcapngPacket(bytes: Uint8Array, length: number, ns: bigint, sent: boolean): Uint8Array {
  const padded = Math.ceil(bytes.length / 4) * 4;
  const flags = option(OPT_EPB_FLAGS, new Uint8Array(new Uint32Array([sent ? 2 : 1]).buffer));
  const options = [...flags, ...option(OPT_END, new Uint8Array())];
  const body = new Uint8Array(20 + padded + options.length);
  const view = new DataView(body.buffer);
  view.setUint32(4, Number(ns >> 32n), true);
  view.setUint32(8, Number(ns & 0xffffffffn), true);
  view.setUint32(12, bytes.length, true);
  view.setUint32(16, length, true);
  body.set(bytes, 20);
  body.set(options, 20 + padded);
  return block(ENHANCED_PACKET, body);
}

/** What the worker captures for `seconds`, as it comes. One capture at a time reads the ring. */
export async function* captureFrames(
  machine: Machine,
  seconds: number,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const { view, buffer } = machine.memory;
  const words = new Int32Array(buffer);
  const at = (offset: number) => (L.GC + offset) / 4;
  // The monotonic clock's zero, on the wall clock.
  const epochNs = BigInt(Math.round((Date.now() * 1e6 - monotonicNs()) / 1e6)) * 1_000_000n;
  Atomics.store(words, at(L.GC_CAPTURE_TAIL), Atomics.load(words, at(L.GC_CAPTURE_HEAD)));
  Atomics.store(words, at(L.GC_CAPTURE), 1);
  const end = performance.now() + seconds * 1000;
  try {
    yield pcapngHeader("eth0");
    for (let last = false; !last && !signal.aborted;) {
      last = performance.now() >= end;
      const head = Atomics.load(words, at(L.GC_CAPTURE_HEAD)) >>> 0;
      for (let tail = Atomics.load(words, at(L.GC_CAPTURE_TAIL)) >>> 0; tail !== head && !signal.aborted;) {
        const place = tail & (L.CAPTURE_BYTES - 1);
        const record = L.CAPTURE + place;
        const length = view.getUint32(record, true);
        if (length === 0) {
          tail = (tail + L.CAPTURE_BYTES - place) >>> 0;
        } else {
          const kept = Math.min(length, L.CAPTURE_SNAP_BYTES);
          const bytes = new Uint8Array(buffer, record + L.CAPTURE_HEADER_BYTES, kept).slice();
          const ns = epochNs + BigInt(Math.round(view.getFloat64(record + 8, true)));
          yield pcapngPacket(bytes, length, ns, view.getUint32(record + 4, true) === 1);
          tail = (tail + Math.ceil((L.CAPTURE_HEADER_BYTES + kept) / 8) * 8) >>> 0;
        }
        Atomics.store(words, at(L.GC_CAPTURE_TAIL), tail | 0);
      }
      if (!last) await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  } finally {
    Atomics.store(words, at(L.GC_CAPTURE), 0);
  }
}
