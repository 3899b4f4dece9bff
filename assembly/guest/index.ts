/**
 * The guest: an IPv4 host above, buffer bookkeeping below. Its worker calls `poll`, hands what is in the transmit queue
 * to the data path's plugin and what the plugin reports to `received`, some hundred frames at a time. What a plugin
 * says is checked here: a buffer it does not have, or a length that cannot be, is a fault, and the shell ends it.
 */
import { GC, GC_ANNOUNCE, GC_LINK, GC_NOW_NS, GC_RX_WANTED, POSTED } from "../../shared/layout/guest.ts";
import { LIST_MAX, LIST_POST } from "../../shared/layout/plugin.ts";
import { announce, forgetAddresses } from "./arp.ts";
import { giveBuffer, resetBuffers, takeBuffer } from "./buffers.ts";
import { pollGenerators } from "./generate.ts";
import { list, rxHeldAt, rxOwner } from "./path.ts";
import { pollPings } from "./ping.ts";

export { reclaim } from "./buffers.ts";
export { received, touched } from "./receive.ts";
export { prepareTx, txAccepted, txCompleted, txHeld, txWaiting } from "./transmit.ts";

/** Clears the host's state, once, when the guest boots. */
export function boot(): void {
  resetBuffers();
  forgetAddresses();
}

/** Does what is due at `now`; answers the time at which something is due next, Infinity if nothing is. */
export function poll(now: f64): f64 {
  store<f64>(GC, now, GC_NOW_NS);
  if (load<u32>(GC, GC_LINK) != 0 && atomic.load<u32>(GC + GC_ANNOUNCE) != 0) {
    atomic.store<u32>(GC + GC_ANNOUNCE, 0);
    announce();
  }
  return min(pollPings(now), pollGenerators(now));
}

/** Puts buffers for the receive ring of `pair` into LIST_POST; answers how many. */
export function preparePost(pair: u32): u32 {
  const held = load<u32>(rxHeldAt(pair));
  const wanted = load<u32>(GC, GC_RX_WANTED);
  // A few at a time are not worth a doorbell.
  if (held + (wanted >> 3) > wanted) return 0;
  const n = min(wanted - held, <u32> LIST_MAX);
  const to = list(LIST_POST);
  for (let i: u32 = 0; i < n; i++) {
    const buffer = takeBuffer(rxOwner());
    if (buffer < 0) return i;
    store<u32>(to + i * 4, buffer);
    store<u32>(POSTED + i * 4, buffer);
  }
  return n;
}

/**
 * The data path has taken the first `taken` of the `n` buffers that `preparePost` gave it; the others come back. Which
 * they are is not read from LIST_POST, where the plugin may have written by now.
 */
export function posted(pair: u32, n: u32, taken: u32): void {
  const at = rxHeldAt(pair);
  for (let i = taken; i < n; i++) giveBuffer(load<u32>(POSTED + i * 4));
  store<u32>(at, load<u32>(at) + min(taken, n));
}
