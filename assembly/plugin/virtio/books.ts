/**
 * The books: what each descriptor and each buffer id stands for, which are free, and what lies in indirect tables. They
 * are the plugin's own memory. The device writes into the rings whatever it likes, so nothing that decides about memory
 * is read back from there; a device that uses what it does not have is found out here.
 */
import * as P from "../../../shared/layout/plugin.ts";
import * as V from "../../../shared/layout/virtio.ts";
import * as S from "./state.ts";

// The map says what each descriptor (split; packed with IN_ORDER) or buffer id (packed) stands for, in a word: a buffer
// or an indirect table, and for those in a chain the next one.
const BUFFER: u32 = P.PLUGIN_BUFFER_COUNT - 1;
export const NEXT_SHIFT: u32 = 12;
const NEXT: u32 = P.PLUGIN_RING_SIZE_MAX - 1;
/** How many buffers the frame has: in its first word. */
export const COUNT_SHIFT: u32 = 22;
const COUNT: u32 = 63;
export const TABLE: u32 = 1 << 28;
/** The word is a frame's first, and the device has it. */
export const HEAD: u32 = 1 << 31;
/** A receive buffer, or a frame in one buffer. */
export const SINGLE: u32 = HEAD | (1 << COUNT_SHIFT);

// In a queue's part of the rings, behind the ring itself
const TABLES: u32 = 0x8000;
const TABLE_ENTRIES: u32 = 8;
const TABLE_COUNT: u32 = 64;
const TABLE_BYTES: u32 = TABLE_ENTRIES * V.VIRTQ_DESC_BYTES;

const MAPS: usize = P.PLUGIN_PRIVATE + 0x1000;
const MAP_STRIDE: u32 = P.PLUGIN_RING_SIZE_MAX * 4;
// Free descriptors and ids. They are used again in the order in which they came back: neighbours together, four to a
// line, and one is written only when it is offered. Each write pulls the line back from the device's CPU.
const FREE_LISTS: usize = MAPS + P.PLUGIN_QUEUE_PAIRS_MAX * 2 * MAP_STRIDE;
const FREE_LIST_STRIDE: u32 = P.PLUGIN_RING_SIZE_MAX * 2;
/** Buffers of each indirect table, u16 each; transmit queues only. */
const TABLE_BUFFERS: usize = FREE_LISTS + P.PLUGIN_QUEUE_PAIRS_MAX * 2 * FREE_LIST_STRIDE;
/** From here on receive.ts keeps frames that are not complete. */
export const PENDING: usize = TABLE_BUFFERS + P.PLUGIN_QUEUE_PAIRS_MAX * TABLE_COUNT * TABLE_ENTRIES * 2;
/** Free indirect tables of a queue, a bit each. */
const TABLE_BITS: usize = P.PLUGIN_PRIVATE + 0x800;

/** Descriptors of a chain at the most: a frame of 16 KiB takes 9. A longer one stays where it is. */
const CHAIN_MAX: u32 = 40;

@inline
export function mapOf(queue: u32): usize {
  return MAPS + queue * MAP_STRIDE;
}

@inline
function freeListOf(queue: u32): usize {
  return FREE_LISTS + queue * FREE_LIST_STRIDE;
}

/** Begins a queue's books: the device has nothing. */
export function beginBooks(queue: u32): void {
  memory.fill(mapOf(queue), 0, MAP_STRIDE);
  for (let i: u32 = 0; i < S.size; i++) store<u16>(freeListOf(queue) + i * 2, <u16> i);
  store<u32>(S.stateOf(queue), S.size, S.FREE_IN);
  store<u64>(TABLE_BITS + queue * 8, -1);
}

// Free descriptors and ids -------------------------------------------------------------------------------------

@inline
export function freeCount(state: usize): u32 {
  return load<u32>(state, S.FREE_IN) - load<u32>(state, S.FREE_OUT);
}

/** The next free one. */
@inline
export function takeFree(queue: u32, state: usize): u32 {
  const out = load<u32>(state, S.FREE_OUT);
  store<u32>(state, out + 1, S.FREE_OUT);
  return load<u16>(freeListOf(queue) + (out & (P.PLUGIN_RING_SIZE_MAX - 1)) * 2);
}

@inline
function giveFree(queue: u32, state: usize, index: u32): void {
  const into = load<u32>(state, S.FREE_IN);
  store<u16>(freeListOf(queue) + (into & (P.PLUGIN_RING_SIZE_MAX - 1)) * 2, <u16> index);
  store<u32>(state, into + 1, S.FREE_IN);
}

// Frames to be sent --------------------------------------------------------------------------------------------

/** Entries of the frame at `entries`, of which `count` are there; 0 if it is not whole, or longer than a chain. */
@inline
export function entriesOfFrame(entries: usize, count: u32): u32 {
  let n: u32 = 1;
  while ((load<u32>(entries + (n - 1) * P.ENTRY_BYTES, P.ENTRY_FLAGS) & P.ENTRY_EOP) == 0) {
    if (n == count || n == CHAIN_MAX) return 0;
    n++;
  }
  return n;
}

@inline
export function bufferOf(entry: usize): u32 {
  return load<u32>(entry, P.ENTRY_BUFFER) & (P.PLUGIN_BUFFER_COUNT - 1);
}

/** Where an entry's bytes, and `before` bytes before them, lie among the buffers. */
@inline
export function placeOf(entry: usize, before: u32): u32 {
  const offset = load<u32>(entry, P.ENTRY_OFFSET) & (P.PLUGIN_BUFFER_BYTES - 1);
  return bufferOf(entry) * P.PLUGIN_BUFFER_BYTES + offset - before;
}

@inline
export function lengthOf(entry: usize): u32 {
  return load<u32>(entry, P.ENTRY_LENGTH);
}

/**
 * Writes the header of the frame whose first entry is `entry` at `place` among the buffers: all zero, unless the shell has
 * written one there that leaves something to the device (§5.1.6.2).
 */
@inline
export function writeHeader(entry: usize, place: u32): void {
  if (S.sendsUnfinished && (load<u32>(entry, P.ENTRY_FLAGS) & P.ENTRY_NET_HDR) != 0) return;
  const at: usize = P.PLUGIN_BUFFERS + place;
  store<u64>(at, 0);
  if (S.hdrBytes == V.VIRTIO_NET_HDR_BYTES) store<u32>(at, 0, 8);
  else store<u16>(at, 0, 8);
}

// Indirect tables ----------------------------------------------------------------------------------------------

/** Whether a frame of so many buffers is to go into an indirect table, and one is free. */
@inline
export function wantsTable(queue: u32, buffers: u32): bool {
  return S.indirect && buffers > 1 && buffers <= TABLE_ENTRIES && load<u64>(TABLE_BITS + queue * 8) != 0;
}

@inline
function tableBuffers(queue: u32, table: u32): usize {
  return TABLE_BUFFERS + ((queue >> 1) * TABLE_COUNT + table) * TABLE_ENTRIES * 2;
}

@inline
export function tableIova(queue: u32, table: u32): u64 {
  return S.ringsIova + queue * P.PLUGIN_RING_STRIDE + TABLES + table * TABLE_BYTES;
}

/**
 * Writes a frame into a free indirect table; answers the table's number. Its descriptors are linked in a split ring
 * (§2.7.5.3); in a packed ring they have no flags, and their order is the table's (§2.8.7).
 */
export function fillTable(queue: u32, entries: usize, buffers: u32): u32 {
  const bits = load<u64>(TABLE_BITS + queue * 8);
  const table = <u32> ctz(bits);
  store<u64>(TABLE_BITS + queue * 8, bits & (bits - 1));
  const numbers = tableBuffers(queue, table);
  const at = S.ringOf(queue) + TABLES + table * TABLE_BYTES;
  for (let i: u32 = 0; i < buffers; i++) {
    const entry = entries + i * P.ENTRY_BYTES;
    const before: u32 = i == 0 ? S.hdrBytes : 0;
    const link: u64 = S.packed || i + 1 == buffers ? 0 : (<u64> V.VIRTQ_DESC_F_NEXT << 32) | (<u64> (i + 1) << 48);
    store<u16>(numbers + i * 2, <u16> bufferOf(entry));
    store<u64>(at + i * V.VIRTQ_DESC_BYTES, S.buffersIova + placeOf(entry, before));
    store<u64>(at + i * V.VIRTQ_DESC_BYTES, <u64> (lengthOf(entry) + before) | link, 8);
  }
  return table;
}

// What comes back ----------------------------------------------------------------------------------------------

/** Buffers of the frame whose first word is `word`. */
@inline
export function countOf(word: u32): u32 {
  return (word >> COUNT_SHIFT) & COUNT;
}

/** The word of what the device says it has used; it has no HEAD if the device did not have it. */
@inline
export function wordOf(map: usize, index: u32): u32 {
  return index < S.size ? load<u32>(map + index * 4) : 0;
}

/** Whether `word` is a frame in one buffer, or a receive buffer. */
@inline
export function isSingle(word: u32): bool {
  return (word & ~BUFFER) == SINGLE;
}

/** Takes back the single buffer of `word`, which is the device's as `index`; answers its number. */
@inline
export function takeSingle(queue: u32, state: usize, map: usize, index: u32, word: u32): u32 {
  store<u32>(map + index * 4, 0);
  giveFree(queue, state, index);
  return word & BUFFER;
}

/** Reports a buffer in place `done` of LIST_DONE. */
@inline
export function report(done: u32, buffer: u32): void {
  store<u32>(P.LIST_DONE + done * 4, buffer);
}

/** Takes back the frame that begins at `head`: its buffers are reported from place `done` on. */
export function takeMany(queue: u32, state: usize, head: u32, first: u32, done: u32): u32 {
  const map = mapOf(queue);
  const count = countOf(first);
  store<u32>(map + head * 4, 0);
  if (first & TABLE) {
    const table = first & (TABLE_COUNT - 1);
    const numbers = tableBuffers(queue, table);
    for (let i: u32 = 0; i < count; i++) report(done + i, load<u16>(numbers + i * 2));
    store<u64>(TABLE_BITS + queue * 8, load<u64>(TABLE_BITS + queue * 8) | (<u64> 1 << <u64> table));
    giveFree(queue, state, head);
    return done + count;
  }
  let word = first;
  let index = head;
  for (let i: u32 = 0; i < count; i++) {
    report(done + i, word & BUFFER);
    giveFree(queue, state, index);
    index = (word >> NEXT_SHIFT) & NEXT;
    word = load<u32>(map + index * 4);
  }
  return done + count;
}

/** Reports that the device broke the protocol, behind the `done` buffers that are reported already. */
export function reportBroken(done: u32, room: u32): u32 {
  if (done >= room) return done;
  report(done, P.NO_BUFFER);
  return done + 1;
}
