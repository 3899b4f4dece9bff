/** Frames into a packed receive ring, as into a split one (split_scatter.ts). */
import {
  B_BAD_DETAIL,
  B_CHAIN_BYTES,
  B_CHAIN_DESCRIPTORS,
  B_CHAIN_ID,
  B_CHAIN_SEGMENTS,
  B_CHAIN_WALKED,
  B_CHAINS,
  B_DONE,
  B_RECEIVE_UNITS,
  B_UNITS,
  BAD_CHAIN_LENGTH,
  C_RX_NO_BUFFER,
  C_RX_QUEUE_ERROR,
  C_RX_TOO_SMALL,
  HEAD_F_PLAIN,
  HEAD_MASK,
  N_COUNT,
  N_HEAD,
  N_NEXT,
  N_RECORD,
  N_TAG,
  OK,
  OUT_VIRTIO_HDR,
  Q_DESC,
  Q_FLAGS,
  Q_HDR_BYTES,
  Q_LAST_AVAIL,
  Q_REGION_IOVA,
  Q_REGION_SIZE,
  Q_REGION_WINDOW,
  Q_SIZE,
  Q_WRAP,
  QUEUE_F_MRG_RXBUF,
  R_LENGTH,
  RECORD_STRIDE,
  RX_CHAINS,
  RX_CHAINS_MAX,
  RX_WALK_MAX,
  WRAP_AVAIL,
  WRAP_USED,
} from "../../../shared/layout/nic.ts";
import { VIRTQ_DESC_BYTES, VIRTQ_DESC_F_WRITE, VIRTQ_PACKED_DESC_LEN } from "../../../shared/layout/virtio.ts";
import { SHORT_FRAME_BYTES } from "../batch/record.ts";
import { put, rewindOut } from "../batch/segments.ts";
import { batch, context } from "../context.ts";
import { outLength, putFrame, putPlain, putTagged } from "../deliver/head.ts";
import { note, noteDelivered, settle } from "../deliver/results.ts";
import { putOneBufferHeader, putVirtioHeader, virtioHeader } from "../deliver/virtio_header.ts";
import { spendReceive, UNITS_UNUSUAL } from "../schedule/cost.ts";
import { inSecond, reachOf } from "./domain.ts";
import { failQueue } from "./interrupts.ts";
import {
  advanceAvail,
  advanceBoth,
  availableFlags,
  isInStep,
  metaOf,
  OWNER_FLAGS,
  pushUsedPacked,
  stageUsed,
} from "./packed.ts";
import { walkPacked } from "./packed_chain.ts";
import { PREFETCH_BUFFERS, prefetchRing } from "./prefetch.ts";
import { COMMON_MASK } from "./split_scatter.ts";

const CHAIN_ENTRY_BYTES: u32 = 12;

/** As `scatterSplit`, into a packed ring. */
export function scatterPacked(rx: usize, first: usize, wait: bool): u32 {
  const ring: usize = load<u32>(rx, Q_DESC);
  const size = load<u32>(rx, Q_SIZE);
  const hdrBytes = load<u32>(rx, Q_HDR_BYTES);
  const header = virtioHeader(hdrBytes);
  const iova = load<u64>(rx, Q_REGION_IOVA);
  const reach = reachOf(load<u64>(rx, Q_REGION_SIZE));
  const window: usize = load<u32>(rx, Q_REGION_WINDOW);
  let done: u32 = 0;
  let bytes: u32 = 0;
  let at = first;
  let record: usize = load<u32>(at, N_RECORD);
  let left: u32 = load<u16>(at, N_COUNT);
  let head: u32 = load<u16>(at, N_HEAD);
  for (;;) {
    const grows = outLength(head, 0);
    const common = (head & COMMON_MASK) == HEAD_F_PLAIN && isInStep(rx);
    const wraps = load<u32>(rx, Q_WRAP);
    let slot = load<u32>(rx, Q_LAST_AVAIL);
    // Up to the ring's end, so that one wrap counter holds.
    const end = common ? min(slot + left, size) : slot;
    const wanted = availableFlags(wraps & WRAP_AVAIL) | VIRTQ_DESC_F_WRITE;
    const used: u64 = <u64> ((wraps & WRAP_USED ? OWNER_FLAGS : 0) | VIRTQ_DESC_F_WRITE) << 48;
    const start = slot;
    for (; slot < end; slot++, record += RECORD_STRIDE) {
      const descriptor = ring + slot * VIRTQ_DESC_BYTES;
      const meta = atomic.load<u64>(descriptor + VIRTQ_PACKED_DESC_LEN);
      const length = load<u32>(record, R_LENGTH) + grows;
      const need = hdrBytes + length;
      if ((slot - start) % PREFETCH_BUFFERS == 0 && left > 1 && need <= SHORT_FRAME_BYTES) {
        prefetchRing(rx, slot, min(end - slot, PREFETCH_BUFFERS));
      }
      if (<u32> (meta >> 48) != wanted || <u32> meta < need) break;
      const offset = load<u64>(descriptor) - iova;
      const buffer = offset < reach ? window + <usize> offset : inSecond(rx, offset + iova);
      if (buffer == 0) break;
      putOneBufferHeader(buffer, header, hdrBytes, need);
      if (head & HEAD_MASK) putTagged(buffer + hdrBytes, record, head, load<u32>(at, N_TAG));
      else putPlain(buffer + hdrBytes, record);
      const element = used | (meta & 0xffff00000000) | <u64> need;
      if (slot == start) stageUsed(rx, slot, element);
      else store<u64>(descriptor, element, VIRTQ_PACKED_DESC_LEN);
      bytes += length;
    }
    const n = slot - start;
    if (n != 0) advanceBoth(rx, n);
    done += n;
    left -= n;
    if (left != 0 && n == 0) {
      const length = load<u32>(record, R_LENGTH) + grows;
      const refused = receiveChains(rx, record, head, load<u32>(at, N_TAG), hdrBytes + length);
      if (!settle(refused, at, left, length, wait)) break;
      record += RECORD_STRIDE;
      left--;
    }
    if (left != 0) continue;
    at = load<u32>(at, N_NEXT);
    if (at == 0) break;
    record = load<u32>(at, N_RECORD);
    left = load<u16>(at, N_COUNT);
    head = load<u16>(at, N_HEAD);
  }
  noteDelivered(done, bytes);
  return done + load<u32>(batch(), B_DONE);
}

/** Puts one frame, which takes `need` bytes with its header, into as many chains as it needs; 0, or the reason's counter. */
function receiveChains(rx: usize, record: usize, head: u32, tag: u32, need: u32): u32 {
  spendReceive(UNITS_UNUSUAL);
  const before = load<u32>(batch(), B_UNITS);
  const refused = reserveChains(rx, need);
  note(B_RECEIVE_UNITS, load<u32>(batch(), B_UNITS) - before);
  if (refused != 0) return refused;
  const chains = load<u32>(batch(), B_CHAINS);
  const hdrBytes = load<u32>(rx, Q_HDR_BYTES);
  const header = context + OUT_VIRTIO_HDR;
  rewindOut();
  putVirtioHeader(header, hdrBytes, chains);
  put(header, hdrBytes);
  putFrame(record, head, tag);
  let left = need;
  for (let i: u32 = 0; i < chains; i++) {
    const entry = context + RX_CHAINS + i * CHAIN_ENTRY_BYTES;
    const length = min(load<u32>(entry, 4), left);
    const shape = load<u32>(entry, 8);
    pushUsedPacked(rx, load<u32>(entry), length, VIRTQ_DESC_F_WRITE, shape);
    advanceAvail(rx, shape);
    left -= length;
  }
  return 0;
}

/** Gathers chains until `need` bytes fit. Answers 0, or the counter that tells why they do not. */
function reserveChains(rx: usize, need: u32): u32 {
  const size = load<u32>(rx, Q_SIZE);
  const limit: u32 = load<u32>(rx, Q_FLAGS) & QUEUE_F_MRG_RXBUF ? RX_CHAINS_MAX : 1;
  let slot = load<u32>(rx, Q_LAST_AVAIL);
  let wrap = load<u32>(rx, Q_WRAP) & WRAP_AVAIL;
  let capacity: u64 = 0;
  let walked: u32 = 0;
  let taken: u32 = 0;
  let chains: u32 = 0;
  let segments: u32 = 0;
  while (capacity < need) {
    const there = (<u32> (metaOf(rx, slot) >> 48) & OWNER_FLAGS) == availableFlags(wrap);
    if (!there || taken == size) return C_RX_NO_BUFFER;
    if (chains == limit) return C_RX_TOO_SMALL;
    let verdict = walkPacked(rx, slot | (wrap << 16), segments, true, RX_WALK_MAX - walked);
    const descriptors = load<u32>(batch(), B_CHAIN_DESCRIPTORS);
    taken += descriptors;
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
    slot += descriptors;
    if (slot < size) continue;
    slot -= size;
    wrap ^= WRAP_AVAIL;
  }
  store<u32>(batch(), chains, B_CHAINS);
  return 0;
}
