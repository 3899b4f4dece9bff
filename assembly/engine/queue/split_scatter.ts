/**
 * Frames into a split receive ring: into one buffer of one descriptor in the loop, into chains, indirect tables and
 * several mergeable buffers (virtio 1.2 §5.1.6.4) by reserving room first. A full receiver
 * drops and never blocks the sender, but for emulated mode and holds, which `wait`.
 */
import {
  B_DONE,
  HEAD_F_BROADCAST,
  HEAD_F_MULTICAST,
  HEAD_F_PLAIN,
  HEAD_F_WHOLE,
  HEAD_MASK,
  N_COUNT,
  N_HEAD,
  N_NEXT,
  N_RECORD,
  N_TAG,
  Q_AVAIL,
  Q_DESC,
  Q_HDR_BYTES,
  Q_LAST_AVAIL,
  Q_REGION_IOVA,
  Q_REGION_SIZE,
  Q_REGION_WINDOW,
  Q_SIZE,
  Q_USED,
  Q_USED_IDX,
  R_LENGTH,
  RECORD_STRIDE,
} from "../../../shared/layout/nic.ts";
import {
  VIRTQ_AVAIL_RING,
  VIRTQ_DESC_F_WRITE,
  VIRTQ_USED_ELEM_BYTES,
  VIRTQ_USED_RING,
} from "../../../shared/layout/virtio.ts";
import { SHORT_FRAME_BYTES } from "../batch/record.ts";
import { batch } from "../context.ts";
import { outLength, putPlain, putTagged } from "../deliver/head.ts";
import { noteDelivered } from "../deliver/results.ts";
import { putOneBufferHeader, virtioHeader } from "../deliver/virtio_header.ts";
import { putWhole } from "../deliver/whole.ts";
import { isLogged, logUsedBuffers } from "./dirty_log.ts";
import { inSecond, reachOf } from "./domain.ts";
import { PREFETCH_BUFFERS, prefetchSplit } from "./prefetch.ts";
import { receive } from "./receive.ts";
import { availIdx, storeUsed } from "./split.ts";

/**
 * Whether a delivery is of the common kind: its frames lie in one piece each, and are for one. A tag may be put in or
 * taken out.
 */
@inline
export function isCommon(head: u32): bool {
  return (head & (HEAD_F_PLAIN | HEAD_F_WHOLE)) != 0 && (head & (HEAD_F_MULTICAST | HEAD_F_BROADCAST)) == 0;
}

/**
 * Puts the deliveries from `first` on into RX queue `rx`; answers how many of them are done with. `wait`: it stops at the
 * first for which there is no buffer, instead of dropping it.
 */
export function scatterSplit(rx: usize, first: usize, wait: bool): u32 {
  const mask = load<u32>(rx, Q_SIZE) - 1;
  const table: usize = load<u32>(rx, Q_DESC);
  const ring: usize = load<u32>(rx, Q_AVAIL) + VIRTQ_AVAIL_RING;
  const used: usize = load<u32>(rx, Q_USED) + VIRTQ_USED_RING;
  const hdrBytes = load<u32>(rx, Q_HDR_BYTES);
  const header = virtioHeader(hdrBytes);
  const iova = load<u64>(rx, Q_REGION_IOVA);
  const reach = reachOf(load<u64>(rx, Q_REGION_SIZE));
  const window: usize = load<u32>(rx, Q_REGION_WINDOW);
  let last = load<u32>(rx, Q_LAST_AVAIL);
  let usedIdx = load<u32>(rx, Q_USED_IDX);
  let end = availIdx(rx);
  let done: u32 = 0;
  let bytes: u32 = 0;
  let at = first;
  let record: usize = load<u32>(at, N_RECORD);
  let left: u32 = load<u16>(at, N_COUNT);
  let head: u32 = load<u16>(at, N_HEAD);
  let grows = outLength(head, 0);
  for (;;) {
    if (left == 0) {
      at = load<u32>(at, N_NEXT);
      if (at == 0) break;
      record = load<u32>(at, N_RECORD);
      left = load<u16>(at, N_COUNT);
      head = load<u16>(at, N_HEAD);
      grows = outLength(head, 0);
    }
    let free = (end - last) & 0xffff;
    if (free == 0) free = ((end = availIdx(rx)) - last) & 0xffff;
    // The common kind: into one descriptor's buffer. What is not of it, or not right, is left to the end of the loop.
    if (free > mask + 1 || ((usedIdx ^ last) & mask) != 0 || !isCommon(head)) free = 0;
    let n: u32 = 0;
    for (; n < free; n++) {
      const slot = (last + n) & mask;
      const length = load<u32>(record, R_LENGTH) + grows;
      const id: u32 = load<u16>(ring + slot * 2);
      const descriptor = table + ((id & mask) << 4);
      const offset = load<u64>(descriptor) - iova;
      const meta = load<u64>(descriptor, 8);
      const need = hdrBytes + length;
      if (n % PREFETCH_BUFFERS == 0 && left > 1 && need <= SHORT_FRAME_BYTES) {
        prefetchSplit(rx, last + n, min(min(free - n, left), PREFETCH_BUFFERS));
      }
      if ((<u32> (meta >> 32) & 0xffff) != VIRTQ_DESC_F_WRITE || <u32> meta < need || id > mask) break;
      const buffer = offset < reach ? window + <usize> offset : inSecond(rx, offset + iova);
      if (buffer == 0) break;
      if ((head & HEAD_F_WHOLE) != 0) {
        putWhole(rx, at, record, buffer);
      } else {
        putOneBufferHeader(buffer, header, hdrBytes, need);
        if ((head & HEAD_MASK) != 0) putTagged(buffer + hdrBytes, record, head, load<u32>(at, N_TAG));
        else putPlain(buffer + hdrBytes, record);
      }
      storeUsed(used + slot * VIRTQ_USED_ELEM_BYTES, <u64> id | (<u64> need << 32));
      bytes += length;
      record += RECORD_STRIDE;
      if (--left != 0) continue;
      // The next delivery, if its frames are treated alike.
      const next: usize = load<u32>(at, N_NEXT);
      if (next == 0 || <u32> load<u16>(next, N_HEAD) != head) {
        n++;
        break;
      }
      at = next;
      record = load<u32>(at, N_RECORD);
      left = load<u16>(at, N_COUNT);
    }
    if (n != 0 && isLogged(rx)) logUsedBuffers(rx, last, n);
    done += n;
    last += n;
    usedIdx += n;
    if (left == 0) continue;
    if (n != 0 && n == free) continue;
    store<u32>(rx, last, Q_LAST_AVAIL);
    store<u32>(rx, usedIdx, Q_USED_IDX);
    const goesOn = receive(rx, at, record, left, wait);
    last = load<u32>(rx, Q_LAST_AVAIL);
    usedIdx = load<u32>(rx, Q_USED_IDX);
    if (!goesOn) break;
    end = availIdx(rx);
    record += RECORD_STRIDE;
    left--;
  }
  store<u32>(rx, last, Q_LAST_AVAIL);
  store<u32>(rx, usedIdx, Q_USED_IDX);
  noteDelivered(done, bytes);
  return done + load<u32>(batch(), B_DONE);
}
