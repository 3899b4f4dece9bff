/**
 * Frames into virtqueue buffers of any shape, whatever the ring's format: chains, indirect tables, several mergeable
 * buffers (virtio 1.2 §5.1.6.4). Room is reserved before a byte is written, so a frame goes in whole or not at all.
 */
import {
  B_BAD_DETAIL,
  B_CHAIN_BYTES,
  B_CHAIN_DESCRIPTORS,
  B_CHAIN_ID,
  B_CHAIN_SEGMENTS,
  B_CHAIN_WALKED,
  B_CHAINS,
  B_RECEIVE_SPENT,
  B_RECEIVE_UNITS,
  B_UNITS,
  BAD_AVAIL_IDX,
  BAD_CHAIN_LENGTH,
  C_RX_NO_BUFFER,
  C_RX_QUEUE_ERROR,
  C_RX_TOO_DEAR,
  C_RX_TOO_SMALL,
  FLAVOUR_PACKED,
  OK,
  OUT_VIRTIO_HDR,
  Q_FLAGS,
  Q_FLAVOUR,
  Q_HDR_BYTES,
  Q_LAST_AVAIL,
  Q_OFFLOADS,
  Q_SIZE,
  Q_WRAP,
  QUEUE_F_MRG_RXBUF,
  RX_CHAINS,
  RX_CHAINS_MAX,
  RX_WALK_MAX,
  WRAP_AVAIL,
} from "../../../shared/layout/nic.ts";
import { VIRTQ_DESC_F_WRITE } from "../../../shared/layout/virtio.ts";
import { put, rewindOut } from "../batch/segments.ts";
import { batch, context } from "../context.ts";
import { putFrame } from "../deliver/head.ts";
import { note } from "../deliver/results.ts";
import { putOffload, putVirtioHeader } from "../deliver/virtio_header.ts";
import { spendReceive, UNITS_RECEIVE_GROUP, UNITS_RECEIVE_VISIT, UNITS_UNUSUAL } from "../schedule/cost.ts";
import { walk } from "./chain.ts";
import { isLogged, logSegments } from "./dirty_log.ts";
import { failQueue } from "./interrupts.ts";
import { advanceAvail, isAvailable, positionAfter, pushUsedPacked } from "./packed.ts";
import { pendingSplit, pushUsed } from "./split.ts";

/** An entry of RX_CHAINS: what is given back, how many bytes there are, how many places of the ring. */
const CHAIN_ENTRY_BYTES: u32 = 12;

/** Puts one frame, which takes `need` bytes with its header, into as many chains as it needs; 0, or the reason's counter. */
export function receiveChains(rx: usize, record: usize, head: u32, tag: u32, need: u32): u32 {
  if (isTooDear()) return C_RX_TOO_DEAR;
  spendReceive(UNITS_UNUSUAL);
  const before = load<u32>(batch(), B_UNITS);
  const refused = reserve(rx, need);
  note(B_RECEIVE_UNITS, load<u32>(batch(), B_UNITS) - before);
  if (refused != 0) return refused;
  const chains = load<u32>(batch(), B_CHAINS);
  const hdrBytes = load<u32>(rx, Q_HDR_BYTES);
  const header = context + OUT_VIRTIO_HDR;
  rewindOut();
  putVirtioHeader(header, hdrBytes, chains);
  putOffload(header, record, head, <u32> load<u16>(rx, Q_OFFLOADS));
  put(header, hdrBytes);
  putFrame(record, head, tag);
  giveBack(rx, chains, need);
  return 0;
}

/** Whether receivers' chains have cost as much in this visit as they may. */
function isTooDear(): bool {
  const units = load<u32>(batch(), B_RECEIVE_UNITS);
  return units > UNITS_RECEIVE_GROUP && units + load<u32>(batch(), B_RECEIVE_SPENT) > UNITS_RECEIVE_VISIT;
}

/** Gives the reserved chains back, of which the frame fills the first `need` bytes. */
export function giveBack(rx: usize, chains: u32, need: u32): void {
  if (isLogged(rx)) logSegments(rx, need);
  const packed = load<u32>(rx, Q_FLAVOUR) == FLAVOUR_PACKED;
  let left = need;
  for (let i: u32 = 0; i < chains; i++) {
    const entry = context + RX_CHAINS + i * CHAIN_ENTRY_BYTES;
    const length = min(load<u32>(entry, 4), left);
    left -= length;
    if (packed) {
      const descriptors = load<u32>(entry, 8);
      pushUsedPacked(rx, load<u32>(entry), length, VIRTQ_DESC_F_WRITE, descriptors);
      advanceAvail(rx, descriptors);
    } else {
      pushUsed(rx, load<u32>(entry), length);
    }
  }
  if (!packed) store<u32>(rx, load<u32>(rx, Q_LAST_AVAIL) + chains, Q_LAST_AVAIL);
}

/**
 * Reserves chains until `need` bytes fit. Answers 0, or the counter that tells why they do not. A receiver whose chains
 * take more than RX_WALK_MAX descriptors for one frame breaks the protocol.
 */
export function reserve(rx: usize, need: u32): u32 {
  const packed = load<u32>(rx, Q_FLAVOUR) == FLAVOUR_PACKED;
  const size = load<u32>(rx, Q_SIZE);
  const free = packed ? size : pendingSplit(rx);
  if (free > size) {
    failQueue(rx, BAD_AVAIL_IDX, free);
    return C_RX_QUEUE_ERROR;
  }
  const limit: u32 = load<u32>(rx, Q_FLAGS) & QUEUE_F_MRG_RXBUF ? RX_CHAINS_MAX : 1;
  let position = load<u32>(rx, Q_LAST_AVAIL);
  if (packed) position |= (load<u32>(rx, Q_WRAP) & WRAP_AVAIL) << 16;
  let capacity: u64 = 0;
  let walked: u32 = 0;
  let taken: u32 = 0;
  let chains: u32 = 0;
  let segments: u32 = 0;
  while (capacity < need) {
    if (taken == free || (packed && !isAvailable(rx, position))) return C_RX_NO_BUFFER;
    if (chains == limit) return C_RX_TOO_SMALL;
    let verdict = walk(rx, position, segments, true, RX_WALK_MAX - walked);
    const descriptors = load<u32>(batch(), B_CHAIN_DESCRIPTORS);
    taken += descriptors;
    // A chain that laps the ring would be taken for a new one.
    if (verdict == OK && taken > size) verdict = BAD_CHAIN_LENGTH;
    if (verdict != OK) {
      failQueue(rx, verdict, load<u64>(batch(), B_BAD_DETAIL));
      return C_RX_QUEUE_ERROR;
    }
    const bytes = load<u64>(batch(), B_CHAIN_BYTES);
    walked += load<u32>(batch(), B_CHAIN_WALKED);
    segments = load<u32>(batch(), B_CHAIN_SEGMENTS);
    if (chains == 0 && bytes < load<u32>(rx, Q_HDR_BYTES)) return C_RX_TOO_SMALL;
    const entry = context + RX_CHAINS + chains * CHAIN_ENTRY_BYTES;
    store<u32>(entry, load<u32>(batch(), B_CHAIN_ID));
    store<u32>(entry, <u32> min(bytes, 0xffffffff), 4);
    store<u32>(entry, descriptors, 8);
    capacity += bytes;
    chains++;
    position = packed ? positionAfter(rx, position, descriptors) : position + 1;
  }
  store<u32>(batch(), chains, B_CHAINS);
  return 0;
}
