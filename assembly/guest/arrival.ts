/**
 * What the data path says of the frame that is taken in: that its checksum is good, or not filled in, or that it is
 * several segments together (VIRTIO 1.2 §5.1.6.4). Whoever says so could change the frame itself, so it is believed; its
 * numbers are not.
 */
import { G_RX_LARGE, G_RX_UNSUMMED } from "../../shared/layout/guest.ts";
import { ENTRY_CSUM_VALID, ENTRY_NET_HDR } from "../../shared/layout/plugin.ts";
import {
  VIRTIO_NET_HDR_BYTES,
  VIRTIO_NET_HDR_CSUM_OFFSET,
  VIRTIO_NET_HDR_CSUM_START,
  VIRTIO_NET_HDR_F_DATA_VALID,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_SIZE,
  VIRTIO_NET_HDR_GSO_TYPE,
  VIRTIO_NET_HDR_GSO_UDP_L4,
} from "../../shared/layout/virtio.ts";
import { count } from "./buffers.ts";

let isGood: bool = false;
let isUnsummed: bool = false;
/** Where the sum begins that is not filled in, from the frame's first byte, and how far behind it is stored. */
let sumStart: u32 = 0;
let sumOffset: u32 = 0;
let frameAt: usize = 0;
/** Payload of each of the datagrams that came together, 0 if it is one alone. */
export let datagramBytes: u32 = 0;

/** Nothing is known of the frame. */
@inline
export function arrivesPlain(): void {
  isGood = false;
  isUnsummed = false;
  datagramBytes = 0;
}

/** What the flags of its first entry say, and the header before `data`, if there is one. */
export function arrivesWith(says: u32, data: usize): void {
  arrivesPlain();
  isGood = (says & ENTRY_CSUM_VALID) != 0;
  if ((says & ENTRY_NET_HDR) == 0) return;
  const header = data - VIRTIO_NET_HDR_BYTES;
  const flags: u32 = load<u8>(header);
  const gso: u32 = load<u8>(header, VIRTIO_NET_HDR_GSO_TYPE);
  isGood = isGood || (flags & VIRTIO_NET_HDR_F_DATA_VALID) != 0;
  isUnsummed = (flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) != 0;
  sumStart = load<u16>(header, VIRTIO_NET_HDR_CSUM_START);
  sumOffset = load<u16>(header, VIRTIO_NET_HDR_CSUM_OFFSET);
  if (isUnsummed) count(G_RX_UNSUMMED, 1);
  if (gso == 0) return;
  count(G_RX_LARGE, 1);
  if (gso == VIRTIO_NET_HDR_GSO_UDP_L4) datagramBytes = load<u16>(header, VIRTIO_NET_HDR_GSO_SIZE);
}

/** The frame lies at `at`. */
@inline
export function arrivedAt(at: usize): void {
  frameAt = at;
}

/** Whether the checksum of the transport header at `at`, which is `offset` behind it, need not be looked at. */
@inline
export function isChecked(at: usize, offset: u32): bool {
  return isGood || isPartial(at, offset);
}

/** Whether that checksum has not been filled in: only the pseudo header's sum is there. */
@inline
export function isPartial(at: usize, offset: u32): bool {
  return isUnsummed && frameAt + sumStart == at && sumOffset == offset;
}
