/**
 * The vhost-user protocol's numbers and layouts, in the specification's spelling (QEMU docs/interop/vhost-user.rst).
 */
import { REGIONS_MAX } from "../layout/nic.ts";

/** Header: request u32, flags u32, size u32. */
export const HEADER_BYTES = 12;
/** Longest payload of any message this back-end knows, generously (a memory table of 62 regions is 1,992 bytes). */
export const PAYLOAD_BYTES_MAX = 4096;

export const VHOST_USER_VERSION = 1;
export const VHOST_USER_VERSION_MASK = 0x3;
export const VHOST_USER_REPLY_MASK = 1 << 2;
export const VHOST_USER_NEED_REPLY_MASK = 1 << 3;

// Feature bits of SET_FEATURES that belong to vhost
export const VHOST_F_LOG_ALL = 26;
export const VHOST_USER_F_PROTOCOL_FEATURES = 30;

// Protocol feature bits
export const VHOST_USER_PROTOCOL_F_MQ = 0;
export const VHOST_USER_PROTOCOL_F_LOG_SHMFD = 1;
export const VHOST_USER_PROTOCOL_F_RARP = 2;
export const VHOST_USER_PROTOCOL_F_REPLY_ACK = 3;
export const VHOST_USER_PROTOCOL_F_NET_MTU = 4;
export const VHOST_USER_PROTOCOL_F_BACKEND_REQ = 5;
export const VHOST_USER_PROTOCOL_F_CONFIG = 9;
export const VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD = 12;
export const VHOST_USER_PROTOCOL_F_RESET_DEVICE = 13;
export const VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS = 15;
export const VHOST_USER_PROTOCOL_F_STATUS = 16;

/** What a front-end's request may look like, and what is due to it. */
export interface RequestRule {
  number: number;
  /** Lengths that its payload may have; none: it has as many bytes as it says, which is checked where it is read. */
  bytes?: readonly number[];
  /** How many descriptors it may bring. */
  fdsMax: number;
  /** The protocol feature that makes it lawful. */
  needs?: number;
  /** It has an answer of its own. Others are acknowledged, if REPLY_ACK was agreed on and they ask for it. */
  answered?: true;
}

/**
 * Memory regions of a device, each with its descriptor; all of them may come in one table. The NIC has two more for a VF:
 * one for the inflight memory, and one for the driver's own memory in emulated mode without a copy.
 */
export const MEM_SLOTS_MAX = REGIONS_MAX - 2;
const ADDRESS_BYTES = 40;
/** The log's size and its offset in its file, both u64. */
const LOG_BYTES = 16;
/** A u64 of padding and a region. QEMU 5.1 leaves the last four bytes out: the upper half of the file offset. */
const MEM_REG_BYTES = [40, 36];
const u64Request = (number: number): RequestRule => ({ number, bytes: [8], fdsMax: 0 });
const fdRequest = (number: number): RequestRule => ({ number, bytes: [8], fdsMax: 1 });

/** Payload of the inflight messages: size and offset u64, queues and their size u16, padding that some leave out. */
export const INFLIGHT_BYTES = 24;
const inflightRequest = (number: number) => ({
  number,
  bytes: [INFLIGHT_BYTES, 20],
  needs: VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD,
});

/**
 * Every request that this back-end knows: what it may look like, when it is lawful, and whether it is answered
 * (vhost-user.rst, "Front-end message types").
 */
export const REQUESTS = {
  VHOST_USER_GET_FEATURES: { number: 1, bytes: [0], fdsMax: 0, answered: true },
  VHOST_USER_SET_FEATURES: u64Request(2),
  VHOST_USER_SET_OWNER: { number: 3, bytes: [0], fdsMax: 0 },
  VHOST_USER_RESET_OWNER: { number: 4, bytes: [0], fdsMax: 0 },
  VHOST_USER_SET_MEM_TABLE: { number: 5, fdsMax: MEM_SLOTS_MAX },
  // Answered even without REPLY_ACK: the front-end must know when nothing more is written to the log before.
  VHOST_USER_SET_LOG_BASE: {
    number: 6,
    bytes: [LOG_BYTES],
    fdsMax: 1,
    needs: VHOST_USER_PROTOCOL_F_LOG_SHMFD,
    answered: true,
  },
  VHOST_USER_SET_LOG_FD: { number: 7, fdsMax: 1 },
  VHOST_USER_SET_VRING_NUM: u64Request(8),
  VHOST_USER_SET_VRING_ADDR: { number: 9, bytes: [ADDRESS_BYTES], fdsMax: 0 },
  VHOST_USER_SET_VRING_BASE: u64Request(10),
  VHOST_USER_GET_VRING_BASE: { number: 11, bytes: [8], fdsMax: 0, answered: true },
  VHOST_USER_SET_VRING_KICK: fdRequest(12),
  VHOST_USER_SET_VRING_CALL: fdRequest(13),
  VHOST_USER_SET_VRING_ERR: fdRequest(14),
  VHOST_USER_GET_PROTOCOL_FEATURES: { number: 15, bytes: [0], fdsMax: 0, answered: true },
  VHOST_USER_SET_PROTOCOL_FEATURES: u64Request(16),
  // Lawful as soon as MQ is offered: front-ends ask before they agree on it.
  VHOST_USER_GET_QUEUE_NUM: { number: 17, bytes: [0], fdsMax: 0, answered: true },
  VHOST_USER_SET_VRING_ENABLE: u64Request(18),
  VHOST_USER_SEND_RARP: { ...u64Request(19), needs: VHOST_USER_PROTOCOL_F_RARP },
  VHOST_USER_NET_SET_MTU: { ...u64Request(20), needs: VHOST_USER_PROTOCOL_F_NET_MTU },
  // User-Mode Linux sends a u64 of nothing along.
  VHOST_USER_SET_BACKEND_REQ_FD: { number: 21, bytes: [0, 8], fdsMax: 1, needs: VHOST_USER_PROTOCOL_F_BACKEND_REQ },
  // crosvm asks whether or not CONFIG was agreed on.
  VHOST_USER_GET_CONFIG: { number: 24, fdsMax: 0, answered: true },
  VHOST_USER_SET_CONFIG: { number: 25, fdsMax: 0, needs: VHOST_USER_PROTOCOL_F_CONFIG },
  VHOST_USER_GET_INFLIGHT_FD: { ...inflightRequest(31), fdsMax: 0, answered: true },
  VHOST_USER_SET_INFLIGHT_FD: { ...inflightRequest(32), fdsMax: 1 },
  VHOST_USER_RESET_DEVICE: { number: 34, bytes: [0], fdsMax: 0, needs: VHOST_USER_PROTOCOL_F_RESET_DEVICE },
  VHOST_USER_GET_MAX_MEM_SLOTS: {
    number: 36,
    bytes: [0],
    fdsMax: 0,
    needs: VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS,
    answered: true,
  },
  VHOST_USER_ADD_MEM_REG: {
    number: 37,
    bytes: MEM_REG_BYTES,
    fdsMax: 1,
    needs: VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS,
  },
  // The text has no descriptor here; libvhost-user's test front-ends send the region's again, and it is closed.
  VHOST_USER_REM_MEM_REG: {
    number: 38,
    bytes: MEM_REG_BYTES,
    fdsMax: 1,
    needs: VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS,
  },
  VHOST_USER_SET_STATUS: { ...u64Request(39), needs: VHOST_USER_PROTOCOL_F_STATUS },
  VHOST_USER_GET_STATUS: { number: 40, bytes: [0], fdsMax: 0, needs: VHOST_USER_PROTOCOL_F_STATUS, answered: true },
} as const satisfies Record<string, RequestRule>;

/** Name of a request. */
export type RequestName = keyof typeof REQUESTS;

/** What holds for request `name`. */
export function ruleOf(name: RequestName): RequestRule {
  return REQUESTS[name];
}

const NAMES = new Map<number, RequestName>(
  Object.entries(REQUESTS).map(([name, { number }]) => [number, name as RequestName]),
);

/** The name of request `number`, `undefined` if this back-end does not know it. */
export function requestName(number: number): RequestName | undefined {
  return NAMES.get(number);
}

/** What a back-end may send on the connection of SET_BACKEND_REQ_FD, by number. */
export const VHOST_USER_BACKEND_CONFIG_CHANGE_MSG = 2;

/** Header of GET_CONFIG's and SET_CONFIG's payload: offset u32, size u32, flags u32; then `size` bytes. */
export const CONFIG_HEADER_BYTES = 12;
/** Size of the largest configuration space. */
export const VHOST_USER_MAX_CONFIG_SIZE = 256;

/** Low byte of the u64 of SET_VRING_KICK and its kin: the vring; bit 8: no descriptor comes along. */
export const VHOST_USER_VRING_IDX_MASK = 0xffn;
export const VHOST_USER_VRING_NOFD_MASK = 0x100n;

/** Flag of SET_VRING_ADDR: writes into the used ring are logged, at the guest address that comes last. */
export const VHOST_VRING_F_LOG = 1;

/** One region of guest memory as the front-end describes it. All u64. */
export interface VhostRegion {
  guestAddress: bigint;
  size: bigint;
  userAddress: bigint;
  mmapOffset: bigint;
}

/** Bytes of a region: four u64. */
export const REGION_BYTES = 32;

/** Reads a region at byte `at`. Where the payload ends four bytes early, the upper half of the file offset is 0. */
export function readRegion(view: DataView, at: number): VhostRegion {
  const isWhole = view.byteLength >= at + REGION_BYTES;
  return {
    guestAddress: view.getBigUint64(at, true),
    size: view.getBigUint64(at + 8, true),
    userAddress: view.getBigUint64(at + 16, true),
    mmapOffset: isWhole ? view.getBigUint64(at + 24, true) : BigInt(view.getUint32(at + 24, true)),
  };
}

/** Writes a region at byte `at`. */
export function writeRegion(view: DataView, at: number, region: VhostRegion): void {
  view.setBigUint64(at, region.guestAddress, true);
  view.setBigUint64(at + 8, region.size, true);
  view.setBigUint64(at + 16, region.userAddress, true);
  view.setBigUint64(at + 24, region.mmapOffset, true);
}

/** The front-end broke the protocol: its connection ends with this reason. */
export class ProtocolError extends Error {
  override readonly name = "ProtocolError";
}
