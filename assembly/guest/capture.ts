/**
 * Captures frames into a ring that the control thread reads: each record is whole, and one that would overtake the
 * reader is lost and counted. Positions count bytes from the beginning, so they never run backwards.
 */
import {
  CAPTURE,
  CAPTURE_BYTES,
  CAPTURE_HEADER_BYTES,
  CAPTURE_SNAP_BYTES,
  GC,
  GC_CAPTURE,
  GC_CAPTURE_HEAD,
  GC_CAPTURE_LOST,
  GC_CAPTURE_TAIL,
  GC_NOW_NS,
} from "../../shared/layout/guest.ts";

/** Notes a frame that was sent (`flags` 1) or received (0), if somebody captures. */
@inline
export function capture(frame: usize, bytes: u32, flags: u32): void {
  if (load<u32>(GC, GC_CAPTURE) != 0) record(frame, bytes, flags);
}

function record(frame: usize, bytes: u32, flags: u32): void {
  const kept = min(bytes, <u32> CAPTURE_SNAP_BYTES);
  const need = (CAPTURE_HEADER_BYTES + kept + 7) & ~7;
  const head = atomic.load<u32>(GC + GC_CAPTURE_HEAD);
  // A record does not wrap: what is left of the ring is skipped, with a length of 0 to say so.
  const place = head & (CAPTURE_BYTES - 1);
  const skip = place + need > <u32> CAPTURE_BYTES ? CAPTURE_BYTES - place : 0;
  if (head + skip + need - atomic.load<u32>(GC + GC_CAPTURE_TAIL) > <u32> CAPTURE_BYTES) {
    store<u64>(GC, load<u64>(GC, GC_CAPTURE_LOST) + 1, GC_CAPTURE_LOST);
    return;
  }
  if (skip != 0) store<u32>(CAPTURE + place, 0);
  const at = CAPTURE + ((head + skip) & (CAPTURE_BYTES - 1));
  store<u32>(at, bytes);
  store<u32>(at, flags, 4);
  store<f64>(at, load<f64>(GC, GC_NOW_NS), 8);
  memory.copy(at + CAPTURE_HEADER_BYTES, frame, kept);
  atomic.store<u32>(GC + GC_CAPTURE_HEAD, head + skip + need);
}
