/**
 * Automatic receive steering (virtio 1.2 §5.1.6.5.6): frames of a flow come in on the queue pair on which the guest
 * last sent frames of that flow; an unknown flow is spread by its hash. The hash is symmetric, so both directions of a
 * connection meet in the same byte of the pool's flow table.
 */
import {
  FRAME_BYTES_MIN,
  FLOW_TABLE_STRIDE,
  FLOW_TABLES,
  P_RX_COUNT,
  P_RX_QUEUES,
  HEAD_BYTES_MAX,
  Q_INDEX,
  R_LENGTH,
} from "../../../shared/layout/nic.ts";
import { ETHERTYPE_IPV4, ETHERTYPE_IPV6, isTag } from "../../lib/ethernet.ts";
import { headOf } from "../batch/record.ts";
import { context, poolAt } from "../context.ts";

/**
 * A hash of addresses and ports that is the same in both directions. Reads at most `length` bytes of the frame, which are
 * no fewer than FRAME_BYTES_MIN.
 */
function flowHash(frame: usize, length: u32): u32 {
  let at: usize = frame + 12;
  let left = length - 12;
  let ethertype: u32 = load<u16>(at);
  if (isTag(ethertype) && left >= 6) {
    at += 4;
    left -= 4;
    ethertype = load<u16>(at);
  }
  at += 2;
  left -= 2;
  let h: u32 = 0;
  if (ethertype == ETHERTYPE_IPV4 && left >= 24) {
    h = load<u32>(at, 12) ^ load<u32>(at, 16);
    const headerBytes = (<u32> load<u8>(at) & 15) << 2;
    const protocol: u32 = load<u8>(at, 9);
    const fragment = <u32> load<u16>(at, 6) & 0xff3f;
    if ((protocol == 6 || protocol == 17) && fragment == 0 && headerBytes + 4 <= left) h ^= ports(at + headerBytes);
    h ^= protocol;
  } else if (ethertype == ETHERTYPE_IPV6 && left >= 44) {
    const a = load<u64>(at, 8) ^ load<u64>(at, 24);
    const b = load<u64>(at, 16) ^ load<u64>(at, 32);
    const x = a ^ b;
    h = <u32> x ^ <u32> (x >> 32);
    const next: u32 = load<u8>(at, 6);
    if (next == 6 || next == 17) h ^= ports(at + 40);
  } else {
    const x = load<u64>(frame) ^ (load<u64>(frame, 4) >> 16);
    h = <u32> x ^ <u32> (x >> 32);
  }
  h *= 0x9e3779b1;
  return h >> 24;
}

@inline
function ports(at: usize): u32 {
  return <u32> load<u16>(at) ^ <u32> load<u16>(at, 2);
}

/** Remembers that `pool` sent the flow `hash` on the TX queue `q`. */
@inline
export function noteFlow(pool: u32, hash: u32, q: usize): void {
  store<u8>(context + FLOW_TABLES + pool * FLOW_TABLE_STRIDE + hash, <u8> ((load<u32>(q, Q_INDEX) >> 1) + 1));
}

/** The RX queue of `pool` for the flow `hash`; 0 if no RX queue runs. */
export function steer(pool: u32, hash: u32): usize {
  const p: usize = poolAt(pool);
  const count = load<u32>(p, P_RX_COUNT);
  if (count == 0) return 0;
  const noted: u32 = load<u8>(context + FLOW_TABLES + pool * FLOW_TABLE_STRIDE + hash);
  let slot = hash % count;
  if (noted != 0 && noted <= count) slot = noted - 1;
  return load<u32>(p + slot * 4, P_RX_QUEUES);
}

/** The flow of a record's frame; 0 if it is shorter than an Ethernet header. */
export function hashOf(record: usize): u32 {
  const length = load<u32>(record, R_LENGTH);
  if (length < <u32> FRAME_BYTES_MIN) return 0;
  return flowHash(headOf(record), min(length, <u32> HEAD_BYTES_MAX));
}
