/**
 * Finishing in the host what the data path in use does not do. A frame is made for the path that was in use then; when it
 * is handed over that may be another one, after a change of mode. Checksums are filled in where the frame lies. A frame
 * to be cut is replaced, at the front of its queue, by its datagrams. What is left to be done stands in the queue, where
 * no plugin can write; the frame's bytes lie where one can, so nothing of them decides where anything is written.
 */
import {
  G_TX_NO_BUFFER,
  GC,
  GC_FREE_COUNT,
  OWNER_HOST,
  PAIR_TX_HELD,
  PAIR_TX_IN,
  PAIR_TX_OUT,
  QUEUED_SIZE_SHIFT,
  QUEUED_START_SHIFT,
  SCRATCH_BYTES,
  TX_QUEUE_ENTRIES,
  TX_QUEUE_STRIDE,
  TX_QUEUES,
  TX_SCRATCH,
} from "../../shared/layout/guest.ts";
import {
  ENTRY_BUFFER,
  ENTRY_BYTES,
  ENTRY_EOP,
  ENTRY_FLAGS,
  ENTRY_LENGTH,
  ENTRY_NET_HDR,
  ENTRY_OFFSET,
  PLUGIN_BUFFER_BYTES,
  TX_HEADROOM,
} from "../../shared/layout/plugin.ts";
import { fold, sum } from "../lib/checksum.ts";
import { bufferAt, count, giveBuffer, pairOf, takeBuffer } from "./buffers.ts";
import { buffersOf, FIRST_BYTES } from "./frame.ts";
import { cuts, sums } from "./path.ts";

const IPV4_BYTES: u32 = 20;
const UDP_BYTES: u32 = 8;
const UDP_LENGTH: u32 = 4;
const UDP_CHECKSUM: u32 = 6;
const PROTOCOL_UDP: u32 = 17;

/** Whether the data path does what a frame with these flags leaves to it. */
@inline
export function isDone(flags: u32): bool {
  return flags >> QUEUED_SIZE_SHIFT != 0 ? cuts() : sums();
}

@inline
function entryAt(queue: usize, place: u32): usize {
  return queue + (place & (TX_QUEUE_ENTRIES - 1)) * ENTRY_BYTES;
}

/** Fills in the checksum of the frame at `place` of a transmit queue; false if it is to be cut. */
export function sumFrame(queue: usize, place: u32): bool {
  const first = entryAt(queue, place);
  const flags = load<u32>(first, ENTRY_FLAGS);
  if (flags >> QUEUED_SIZE_SHIFT != 0) return false;
  const start = (flags >> QUEUED_START_SHIFT) & 0xff;
  const frame = bufferAt(load<u32>(first, ENTRY_BUFFER)) + load<u32>(first, ENTRY_OFFSET);
  let total = sum(frame + start, load<u32>(first, ENTRY_LENGTH) - start, 0);
  // Each piece but the last has an even length, so no word lies in two.
  for (let next = place; (load<u32>(entryAt(queue, next), ENTRY_FLAGS) & ENTRY_EOP) == 0;) {
    const entry = entryAt(queue, ++next);
    total = sum(bufferAt(load<u32>(entry, ENTRY_BUFFER)) + load<u32>(entry, ENTRY_OFFSET), load<u32>(entry, ENTRY_LENGTH), total);
  }
  const checksum = fold(total);
  store<u16>(frame + start + UDP_CHECKSUM, <u16> (checksum == 0 ? 0xffff : checksum));
  store<u32>(first, flags & ENTRY_EOP, ENTRY_FLAGS);
  return true;
}

/**
 * Cuts the frame at the front of the transmit queue of `pair` if it is to be cut. False if there is no room for that now.
 * Where none will come it is dropped.
 */
export function cutFront(pair: u32): bool {
  const at = pairOf(pair);
  const queue: usize = TX_QUEUES + pair * TX_QUEUE_STRIDE;
  const out = load<u32>(at, PAIR_TX_OUT);
  const flags = load<u32>(entryAt(queue, out), ENTRY_FLAGS);
  const size = flags >> QUEUED_SIZE_SHIFT;
  if (size == 0) return true;
  const headerBytes = ((flags >> QUEUED_START_SHIFT) & 0xff) + UDP_BYTES;
  let entries: u32 = 0;
  let bytes: u32 = 0;
  for (let last: u32 = 0; last == 0; entries++) {
    const entry = entryAt(queue, out + entries);
    bytes += load<u32>(entry, ENTRY_LENGTH);
    last = load<u32>(entry, ENTRY_FLAGS) & ENTRY_EOP;
  }
  const payload = bytes - headerBytes;
  const datagrams = (payload + size - 1) / size;
  const lastBytes = payload - (datagrams - 1) * size;
  const wanted = (datagrams - 1) * buffersOf(headerBytes + size) + buffersOf(headerBytes + lastBytes);
  const fits = load<u32>(at, PAIR_TX_IN) - out - entries + wanted <= <u32> TX_QUEUE_ENTRIES &&
    load<u32>(GC, GC_FREE_COUNT) + entries >= wanted && bytes <= <u32> SCRATCH_BYTES;
  if (!fits && load<u32>(at, PAIR_TX_HELD) != 0) return false;
  takeOut(queue, out, entries);
  const front = out + entries - (fits ? wanted : 0);
  store<u32>(at, front, PAIR_TX_OUT);
  if (!fits) {
    count(G_TX_NO_BUFFER, 1);
    return false;
  }
  let place = front;
  for (let i: u32 = 0; i < datagrams; i++) {
    const length = i + 1 == datagrams ? lastBytes : size;
    place = putDatagram(queue, place, headerBytes, i * size, length, i);
  }
  return true;
}

/** Copies the frame of `entries` entries at `out` into scratch, and frees its buffers. */
function takeOut(queue: usize, out: u32, entries: u32): void {
  let done: u32 = 0;
  for (let i: u32 = 0; i < entries; i++) {
    const entry = entryAt(queue, out + i);
    const buffer = load<u32>(entry, ENTRY_BUFFER);
    const length = min(load<u32>(entry, ENTRY_LENGTH), SCRATCH_BYTES - done);
    memory.copy(TX_SCRATCH + done, bufferAt(buffer) + load<u32>(entry, ENTRY_OFFSET), length);
    done += length;
    giveBuffer(buffer);
  }
}

/** Puts datagram `i`, with `n` bytes of the payload from `from` on, at `place` of a queue; answers the next place. */
function putDatagram(queue: usize, place: u32, headerBytes: u32, from: u32, n: u32, i: u32): u32 {
  const bytes = headerBytes + n;
  const transport = headerBytes - UDP_BYTES;
  const first = takeBuffer(OWNER_HOST);
  const frame = bufferAt(first) + TX_HEADROOM;
  const data: usize = TX_SCRATCH + headerBytes + from;
  memory.copy(frame, TX_SCRATCH, headerBytes);
  const now = min(bytes, FIRST_BYTES);
  memory.copy(frame + headerBytes, data, now - headerBytes);
  writeHeaders(frame + transport - IPV4_BYTES, data, n, i);
  putEntry(queue, place, first, TX_HEADROOM, now, now == bytes);
  let next = place + 1;
  for (let done = now; done < bytes; next++) {
    const part = min(bytes - done, <u32> PLUGIN_BUFFER_BYTES);
    const buffer = takeBuffer(OWNER_HOST);
    memory.copy(bufferAt(buffer), data + done - headerBytes, part);
    done += part;
    putEntry(queue, next, buffer, 0, part, done == bytes);
  }
  return next;
}

/** Makes the IPv4 and UDP headers at `ip` those of datagram `i`, whose `n` bytes of payload are at `data`. */
function writeHeaders(ip: usize, data: usize, n: u32, i: u32): void {
  const udp = ip + IPV4_BYTES;
  const carried: u32 = bswap<u16>(<u16> (UDP_BYTES + n));
  store<u16>(ip, bswap<u16>(<u16> (IPV4_BYTES + UDP_BYTES + n)), 2);
  store<u16>(ip, bswap<u16>(<u16> (<u32> bswap<u16>(load<u16>(ip, 4)) + i)), 4);
  store<u16>(ip, 0, 10);
  store<u16>(ip, <u16> fold(sum(ip, IPV4_BYTES, 0)), 10);
  store<u16>(udp, <u16> carried, UDP_LENGTH);
  store<u16>(udp, 0, UDP_CHECKSUM);
  const pseudo = <u64> load<u32>(ip, 12) + load<u32>(ip, 16) + (PROTOCOL_UDP << 8) + carried;
  const checksum = fold(sum(data, n, sum(udp, UDP_BYTES, pseudo)));
  store<u16>(udp, <u16> (checksum == 0 ? 0xffff : checksum), UDP_CHECKSUM);
}

function putEntry(queue: usize, place: u32, buffer: u32, offset: u32, length: u32, last: bool): void {
  const entry = entryAt(queue, place);
  store<u64>(entry, <u64> buffer | (<u64> offset << 32), ENTRY_BUFFER);
  store<u64>(entry, <u64> length | (last ? <u64> ENTRY_EOP << 32 : 0), ENTRY_LENGTH);
}
