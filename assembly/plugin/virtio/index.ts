/**
 * The plugin for hardware that speaks virtio: split virtqueues (virtio 1.2 §2.7) with mergeable buffers, indirect
 * descriptors, EVENT_IDX and many queue pairs. It is also the shell's own data path while a guest is emulated. It may
 * touch what the shell has mapped into its memory and nothing else (docs/plugin-api.md); buffers are the shell's, named
 * by number, and it never keeps one that it has reported back.
 */
import {
  ENTRY_BUFFER,
  ENTRY_BYTES,
  ENTRY_EOP,
  ENTRY_FLAGS,
  ENTRY_LENGTH,
  ENTRY_OFFSET,
  LIST_DONE,
  LIST_POST,
  LIST_RX,
  LIST_TX,
  PC_BUFFERS_IOVA,
  PC_FEATURES,
  PC_QUEUE_PAIRS,
  PC_RING_SIZE,
  PC_RINGS_IOVA,
  PLUGIN_ABI,
  PLUGIN_BUFFER_BYTES,
  PLUGIN_BUFFER_COUNT,
  PLUGIN_BUFFERS,
  PLUGIN_PRIVATE,
  PLUGIN_QUEUE_PAIRS_MAX,
  PLUGIN_QUEUE_STRIDE,
  PLUGIN_QUEUES,
  PLUGIN_RING_SIZE_MAX,
  PLUGIN_RING_STRIDE,
  PLUGIN_RINGS,
  PLUGIN_STATE,
  PQ_AVAIL,
  PQ_DESC,
  PQ_SIZE,
  PQ_USED,
} from "../../../shared/layout/plugin.ts";
import {
  VIRTIO_F_VERSION_1,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_HDR_BYTES,
  VIRTIO_NET_HDR_LEGACY_BYTES,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
  VIRTQ_AVAIL_F_NO_INTERRUPT,
  VIRTQ_AVAIL_IDX,
  VIRTQ_AVAIL_RING,
  VIRTQ_DESC_BYTES,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
  VIRTQ_USED_ELEM_BYTES,
  VIRTQ_USED_F_NO_NOTIFY,
  VIRTQ_USED_IDX,
  VIRTQ_USED_RING,
} from "../../../shared/layout/virtio.ts";

/** Kicks the device for a queue: the shell's one function. */
@external("shell", "notify")
declare function notify(queue: u32): void;

// A queue's own state: 64 bytes; then which buffer each descriptor holds, and which descriptors are free. They are used
// again in the order in which they came back: neighbours together, four to a line, and no line of the table, which the
// device's CPU has, is written but to be offered.
const V_FREE_OUT: u32 = 0;
const V_FREE_IN: u32 = 4;
const V_AVAIL_IDX: u32 = 8;
const V_LAST_USED: u32 = 12;
const V_KICKED: u32 = 16;
const STATE_STRIDE: u32 = 64;
const MAPS: usize = PLUGIN_PRIVATE + 0x1000;
const MAP_STRIDE: u32 = PLUGIN_RING_SIZE_MAX * 4;
const FREE_LISTS: usize = MAPS + PLUGIN_QUEUE_PAIRS_MAX * 2 * MAP_STRIDE;
const FREE_LIST_STRIDE: u32 = PLUGIN_RING_SIZE_MAX * 2;

// In a queue's part of the rings
const LINE_BYTES: u32 = 64;
const TABLES: u32 = 0x8000;
const TABLE_ENTRIES: u32 = 8;
/** Descriptors of a chain at the most: a frame of 16 KiB takes 9. */
const CHAIN_MAX: u32 = 16;
const TABLE_COUNT: u32 = 64;
const TABLE_BYTES: u32 = TABLE_ENTRIES * VIRTQ_DESC_BYTES;

let size: u32 = 0;
let mask: u32 = 0;
let hdrBytes: u32 = 0;
/** Where a receive buffer begins, so that the frame behind its header begins a cache line, as the sender's does. */
let rxOffset: u32 = 0;
let mergeable: bool = false;
let eventIdx: bool = false;
let indirect: bool = false;
let availOffset: u32 = 0;
let usedOffset: u32 = 0;
let ringsIova: u64 = 0;
let buffersIova: u64 = 0;
/** Free indirect tables of a queue, a bit each. */
const TABLE_BITS: usize = PLUGIN_PRIVATE + 0x800;

@inline
function stateOf(queue: u32): usize {
  return PLUGIN_PRIVATE + queue * STATE_STRIDE;
}

@inline
function mapOf(queue: u32): usize {
  return MAPS + queue * MAP_STRIDE;
}

@inline
function freeListOf(queue: u32): usize {
  return FREE_LISTS + queue * FREE_LIST_STRIDE;
}

@inline
function ringOf(queue: u32): usize {
  return PLUGIN_RINGS + queue * PLUGIN_RING_STRIDE;
}

export function abi(): u32 {
  return PLUGIN_ABI;
}

/** Lays out the rings that the configuration asks for and names them; 0, or -1 if it asks for what cannot be. */
export function start(): i32 {
  const pairs = load<u32>(PLUGIN_STATE, PC_QUEUE_PAIRS);
  size = load<u32>(PLUGIN_STATE, PC_RING_SIZE);
  const features = load<u64>(PLUGIN_STATE, PC_FEATURES);
  ringsIova = load<u64>(PLUGIN_STATE, PC_RINGS_IOVA);
  buffersIova = load<u64>(PLUGIN_STATE, PC_BUFFERS_IOVA);
  if (pairs == 0 || pairs > <u32> PLUGIN_QUEUE_PAIRS_MAX) return -1;
  if (size < 2 || size > <u32> PLUGIN_RING_SIZE_MAX || (size & (size - 1)) != 0) return -1;
  mask = size - 1;
  mergeable = ((features >> VIRTIO_NET_F_MRG_RXBUF) & 1) != 0;
  eventIdx = ((features >> VIRTIO_RING_F_EVENT_IDX) & 1) != 0;
  indirect = ((features >> VIRTIO_RING_F_INDIRECT_DESC) & 1) != 0;
  const modern = ((features >> VIRTIO_F_VERSION_1) & 1) != 0;
  hdrBytes = modern || mergeable ? VIRTIO_NET_HDR_BYTES : VIRTIO_NET_HDR_LEGACY_BYTES;
  rxOffset = LINE_BYTES - hdrBytes;
  availOffset = size * VIRTQ_DESC_BYTES;
  usedOffset = (availOffset + VIRTQ_AVAIL_RING + size * 2 + 2 + 63) & ~63;
  for (let queue: u32 = 0; queue < pairs * 2; queue++) layOut(queue);
  return 0;
}

function layOut(queue: u32): void {
  const ring = ringOf(queue);
  memory.fill(ring, 0, PLUGIN_RING_STRIDE);
  for (let i: u32 = 0; i < size; i++) store<u16>(freeListOf(queue) + i * 2, <u16> i);
  const state = stateOf(queue);
  memory.fill(state, 0, STATE_STRIDE);
  store<u32>(state, size, V_FREE_IN);
  store<u64>(TABLE_BITS + queue * 8, -1);
  if (!eventIdx) atomic.store<u16>(ring + availOffset, VIRTQ_AVAIL_F_NO_INTERRUPT);
  const out = PLUGIN_QUEUES + queue * PLUGIN_QUEUE_STRIDE;
  const iova = ringsIova + queue * PLUGIN_RING_STRIDE;
  store<u64>(out, iova, PQ_DESC);
  store<u64>(out, iova + availOffset, PQ_AVAIL);
  store<u64>(out, iova + usedOffset, PQ_USED);
  store<u32>(out, size, PQ_SIZE);
}

/** Ends it. The shell takes back every buffer. */
export function stop(): void {
}

/** Puts `count` entries of LIST_TX, whole frames, into the ring of `pair`; answers how many it took. */
export function tx(pair: u32, count: u32): u32 {
  const queue = pair * 2 + 1;
  let taken: u32 = 0;
  while (taken < count) {
    let buffers: u32 = 1;
    while ((load<u32>(LIST_TX + (taken + buffers - 1) * ENTRY_BYTES, ENTRY_FLAGS) & ENTRY_EOP) == 0) {
      if (taken + buffers == count) return finishTx(queue, taken);
      buffers++;
    }
    const table = indirect && buffers > 1 && buffers <= TABLE_ENTRIES ? takeTable(queue) : -1;
    const needed: u32 = table >= 0 ? 1 : buffers;
    if (freeCount(queue) < needed) {
      if (table >= 0) freeTable(queue, table);
      break;
    }
    addFrame(queue, LIST_TX + taken * ENTRY_BYTES, buffers, table);
    taken += buffers;
  }
  return finishTx(queue, taken);
}

function finishTx(queue: u32, taken: u32): u32 {
  if (taken != 0) publish(queue);
  return taken;
}

function addFrame(queue: u32, entries: usize, buffers: u32, table: i32): void {
  const ring = ringOf(queue);
  let head: u32 = 0;
  let previous: usize = 0;
  for (let i: u32 = 0; i < buffers; i++) {
    const entry = entries + i * ENTRY_BYTES;
    const buffer = load<u32>(entry, ENTRY_BUFFER) & (PLUGIN_BUFFER_COUNT - 1);
    let offset = load<u32>(entry, ENTRY_OFFSET) & (PLUGIN_BUFFER_BYTES - 1);
    let length = load<u32>(entry, ENTRY_LENGTH);
    if (i == 0) {
      // §5.1.6.2: no offload is negotiated, so the header is all zero.
      offset -= hdrBytes;
      length += hdrBytes;
      const header: usize = PLUGIN_BUFFERS + buffer * PLUGIN_BUFFER_BYTES + offset;
      store<u64>(header, 0);
      if (hdrBytes == VIRTIO_NET_HDR_BYTES) store<u32>(header, 0, 8);
      else store<u16>(header, 0, 8);
    }
    const iova = buffersIova + <u64> (buffer * PLUGIN_BUFFER_BYTES + offset);
    const more: u32 = i + 1 < buffers ? VIRTQ_DESC_F_NEXT : 0;
    if (table >= 0) {
      const at = ring + TABLES + <u32> table * TABLE_BYTES + i * VIRTQ_DESC_BYTES;
      store<u64>(at, iova);
      store<u64>(at, <u64> length | (<u64> more << 32) | (<u64> (i + 1) << 48), 8);
      continue;
    }
    const index = takeDescriptor(queue);
    store<u32>(mapOf(queue) + index * 4, buffer);
    if (i == 0) head = index;
    else store<u16>(previous, <u16> index, 14);
    previous = ring + index * VIRTQ_DESC_BYTES;
    store<u64>(previous, iova);
    store<u64>(previous, <u64> length | (<u64> more << 32), 8);
  }
  if (table >= 0) {
    head = takeDescriptor(queue);
    store<u32>(mapOf(queue) + head * 4, <u32> table);
    const at = ring + head * VIRTQ_DESC_BYTES;
    store<u64>(at, ringsIova + queue * PLUGIN_RING_STRIDE + TABLES + <u32> table * TABLE_BYTES);
    store<u64>(at, <u64> (buffers * VIRTQ_DESC_BYTES) | (<u64> VIRTQ_DESC_F_INDIRECT << 32), 8);
  }
  offer(queue, head);
}

@inline
function freeCount(queue: u32): u32 {
  const state = stateOf(queue);
  return load<u32>(state, V_FREE_IN) - load<u32>(state, V_FREE_OUT);
}

@inline
function takeDescriptor(queue: u32): u32 {
  const state = stateOf(queue);
  const out = load<u32>(state, V_FREE_OUT);
  store<u32>(state, out + 1, V_FREE_OUT);
  return <u32> load<u16>(freeListOf(queue) + (out & mask) * 2) & mask;
}

@inline
function freeDescriptor(queue: u32, index: u32): void {
  const state = stateOf(queue);
  const into = load<u32>(state, V_FREE_IN);
  store<u16>(freeListOf(queue) + (into & mask) * 2, <u16> index);
  store<u32>(state, into + 1, V_FREE_IN);
}

function takeTable(queue: u32): i32 {
  const bits = load<u64>(TABLE_BITS + queue * 8);
  if (bits == 0) return -1;
  const table = <i32> ctz(bits);
  store<u64>(TABLE_BITS + queue * 8, bits & (bits - 1));
  return table;
}

function freeTable(queue: u32, table: i32): void {
  store<u64>(TABLE_BITS + queue * 8, load<u64>(TABLE_BITS + queue * 8) | (<u64> 1 << <u64> table));
}

@inline
function offer(queue: u32, head: u32): void {
  const state = stateOf(queue);
  const idx = load<u32>(state, V_AVAIL_IDX);
  store<u16>(ringOf(queue) + availOffset + VIRTQ_AVAIL_RING + (idx & mask) * 2, <u16> head);
  store<u32>(state, idx + 1, V_AVAIL_IDX);
}

/** Lets the device see what was offered, and kicks it if it wants that (§2.7.13.3). */
function publish(queue: u32): void {
  const state = stateOf(queue);
  const ring = ringOf(queue);
  const idx = load<u32>(state, V_AVAIL_IDX) & 0xffff;
  atomic.store<u16>(ring + availOffset + VIRTQ_AVAIL_IDX, <u16> idx);
  const before = load<u32>(state, V_KICKED);
  store<u32>(state, idx, V_KICKED);
  if (eventIdx) {
    const event: u32 = atomic.load<u16>(ring + usedOffset + VIRTQ_USED_RING + size * VIRTQ_USED_ELEM_BYTES);
    if (((idx - event - 1) & 0xffff) < ((idx - before) & 0xffff)) notify(queue);
  } else if ((<u32> atomic.load<u16>(ring + usedOffset) & VIRTQ_USED_F_NO_NOTIFY) == 0) {
    notify(queue);
  }
}

@inline
function usedIdx(queue: u32): u32 {
  return atomic.load<u16>(ringOf(queue) + usedOffset + VIRTQ_USED_IDX);
}

/** Reports up to `max` buffers that the device has sent, in LIST_DONE; answers how many. */
export function txDone(pair: u32, max: u32): u32 {
  const queue = pair * 2 + 1;
  const state = stateOf(queue);
  const ring = ringOf(queue);
  const end = usedIdx(queue);
  let last = load<u32>(state, V_LAST_USED);
  let done: u32 = 0;
  while ((last & 0xffff) != end && done + CHAIN_MAX <= max) {
    const head = load<u32>(ring + usedOffset + VIRTQ_USED_RING + (last & mask) * VIRTQ_USED_ELEM_BYTES) & mask;
    done = release(queue, head, done);
    last++;
  }
  store<u32>(state, last, V_LAST_USED);
  return done;
}

/** Frees the descriptors of the chain at `head`, and reports its buffers from place `done` of the list on. */
function release(queue: u32, head: u32, done: u32): u32 {
  const ring = ringOf(queue);
  let index = head;
  let n = done;
  for (let i: u32 = 0; i < CHAIN_MAX; i++) {
    const at = ring + index * VIRTQ_DESC_BYTES;
    const flags: u32 = load<u16>(at, 12);
    const next = <u32> load<u16>(at, 14) & mask;
    const held = load<u32>(mapOf(queue) + index * 4);
    if (flags & VIRTQ_DESC_F_INDIRECT) {
      const entries = min(load<u32>(at, 8) / VIRTQ_DESC_BYTES, TABLE_ENTRIES);
      const table = ring + TABLES + (held & (TABLE_COUNT - 1)) * TABLE_BYTES;
      for (let k: u32 = 0; k < entries; k++) {
        const buffer = <u32> (load<u64>(table + k * VIRTQ_DESC_BYTES) - buffersIova) / PLUGIN_BUFFER_BYTES;
        store<u32>(LIST_DONE + n++ * 4, buffer);
      }
      freeTable(queue, <i32> held);
    } else {
      store<u32>(LIST_DONE + n++ * 4, held);
    }
    freeDescriptor(queue, index);
    if ((flags & VIRTQ_DESC_F_NEXT) == 0) break;
    index = next;
  }
  return n;
}

/** Gives `count` buffers of LIST_POST to the device to fill; answers how many it took. */
export function post(pair: u32, count: u32): u32 {
  const queue = pair * 2;
  const ring = ringOf(queue);
  const n = min(count, freeCount(queue));
  for (let i: u32 = 0; i < n; i++) {
    const buffer = load<u32>(LIST_POST + i * 4) & (PLUGIN_BUFFER_COUNT - 1);
    const index = takeDescriptor(queue);
    store<u32>(mapOf(queue) + index * 4, buffer);
    const at = ring + index * VIRTQ_DESC_BYTES;
    store<u64>(at, buffersIova + <u64> (buffer * PLUGIN_BUFFER_BYTES + rxOffset));
    store<u64>(at, <u64> (PLUGIN_BUFFER_BYTES - rxOffset) | (<u64> VIRTQ_DESC_F_WRITE << 32), 8);
    offer(queue, index);
  }
  if (n != 0) publish(queue);
  return n;
}

/** What was read ahead. Exported, or the compiler would see that nobody needs it and not read at all. */
export let touched: u32 = 0;

/** Reads the headers of `n` frames, which the device has just written: asked for all at once they come together. */
function touchAhead(queue: u32, last: u32, n: u32): void {
  const elements = ringOf(queue) + usedOffset + VIRTQ_USED_RING;
  let sum: u32 = 0;
  for (let i: u32 = 0; i < n; i++) {
    const buffer = load<u32>(mapOf(queue) + (load<u32>(elements + ((last + i) & mask) * VIRTQ_USED_ELEM_BYTES) & mask) * 4);
    sum += load<u16>(headerOf(buffer), 10);
  }
  touched = sum;
}

@inline
function headerOf(buffer: u32): usize {
  return PLUGIN_BUFFERS + (buffer & (PLUGIN_BUFFER_COUNT - 1)) * PLUGIN_BUFFER_BYTES + rxOffset;
}

/** Reports up to `max` filled buffers, whole frames, in LIST_RX; answers how many. */
export function rx(pair: u32, max: u32): u32 {
  const queue = pair * 2;
  const state = stateOf(queue);
  const elements = ringOf(queue) + usedOffset + VIRTQ_USED_RING;
  const end = usedIdx(queue);
  let last = load<u32>(state, V_LAST_USED);
  let n: u32 = 0;
  if (mergeable) touchAhead(queue, last, min((end - last) & 0xffff, min(size, max)));
  while ((last & 0xffff) != end) {
    const there = (end - last) & 0xffff;
    const first = load<u32>(mapOf(queue) + (load<u32>(elements + (last & mask) * VIRTQ_USED_ELEM_BYTES) & mask) * 4);
    let buffers: u32 = 1;
    if (mergeable) {
      buffers = load<u16>(headerOf(first), 10);
      // A device that says 0 means 1; one that names more than there are has not finished.
      if (buffers == 0) buffers = 1;
    }
    if (buffers > there || n + buffers > max) break;
    for (let i: u32 = 0; i < buffers; i++, last++) {
      const element = elements + (last & mask) * VIRTQ_USED_ELEM_BYTES;
      const index = load<u32>(element) & mask;
      const length = min(load<u32>(element, 4), <u32> PLUGIN_BUFFER_BYTES - rxOffset);
      const skip = i == 0 ? min(hdrBytes, length) : 0;
      const entry = LIST_RX + n++ * ENTRY_BYTES;
      store<u32>(entry, load<u32>(mapOf(queue) + index * 4), ENTRY_BUFFER);
      store<u32>(entry, rxOffset + skip, ENTRY_OFFSET);
      store<u32>(entry, length - skip, ENTRY_LENGTH);
      store<u32>(entry, i + 1 == buffers ? ENTRY_EOP : 0, ENTRY_FLAGS);
      freeDescriptor(queue, index);
    }
  }
  store<u32>(state, last, V_LAST_USED);
  return n;
}

/** Asks for an interrupt when something comes in on `pair`; 1 if something has already. */
export function arm(pair: u32): u32 {
  const queue = pair * 2;
  const last = load<u32>(stateOf(queue), V_LAST_USED) & 0xffff;
  const avail = ringOf(queue) + availOffset;
  if (eventIdx) atomic.store<u16>(avail + VIRTQ_AVAIL_RING + size * 2, <u16> last);
  else atomic.store<u16>(avail, 0);
  return usedIdx(queue) != last ? 1 : 0;
}

/** No interrupts: the shell polls. With EVENT_IDX the index that was passed stays behind. */
export function disarm(pair: u32): void {
  if (!eventIdx) atomic.store<u16>(ringOf(pair * 2) + availOffset, VIRTQ_AVAIL_F_NO_INTERRUPT);
}
