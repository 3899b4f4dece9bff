/**
 * The driver's side of packed virtqueues (VIRTIO 1.2 §2.8), with indirect descriptors, EVENT_IDX and IN_ORDER.
 *
 * One ring holds both what is made available and what has been used. A descriptor's length, id and flags are its second
 * half: one word of eight bytes, which is written and read at once, so that whoever sees its flags sees the rest.
 *
 * A burst becomes visible by one atomic store. Its first descriptor's flags are written last, and the device, which
 * takes descriptors in ring order, does not get past that one. So it never sees half a frame, and a burst costs one
 * locked instruction, as with the avail index of a split ring.
 *
 * The device writes a used descriptor where it got to, and both sides skip as many places as the frame has descriptors.
 * Without IN_ORDER each descriptor of a frame takes a buffer id, and the first of them names the frame. With IN_ORDER
 * (§2.8.8) a frame's id is the place of its last descriptor: there a batch ends that one used descriptor completes.
 */
import * as P from "../../../shared/layout/plugin.ts";
import * as V from "../../../shared/layout/virtio.ts";
import * as B from "./books.ts";
import { put } from "./receive.ts";
import * as S from "./state.ts";

/** Both flags: what changes from one round of the ring to the next. */
const ROUND: u32 = V.VIRTQ_PACKED_DESC_F_AVAIL | V.VIRTQ_PACKED_DESC_F_USED;
const FLAGS_SHIFT: u32 = 48;
const ID_SHIFT: u32 = 32;
const EVENT_WRAP_SHIFT: u32 = 15;
const EVENT_OFFSET: u32 = 0x7fff;
const EVENT_FLAGS_SHIFT: u32 = 16;
const EVENT_FLAGS: u32 = 3;

/** The first descriptor of the burst that is being written, 0 before there is one; and its second half. */
let burstAt: usize = 0;
let burstWord: u64 = 0;

/** Lays out a queue's ring and its two event areas, each on a cache line of its own. */
export function layOutPacked(queue: u32): void {
  const driver = (S.size * V.VIRTQ_DESC_BYTES + 63) & ~63;
  S.nameRing(queue, driver, driver + 64);
  B.beginBooks(queue);
  // Both wrap counters begin at 1 (§2.8.1).
  store<u32>(S.stateOf(queue), V.VIRTQ_PACKED_DESC_F_AVAIL, S.AVAIL_FLAGS);
  store<u32>(S.stateOf(queue), ROUND, S.USED_FLAGS);
  disarmPacked(queue);
}

// To the device ------------------------------------------------------------------------------------------------

/** Writes the next descriptor of the ring: `word` is its length, id and flags. */
@inline
function writeNext(state: usize, ring: usize, iova: u64, word: u64): void {
  const place = load<u32>(state, S.AVAIL);
  const flags = load<u32>(state, S.AVAIL_FLAGS);
  const at = ring + place * V.VIRTQ_DESC_BYTES;
  const whole = word | (<u64> flags << FLAGS_SHIFT);
  store<u64>(at, iova);
  if (burstAt == 0) {
    burstAt = at;
    burstWord = whole;
  } else {
    store<u64>(at, whole, V.VIRTQ_PACKED_DESC_LEN);
  }
  const last = place + 1 == S.size;
  store<u32>(state, last ? 0 : place + 1, S.AVAIL);
  if (last) store<u32>(state, flags ^ ROUND, S.AVAIL_FLAGS);
}

/** The id of a frame that takes `descriptors` places from the next on: with IN_ORDER the last of them. */
@inline
function takeId(queue: u32, state: usize, descriptors: u32): u32 {
  if (!S.inOrder) return B.takeFree(queue, state);
  store<u32>(state, load<u32>(state, S.FREE_OUT) + descriptors, S.FREE_OUT);
  const last = load<u32>(state, S.AVAIL) + descriptors - 1;
  return last >= S.size ? last - S.size : last;
}

/** Lets the device see the `added` descriptors of the burst, and kicks it if it wants that (§2.8.10). */
function publish(queue: u32, added: u32): void {
  const state = S.stateOf(queue);
  atomic.store<u64>(burstAt, burstWord, V.VIRTQ_PACKED_DESC_LEN);
  burstAt = 0;
  const event = atomic.load<u32>(S.ringOf(queue) + S.usedOffset);
  const flags = (event >> EVENT_FLAGS_SHIFT) & EVENT_FLAGS;
  if (flags == V.RING_EVENT_FLAGS_DESC && S.eventIdx) {
    const wrap: u32 = load<u32>(state, S.AVAIL_FLAGS) == V.VIRTQ_PACKED_DESC_F_AVAIL ? 1 : 0;
    // How far the descriptor that the device waits for lies back: in the round before if its wrap counter is another.
    let back = load<u32>(state, S.AVAIL) - (event & EVENT_OFFSET);
    if (((event >> EVENT_WRAP_SHIFT) & 1) != wrap) back += S.size;
    if (back - 1 < added) S.notify(queue);
  } else if (flags != V.RING_EVENT_FLAGS_DISABLE) {
    S.notify(queue);
  }
}

/** Puts the first `count` entries of LIST_TX, whole frames, into the ring; answers how many it took. */
export function txPacked(queue: u32, count: u32): u32 {
  const state = S.stateOf(queue);
  const ring = S.ringOf(queue);
  const map = B.mapOf(queue);
  const before = load<u32>(state, S.FREE_OUT);
  let taken: u32 = 0;
  while (taken < count) {
    const entries: usize = P.LIST_TX + taken * P.ENTRY_BYTES;
    const buffers = B.entriesOfFrame(entries, count - taken);
    if (buffers == 0) break;
    const table = B.wantsTable(queue, buffers);
    if (B.freeCount(state) < (table ? 1 : buffers)) break;
    const place = B.placeOf(entries, S.hdrBytes);
    B.writeHeader(entries, place);
    if (buffers > 1 && !table) {
      writeChain(queue, entries, buffers);
    } else {
      const id = takeId(queue, state, 1);
      const at = map + id * 4;
      if (table) {
        const number = B.fillTable(queue, entries, buffers);
        store<u32>(at, number | (buffers << B.COUNT_SHIFT) | B.TABLE | B.HEAD);
        const word = <u64> (buffers * V.VIRTQ_DESC_BYTES) | (<u64> V.VIRTQ_DESC_F_INDIRECT << FLAGS_SHIFT);
        writeNext(state, ring, B.tableIova(queue, number), word | (<u64> id << ID_SHIFT));
      } else {
        store<u32>(at, B.bufferOf(entries) | B.SINGLE);
        const word = <u64> (B.lengthOf(entries) + S.hdrBytes) | (<u64> id << ID_SHIFT);
        writeNext(state, ring, S.buffersIova + place, word);
      }
    }
    taken += buffers;
  }
  if (taken != 0) publish(queue, load<u32>(state, S.FREE_OUT) - before);
  return taken;
}

/** Writes a frame into descriptors that follow each other. All of them have the frame's id; the last one's counts. */
function writeChain(queue: u32, entries: usize, buffers: u32): void {
  const state = S.stateOf(queue);
  const ring = S.ringOf(queue);
  const map = B.mapOf(queue);
  const first = load<u32>(state, S.AVAIL);
  const id = takeId(queue, state, buffers);
  let index = S.inOrder ? first : id;
  let flags = B.HEAD | (buffers << B.COUNT_SHIFT);
  for (let i: u32 = 0; i < buffers; i++) {
    const entry = entries + i * P.ENTRY_BYTES;
    const before: u32 = i == 0 ? S.hdrBytes : 0;
    const last = i + 1 == buffers;
    const link: u64 = last ? 0 : <u64> V.VIRTQ_DESC_F_NEXT << FLAGS_SHIFT;
    const word = <u64> (B.lengthOf(entry) + before) | (<u64> id << ID_SHIFT) | link;
    writeNext(state, ring, S.buffersIova + B.placeOf(entry, before), word);
    const next: u32 = last ? 0 : S.inOrder ? load<u32>(state, S.AVAIL) : B.takeFree(queue, state);
    store<u32>(map + index * 4, B.bufferOf(entry) | flags | (next << B.NEXT_SHIFT));
    flags = 0;
    index = next;
  }
}

/** Gives the first `count` buffers of LIST_POST to the device to fill; answers how many it took. */
export function postPacked(queue: u32, count: u32): u32 {
  const state = S.stateOf(queue);
  const ring = S.ringOf(queue);
  const map = B.mapOf(queue);
  const n = min(count, B.freeCount(state));
  const half = <u64> S.rxBytes | (<u64> V.VIRTQ_DESC_F_WRITE << FLAGS_SHIFT);
  for (let i: u32 = 0; i < n; i++) {
    const buffer = load<u32>(P.LIST_POST + i * 4) & (P.PLUGIN_BUFFER_COUNT - 1);
    const id = takeId(queue, state, 1);
    store<u32>(map + id * 4, buffer | B.SINGLE);
    const iova = S.buffersIova + <u64> (buffer * P.PLUGIN_BUFFER_BYTES + S.rxOffset);
    writeNext(state, ring, iova, half | (<u64> id << ID_SHIFT));
  }
  if (n != 0) publish(queue, n);
  return n;
}

// Back from the device -----------------------------------------------------------------------------------------

/** The second half of the descriptor at `place`. */
@inline
function usedWord(ring: usize, place: u32): u64 {
  return atomic.load<u64>(ring + place * V.VIRTQ_DESC_BYTES, V.VIRTQ_PACKED_DESC_LEN);
}

@inline
function isUsed(word: u64, flags: u32): bool {
  return (<u32> (word >> FLAGS_SHIFT) & ROUND) == flags;
}

/** IN_ORDER: the descriptors of the batch that begins at `place` and ends with the buffer `id`. */
@inline
function batchOf(place: u32, id: u32): u32 {
  return id >= place ? id - place + 1 : id + S.size - place + 1;
}

/** Reports up to `room` buffers that the device has sent, in LIST_DONE; answers how many. */
export function txDonePacked(queue: u32, room: u32): u32 {
  const state = S.stateOf(queue);
  const ring = S.ringOf(queue);
  const map = B.mapOf(queue);
  let place = load<u32>(state, S.USED);
  let flags = load<u32>(state, S.USED_FLAGS);
  let left = load<u32>(state, S.LEFT);
  let done: u32 = 0;
  while (done < room) {
    let head = place;
    if (left == 0) {
      const used = usedWord(ring, place);
      if (!isUsed(used, flags)) break;
      const id = <u32> (used >> ID_SHIFT) & 0xffff;
      if (!S.inOrder) head = id;
      else if (id < S.size) left = batchOf(place, id);
      else head = S.size;
    }
    const word = B.wordOf(map, head);
    let descriptors: u32 = 1;
    // A branch of its own: the CPU does not wait for the word to know where the next used descriptor is.
    if (B.isSingle(word)) {
      B.report(done++, B.takeSingle(queue, state, map, head, word));
    } else {
      if ((word & B.TABLE) == 0) descriptors = B.countOf(word);
      if ((word & B.HEAD) == 0 || (S.inOrder && descriptors > left)) {
        S.giveUp(state);
        break;
      }
      if (done + B.countOf(word) > room) break;
      done = B.takeMany(queue, state, head, word, done);
    }
    if (S.inOrder) left -= descriptors;
    place += descriptors;
    if (place >= S.size) {
      place -= S.size;
      flags ^= ROUND;
    }
  }
  store<u32>(state, place, S.USED);
  store<u32>(state, flags, S.USED_FLAGS);
  store<u32>(state, left, S.LEFT);
  return done;
}

/** Takes in what the device has filled, from place `n` of LIST_RX on, up to place `room`; answers the next place. */
export function gatherPacked(queue: u32, n: u32, room: u32): u32 {
  const state = S.stateOf(queue);
  const ring = S.ringOf(queue);
  const map = B.mapOf(queue);
  let place = load<u32>(state, S.USED);
  let flags = load<u32>(state, S.USED_FLAGS);
  let left = load<u32>(state, S.LEFT);
  let length = load<u32>(state, S.LENGTH);
  while (n < room) {
    let index = place;
    if (left == 0) {
      const used = usedWord(ring, place);
      if (!isUsed(used, flags)) break;
      const id = <u32> (used >> ID_SHIFT) & 0xffff;
      length = <u32> used;
      if (!S.inOrder) index = id;
      else if (id < S.size) left = batchOf(place, id);
      else index = S.size;
    }
    const word = B.wordOf(map, index);
    if ((word & B.HEAD) == 0) {
      S.giveUp(state);
      break;
    }
    const buffer = B.takeSingle(queue, state, map, index, word);
    // Buffers for which the device wrote no used descriptor are full (§2.8.8).
    if (S.inOrder) left--;
    put(n++, buffer, left == 0 ? length : S.rxBytes);
    place++;
    if (place >= S.size) {
      place -= S.size;
      flags ^= ROUND;
    }
  }
  store<u32>(state, place, S.USED);
  store<u32>(state, flags, S.USED_FLAGS);
  store<u32>(state, left, S.LEFT);
  store<u32>(state, length, S.LENGTH);
  return n;
}

// Interrupts ---------------------------------------------------------------------------------------------------

@inline
function writeEvent(queue: u32, event: u32): void {
  atomic.store<u32>(S.ringOf(queue) + S.availOffset, event);
}

/** Asks for an interrupt when something comes in; 1 if something has already. */
export function armPacked(queue: u32): u32 {
  const state = S.stateOf(queue);
  const place = load<u32>(state, S.USED);
  const flags = load<u32>(state, S.USED_FLAGS);
  const wrap: u32 = flags != 0 ? 1 << EVENT_WRAP_SHIFT : 0;
  if (S.eventIdx) writeEvent(queue, place | wrap | (V.RING_EVENT_FLAGS_DESC << EVENT_FLAGS_SHIFT));
  else writeEvent(queue, V.RING_EVENT_FLAGS_ENABLE << EVENT_FLAGS_SHIFT);
  return load<u32>(state, S.LEFT) != 0 || isUsed(usedWord(S.ringOf(queue), place), flags) ? 1 : 0;
}

/** No interrupts: the shell polls. */
export function disarmPacked(queue: u32): void {
  writeEvent(queue, V.RING_EVENT_FLAGS_DISABLE << EVENT_FLAGS_SHIFT);
}
