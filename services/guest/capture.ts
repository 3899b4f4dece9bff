/** What a guest's worker captures, as pcapng. */
import * as L from "../../shared/layout/guest.ts";
import { monotonicNs } from "../../shared/os/mod.ts";
import { pcapngHeader, pcapngPacketBytes, putPcapngPacket } from "../../shared/pcap/mod.ts";
import type { Machine } from "./machine.ts";

const POLL_MS = 20;

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
    yield pcapngHeader(["eth0"]);
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
          const block = new Uint8Array(pcapngPacketBytes(kept));
          const sent = view.getUint32(record + 4, true) === 1;
          putPcapngPacket(new DataView(block.buffer), 0, { bytes, length, ns, sent });
          yield block;
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
