/**
 * Frames into a direct receive ring (shared/layout/advanced.ts): an advanced one whose packet buffers have sizes of their
 * own and are a guest's. Those that fit into one buffer go in the loop, others one by one (direct_receive.ts).
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
import { putOneBufferHeader, virtioHeader } from "../deliver/virtio_header.ts";
import { pendingAdvanced } from "./advanced.ts";
import { ADDRESS_MASK, bytesOf, FRONT, markOf, writeBackDirect } from "./direct_receive.ts";
import { inSecond, reachOf } from "./domain.ts";
import { receive } from "./receive.ts";
import { isCommon } from "./split_scatter.ts";

/** As `scatterSplit`, into a direct ring. */
export function scatterDirect(rx: usize, first: usize, wait: bool): u32 {
  const mask = load<u32>(rx, Q_SIZE) - 1;
  const ring: usize = load<u32>(rx, Q_DESC);
  const whole = load<u32>(rx, Q_HEADER_BYTES) == 0;
  const header = virtioHeader(FRONT);
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
      const where = atomic.load<u64>(descriptor);
      if (FRONT + length > bytesOf(where)) break;
      const offset = (where & ADDRESS_MASK) - iova;
      const buffer = offset < reach ? window + <usize> offset : inSecond(rx, offset + iova);
      if (buffer == 0) break;
      putOneBufferHeader(buffer, header, FRONT, FRONT + length);
      if (head & HEAD_MASK) putTagged(buffer + FRONT, record, head, load<u32>(at, N_TAG));
      else putPlain(buffer + FRONT, record);
      writeBackDirect(descriptor, FRONT + length, ADV_RXD_STAT_DD | ADV_RXD_STAT_EOP | markOf(where), 0);
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
