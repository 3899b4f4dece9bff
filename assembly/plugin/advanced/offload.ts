/**
 * What a frame to be sent leaves to its device, from the virtio-net header before it (VIRTIO 1.2 §5.1.6) into the words of
 * a context descriptor (82599 datasheet §7.2.3.2.3). Checksums are described by context 0, segments by context 1; a
 * context is written again only when it changes.
 */
import {
  ADV_TXC_L4LEN_SHIFT,
  ADV_TXC_MACLEN_SHIFT,
  ADV_TXC_MSS_SHIFT,
  ADV_TXC_TUCMD_IPV4,
  ADV_TXC_TUCMD_L4T_TCP,
  ADV_TXC_TUCMD_L4T_UDP,
  ADV_TXD_DCMD_DEXT,
  ADV_TXD_DCMD_TSE,
  ADV_TXD_DTYP_CTXT,
  ADV_TXD_IDX_SHIFT,
  ADV_TXD_POPTS_IXSM,
  ADV_TXD_POPTS_TXSM,
} from "../../../shared/layout/advanced.ts";
import {
  VIRTIO_NET_F_CSUM,
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_HOST_ECN,
  VIRTIO_NET_F_HOST_TSO4,
  VIRTIO_NET_F_HOST_TSO6,
  VIRTIO_NET_F_HOST_USO,
  VIRTIO_NET_HDR_BYTES,
  VIRTIO_NET_HDR_CSUM_OFFSET,
  VIRTIO_NET_HDR_CSUM_START,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_SIZE,
  VIRTIO_NET_HDR_GSO_TYPE,
  VIRTIO_NET_HDR_HDR_LEN,
} from "../../../shared/layout/virtio.ts";

/** Where a queue's state has the contexts that its device knows, u64 each: as descriptors have them, without type and IDX. */
const A_CONTEXTS: u32 = 8;
const TUCMD_SHIFT: u32 = 16;
const SUM_INDEX: u32 = 0;
const SEGMENT_INDEX: u32 = 1;

const TCP_CHECKSUM: u32 = 16;
/** As loaded: 0x8100, 0x88a8, 0x0800. */
const TPID_C: u32 = 0x0081;
const TPID_S: u32 = 0xa888;
const ETHERTYPE_IPV4: u32 = 0x0008;

// Of the frame that was looked at last: bits of its data descriptors, bytes of headers that PAYLEN leaves out, its context.
/** DCMD bits of all its descriptors. */
export let command: u32 = 0;
/** POPTS and IDX of the first one. */
export let status: u32 = 0;
export let headerBytes: u32 = 0;
let wanted: u64 = 0;

@inline
function bit(n: u64): u64 {
  return <u64> 1 << n;
}

/** The features that this plugin takes up, of those that are offered. */
export function acceptedOf(features: u64): u64 {
  const sends = bit(VIRTIO_NET_F_CSUM) | bit(VIRTIO_NET_F_HOST_TSO4) | bit(VIRTIO_NET_F_HOST_TSO6) |
    bit(VIRTIO_NET_F_HOST_ECN) | bit(VIRTIO_NET_F_HOST_USO);
  // The device finishes every frame that it delivers, and says so.
  return features & (sends | bit(VIRTIO_NET_F_GUEST_CSUM));
}

/** Whether the shell is told which checksums are good. */
export function hearsOfChecksums(accepted: u64): bool {
  return (accepted & bit(VIRTIO_NET_F_GUEST_CSUM)) != 0;
}

/** The frame that is looked at asks for nothing. */
@inline
export function asksNothing(): void {
  command = 0;
  status = 0;
  headerBytes = 0;
}

/**
 * Looks at what the frame at `frame`, which has a header before it, asks for. Answers how many descriptors have to come
 * before it in the queue with this state: 1 if its context is not the one that the device knows.
 */
export function lookAt(state: usize, frame: usize): u32 {
  const header = frame - VIRTIO_NET_HDR_BYTES;
  asksNothing();
  if ((<u32> load<u8>(header) & VIRTIO_NET_HDR_F_NEEDS_CSUM) == 0) return 0;
  const segmented = load<u8>(header, VIRTIO_NET_HDR_GSO_TYPE) != 0;
  const start: u32 = load<u16>(header, VIRTIO_NET_HDR_CSUM_START);
  const isTcp = <u32> load<u16>(header, VIRTIO_NET_HDR_CSUM_OFFSET) == TCP_CHECKSUM;
  let network: u32 = 14;
  let type: u32 = load<u16>(frame, 12);
  for (; (type == TPID_C || type == TPID_S) && network < start; network += 4) type = load<u16>(frame + network, 2);
  const index = segmented ? SEGMENT_INDEX : SUM_INDEX;
  const ip: u32 = type == ETHERTYPE_IPV4 ? ADV_TXC_TUCMD_IPV4 : 0;
  const kind: u32 = isTcp ? ADV_TXC_TUCMD_L4T_TCP : ADV_TXC_TUCMD_L4T_UDP;
  wanted = <u64> ((start - network) | (network << ADV_TXC_MACLEN_SHIFT) | ((ip | kind) << TUCMD_SHIFT));
  status = ADV_TXD_POPTS_TXSM | (index << ADV_TXD_IDX_SHIFT);
  if (segmented) {
    headerBytes = load<u16>(header, VIRTIO_NET_HDR_HDR_LEN);
    const size: u32 = load<u16>(header, VIRTIO_NET_HDR_GSO_SIZE);
    const l4len = headerBytes - start;
    wanted |= <u64> ((l4len << ADV_TXC_L4LEN_SHIFT) | (size << ADV_TXC_MSS_SHIFT)) << 32;
    command = ADV_TXD_DCMD_TSE;
    if (ip != 0) status |= ADV_TXD_POPTS_IXSM;
  }
  return load<u64>(state + A_CONTEXTS + index * 8) == wanted ? 0 : 1;
}

/** Writes the context that `lookAt` found missing into a descriptor of the queue with this state. */
export function writeContext(state: usize, descriptor: usize): void {
  const index = (status >> ADV_TXD_IDX_SHIFT) & 1;
  store<u64>(state + A_CONTEXTS + index * 8, wanted);
  const lengths = <u32> wanted & 0xffff;
  const type: u32 = ADV_TXD_DTYP_CTXT | ADV_TXD_DCMD_DEXT | (<u32> wanted >> TUCMD_SHIFT);
  const last = <u32> (wanted >> 32) | (index << ADV_TXD_IDX_SHIFT);
  store<u64>(descriptor, lengths);
  store<u64>(descriptor, <u64> type | (<u64> last << 32), 8);
}

/**
 * The frame at `frame`, of `bytes`, is in the ring. If it is to be cut, its device adds each segment's length to the sum
 * in the checksum field (§7.2.4): the whole's is taken out.
 */
export function takeLengthOut(frame: usize, bytes: u32): void {
  if (command == 0) return;
  const header = frame - VIRTIO_NET_HDR_BYTES;
  const start: u32 = load<u16>(header, VIRTIO_NET_HDR_CSUM_START);
  const field = frame + start + <u32> load<u16>(header, VIRTIO_NET_HDR_CSUM_OFFSET);
  const sum = <u32> bswap<u16>(load<u16>(field)) + 0xffff - (bytes - start);
  store<u16>(field, bswap<u16>(<u16> ((sum & 0xffff) + (sum >> 16))));
}
