/**
 * What both ring formats share: the configuration, and each queue's own state.
 */
import * as P from "../../../shared/layout/plugin.ts";
import * as V from "../../../shared/layout/virtio.ts";

/** Kicks the device for a queue: the shell's one function. */
@external("shell", "notify")
export declare function notify(queue: u32): void;

// A queue's own state, 64 bytes. Free descriptors (split) or buffer ids (packed) are counted as those that were ever
// taken, and those that ever came back.
export const FREE_OUT: u32 = 0;
export const FREE_IN: u32 = 4;
/** Split: the avail index. Packed: the place of the next descriptor to make available. */
export const AVAIL: u32 = 8;
/** Split: the next used index to look at. Packed: the place of the next used descriptor. */
export const USED: u32 = 12;
/** Split: the avail index when the device was last asked whether it wants a kick. */
export const KICKED: u32 = 16;
/** Packed: the flags of a descriptor that is made available, and of one that has been used, in this round. */
export const AVAIL_FLAGS: u32 = 20;
export const USED_FLAGS: u32 = 24;
/** IN_ORDER: what is still to be taken in of the batch that the device has used, and the length that it named. */
export const LEFT: u32 = 28;
export const LENGTH: u32 = 32;
/** Buffers taken in of a frame of which the rest is missing. */
export const PENDING: u32 = 36;
/** The device has used what it did not have: nothing more is taken in. */
export const BROKEN: u32 = 40;
const STATE_STRIDE: u32 = 64;

const LINE_BYTES: u32 = 64;

export let pairs: u32 = 0;
export let size: u32 = 0;
export let hdrBytes: u32 = 0;
/** Where a receive buffer begins, so that the frame behind its header begins a cache line, as the sender's does. */
export let rxOffset: u32 = 0;
/** Room in a receive buffer, the header included. */
export let rxBytes: u32 = 0;
export let mergeable: bool = false;
export let eventIdx: bool = false;
export let indirect: bool = false;
export let packed: bool = false;
export let inOrder: bool = false;
/** Whether a frame to be sent may leave something to its device, and a received one may come unfinished. */
export let sendsUnfinished: bool = false;
export let takesUnfinished: bool = false;
/** Where the driver's and the device's area lie in a queue's part of the rings. */
export let availOffset: u32 = 0;
export let usedOffset: u32 = 0;
export let ringsIova: u64 = 0;
export let buffersIova: u64 = 0;

@inline
export function stateOf(queue: u32): usize {
  return P.PLUGIN_PRIVATE + queue * STATE_STRIDE;
}

@inline
export function ringOf(queue: u32): usize {
  return P.PLUGIN_RINGS + queue * P.PLUGIN_RING_STRIDE;
}

@inline
function bit(n: u64): u64 {
  return <u64> 1 << n;
}

@inline
function has(features: u64, n: u64): bool {
  return (features & bit(n)) != 0;
}

/** Reads the configuration, and says which features the rings use; false if it asks for what cannot be. */
export function configure(): bool {
  pairs = load<u32>(P.PLUGIN_STATE, P.PC_QUEUE_PAIRS);
  size = load<u32>(P.PLUGIN_STATE, P.PC_RING_SIZE);
  const features = load<u64>(P.PLUGIN_STATE, P.PC_FEATURES);
  ringsIova = load<u64>(P.PLUGIN_STATE, P.PC_RINGS_IOVA);
  buffersIova = load<u64>(P.PLUGIN_STATE, P.PC_BUFFERS_IOVA);
  packed = has(features, V.VIRTIO_F_RING_PACKED);
  inOrder = has(features, V.VIRTIO_F_IN_ORDER);
  if (pairs == 0 || pairs > <u32> P.PLUGIN_QUEUE_PAIRS_MAX) return false;
  if (size < 2 || size > <u32> P.PLUGIN_RING_SIZE_MAX || (!packed && (size & (size - 1)) != 0)) return false;
  mergeable = has(features, V.VIRTIO_NET_F_MRG_RXBUF);
  eventIdx = has(features, V.VIRTIO_RING_F_EVENT_IDX);
  indirect = has(features, V.VIRTIO_RING_F_INDIRECT_DESC);
  const modern = has(features, V.VIRTIO_F_VERSION_1);
  hdrBytes = modern || mergeable ? V.VIRTIO_NET_HDR_BYTES : V.VIRTIO_NET_HDR_LEGACY_BYTES;
  rxOffset = LINE_BYTES - hdrBytes;
  rxBytes = P.PLUGIN_BUFFER_BYTES - rxOffset;
  const offloads = acceptedOffloads(features);
  sendsUnfinished = has(offloads, V.VIRTIO_NET_F_CSUM);
  takesUnfinished = has(offloads, V.VIRTIO_NET_F_GUEST_CSUM);
  const rings = bit(V.VIRTIO_F_RING_PACKED) | bit(V.VIRTIO_F_IN_ORDER);
  store<u64>(P.PLUGIN_STATE, (features & rings) | offloads, P.PC_ACCEPTED);
  return true;
}

/**
 * The offloads that are taken up, of those that are offered. A header without num_buffers is not as long as the one that
 * the shell knows; and a frame longer than a buffer has to come in several.
 */
function acceptedOffloads(features: u64): u64 {
  if (hdrBytes != V.VIRTIO_NET_HDR_BYTES) return 0;
  const sends = bit(V.VIRTIO_NET_F_CSUM) | bit(V.VIRTIO_NET_F_HOST_TSO4) | bit(V.VIRTIO_NET_F_HOST_TSO6) |
    bit(V.VIRTIO_NET_F_HOST_ECN) | bit(V.VIRTIO_NET_F_HOST_USO);
  const takes = bit(V.VIRTIO_NET_F_GUEST_TSO4) | bit(V.VIRTIO_NET_F_GUEST_TSO6) | bit(V.VIRTIO_NET_F_GUEST_ECN) |
    bit(V.VIRTIO_NET_F_GUEST_USO4) | bit(V.VIRTIO_NET_F_GUEST_USO6);
  return features & (sends | bit(V.VIRTIO_NET_F_GUEST_CSUM) | (mergeable ? takes : 0));
}

/** Clears a queue's ring and state, and names the ring; its two areas lie at these offsets behind its descriptors. */
export function nameRing(queue: u32, driverArea: u32, deviceArea: u32): void {
  availOffset = driverArea;
  usedOffset = deviceArea;
  memory.fill(ringOf(queue), 0, P.PLUGIN_RING_STRIDE);
  memory.fill(stateOf(queue), 0, STATE_STRIDE);
  const out = P.PLUGIN_QUEUES + queue * P.PLUGIN_QUEUE_STRIDE;
  const iova = ringsIova + queue * P.PLUGIN_RING_STRIDE;
  store<u64>(out, iova, P.PQ_DESC);
  store<u64>(out, iova + driverArea, P.PQ_AVAIL);
  store<u64>(out, iova + deviceArea, P.PQ_USED);
  store<u32>(out, size, P.PQ_SIZE);
}

/** The device has used what it did not have: its queue is not looked at any more, and the shell is told (NO_BUFFER). */
@inline
export function giveUp(state: usize): void {
  store<u32>(state, 1, BROKEN);
}
