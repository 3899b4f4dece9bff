/**
 * The plugin for hardware that speaks virtio: split or packed virtqueues, as was negotiated, with mergeable buffers,
 * indirect descriptors, EVENT_IDX, IN_ORDER and many queue pairs. It is also the shell's own data path while a guest is
 * emulated. It may touch what the shell has mapped into its memory and nothing else (docs/plugin-api.md); buffers are
 * the shell's, named by number, and it never keeps one that it has reported back.
 *
 *      index.ts     what the shell calls
 *      split.ts     split virtqueues, VIRTIO 1.2 §2.7
 *      packed.ts    packed virtqueues, §2.8
 *      receive.ts   received buffers become frames
 *      books.ts     who has what
 *      state.ts     configuration, queues' state
 */
import * as P from "../../../shared/layout/plugin.ts";
import * as B from "./books.ts";
import { makeFrames, putPending, reportBrokenFrame } from "./receive.ts";
import * as S from "./state.ts";
import { armPacked, disarmPacked, gatherPacked, layOutPacked, postPacked, txDonePacked, txPacked } from "./packed.ts";
import { armSplit, disarmSplit, gatherSplit, layOutSplit, postSplit, txDoneSplit, txSplit } from "./split.ts";

export function abi(): u32 {
  return P.PLUGIN_ABI;
}

/** Lays out the rings that the configuration asks for and names them; 0, or -1 if it asks for what cannot be. */
export function start(): i32 {
  if (!S.configure()) return -1;
  for (let queue: u32 = 0; queue < S.pairs * 2; queue++) {
    if (S.packed) layOutPacked(queue);
    else layOutSplit(queue);
  }
  return 0;
}

/** Ends it. The shell takes back every buffer. */
export function stop(): void {
}

/** Puts the first `count` entries of LIST_TX, whole frames, into the ring of `pair`; answers how many it took. */
export function tx(pair: u32, count: u32): u32 {
  return S.packed ? txPacked(pair * 2 + 1, count) : txSplit(pair * 2 + 1, count);
}

/** Reports up to `max` buffers that the device has sent, in LIST_DONE; answers how many. */
export function txDone(pair: u32, max: u32): u32 {
  const queue = pair * 2 + 1;
  const state = S.stateOf(queue);
  const room = min(max, <u32> P.LIST_MAX);
  if (load<u32>(state, S.BROKEN) != 0) return B.reportBroken(0, room);
  const done = S.packed ? txDonePacked(queue, room) : txDoneSplit(queue, room);
  return load<u32>(state, S.BROKEN) != 0 ? B.reportBroken(done, room) : done;
}

/** Gives the first `count` buffers of LIST_POST to the device to fill; answers how many it took. */
export function post(pair: u32, count: u32): u32 {
  return S.packed ? postPacked(pair * 2, count) : postSplit(pair * 2, count);
}

/** Reports up to `max` filled buffers, whole frames, in LIST_RX; answers how many. */
export function rx(pair: u32, max: u32): u32 {
  const queue = pair * 2;
  const state = S.stateOf(queue);
  const room = min(max, <u32> P.LIST_MAX);
  if (load<u32>(state, S.BROKEN) != 0) return reportBrokenFrame(0, room);
  let n: u32 = load<u32>(state, S.PENDING) != 0 ? putPending(queue) : 0;
  n = S.packed ? gatherPacked(queue, n, room) : gatherSplit(queue, n, room);
  if (S.mergeable) n = makeFrames(queue, n);
  return load<u32>(state, S.BROKEN) != 0 ? reportBrokenFrame(n, room) : n;
}

/** Asks for an interrupt when something comes in on `pair`; 1 if something has already. */
export function arm(pair: u32): u32 {
  return S.packed ? armPacked(pair * 2) : armSplit(pair * 2);
}

/** No interrupts: the shell polls. */
export function disarm(pair: u32): void {
  if (S.packed) disarmPacked(pair * 2);
  else disarmSplit(pair * 2);
}
