/**
 * Frames into an advanced receive ring: those that fit into one descriptor's buffer in the loop, others one by one
 * (advanced_receive.ts).
 */
import { ADV_DESC_BYTES, ADV_RXD_STAT_DD, ADV_RXD_STAT_EOP } from "../../../shared/layout/advanced.ts";
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
  Q_HEADER_BYTES,
  Q_LAST_AVAIL,
  Q_PACKET_BYTES,
  Q_REGION_IOVA,
  Q_REGION_SIZE,
  Q_REGION_WINDOW,
  Q_SIZE,
  R_LENGTH,
  RECORD_STRIDE,
} from "../../../shared/layout/nic.ts";
import { batch } from "../context.ts";
import { outLength, putPlain, putTagged } from "../deliver/head.ts";
import { noteDelivered } from "../deliver/results.ts";
import { pendingAdvanced } from "./advanced.ts";
import { inSecond, reachOf } from "./domain.ts";
import { isCommon } from "./split_scatter.ts";
import { Q_HDR_BYTES } from "../../../shared/layout/nic.ts";
import { putOneBufferHeader, virtioHeader } from "../deliver/virtio_header.ts";
import { receive } from "./receive.ts";
import { writeBack } from "./advanced_receive.ts";

/** As `scatterSplit`, into an advanced ring. */
export function scatterAdvanced(rx: usize, first: usize, wait: bool): u32 {
  const mask = load<u32>(rx, Q_SIZE) - 1;
  const ring: usize = load<u32>(rx, Q_DESC);
  const packetBytes = load<u32>(rx, Q_PACKET_BYTES);
  const hdrBytes = load<u32>(rx, Q_HDR_BYTES);
  const header = virtioHeader(hdrBytes);
  const whole = load<u32>(rx, Q_HEADER_BYTES) == 0;
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
    const free = pendingAdvanced(rx);
    const start = load<u32>(rx, Q_LAST_AVAIL);
    const common = whole && free <= mask && isCommon(head) && (head & HEAD_F_WHOLE) == 0;
    const most: u32 = common ? min(free, left) : 0;
    let n: u32 = 0;
    for (; n < most; n++, record += RECORD_STRIDE) {
      const descriptor = ring + ((start + n) & mask) * ADV_DESC_BYTES;
      const length = load<u32>(record, R_LENGTH) + grows;
      if (hdrBytes + length > packetBytes) break;
      const offset = load<u64>(descriptor) - iova;
      const buffer = offset < reach ? window + <usize> offset : inSecond(rx, offset + iova);
      if (buffer == 0) break;
      if (hdrBytes != 0) putOneBufferHeader(buffer, header, hdrBytes, hdrBytes + length);
      if (head & HEAD_MASK) putTagged(buffer + hdrBytes, record, head, load<u32>(at, N_TAG));
      else putPlain(buffer + hdrBytes, record);
      writeBack(descriptor, 0, hdrBytes + length, ADV_RXD_STAT_DD | ADV_RXD_STAT_EOP);
      bytes += length;
    }
    store<u32>(rx, (start + n) & mask, Q_LAST_AVAIL);
    done += n;
    left -= n;
    if (left != 0) {
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
