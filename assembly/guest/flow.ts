/**
 * The receiving end of generators: for each flow, what came, twice, late or not at all, and how long it took. A window
 * of the last 8192 sequence numbers tells a late frame from a second one. What was never seen is lost.
 */
import {
  FLOW_BYTES,
  FLOW_COUNT,
  FLOW_CORRUPT,
  FLOW_DUPLICATES,
  FLOW_FIRST_NS,
  FLOW_FROM,
  FLOW_HISTOGRAM,
  FLOW_ID,
  FLOW_LAST_NS,
  FLOW_LATENCY_MAX,
  FLOW_LATENCY_MIN,
  FLOW_LATENCY_SUM,
  FLOW_LONGEST_GAP,
  FLOW_NEXT,
  FLOW_RECEIVED,
  FLOW_REORDERED,
  FLOW_SEEN,
  FLOW_STATE,
  FLOW_STRIDE,
  FLOW_WINDOW,
  FLOWS,
  GC,
  GC_NOW_NS,
  HISTOGRAM_BUCKETS,
  STATE_FREE,
  STATE_RUNNING,
} from "../../shared/layout/guest.ts";

let recent: usize = 0;

/** The flow `id` from `from`: known, or new, or in the place of the one that was quiet longest. */
function flowOf(id: u32, from: u32): usize {
  if (recent != 0 && load<u32>(recent, FLOW_ID) == id && load<u32>(recent, FLOW_FROM) == from &&
    load<u32>(recent, FLOW_STATE) == STATE_RUNNING) return recent;
  let place: usize = 0;
  for (let i: u32 = 0; i < <u32> FLOW_COUNT; i++) {
    const flow: usize = FLOWS + i * FLOW_STRIDE;
    const used = load<u32>(flow, FLOW_STATE) != STATE_FREE;
    if (used && load<u32>(flow, FLOW_ID) == id && load<u32>(flow, FLOW_FROM) == from) {
      recent = flow;
      return flow;
    }
    const placeUsed = place != 0 && load<u32>(place, FLOW_STATE) != STATE_FREE;
    const better = !used || load<f64>(flow, FLOW_LAST_NS) < load<f64>(place, FLOW_LAST_NS);
    if (place == 0 || (placeUsed && better)) place = flow;
  }
  memory.fill(place, 0, FLOW_STRIDE);
  store<u32>(place, STATE_RUNNING, FLOW_STATE);
  store<u32>(place, id, FLOW_ID);
  store<u32>(place, from, FLOW_FROM);
  store<f64>(place, Infinity, FLOW_LATENCY_MIN);
  store<f64>(place, load<f64>(GC, GC_NOW_NS), FLOW_FIRST_NS);
  recent = place;
  return place;
}

@inline
function add(at: usize, n: u64): void {
  store<u64>(at, load<u64>(at) + n);
}

/** Notes a probe of `bytes` bytes of UDP whose checksum was right. */
export function noteProbe(at: usize, bytes: u32, from: u32): void {
  const flow = flowOf(load<u32>(at, 4), from);
  const sequence = load<u64>(at, 8);
  const now = load<f64>(GC, GC_NOW_NS);
  const next = load<u64>(flow, FLOW_NEXT);
  // The first one has none before it.
  const gap = next == 0 ? 0 : now - load<f64>(flow, FLOW_LAST_NS);
  store<f64>(flow, max(load<f64>(flow, FLOW_LONGEST_GAP), gap), FLOW_LONGEST_GAP);
  store<f64>(flow, now, FLOW_LAST_NS);
  if (sequence >= next) {
    if (sequence - next > 0xffffffff) return add(flow + FLOW_CORRUPT, 1);
    advance(flow, next, sequence);
  } else if (next - sequence > <u64> FLOW_WINDOW) {
    // Too old to tell a late one from a second one: it stays lost.
    return add(flow + FLOW_REORDERED, 1);
  } else {
    if (seen(flow, sequence)) return add(flow + FLOW_DUPLICATES, 1);
    add(flow + FLOW_REORDERED, 1);
  }
  mark(flow, sequence);
  add(flow + FLOW_RECEIVED, 1);
  add(flow + FLOW_BYTES, bytes);
  noteLatency(flow, now - load<f64>(at, 16));
}

/** Moves the window's end behind `sequence`. */
function advance(flow: usize, next: u64, sequence: u64): void {
  const steps = min(sequence + 1 - next, <u64> FLOW_WINDOW);
  for (let i: u64 = 0; i < steps; i++) {
    const bit = <u32> (sequence - i) & (FLOW_WINDOW - 1);
    const byte = flow + FLOW_SEEN + (bit >> 3);
    store<u8>(byte, <u8> (<u32> load<u8>(byte) & ~(1 << (bit & 7))));
  }
  store<u64>(flow, sequence + 1, FLOW_NEXT);
}

@inline
function seen(flow: usize, sequence: u64): bool {
  const bit = <u32> sequence & (FLOW_WINDOW - 1);
  return ((<u32> load<u8>(flow + FLOW_SEEN + (bit >> 3)) >> (bit & 7)) & 1) != 0;
}

@inline
function mark(flow: usize, sequence: u64): void {
  const bit = <u32> sequence & (FLOW_WINDOW - 1);
  const byte = flow + FLOW_SEEN + (bit >> 3);
  store<u8>(byte, <u8> (<u32> load<u8>(byte) | (1 << (bit & 7))));
}

/** Buckets: 32 to each power of two from 32 ns on; what is quicker counts in nanoseconds. */
@inline
function noteLatency(flow: usize, ns: f64): void {
  const latency = max(0, ns);
  store<f64>(flow, min(load<f64>(flow, FLOW_LATENCY_MIN), latency), FLOW_LATENCY_MIN);
  store<f64>(flow, max(load<f64>(flow, FLOW_LATENCY_MAX), latency), FLOW_LATENCY_MAX);
  store<f64>(flow, load<f64>(flow, FLOW_LATENCY_SUM) + latency, FLOW_LATENCY_SUM);
  const n = <u32> min(latency, 4294967295);
  let bucket = n;
  if (n >= 32) {
    const power: u32 = 31 - clz(n);
    bucket = ((power - 4) << 5) + ((n >> (power - 5)) & 31);
  }
  const at = flow + FLOW_HISTOGRAM + min(bucket, <u32> HISTOGRAM_BUCKETS - 1) * 4;
  store<u32>(at, load<u32>(at) + 1);
}

/** One more than the highest sequence number that has come of the flow `id` from `from`. */
export function flowNext(id: u32, from: u32): u64 {
  return load<u64>(flowOf(id, from), FLOW_NEXT);
}
