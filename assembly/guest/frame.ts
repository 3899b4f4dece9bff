/**
 * Frames on their way out: built in a buffer, or in scratch if they are longer than one, and put into the transmit queue
 * of a queue pair. One frame is built at a time.
 */
import {
  G_TX_BYTES,
  G_TX_FRAMES,
  G_TX_LARGE,
  G_TX_NO_BUFFER,
  G_TX_UNSUMMED,
  GC,
  GC_FREE_COUNT,
  GC_LINK,
  GC_MAC,
  GC_QUEUE_PAIRS,
  GC_VLAN,
  OWNER_HOST,
  PAIR_TX_IN,
  PAIR_TX_OUT,
  QUEUED_SIZE_SHIFT,
  QUEUED_START_SHIFT,
  TX_QUEUE_ENTRIES,
  TX_QUEUE_STRIDE,
  TX_QUEUES,
  TX_SCRATCH,
} from "../../shared/layout/guest.ts";
import {
  ENTRY_BUFFER,
  ENTRY_BYTES,
  ENTRY_EOP,
  ENTRY_LENGTH,
  ENTRY_NET_HDR,
  PLUGIN_BUFFER_BYTES,
  TX_HEADROOM,
} from "../../shared/layout/plugin.ts";
import {
  VIRTIO_NET_HDR_BYTES,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_UDP_L4,
} from "../../shared/layout/virtio.ts";
import { bufferAt, count, pairOf, takeBuffer } from "./buffers.ts";
import { capture } from "./capture.ts";

/** Bytes of a frame that fit into its first buffer. */
export const FIRST_BYTES: u32 = PLUGIN_BUFFER_BYTES - TX_HEADROOM;
const ETHERNET_BYTES: u32 = 14;
const TAG_BYTES: u32 = 4;

/** Queue pair on which frames go out; answers go out where the question came in. */
let outPair: u32 = 0;

@inline
export function setOutPair(pair: u32): void {
  const pairs = load<u32>(GC, GC_QUEUE_PAIRS);
  outPair = pairs == 0 ? 0 : pair % pairs;
}

let frameAt: usize = 0;
let first: u32 = 0;
/** Flags of its first entry: what it leaves to be done. */
let asks: u32 = 0;

/** Buffers that a frame of `bytes` bytes takes. */
@inline
export function buffersOf(bytes: u32): u32 {
  return bytes <= FIRST_BYTES ? 1 : 1 + (bytes - FIRST_BYTES + PLUGIN_BUFFER_BYTES - 1) / PLUGIN_BUFFER_BYTES;
}

/** Bytes before the network header: with the guest's own tag, four more. */
@inline
export function linkHeaderBytes(): u32 {
  return load<u32>(GC, GC_VLAN) != 0 ? ETHERNET_BYTES + TAG_BYTES : ETHERNET_BYTES;
}

/** Room in the transmit queue of the current pair, in entries. */
@inline
export function queueRoom(): u32 {
  const at = pairOf(outPair);
  return TX_QUEUE_ENTRIES - (load<u32>(at, PAIR_TX_IN) - load<u32>(at, PAIR_TX_OUT));
}

/** Begins a frame of `bytes` bytes; answers where it is to be written, 0 if there is no room, or no link. */
export function beginFrame(bytes: u32): usize {
  if (load<u32>(GC, GC_LINK) == 0) return 0;
  const buffers = buffersOf(bytes);
  if (load<u32>(GC, GC_FREE_COUNT) < buffers || queueRoom() < buffers) {
    count(G_TX_NO_BUFFER, 1);
    return 0;
  }
  asks = 0;
  first = takeBuffer(OWNER_HOST);
  frameAt = buffers == 1 ? bufferAt(first) + TX_HEADROOM : TX_SCRATCH;
  return frameAt;
}

/** Writes the Ethernet header of the frame that was begun, tagged if the guest tags; answers what comes behind it. */
@inline
export function writeLinkHeader(dst: u64, type: u32): usize {
  const src = load<u64>(GC, GC_MAC);
  const vlan = load<u32>(GC, GC_VLAN);
  store<u64>(frameAt, dst | (src << 48));
  store<u32>(frameAt, <u32> (src >> 16), 8);
  let at: usize = 12;
  if (vlan != 0) {
    store<u16>(frameAt + at, 0x0081);
    store<u16>(frameAt + at, bswap<u16>(<u16> vlan), 2);
    at += TAG_BYTES;
  }
  store<u16>(frameAt + at, <u16> type);
  return frameAt + at + 2;
}

/**
 * The frame that was begun leaves its checksum to be filled in (the pseudo header's sum is there), from its transport
 * header at byte `start` on, `offset` bytes behind that. If `size` is not 0 it is to be cut into UDP datagrams with so
 * much payload each, behind the headers' `headerBytes`.
 */
export function leave(start: u32, offset: u32, size: u32, headerBytes: u32): void {
  const kind: u64 = size == 0 ? 0 : (VIRTIO_NET_HDR_GSO_UDP_L4 << 8) | (headerBytes << 16);
  const header = bufferAt(first) + TX_HEADROOM - VIRTIO_NET_HDR_BYTES;
  store<u64>(header, VIRTIO_NET_HDR_F_NEEDS_CSUM | kind | (<u64> size << 32) | (<u64> start << 48));
  store<u32>(header, offset, 8);
  asks = ENTRY_NET_HDR | (start << QUEUED_START_SHIFT) | (size << QUEUED_SIZE_SHIFT);
  count(size == 0 ? G_TX_UNSUMMED : G_TX_LARGE, 1);
}

/** Puts the frame that was begun into the transmit queue. */
export function endFrame(bytes: u32): void {
  capture(frameAt, bytes, 1);
  count(G_TX_FRAMES, 1);
  count(G_TX_BYTES, bytes);
  const now = min(bytes, FIRST_BYTES);
  if (frameAt == TX_SCRATCH) memory.copy(bufferAt(first) + TX_HEADROOM, TX_SCRATCH, now);
  enqueue(first, TX_HEADROOM, now, now == bytes ? asks | ENTRY_EOP : asks);
  for (let done = now; done < bytes;) {
    const part = min(bytes - done, <u32> PLUGIN_BUFFER_BYTES);
    const buffer = takeBuffer(OWNER_HOST);
    memory.copy(bufferAt(buffer), TX_SCRATCH + done, part);
    done += part;
    enqueue(buffer, 0, part, done == bytes ? ENTRY_EOP : 0);
  }
}

function enqueue(buffer: u32, offset: u32, length: u32, flags: u32): void {
  const at = pairOf(outPair);
  const place = load<u32>(at, PAIR_TX_IN);
  const entry = TX_QUEUES + outPair * TX_QUEUE_STRIDE + (place & (TX_QUEUE_ENTRIES - 1)) * ENTRY_BYTES;
  // As two words, which is how it is read again: a wider read of younger stores would wait for them.
  store<u64>(entry, <u64> buffer | (<u64> offset << 32), ENTRY_BUFFER);
  store<u64>(entry, <u64> length | (<u64> flags << 32), ENTRY_LENGTH);
  store<u32>(at, place + 1, PAIR_TX_IN);
}
