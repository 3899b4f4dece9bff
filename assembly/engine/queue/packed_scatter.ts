/** Frames into a packed receive ring, as into a split one (split_scatter.ts). */
import {
  B_DONE,
  HEAD_F_WHOLE,
  HEAD_MASK,
  N_COUNT,
  N_HEAD,
  N_NEXT,
  N_RECORD,
  N_TAG,
  Q_DESC,
  Q_HDR_BYTES,
  Q_LAST_AVAIL,
  Q_REGION_IOVA,
  Q_REGION_SIZE,
  Q_REGION_WINDOW,
  Q_SIZE,
  Q_WRAP,
  R_LENGTH,
  RECORD_STRIDE,
  STAGED_STRIDE,
  WRAP_AVAIL,
  WRAP_USED,
} from "../../../shared/layout/nic.ts";
import { VIRTQ_DESC_BYTES, VIRTQ_DESC_F_WRITE, VIRTQ_PACKED_DESC_LEN } from "../../../shared/layout/virtio.ts";
import { SHORT_FRAME_BYTES } from "../batch/record.ts";
import { batch } from "../context.ts";
import { outLength, putPlain, putTagged } from "../deliver/head.ts";
import { noteDelivered } from "../deliver/results.ts";
import { putOneBufferHeader, virtioHeader } from "../deliver/virtio_header.ts";
import { putWhole } from "../deliver/whole.ts";
import { isLogged, logSlotBuffers } from "./dirty_log.ts";
import { inSecond, reachOf } from "./domain.ts";
import {
  advanceBoth,
  availableFlags,
  endStaged,
  isInStep,
  nextStaged,
  OWNER_FLAGS,
  stageAt,
  stageUsed,
} from "./packed.ts";
import { PREFETCH_BUFFERS, prefetchRing } from "./prefetch.ts";
import { receive } from "./receive.ts";
import { isCommon } from "./split_scatter.ts";

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
    const common = isCommon(head) && isInStep(rx);
    const wraps = load<u32>(rx, Q_WRAP);
    let slot = load<u32>(rx, Q_LAST_AVAIL);
    // Up to the ring's end, so that one wrap counter holds.
    const end = common ? min(slot + left, size) : slot;
    const wanted = availableFlags(wraps & WRAP_AVAIL) | VIRTQ_DESC_F_WRITE;
    const used: u64 = <u64> ((wraps & WRAP_USED ? OWNER_FLAGS : 0) | VIRTQ_DESC_F_WRITE) << 48;
    const start = slot;
    let staged = nextStaged(end - start);
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
      if ((head & HEAD_F_WHOLE) != 0) {
        putWhole(rx, at, record, buffer);
      } else {
        putOneBufferHeader(buffer, header, hdrBytes, need);
        if (head & HEAD_MASK) putTagged(buffer + hdrBytes, record, head, load<u32>(at, N_TAG));
        else putPlain(buffer + hdrBytes, record);
      }
      const element = used | (meta & 0xffff00000000) | <u64> need;
      if (slot != start) staged = stageAt(staged, descriptor, element);
      else if (stageUsed(rx, slot, element)) staged += STAGED_STRIDE;
      bytes += length;
    }
    const n = slot - start;
    endStaged(staged);
    if (n != 0 && isLogged(rx)) logSlotBuffers(rx, start, record - n * RECORD_STRIDE, n, hdrBytes + grows);
    if (n != 0) advanceBoth(rx, n);
    done += n;
    left -= n;
    if (left != 0 && n == 0) {
      if (!receive(rx, at, record, left, wait)) break;
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
