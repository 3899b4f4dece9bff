/**
 * The guest's packet buffers and who has each: the shell's bookkeeping, which no plugin can touch. A buffer that a
 * plugin names is believed only if the plugin has it.
 */
import {
  BUFFER_OWNERS,
  BUFFERS,
  FREE_STACK,
  G_TX_LOST,
  GC,
  GC_COUNTERS,
  GC_FREE_COUNT,
  GC_PAIRS,
  GC_PATH,
  OWNER_FREE,
  OWNER_RX,
  OWNER_TX,
  PAIR_RX_HELD,
  PAIR_STRIDE,
  PAIR_TX_HELD,
} from "../../shared/layout/guest.ts";
import { PLUGIN_BUFFER_BYTES, PLUGIN_BUFFER_COUNT, PLUGIN_QUEUE_PAIRS_MAX } from "../../shared/layout/plugin.ts";

/** Adds `n` to one of the guest's counters. */
@inline
export function count(counter: u32, n: u64): void {
  const at = GC + GC_COUNTERS + counter;
  store<u64>(at, load<u64>(at) + n);
}

@inline
export function pairOf(pair: u32): usize {
  return GC + GC_PAIRS + pair * PAIR_STRIDE;
}

@inline
export function bufferAt(buffer: u32): usize {
  return BUFFERS + buffer * PLUGIN_BUFFER_BYTES;
}

@inline
export function ownerOf(buffer: u32): u32 {
  return load<u8>(BUFFER_OWNERS + buffer);
}

@inline
export function setOwner(buffer: u32, owner: u32): void {
  store<u8>(BUFFER_OWNERS + buffer, <u8> owner);
}

/** Makes every buffer free. */
export function resetBuffers(): void {
  memory.fill(BUFFER_OWNERS, <u8> OWNER_FREE, PLUGIN_BUFFER_COUNT);
  for (let i: u32 = 0; i < <u32> PLUGIN_BUFFER_COUNT; i++) store<u32>(FREE_STACK + i * 4, PLUGIN_BUFFER_COUNT - 1 - i);
  store<u32>(GC, PLUGIN_BUFFER_COUNT, GC_FREE_COUNT);
}

/** A free buffer, which `owner` has now; -1 if there is none. */
@inline
export function takeBuffer(owner: u32): i32 {
  const free = load<u32>(GC, GC_FREE_COUNT);
  if (free == 0) return -1;
  const buffer = load<u32>(FREE_STACK + (free - 1) * 4);
  store<u32>(GC, free - 1, GC_FREE_COUNT);
  setOwner(buffer, owner);
  return buffer;
}

/** Makes a buffer free. */
@inline
export function giveBuffer(buffer: u32): void {
  const free = load<u32>(GC, GC_FREE_COUNT);
  setOwner(buffer, OWNER_FREE);
  store<u32>(FREE_STACK + free * 4, buffer);
  store<u32>(GC, free + 1, GC_FREE_COUNT);
}

/**
 * Takes back every buffer that data path `path` has: it has ended, or begins anew. What was to be sent belongs to the
 * path in use: what it had not sent is counted as lost.
 */
export function reclaim(path: u32): void {
  const inUse = load<u32>(GC, GC_PATH) == path;
  let unsent: u32 = 0;
  for (let buffer: u32 = 0; buffer < <u32> PLUGIN_BUFFER_COUNT; buffer++) {
    const owner = ownerOf(buffer);
    if (owner == OWNER_TX && inUse) unsent++;
    if ((owner == OWNER_TX && inUse) || owner == OWNER_RX + path) giveBuffer(buffer);
  }
  for (let pair: u32 = 0; pair < <u32> PLUGIN_QUEUE_PAIRS_MAX; pair++) {
    if (inUse) store<u32>(pairOf(pair), 0, PAIR_TX_HELD);
    store<u32>(pairOf(pair) + PAIR_RX_HELD + path * 4, 0);
  }
  count(G_TX_LOST, unsent);
}
