/**
 * The `advanced` queue flavour: descriptor formats of the Intel 82599 (datasheet §7.1.6 advanced receive, §7.2.3
 * advanced transmit) and the register page through which a driver rings doorbells. Plain literals: TypeScript and
 * AssemblyScript both read this file.
 *
 * A ring is an array of 16-byte descriptors. The device owns those from head to tail, the driver the others; a ring
 * whose head is its tail is empty, so it holds one descriptor less than its size.
 *
 *      receive, read format          {packet buffer u64, header buffer u64}
 *      receive, write-back format    {info u32, RSS hash u32, status and error u32, length u16, VLAN u16}
 *      transmit                      {buffer u64, length | DTYP | DCMD u32, status | PAYLEN u32}
 *      transmit context              {IPLEN | MACLEN | VLAN u32, 0 u32, TUCMD | DTYP | DCMD u32, IDX | L4LEN | MSS u32}
 *
 * The register page is 4 KiB, a memory file of its own for each VF: 128 bytes for each queue, the first line written
 * by the driver, the second by the device.
 *
 *      +0   TAIL u32       doorbell: the driver's descriptors end before this index
 *      +4   INTERRUPT u32  the driver wants one interrupt; the device sets it back to 0 when it raises it
 *      +64  HEAD u32       the device's descriptors begin at this index
 *      +68  ARMED u32      the device sleeps: signal the kick eventfd after the next doorbell
 *      +72  POSITION u32   a packed virtqueue's: where it goes on, as SET_VRING_BASE has it, once NEXT is published
 *      +76  NEXT u32       where it will go on, when the used descriptor at POSITION is there
 *
 * A *direct* queue, this NIC's own extension, has the buffers of somebody whose rings its driver serves: a guest's. Each
 * frame has a virtio-net header of 12 bytes in front, in the first of its buffers. The sizes of receive buffers are their
 * own, the device leaves the first half of a receive descriptor as it is, and says whether it saw the MARK in it: so a
 * driver may put another buffer in a descriptor that it has given away already, and knows afterwards which one was used.
 *
 *      receive, read format          {packet buffer u48 | bytes u15 | MARK u1, header buffer u64}
 *      receive, write-back format    {as it was u64, status u32, length u16, header bytes u16}
 */

export const ADV_DESC_BYTES = 16;
export const ADV_DESC_ALIGN = 128;
export const ADV_QUEUE_SIZE_MIN = 8;
/** TDLEN and RDLEN go further; drivers do not. */
export const ADV_QUEUE_SIZE_MAX = 4096;
/** Descriptors of one frame (datasheet §7.2.1.1). */
export const ADV_CHAIN_MAX = 40;

// §7.2.3.2.4 transmit, third dword
export const ADV_TXD_DTALEN_MASK = 0xffff;
export const ADV_TXD_DTYP_MASK = 0x00f00000;
export const ADV_TXD_DTYP_CTXT = 0x00200000;
export const ADV_TXD_DTYP_DATA = 0x00300000;
export const ADV_TXD_DCMD_EOP = 0x01000000;
export const ADV_TXD_DCMD_IFCS = 0x02000000;
export const ADV_TXD_DCMD_RS = 0x08000000;
export const ADV_TXD_DCMD_DEXT = 0x20000000;
export const ADV_TXD_DCMD_VLE = 0x40000000;
export const ADV_TXD_DCMD_TSE = 0x80000000;
// fourth dword
export const ADV_TXD_STAT_DD = 1;
/** Which context a frame's offloads are described by; only 0 and 1 exist. */
export const ADV_TXD_IDX_SHIFT = 4;
export const ADV_TXD_IDX_MASK = 0x70;
export const ADV_TXD_POPTS_MASK = 0x3f00;
export const ADV_TXD_POPTS_IXSM = 0x100;
export const ADV_TXD_POPTS_TXSM = 0x200;
export const ADV_TXD_PAYLEN_SHIFT = 14;

// §7.2.3.2.3 transmit context: first dword, third dword, fourth dword
export const ADV_TXC_IPLEN_MASK = 0x1ff;
export const ADV_TXC_MACLEN_SHIFT = 9;
export const ADV_TXC_MACLEN_MASK = 0x7f;
export const ADV_TXC_TUCMD_MASK = 0x000ffe00;
export const ADV_TXC_TUCMD_IPV4 = 0x400;
export const ADV_TXC_TUCMD_L4T_MASK = 0x1800;
export const ADV_TXC_TUCMD_L4T_UDP = 0;
export const ADV_TXC_TUCMD_L4T_TCP = 0x800;
export const ADV_TXC_L4LEN_SHIFT = 8;
export const ADV_TXC_MSS_SHIFT = 16;

// §7.1.6.2 receive write-back, first dword
export const ADV_RXD_PTYPE_IPV4 = 0x10;
export const ADV_RXD_PTYPE_IPV6 = 0x40;
export const ADV_RXD_PTYPE_TCP = 0x100;
export const ADV_RXD_PTYPE_UDP = 0x200;
export const ADV_RXD_HDRLEN_SHIFT = 21;
export const ADV_RXD_HDRLEN_MASK = 0x3ff;
export const ADV_RXD_SPH = 0x80000000;
// third dword
export const ADV_RXD_STAT_DD = 1;
export const ADV_RXD_STAT_EOP = 2;
/** The TCP or UDP checksum was looked at, and the IPv4 header's; good unless the error bit says otherwise. */
export const ADV_RXD_STAT_L4I = 0x20;
export const ADV_RXD_STAT_IPCS = 0x40;
export const ADV_RXD_ERR_L4E = 0x40000000;
export const ADV_RXD_ERR_IPE = 0x80000000;

// A direct queue's receive descriptors
export const ADV_DIRECT_ADDRESS_BITS = 48;
export const ADV_DIRECT_BYTES_MASK = 0x7fff;
export const ADV_DIRECT_MARK_SHIFT = 63;
/** Third dword of the write-back format: the descriptor had the MARK when the device used it. */
export const ADV_DIRECT_STAT_MARK = 0x10000;
/** Where the header bytes are in the second half of the write-back format: virtio-net header included, 0 if not split. */
export const ADV_DIRECT_HEADER_SHIFT = 48;
/** Descriptors that one received frame may take. */
export const ADV_DIRECT_CHAIN_MAX = 64;

// Register page
export const ADV_PAGE_BYTES = 4096;
export const ADV_REGISTER_STRIDE = 128;
export const ADV_REG_TAIL = 0;
export const ADV_REG_INTERRUPT = 4;
export const ADV_REG_HEAD = 64;
export const ADV_REG_ARMED = 68;
export const ADV_REG_POSITION = 72;
export const ADV_REG_NEXT = 76;

/** SRRCTL.BSIZEPACKET counts kilobytes, 1–16 (§8.2.3.8.7). */
export const ADV_PACKET_BYTES_MIN = 1024;
export const ADV_PACKET_BYTES_MAX = 16384;
/** SRRCTL.BSIZEHEADER counts 64 bytes, up to 1024; 0: frames are not split. */
export const ADV_HEADER_BYTES_MAX = 1024;
