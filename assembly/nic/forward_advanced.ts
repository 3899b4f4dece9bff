/**
 * The common case between two advanced rings, as `forward.ts` does it between split ones: consecutive untagged frames
 * of one descriptor each, between the same two addresses, each into one receive buffer. A transmit descriptor whose
 * driver wants no report is not written at all.
 */
import {
  ADV_DESC_BYTES,
  ADV_RXD_STAT_DD,
  ADV_RXD_STAT_EOP,
  ADV_TXD_DCMD_DEXT,
  ADV_TXD_DCMD_EOP,
  ADV_TXD_DCMD_RS,
  ADV_TXD_DCMD_TSE,
  ADV_TXD_DCMD_VLE,
  ADV_TXD_DTALEN_MASK,
  ADV_TXD_DTYP_DATA,
  ADV_TXD_DTYP_MASK,
  ADV_TXD_POPTS_MASK,
  ADV_TXD_STAT_DD,
} from "../../shared/layout/advanced.ts";
import {
  POOL_STRIDE,
  POOLS,
  P_RX_COUNT,
  Q_DESC,
  Q_LAST_AVAIL,
  Q_PACKET_BYTES,
  Q_POOL,
  Q_REGION_IOVA,
  Q_REGION_WINDOW,
  Q_RUN_DST,
  Q_RUN_POOL,
  Q_RUN_RX,
  Q_RUN_SRC,
  Q_SIZE,
} from "../../shared/layout/nic.ts";
import { pendingAdvanced } from "../lib/advanced_ring.ts";
import { copyBytes } from "../lib/copy.ts";
import { isTag } from "../lib/ethernet.ts";
import { endRun, reachOf, RUN_FRAME_BYTES_MIN, runHolds, steersTo } from "./run.ts";

/** What the third dword of a simple frame's descriptor holds beside length, FCS and report. */
const SIMPLE_MASK: u32 = ADV_TXD_DTYP_MASK | ADV_TXD_DCMD_EOP | ADV_TXD_DCMD_DEXT | ADV_TXD_DCMD_VLE | ADV_TXD_DCMD_TSE;
const SIMPLE: u32 = ADV_TXD_DTYP_DATA | ADV_TXD_DCMD_EOP | ADV_TXD_DCMD_DEXT;

/** Whether a transmit descriptor's second half describes a whole frame that asks for nothing. */
@inline
export function isSimple(meta: u64): bool {
  return (<u32> meta & SIMPLE_MASK) == SIMPLE && (<u32> (meta >> 32) & <u32> ADV_TXD_POPTS_MASK) == 0;
}

/** As `forwardSplit`, from an advanced ring to an advanced ring. */
export function forwardAdvanced(q: usize, n: u32, byteLimit: i32): u32 {
  if (!runHolds(q)) return 0;
  const rx: usize = load<u32>(q, Q_RUN_RX);
  const dst = load<u64>(q, Q_RUN_DST);
  const src = load<u32>(q, Q_RUN_SRC);
  const pool = load<u32>(q, Q_POOL);
  const rxPool = load<u32>(q, Q_RUN_POOL);
  const manyQueues = load<u32>(POOLS + rxPool * POOL_STRIDE, P_RX_COUNT) > 1 ||
    load<u32>(POOLS + pool * POOL_STRIDE, P_RX_COUNT) > 1;

  const mask = load<u32>(q, Q_SIZE) - 1;
  const ring: usize = load<u32>(q, Q_DESC);
  const head = load<u32>(q, Q_LAST_AVAIL);
  const iova = load<u64>(q, Q_REGION_IOVA);
  const reach = reachOf(q);
  const window = load<u32>(q, Q_REGION_WINDOW);

  const rxMask = load<u32>(rx, Q_SIZE) - 1;
  const rxRing: usize = load<u32>(rx, Q_DESC);
  const rxHead = load<u32>(rx, Q_LAST_AVAIL);
  const rxIova = load<u64>(rx, Q_REGION_IOVA);
  const rxReach = reachOf(rx);
  const rxWindow = load<u32>(rx, Q_REGION_WINDOW);
  const packetBytes = load<u32>(rx, Q_PACKET_BYTES);
  const free = pendingAdvanced(rx);
  if (free > rxMask) return 0;

  let taken: u32 = 0;
  let delivered: u32 = 0;
  let left = byteLimit;
  let droppedBytes: u32 = 0;
  for (; taken < n && left > 0; taken++) {
    const descriptor = ring + ((head + taken) & mask) * ADV_DESC_BYTES;
    const offset = load<u64>(descriptor) - iova;
    const meta = load<u64>(descriptor, 8);
    if (!isSimple(meta)) break;
    const frameBytes = <u32> meta & <u32> ADV_TXD_DTALEN_MASK;
    if (frameBytes < RUN_FRAME_BYTES_MIN || offset >= reach) break;
    const frame: usize = window + <u32> offset;
    const first = v128.load(frame);
    if (v128.extract_lane<u64>(first, 0) != dst || v128.extract_lane<u32>(first, 2) != src) break;
    if (isTag(v128.extract_lane<u16>(first, 6))) break;
    if (manyQueues && !steersTo(q, pool, rxPool, rx, frame, frameBytes)) break;
    if (delivered < free) {
      const rxDescriptor = rxRing + ((rxHead + delivered) & rxMask) * ADV_DESC_BYTES;
      const rxOffset = load<u64>(rxDescriptor) - rxIova;
      if (frameBytes > packetBytes || rxOffset >= rxReach) break;
      const buffer: usize = rxWindow + <u32> rxOffset;
      v128.store(buffer, first);
      copyBytes(buffer + 16, frame + 16, frameBytes - 16);
      store<u64>(rxDescriptor, 0);
      store<u64>(rxDescriptor, <u64> (ADV_RXD_STAT_DD | ADV_RXD_STAT_EOP) | (<u64> frameBytes << 32), 8);
      delivered++;
    } else {
      droppedBytes += frameBytes;
    }
    if (<u32> meta & ADV_TXD_DCMD_RS) store<u32>(descriptor, ADV_TXD_STAT_DD, 12);
    left -= <i32> frameBytes;
  }
  if (taken == 0) return 0;
  store<u32>(q, (head + taken) & mask, Q_LAST_AVAIL);
  if (delivered > 0) store<u32>(rx, (rxHead + delivered) & rxMask, Q_LAST_AVAIL);
  endRun(q, rx, taken, delivered, byteLimit - left, droppedBytes);
  return taken;
}
