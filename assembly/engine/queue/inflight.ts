/**
 * What an engine keeps in a front-end's inflight memory, which outlives it (shared/layout/inflight.ts): where the ring
 * stands. No entry is ever in flight: engines give back in the ring's order, so what is behind the used position is to be
 * taken anew, all of it.
 */
import { Q_INFLIGHT, Q_USED_IDX, Q_WRAP, WRAP_USED } from "../../../shared/layout/nic.ts";
import {
  INFLIGHT_PACKED_POSITION,
  INFLIGHT_SPLIT_USED_IDX,
  INFLIGHT_VERSION,
  INFLIGHT_VERSION_1,
} from "../../../shared/layout/inflight.ts";

/** The old halves of INFLIGHT_PACKED_POSITION. */
const OLD_POSITION: u64 = 0x0000ff00ffff0000;

/** The ring runs: whoever succeeds this engine goes on where the memory says. */
@inline
function begin(inflight: usize): void {
  store<u16>(inflight, INFLIGHT_VERSION_1, INFLIGHT_VERSION);
}

/** Whether an engine has kept a position here. */
@inline
export function hasPosition(inflight: usize): bool {
  return load<u16>(inflight, INFLIGHT_VERSION) == INFLIGHT_VERSION_1;
}

/** A split queue starts. */
export function beginSplit(q: usize): void {
  const inflight: usize = load<u32>(q, Q_INFLIGHT);
  if (inflight == 0) return;
  keepSplit(q);
  begin(inflight);
}

/** A packed queue starts. */
export function beginPacked(q: usize): void {
  const inflight: usize = load<u32>(q, Q_INFLIGHT);
  if (inflight == 0) return;
  keepPacked(q);
  begin(inflight);
}

/** Keeps a split queue's used index. */
@inline
export function keepSplit(q: usize): void {
  const inflight: usize = load<u32>(q, Q_INFLIGHT);
  if (inflight != 0) store<u16>(inflight, <u16> load<u32>(q, Q_USED_IDX), INFLIGHT_SPLIT_USED_IDX);
}

/** A packed queue's position as the new half of INFLIGHT_PACKED_POSITION. */
@inline
function positionNow(q: usize): u64 {
  return <u64> load<u32>(q, Q_USED_IDX) | ((load<u32>(q, Q_WRAP) & WRAP_USED) != 0 ? <u64> 1 << 32 : 0);
}

/** Says how far a packed queue's burst goes that is about to be published; the old half says where it began. */
@inline
export function announceInflight(q: usize): void {
  const inflight: usize = load<u32>(q, Q_INFLIGHT);
  if (inflight == 0) return;
  const old = load<u64>(inflight, INFLIGHT_PACKED_POSITION) & OLD_POSITION;
  store<u64>(inflight, old | positionNow(q), INFLIGHT_PACKED_POSITION);
}

/** Keeps a packed queue's position: no burst of it is half published. */
@inline
export function keepPacked(q: usize): void {
  const inflight: usize = load<u32>(q, Q_INFLIGHT);
  if (inflight == 0) return;
  const position = positionNow(q);
  // The old index lies 16 bits above the new one, the old wrap counter 8 bits above the new one.
  store<u64>(inflight, position | ((position & 0xffff) << 16) | ((position >> 32) << 40), INFLIGHT_PACKED_POSITION);
}
