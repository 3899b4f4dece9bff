/**
 * The vhost-user protocol's numbers and layouts, in the specification's spelling (QEMU docs/interop/vhost-user.rst).
 */

/** Header: request u32, flags u32, size u32. */
export const HEADER_BYTES = 12;
/** Longest payload of any message this back-end knows, generously (a memory table of 8 regions is 264 bytes). */
export const PAYLOAD_BYTES_MAX = 4096;

export const VHOST_USER_VERSION = 1;
export const VHOST_USER_VERSION_MASK = 0x3;
export const VHOST_USER_REPLY_MASK = 1 << 2;
export const VHOST_USER_NEED_REPLY_MASK = 1 << 3;

/** Front-end requests by number. */
export const REQUEST = {
  VHOST_USER_GET_FEATURES: 1,
  VHOST_USER_SET_FEATURES: 2,
  VHOST_USER_SET_OWNER: 3,
  VHOST_USER_RESET_OWNER: 4,
  VHOST_USER_SET_MEM_TABLE: 5,
  VHOST_USER_SET_LOG_BASE: 6,
  VHOST_USER_SET_LOG_FD: 7,
  VHOST_USER_SET_VRING_NUM: 8,
  VHOST_USER_SET_VRING_ADDR: 9,
  VHOST_USER_SET_VRING_BASE: 10,
  VHOST_USER_GET_VRING_BASE: 11,
  VHOST_USER_SET_VRING_KICK: 12,
  VHOST_USER_SET_VRING_CALL: 13,
  VHOST_USER_SET_VRING_ERR: 14,
  VHOST_USER_GET_PROTOCOL_FEATURES: 15,
  VHOST_USER_SET_PROTOCOL_FEATURES: 16,
  VHOST_USER_GET_QUEUE_NUM: 17,
  VHOST_USER_SET_VRING_ENABLE: 18,
  VHOST_USER_SEND_RARP: 19,
  VHOST_USER_NET_SET_MTU: 20,
  VHOST_USER_RESET_DEVICE: 34,
  VHOST_USER_GET_MAX_MEM_SLOTS: 36,
  VHOST_USER_ADD_MEM_REG: 37,
  VHOST_USER_REM_MEM_REG: 38,
  VHOST_USER_SET_STATUS: 39,
  VHOST_USER_GET_STATUS: 40,
} as const;

/** Name of a request. */
export type RequestName = keyof typeof REQUEST;

const NAMES = new Map<number, RequestName>(
  Object.entries(REQUEST).map(([name, number]) => [number, name as RequestName]),
);

/** The name of request `number`, `undefined` if this back-end does not know it. */
export function requestName(number: number): RequestName | undefined {
  return NAMES.get(number);
}

// Feature bits of SET_FEATURES that belong to vhost
export const VHOST_USER_F_PROTOCOL_FEATURES = 30;

// Protocol feature bits
export const VHOST_USER_PROTOCOL_F_MQ = 0;
export const VHOST_USER_PROTOCOL_F_REPLY_ACK = 3;
export const VHOST_USER_PROTOCOL_F_RESET_DEVICE = 13;
export const VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS = 15;
export const VHOST_USER_PROTOCOL_F_STATUS = 16;

/** Low byte of the u64 of SET_VRING_KICK and its kin: the vring; bit 8: no descriptor comes along. */
export const VHOST_USER_VRING_IDX_MASK = 0xffn;
export const VHOST_USER_VRING_NOFD_MASK = 0x100n;

/** Regions in one SET_MEM_TABLE. */
export const VHOST_MEMORY_BASELINE_NREGIONS = 8;

/** One region of guest memory as the front-end describes it. All u64. */
export interface VhostRegion {
  guestAddress: bigint;
  size: bigint;
  userAddress: bigint;
  mmapOffset: bigint;
}

/** Bytes of a region: four u64. */
export const REGION_BYTES = 32;

/** Reads a region at byte `at`. */
export function readRegion(view: DataView, at: number): VhostRegion {
  return {
    guestAddress: view.getBigUint64(at, true),
    size: view.getBigUint64(at + 8, true),
    userAddress: view.getBigUint64(at + 16, true),
    mmapOffset: view.getBigUint64(at + 24, true),
  };
}

/** Writes a region at byte `at`. */
export function writeRegion(view: DataView, at: number, region: VhostRegion): void {
  view.setBigUint64(at, region.guestAddress, true);
  view.setBigUint64(at + 8, region.size, true);
  view.setBigUint64(at + 16, region.userAddress, true);
  view.setBigUint64(at + 24, region.mmapOffset, true);
}

/** Exact payload sizes; SET_MEM_TABLE's depends on its count and is checked where it is read. */
export const PAYLOAD_BYTES: Partial<Record<RequestName, number>> = {
  VHOST_USER_GET_FEATURES: 0,
  VHOST_USER_SET_FEATURES: 8,
  VHOST_USER_SET_OWNER: 0,
  VHOST_USER_RESET_OWNER: 0,
  VHOST_USER_SET_VRING_NUM: 8,
  VHOST_USER_SET_VRING_ADDR: 40,
  VHOST_USER_SET_VRING_BASE: 8,
  VHOST_USER_GET_VRING_BASE: 8,
  VHOST_USER_SET_VRING_KICK: 8,
  VHOST_USER_SET_VRING_CALL: 8,
  VHOST_USER_SET_VRING_ERR: 8,
  VHOST_USER_GET_PROTOCOL_FEATURES: 0,
  VHOST_USER_SET_PROTOCOL_FEATURES: 8,
  VHOST_USER_GET_QUEUE_NUM: 0,
  VHOST_USER_SET_VRING_ENABLE: 8,
  VHOST_USER_SEND_RARP: 8,
  VHOST_USER_RESET_DEVICE: 0,
  VHOST_USER_GET_MAX_MEM_SLOTS: 0,
  VHOST_USER_ADD_MEM_REG: 40,
  VHOST_USER_REM_MEM_REG: 40,
  VHOST_USER_SET_STATUS: 8,
  VHOST_USER_GET_STATUS: 0,
};

/** The front-end broke the protocol: its connection ends with this reason. */
export class ProtocolError extends Error {
  override readonly name = "ProtocolError";
}
