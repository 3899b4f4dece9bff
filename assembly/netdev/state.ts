/** The port's own words: its state, its counters, and why it cannot go on. */
import * as N from "../../shared/layout/netdev.ts";

/** A frame has at least its addresses and its type. */
export const FRAME_BYTES_MIN: u32 = 14;

/** A word of the port's state or configuration. */
@inline
export function get(field: u32): u32 {
  return load<u32>(N.ND_CONTROL + field);
}

@inline
export function set(field: u32, value: u32): void {
  store<u32>(N.ND_CONTROL + field, value);
}

/** Native address of a place in this memory, for the kernel. */
@inline
export function native(at: usize): u64 {
  return load<u64>(N.ND_CONTROL, N.NC_BASE) + at;
}

/** Adds `n` to a counter. */
@inline
export function count(counter: u32, n: u64): void {
  const at = N.ND_COUNTERS + counter;
  store<u64>(at, load<u64>(at) + n);
}

/** The port cannot go on. The first reason stays. */
export function fail(fault: u32, errno: u32): void {
  if (get(N.NS_FAULT) != N.FAULT_NONE) return;
  set(N.NS_FAULT, fault);
  set(N.NS_ERRNO, errno);
}
