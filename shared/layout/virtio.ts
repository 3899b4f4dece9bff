/**
 * Constants of the virtio specification, in its spelling (OASIS virtio 1.2). Plain literals: TypeScript and
 * AssemblyScript both read this file. Feature bits are bit positions.
 */

// §2.7.5 The Virtqueue Descriptor Table: {addr u64, len u32, flags u16, next u16}
export const VIRTQ_DESC_BYTES = 16;
export const VIRTQ_DESC_F_NEXT = 1;
export const VIRTQ_DESC_F_WRITE = 2;
export const VIRTQ_DESC_F_INDIRECT = 4;

// §2.7.6 The Virtqueue Available Ring: {flags u16, idx u16, ring u16 × size, used_event u16}
export const VIRTQ_AVAIL_F_NO_INTERRUPT = 1;
export const VIRTQ_AVAIL_IDX = 2;
export const VIRTQ_AVAIL_RING = 4;

// §2.7.8 The Virtqueue Used Ring: {flags u16, idx u16, {id u32, len u32} × size, avail_event u16}
export const VIRTQ_USED_F_NO_NOTIFY = 1;
export const VIRTQ_USED_IDX = 2;
export const VIRTQ_USED_RING = 4;
export const VIRTQ_USED_ELEM_BYTES = 8;

// §2.8.13 The packed ring's descriptors: {addr u64, len u32, id u16, flags u16}. NEXT, WRITE and INDIRECT as above.
export const VIRTQ_PACKED_DESC_LEN = 8;
export const VIRTQ_PACKED_DESC_ID = 12;
export const VIRTQ_PACKED_DESC_FLAGS = 14;
export const VIRTQ_PACKED_DESC_F_AVAIL = 0x80;
export const VIRTQ_PACKED_DESC_F_USED = 0x8000;

// §2.8.14 event suppression, driver's and device's area alike: {off_wrap u16, flags u16}
export const VIRTQ_EVENT_OFF_WRAP = 0;
export const VIRTQ_EVENT_FLAGS = 2;
export const VIRTQ_EVENT_BYTES = 4;
export const VIRTQ_EVENT_ALIGN = 4;
export const RING_EVENT_FLAGS_ENABLE = 0;
export const RING_EVENT_FLAGS_DISABLE = 1;
export const RING_EVENT_FLAGS_DESC = 2;

/**
 * A packed ring's position, as vhost-user's SET_VRING_BASE carries it: bits 0–14 the next available index, bit 15 its
 * wrap counter, bits 16–30 the next used index, bit 31 its wrap counter. This is where a ring begins: both indices 0,
 * both wrap counters 1.
 */
export const VIRTQ_PACKED_BASE_INITIAL = 0x80008000;

// §2.7 alignment of the three areas
export const VIRTQ_DESC_ALIGN = 16;
export const VIRTQ_AVAIL_ALIGN = 2;
export const VIRTQ_USED_ALIGN = 4;

// §5.1.6 struct virtio_net_hdr {flags u8, gso_type u8, hdr_len u16, gso_size u16, csum_start u16, csum_offset u16,
// num_buffers u16}; num_buffers is there with VERSION_1 or MRG_RXBUF
export const VIRTIO_NET_HDR_BYTES = 12;
export const VIRTIO_NET_HDR_LEGACY_BYTES = 10;
export const VIRTIO_NET_HDR_F_NEEDS_CSUM = 1;
export const VIRTIO_NET_HDR_F_DATA_VALID = 2;
export const VIRTIO_NET_HDR_GSO_TCPV4 = 1;
export const VIRTIO_NET_HDR_GSO_TCPV6 = 4;
export const VIRTIO_NET_HDR_GSO_UDP_L4 = 5;
export const VIRTIO_NET_HDR_GSO_ECN = 0x80;
/** Where the header's fields lie: {flags u8, gso_type u8, hdr_len u16, gso_size u16, csum_start u16, csum_offset u16}. */
export const VIRTIO_NET_HDR_GSO_TYPE = 1;
export const VIRTIO_NET_HDR_HDR_LEN = 2;
export const VIRTIO_NET_HDR_GSO_SIZE = 4;
export const VIRTIO_NET_HDR_CSUM_START = 6;
export const VIRTIO_NET_HDR_CSUM_OFFSET = 8;
export const VIRTIO_NET_HDR_NUM_BUFFERS = 10;

// §5.1.3 and §6 feature bits
export const VIRTIO_NET_F_CSUM = 0;
export const VIRTIO_NET_F_GUEST_CSUM = 1;
export const VIRTIO_NET_F_CTRL_GUEST_OFFLOADS = 2;
export const VIRTIO_NET_F_MTU = 3;
export const VIRTIO_NET_F_MAC = 5;
export const VIRTIO_NET_F_GUEST_TSO4 = 7;
export const VIRTIO_NET_F_GUEST_TSO6 = 8;
export const VIRTIO_NET_F_GUEST_ECN = 9;
export const VIRTIO_NET_F_HOST_TSO4 = 11;
export const VIRTIO_NET_F_HOST_TSO6 = 12;
export const VIRTIO_NET_F_HOST_ECN = 13;
export const VIRTIO_NET_F_MRG_RXBUF = 15;
export const VIRTIO_NET_F_STATUS = 16;
export const VIRTIO_NET_F_CTRL_VQ = 17;
export const VIRTIO_NET_F_CTRL_RX = 18;
export const VIRTIO_NET_F_CTRL_VLAN = 19;
export const VIRTIO_NET_F_GUEST_ANNOUNCE = 21;
export const VIRTIO_NET_F_MQ = 22;
export const VIRTIO_NET_F_CTRL_MAC_ADDR = 23;
export const VIRTIO_F_ANY_LAYOUT = 27;
export const VIRTIO_RING_F_INDIRECT_DESC = 28;
export const VIRTIO_RING_F_EVENT_IDX = 29;
export const VIRTIO_F_VERSION_1 = 32;
export const VIRTIO_F_RING_PACKED = 34;
export const VIRTIO_F_IN_ORDER = 35;
export const VIRTIO_NET_F_GUEST_USO4 = 54;
export const VIRTIO_NET_F_GUEST_USO6 = 55;
export const VIRTIO_NET_F_HOST_USO = 56;

// §5.1.4 struct virtio_net_config {mac u8 × 6, status u16, max_virtqueue_pairs u16, mtu u16, speed u32, duplex u8, …}
export const VIRTIO_NET_CONFIG_MAC = 0;
export const VIRTIO_NET_CONFIG_STATUS = 6;
export const VIRTIO_NET_CONFIG_MAX_VIRTQUEUE_PAIRS = 8;
export const VIRTIO_NET_CONFIG_MTU = 10;
export const VIRTIO_NET_S_LINK_UP = 1;
export const VIRTIO_NET_S_ANNOUNCE = 2;

// §5.1.6.5 struct virtio_net_ctrl {class u8, command u8, data …, ack u8}
export const VIRTIO_NET_OK = 0;
export const VIRTIO_NET_ERR = 1;
export const VIRTIO_NET_CTRL_RX = 0;
export const VIRTIO_NET_CTRL_RX_PROMISC = 0;
export const VIRTIO_NET_CTRL_RX_ALLMULTI = 1;
export const VIRTIO_NET_CTRL_MAC = 1;
export const VIRTIO_NET_CTRL_MAC_TABLE_SET = 0;
export const VIRTIO_NET_CTRL_MAC_ADDR_SET = 1;
export const VIRTIO_NET_CTRL_VLAN = 2;
export const VIRTIO_NET_CTRL_VLAN_ADD = 0;
export const VIRTIO_NET_CTRL_VLAN_DEL = 1;
export const VIRTIO_NET_CTRL_ANNOUNCE = 3;
export const VIRTIO_NET_CTRL_ANNOUNCE_ACK = 0;
export const VIRTIO_NET_CTRL_MQ = 4;
export const VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET = 0;
export const VIRTIO_NET_CTRL_GUEST_OFFLOADS = 5;
export const VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET = 0;
