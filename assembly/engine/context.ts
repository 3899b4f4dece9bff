/**
 * One worker's context: where its state lies. All that a worker owns (lists, pools, queues, its batch) is at a fixed
 * distance from one base, so that several workers can share a module, each with a base of its own
 * (shared/layout/nic.ts has the map).
 */
import { BATCH, CTL, POOL_STRIDE, POOLS } from "../../shared/layout/nic.ts";

/** The base of the context in use. */
export let context: usize = 0;

/** Has this instance work on the context at `base`. Before anything else, and once. */
export function setContext(base: usize): void {
  context = base;
}

/** The control block. */
@inline
export function control(): usize {
  return context + CTL;
}

/** The state of the running batch. */
@inline
export function batch(): usize {
  return context + BATCH;
}

/** A pool's policy and counters. */
@inline
export function poolAt(pool: u32): usize {
  return context + POOLS + pool * POOL_STRIDE;
}

