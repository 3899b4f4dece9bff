/**
 * Frames out of an advanced transmit ring (82599 datasheet §7.2.3). The tail moves over whole frames: one without an
 * end at the tail is malformed, not unfinished. Context descriptors come before the frame's data (advanced_context.ts).
 */
import {
  ADV_CHAIN_MAX,
  ADV_DESC_BYTES,
  ADV_TXD_DCMD_DEXT,
  ADV_TXD_DCMD_EOP,
  ADV_TXD_DCMD_RS,
  ADV_TXD_DCMD_TSE,
  ADV_TXD_DCMD_VLE,
  ADV_TXD_DTALEN_MASK,
  ADV_TXD_DTYP_CTXT,
  ADV_TXD_DTYP_DATA,
  ADV_TXD_DTYP_MASK,
  ADV_TXD_POPTS_MASK,
} from "../../../shared/layout/advanced.ts";
import {
  B_BAD_DETAIL,
  B_CHAIN_BYTES,
  B_CHAIN_DESCRIPTORS,
  B_CHAIN_SEGMENTS,
  B_READ_AHEAD,
  B_SEGMENTS,
  BAD_ADDRESS,
  BAD_CHAIN_LENGTH,
  BAD_DESCRIPTOR,
  BAD_HEADER,
  OK,
  PERM_READ,
  Q_DESC,
  Q_HDR_BYTES,
  Q_LAST_AVAIL,
  Q_OFFLOADS,
  Q_REGION_IOVA,
  Q_REGION_SIZE,
  Q_REGION_WINDOW,
  Q_SIZE,
  R_CONTEXTS,
  R_DESCRIPTORS,
  R_REPORT,
  RECORD_STRIDE,
  TX_SEGMENTS,
} from "../../../shared/layout/nic.ts";
import { recordAt } from "../batch/record.ts";
import { asks, noteOffload } from "../batch/offload.ts";
import { judge, recordPieces } from "../batch/unusual.ts";
import { appendBuffer, NOT_APPENDED } from "../batch/segments.ts";
import { addFrame, isPlainLength, locate, mayGrow, RUN_FRAMES, take } from "../batch/take.ts";
import { batch, context } from "../context.ts";
import { spend, UNITS_DESCRIPTOR } from "../schedule/cost.ts";
import { pendingAdvanced } from "./advanced.ts";
import { beginContexts, noteContext, takeContext } from "./advanced_context.ts";
import { inSecond, reachOf } from "./domain.ts";
import { failQueue } from "./interrupts.ts";

/** What the third dword of a simple frame's descriptor holds beside length, FCS and report. */
const SIMPLE_MASK: u32 = ADV_TXD_DTYP_MASK | ADV_TXD_DCMD_EOP | ADV_TXD_DCMD_DEXT | ADV_TXD_DCMD_VLE | ADV_TXD_DCMD_TSE;
const SIMPLE: u32 = ADV_TXD_DTYP_DATA | ADV_TXD_DCMD_EOP | ADV_TXD_DCMD_DEXT;

/** Whether a transmit descriptor's second half describes a whole frame that asks for nothing. */
@inline
function isSimple(meta: u64): bool {
  return (<u32> meta & SIMPLE_MASK) == SIMPLE && (<u32> (meta >> 32) & <u32> ADV_TXD_POPTS_MASK) == 0;
}

/** As `gatherSplit`, from an advanced ring. */
export function gatherAdvanced(q: usize, most: u32, byteLimit: u32, unitLimit: u32): u32 {
  const mask = load<u32>(q, Q_SIZE) - 1;
  const there = pendingAdvanced(q);
  const end: u32 = there > mask ? 0 : there;
  const head = load<u32>(q, Q_LAST_AVAIL);
  let used: u32 = 0;
  let n: u32 = 0;
  beginContexts(q);
  while (n < most && used < end && mayGrow(byteLimit, unitLimit)) {
    const run = min(min(most - n, RUN_FRAMES), end - used);
    const taken = take(q, n, locateAdvanced(q, head + used, n, run), byteLimit, unitLimit);
    n += taken;
    used += taken;
    if (taken == run || !mayGrow(byteLimit, unitLimit)) continue;
    const record = recordAt(n);
    if (!gatherDescriptors(q, (head + used) & mask, end - used, record, n == 0)) break;
    used += load<u32>(record, R_DESCRIPTORS);
    n++;
  }
  return n;
}

/** Locates plain frames from ring position `position` on, up to the first that is none; answers how many. */
function locateAdvanced(q: usize, position: u32, first: u32, run: u32): u32 {
  const mask = load<u32>(q, Q_SIZE) - 1;
  const ring: usize = load<u32>(q, Q_DESC);
  const iova = load<u64>(q, Q_REGION_IOVA);
  const reach = reachOf(load<u64>(q, Q_REGION_SIZE));
  const window: usize = load<u32>(q, Q_REGION_WINDOW);
  const hdrBytes = load<u32>(q, Q_HDR_BYTES);
  let record = recordAt(first);
  let ahead: u64 = 0;
  let n: u32 = 0;
  for (; n < run; n++, record += RECORD_STRIDE) {
    const descriptor = ring + ((position + n) & mask) * ADV_DESC_BYTES;
    const offset = load<u64>(descriptor) - iova;
    const meta = load<u64>(descriptor, 8);
    const frameBytes = (<u32> meta & <u32> ADV_TXD_DTALEN_MASK) - hdrBytes;
    if (!isSimple(meta) || !isPlainLength(frameBytes)) break;
    const at = offset < reach ? window + <usize> offset : inSecond(q, offset + iova);
    if (at == 0) break;
    ahead += locate(record, at + hdrBytes, frameBytes, hdrBytes);
    // One descriptor, and no context.
    store<u64>(record, 1, R_DESCRIPTORS);
    store<u64>(record, (<u32> meta & ADV_TXD_DCMD_RS) != 0 ? 1 : 0, R_REPORT);
  }
  store<u64>(batch(), ahead, B_READ_AHEAD);
  return n;
}

// What the last walk found beside B_CHAIN_*: third and fourth dword of the first data descriptor, contexts before it.
let command: u32 = 0;
let status: u32 = 0;
let contexts: u32 = 0;
let report: u64 = 0;

/** Any other frame, of at most `there` descriptors from slot `head` on. False if it cannot be taken now. */
function gatherDescriptors(q: usize, head: u32, there: u32, record: usize, first: bool): bool {
  const start = load<u32>(batch(), B_SEGMENTS);
  const verdict = walkAdvanced(q, head, there, start);
  if (verdict != OK) {
    if (first) failQueue(q, verdict, load<u64>(batch(), B_BAD_DETAIL));
    return false;
  }
  const bytes = load<u64>(batch(), B_CHAIN_BYTES);
  const hdrBytes = load<u32>(q, Q_HDR_BYTES);
  if (bytes < hdrBytes) {
    if (first) failQueue(q, BAD_HEADER, bytes);
    return false;
  }
  recordPieces(record, start, bytes, hdrBytes);
  judge(record, isGranted(record, hdrBytes, <u32> load<u16>(q, Q_OFFLOADS)));
  store<u32>(record, load<u32>(batch(), B_CHAIN_DESCRIPTORS), R_DESCRIPTORS);
  store<u32>(record, contexts, R_CONTEXTS);
  store<u64>(record, report, R_REPORT);
  addFrame(record);
  return true;
}

/**
 * Whether the frame that was walked last may have what it asks for: in its descriptor's words, or in those of its
 * virtio-net header. With a header, the descriptor's words mark a frame whose sender was refused already.
 */
function isGranted(record: usize, hdrBytes: u32, allowed: u32): bool {
  if (hdrBytes == 0) return noteContext(record, command, status, allowed);
  const isMarked = (command & <u32> (ADV_TXD_DCMD_TSE | ADV_TXD_DCMD_VLE)) != 0 || (status & ADV_TXD_POPTS_MASK) != 0;
  return !isMarked && (!asks() || noteOffload(record, allowed));
}

function walkAdvanced(q: usize, head: u32, there: u32, start: u32): u32 {
  const mask = load<u32>(q, Q_SIZE) - 1;
  const ring: usize = load<u32>(q, Q_DESC);
  const list = context + TX_SEGMENTS;
  let segments = start;
  let bytes: u64 = 0;
  contexts = 0;
  report = 0;
  for (let walked: u32 = 0; walked < there;) {
    if (walked == <u32> ADV_CHAIN_MAX) return BAD_CHAIN_LENGTH;
    const index = (head + walked) & mask;
    const descriptor = ring + index * ADV_DESC_BYTES;
    const iova = load<u64>(descriptor);
    const meta = load<u64>(descriptor, 8);
    const words = <u32> meta;
    const type = words & <u32> ADV_TXD_DTYP_MASK;
    store<u64>(batch(), index, B_BAD_DETAIL);
    spend(UNITS_DESCRIPTOR);
    if (words & ADV_TXD_DCMD_RS) report |= <u64> 1 << <u64> walked;
    if ((words & ADV_TXD_DCMD_DEXT) == 0) return BAD_DESCRIPTOR;
    if (type == <u32> ADV_TXD_DTYP_CTXT && contexts == walked) {
      takeContext(iova, meta);
      contexts = ++walked;
      continue;
    }
    if (type != <u32> ADV_TXD_DTYP_DATA) return BAD_DESCRIPTOR;
    if (contexts == walked++) {
      command = words;
      status = <u32> (meta >> 32);
    }
    const length = words & ADV_TXD_DTALEN_MASK;
    segments = appendBuffer(q, list, segments, iova, length, PERM_READ);
    if (segments == NOT_APPENDED) {
      store<u64>(batch(), iova, B_BAD_DETAIL);
      return BAD_ADDRESS;
    }
    bytes += length;
    if (words & ADV_TXD_DCMD_EOP) {
      store<u64>(batch(), bytes, B_CHAIN_BYTES);
      store<u32>(batch(), walked, B_CHAIN_DESCRIPTORS);
      store<u32>(batch(), segments, B_CHAIN_SEGMENTS);
      return OK;
    }
  }
  return BAD_DESCRIPTOR;
}
