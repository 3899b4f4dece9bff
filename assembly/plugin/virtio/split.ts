/**
 * The driver's side of split virtqueues (VIRTIO 1.2 §2.7), with indirect descriptors, EVENT_IDX and IN_ORDER.
 *
 * With IN_ORDER (§2.7.9) descriptors are used in the order of the table, so the next one to come back is known without
 * looking. The device may then write one used element for a batch: the head of the batch's last chain, where the
 * batch's first element would be. For what was sent the used index alone says everything. For what was received the
 * element says where the batch ends, and how long its last buffer is; the ones before it are full.
 */
import * as P from "../../../shared/layout/plugin.ts";
import * as V from "../../../shared/layout/virtio.ts";
import * as B from "./books.ts";
import { put } from "./receive.ts";
import * as S from "./state.ts";

/** Lays out a queue's descriptor table, avail ring and used ring. */
export function layOutSplit(queue: u32): void {
  const avail = S.size * V.VIRTQ_DESC_BYTES;
  S.nameRing(queue, avail, (avail + V.VIRTQ_AVAIL_RING + S.size * 2 + 2 + 63) & ~63);
  B.beginBooks(queue);
  disarmSplit(queue);
}

// To the device ------------------------------------------------------------------------------------------------

@inline
function writeDescriptor(ring: usize, index: u32, iova: u64, word: u64): void {
  store<u64>(ring + index * V.VIRTQ_DESC_BYTES, iova);
  store<u64>(ring + index * V.VIRTQ_DESC_BYTES, word, 8);
}

/** Names `head` in the avail ring; the device sees it after `publish`. */
@inline
function offer(state: usize, ring: usize, head: u32): void {
  const idx = load<u32>(state, S.AVAIL);
  store<u16>(ring + S.availOffset + V.VIRTQ_AVAIL_RING + (idx & (S.size - 1)) * 2, <u16> head);
  store<u32>(state, (idx + 1) & 0xffff, S.AVAIL);
}

/** Lets the device see what was offered, and kicks it if it wants that (§2.7.13.3). */
function publish(queue: u32): void {
  const state = S.stateOf(queue);
  const ring = S.ringOf(queue);
  const idx = load<u32>(state, S.AVAIL);
  atomic.store<u16>(ring + S.availOffset + V.VIRTQ_AVAIL_IDX, <u16> idx);
  const before = load<u32>(state, S.KICKED);
  store<u32>(state, idx, S.KICKED);
  if (S.eventIdx) {
    const event: u32 = atomic.load<u16>(ring + S.usedOffset + V.VIRTQ_USED_RING + S.size * V.VIRTQ_USED_ELEM_BYTES);
    if (((idx - event - 1) & 0xffff) < ((idx - before) & 0xffff)) S.notify(queue);
  } else if ((<u32> atomic.load<u16>(ring + S.usedOffset) & V.VIRTQ_USED_F_NO_NOTIFY) == 0) {
    S.notify(queue);
  }
}

/** Puts the first `count` entries of LIST_TX, whole frames, into the ring; answers how many it took. */
export function txSplit(queue: u32, count: u32): u32 {
  const state = S.stateOf(queue);
  const ring = S.ringOf(queue);
  const map = B.mapOf(queue);
  let taken: u32 = 0;
  while (taken < count) {
    const entries: usize = P.LIST_TX + taken * P.ENTRY_BYTES;
    const buffers = B.entriesOfFrame(entries, count - taken);
    if (buffers == 0) break;
    const table = B.wantsTable(queue, buffers);
    if (B.freeCount(state) < (table ? 1 : buffers)) break;
    const place = B.placeOf(entries, S.hdrBytes);
    B.writeHeader(entries, place);
    const head = B.takeFree(queue, state);
    if (buffers == 1) {
      store<u32>(map + head * 4, B.bufferOf(entries) | B.SINGLE);
      writeDescriptor(ring, head, S.buffersIova + place, B.lengthOf(entries) + S.hdrBytes);
    } else if (table) {
      const number = B.fillTable(queue, entries, buffers);
      store<u32>(map + head * 4, number | (buffers << B.COUNT_SHIFT) | B.TABLE | B.HEAD);
      const word = <u64> (buffers * V.VIRTQ_DESC_BYTES) | (<u64> V.VIRTQ_DESC_F_INDIRECT << 32);
      writeDescriptor(ring, head, B.tableIova(queue, number), word);
    } else {
      writeChain(queue, head, entries, buffers);
    }
    offer(state, ring, head);
    taken += buffers;
  }
  if (taken != 0) publish(queue);
  return taken;
}

/** Writes a frame into linked descriptors, the first of which is `head`. */
function writeChain(queue: u32, head: u32, entries: usize, buffers: u32): void {
  const state = S.stateOf(queue);
  const ring = S.ringOf(queue);
  const map = B.mapOf(queue);
  let index = head;
  let flags = B.HEAD | (buffers << B.COUNT_SHIFT);
  for (let i: u32 = 0; i < buffers; i++) {
    const entry = entries + i * P.ENTRY_BYTES;
    const before: u32 = i == 0 ? S.hdrBytes : 0;
    const last = i + 1 == buffers;
    const next: u32 = last ? 0 : B.takeFree(queue, state);
    const link: u64 = last ? 0 : (<u64> V.VIRTQ_DESC_F_NEXT << 32) | (<u64> next << 48);
    writeDescriptor(ring, index, S.buffersIova + B.placeOf(entry, before), <u64> (B.lengthOf(entry) + before) | link);
    store<u32>(map + index * 4, B.bufferOf(entry) | flags | (next << B.NEXT_SHIFT));
    flags = 0;
    index = next;
  }
}

/** Gives the first `count` buffers of LIST_POST to the device to fill; answers how many it took. */
export function postSplit(queue: u32, count: u32): u32 {
  const state = S.stateOf(queue);
  const ring = S.ringOf(queue);
  const map = B.mapOf(queue);
  const n = min(count, B.freeCount(state));
  for (let i: u32 = 0; i < n; i++) {
    const buffer = load<u32>(P.LIST_POST + i * 4) & (P.PLUGIN_BUFFER_COUNT - 1);
    const index = B.takeFree(queue, state);
    store<u32>(map + index * 4, buffer | B.SINGLE);
    const iova = S.buffersIova + <u64> (buffer * P.PLUGIN_BUFFER_BYTES + S.rxOffset);
    writeDescriptor(ring, index, iova, <u64> S.rxBytes | (<u64> V.VIRTQ_DESC_F_WRITE << 32));
    offer(state, ring, index);
  }
  if (n != 0) publish(queue);
  return n;
}

// Back from the device -----------------------------------------------------------------------------------------

@inline
function usedIdx(queue: u32): u32 {
  return atomic.load<u16>(S.ringOf(queue) + S.usedOffset + V.VIRTQ_USED_IDX);
}

/** Element `last` of the used ring: {id u32, len u32}. */
@inline
function usedElement(ring: usize, last: u32): u64 {
  return load<u64>(ring + S.usedOffset + V.VIRTQ_USED_RING + (last & (S.size - 1)) * V.VIRTQ_USED_ELEM_BYTES);
}

/** IN_ORDER: the descriptor that comes back next, in the order of the table. */
@inline
function nextBack(state: usize): u32 {
  return load<u32>(state, S.FREE_IN) & (S.size - 1);
}

/** Reports up to `room` buffers that the device has sent, in LIST_DONE; answers how many. */
export function txDoneSplit(queue: u32, room: u32): u32 {
  const state = S.stateOf(queue);
  const ring = S.ringOf(queue);
  const map = B.mapOf(queue);
  const end = usedIdx(queue);
  let last = load<u32>(state, S.USED);
  let done: u32 = 0;
  while (last != end) {
    const head = S.inOrder ? nextBack(state) : <u32> usedElement(ring, last);
    const word = B.wordOf(map, head);
    if ((word & B.HEAD) == 0) {
      S.giveUp(state);
      break;
    }
    if (done + B.countOf(word) > room) break;
    if (B.isSingle(word)) B.report(done++, B.takeSingle(queue, state, map, head, word));
    else done = B.takeMany(queue, state, head, word, done);
    last = (last + 1) & 0xffff;
  }
  store<u32>(state, last, S.USED);
  return done;
}

/** Takes in what the device has filled, from place `n` of LIST_RX on, up to place `room`; answers the next place. */
export function gatherSplit(queue: u32, n: u32, room: u32): u32 {
  const state = S.stateOf(queue);
  const ring = S.ringOf(queue);
  const map = B.mapOf(queue);
  const end = usedIdx(queue);
  let last = load<u32>(state, S.USED);
  let left = load<u32>(state, S.LEFT);
  let length = load<u32>(state, S.LENGTH);
  while (last != end && n < room) {
    let index = nextBack(state);
    if (left == 0) {
      const element = usedElement(ring, last);
      const id = <u32> element;
      length = <u32> (element >> 32);
      if (!S.inOrder) index = id;
      else if (id < S.size) left = ((id - index) & (S.size - 1)) + 1;
      else index = S.size;
    }
    const word = B.wordOf(map, index);
    if ((word & B.HEAD) == 0 || left > ((end - last) & 0xffff)) {
      S.giveUp(state);
      break;
    }
    const buffer = B.takeSingle(queue, state, map, index, word);
    // Buffers for which the device wrote no element are full.
    if (S.inOrder) left--;
    put(n++, buffer, left == 0 ? length : S.rxBytes);
    last = (last + 1) & 0xffff;
  }
  store<u32>(state, last, S.USED);
  store<u32>(state, left, S.LEFT);
  store<u32>(state, length, S.LENGTH);
  return n;
}

// Interrupts ---------------------------------------------------------------------------------------------------

/** Asks for an interrupt when something comes in; 1 if something has already. */
export function armSplit(queue: u32): u32 {
  const last = load<u32>(S.stateOf(queue), S.USED);
  const avail = S.ringOf(queue) + S.availOffset;
  if (S.eventIdx) atomic.store<u16>(avail + V.VIRTQ_AVAIL_RING + S.size * 2, <u16> last);
  else atomic.store<u16>(avail, 0);
  return usedIdx(queue) != last ? 1 : 0;
}

/** No interrupts: the shell polls. With EVENT_IDX the index that was passed stays behind. */
export function disarmSplit(queue: u32): void {
  if (!S.eventIdx) atomic.store<u16>(S.ringOf(queue) + S.availOffset, V.VIRTQ_AVAIL_F_NO_INTERRUPT);
}
