/**
 * Frames of an AF_XDP socket (Documentation/networking/af_xdp.rst): its packet memory is the ring's buffers, so a frame
 * is in the same bytes for the NIC and for the kernel. Receive descriptor n has chunk n, which comes back by the
 * completion ring; the other chunks go from the fill ring to a transmit descriptor and back.
 */
import * as N from "../../shared/layout/netdev.ts";
import * as V from "../../shared/layout/virtio.ts";
import { count, FRAME_BYTES_MIN, get, set } from "./state.ts";
import {
  armQueues,
  freeCount,
  giveBackReceived,
  layOutQueues,
  NONE,
  offerTransmit,
  publishReceive,
  publishTransmit,
  received,
  rxBuffer,
  takeFree,
  takeReceived,
  takeSent,
} from "./virtqueues.ts";

const FRAMES_MAX: u32 = 64;
const HEADER_BYTES: u32 = V.VIRTIO_NET_HDR_BYTES;
const CHUNK_MASK: u32 = N.ND_CHUNK_BYTES - 1;
const CHUNK_SHIFT: u32 = 12;
// linux/if_xdp.h
const XDP_RING_NEED_WAKEUP: u32 = 1;
/** struct xdp_desc {addr u64, len u32, options u32} */
const DESC_BYTES: u32 = 16;

const FILL: u32 = 0;
const COMPLETION: u32 = 1;
const RECEIVE: u32 = 2;
const SEND: u32 = 3;
const PRODUCER: u32 = 0;
const CONSUMER: u32 = 4;
const FLAGS: u32 = 8;
const ENTRIES: u32 = 12;

/** Where a word of a ring, or its entries, are. */
@inline
function place(ring: u32, what: u32): usize {
  return get(N.NC_XDP_RINGS + ring * N.NC_XDP_RING_STRIDE + what);
}

@inline
function index(ring: u32, what: u32): u32 {
  return atomic.load<u32>(place(ring, what));
}

/** Begins: the NIC has a chunk for each receive descriptor, the kernel has the others. */
export function startXdp(): void {
  layOutQueues();
  const entries = place(FILL, ENTRIES);
  for (let i: u32 = 0; i < <u32> N.ND_XDP_FILL_SIZE; i++) {
    store<u64>(entries + i * 8, (<u64> N.ND_XDP_QUEUE_SIZE + i) << CHUNK_SHIFT);
  }
  atomic.store<u32>(place(FILL, PRODUCER), N.ND_XDP_FILL_SIZE);
}

/** One round, both ways. Answers STATUS_* bits. */
export function xdpRound(): u32 {
  const back = takeCompleted();
  const sent = send();
  const got = get(N.NS_REQUEST) == N.REQUEST_RUN ? take() : 0;
  refill();
  let status: u32 = sent + got + back > 0 || received() > 0 && freeSends() > 0 ? N.STATUS_WORK : 0;
  if (publishReceive()) status |= N.STATUS_ROOM;
  if (publishTransmit()) status |= N.STATUS_KICK;
  if (unsent() > 0 && (index(SEND, FLAGS) & XDP_RING_NEED_WAKEUP) != 0) status |= N.STATUS_SEND;
  if (get(N.NS_FAULT) != N.FAULT_NONE) status |= N.STATUS_FAULT;
  return status;
}

/** Gives the NIC the chunks back that the kernel has sent. */
function takeCompleted(): u32 {
  const end = index(COMPLETION, PRODUCER);
  const from = index(COMPLETION, CONSUMER);
  const entries = place(COMPLETION, ENTRIES);
  for (let i = from; i != end; i++) {
    const address = <u32> load<u64>(entries + (i & (N.ND_XDP_SEND_SIZE - 1)) * 8);
    giveBackReceived((address >> CHUNK_SHIFT) & (N.ND_XDP_QUEUE_SIZE - 1));
  }
  if (end == from) return 0;
  atomic.store<u32>(place(COMPLETION, CONSUMER), end);
  set(N.NS_IN_FLIGHT, get(N.NS_IN_FLIGHT) - (end - from));
  return end - from;
}

/** Frames that the kernel has not taken out of the transmit ring. */
export function unsent(): u32 {
  return index(SEND, PRODUCER) - index(SEND, CONSUMER);
}

@inline
function freeSends(): u32 {
  return <u32> N.ND_XDP_SEND_SIZE - unsent();
}

/** Hands what the NIC has handed over to the kernel; answers how many frames. */
function send(): u32 {
  const most = min(min(received(), FRAMES_MAX), freeSends());
  const entries = place(SEND, ENTRIES);
  const from = index(SEND, PRODUCER);
  let n: u32 = 0;
  let bytes: u64 = 0;
  for (let i: u32 = 0; i < most; i++) {
    const element = takeReceived();
    const id = <u32> element;
    if (id == NONE) break;
    const length = <u32> (element >> 32) - HEADER_BYTES;
    if (<i32> length < <i32> FRAME_BYTES_MIN) {
      count(N.NCO_OUT_RUNT, 1);
      giveBackReceived(id);
      continue;
    }
    const entry = entries + ((from + n) & (N.ND_XDP_SEND_SIZE - 1)) * DESC_BYTES;
    store<u64>(entry, rxBuffer(id) + HEADER_BYTES - N.ND_UMEM);
    store<u64>(entry, length, 8);
    bytes += length;
    n++;
  }
  if (n == 0) return 0;
  atomic.store<u32>(place(SEND, PRODUCER), from + n);
  set(N.NS_IN_FLIGHT, get(N.NS_IN_FLIGHT) + n);
  count(N.NCO_OUT_FRAMES, n);
  count(N.NCO_OUT_BYTES, bytes);
  return n;
}

/** Hands what the kernel has received to the NIC; answers how many frames. */
function take(): u32 {
  const from = index(RECEIVE, CONSUMER);
  const most = min(min(index(RECEIVE, PRODUCER) - from, FRAMES_MAX), freeCount());
  const entries = place(RECEIVE, ENTRIES);
  for (let i: u32 = 0; i < most; i++) {
    const entry = entries + ((from + i) & (N.ND_XDP_FILL_SIZE - 1)) * DESC_BYTES;
    const address = <u32> load<u64>(entry);
    const length = load<u32>(entry, 8);
    // The kernel leaves room before a frame for what a program may put there.
    const at: usize = N.ND_UMEM + address - HEADER_BYTES;
    store<u64>(at, 0);
    store<u32>(at, 0, 8);
    const id = takeFree();
    store<u32>(N.ND_TX_CHUNKS + id * 4, address & ~CHUNK_MASK);
    offerTransmit(id, at, length + HEADER_BYTES);
    count(N.NCO_IN_BYTES, length);
  }
  if (most == 0) return 0;
  count(N.NCO_IN_FRAMES, most);
  atomic.store<u32>(place(RECEIVE, CONSUMER), from + most);
  return most;
}

/** Gives the kernel the chunks back that the NIC has taken. There is a place in the fill ring for each. */
function refill(): void {
  const from = index(FILL, PRODUCER);
  const entries = place(FILL, ENTRIES);
  let n: u32 = 0;
  for (let id = takeSent(); id != NONE; id = takeSent()) {
    store<u64>(entries + ((from + n) & (N.ND_XDP_FILL_SIZE - 1)) * 8, load<u32>(N.ND_TX_CHUNKS + id * 4));
    n++;
  }
  if (n > 0) atomic.store<u32>(place(FILL, PRODUCER), from + n);
}

/**
 * The kernel does not take frames, and reads the ring only when it is called: what is in it is dropped. True if the NIC
 * is to be told of the room.
 */
export function abandonXdp(): bool {
  const end = index(SEND, PRODUCER);
  const from = index(SEND, CONSUMER);
  const entries = place(SEND, ENTRIES);
  for (let i = from; i != end; i++) {
    const entry = entries + (i & (N.ND_XDP_SEND_SIZE - 1)) * DESC_BYTES;
    count(N.NCO_OUT_BYTES, -<u64> load<u32>(entry, 8));
    giveBackReceived((<u32> load<u64>(entry) >> CHUNK_SHIFT) & (N.ND_XDP_QUEUE_SIZE - 1));
  }
  atomic.store<u32>(place(SEND, PRODUCER), from);
  set(N.NS_IN_FLIGHT, get(N.NS_IN_FLIGHT) - (end - from));
  count(N.NCO_OUT_FRAMES, -<u64> (end - from));
  count(N.NCO_OUT_DOWN, end - from);
  return publishReceive();
}

/** Asks for interrupts; 1 if there is something to do already. */
export function armXdp(): u32 {
  const isThere = get(N.NS_REQUEST) == N.REQUEST_RUN && index(RECEIVE, PRODUCER) != index(RECEIVE, CONSUMER);
  if (isThere && freeCount() > 0) return 1;
  const quiet = get(N.NS_REQUEST) == N.REQUEST_QUIET;
  // While no transmit descriptor is free nobody waits for the socket.
  return armQueues(freeCount() == 0 || quiet) ? 1 : 0;
}
