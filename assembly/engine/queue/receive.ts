/**
 * A frame that is not of the common kind into a receive queue of any format. What its sender left to be finished and its
 * receiver does not take is finished here: the checksum filled in, or the frame cut into segments.
 */
import {
  B_DONE,
  FLAVOUR_ADVANCED,
  FLAVOUR_DRIVER_TX,
  N_HEAD,
  N_TAG,
  O_DONE,
  O_SEGMENTS,
  Q_FLAVOUR,
  Q_HDR_BYTES,
  R_LENGTH,
} from "../../../shared/layout/nic.ts";
import { isToBeCut, takesAsIs } from "../batch/offload.ts";
import { headCopyAt } from "../batch/record.ts";
import { finishChecksum } from "../deliver/finish.ts";
import { outLength } from "../deliver/head.ts";
import { note, noteReceived, refuse, settle, waitsFor } from "../deliver/results.ts";
import { beginSegments, nextSegment } from "../deliver/segment.ts";
import { isDirect, receiveDirect } from "./direct_receive.ts";
import { receiveAdvanced } from "./advanced_receive.ts";
import { sendDriver } from "./driver_send.ts";
import { receiveChains } from "./receive_chains.ts";

/**
 * Puts the frame of `record`, of delivery `at`, into receive queue `rx`, and notes what became of it. `here`: frames of
 * its delivery from it on. False if the scatter ends with it, as `settle` says.
 */
export function receive(rx: usize, at: usize, record: usize, here: u32, wait: bool): bool {
  const head: u32 = load<u16>(at, N_HEAD);
  if (!takesAsIs(rx, record)) {
    if (isToBeCut(record)) return receiveSegments(rx, at, record, here, wait);
    finishChecksum(record);
  }
  const length = outLength(head, load<u32>(record, R_LENGTH));
  return settle(put(rx, record, head, load<u32>(at, N_TAG), length), at, here, length, wait);
}

/** Puts one frame in; 0, or the counter that tells why it did not go in. */
function put(rx: usize, record: usize, head: u32, tag: u32, length: u32): u32 {
  const flavour = load<u32>(rx, Q_FLAVOUR);
  if (flavour == FLAVOUR_ADVANCED) {
    return isDirect(rx) ? receiveDirect(rx, record, head, tag) : receiveAdvanced(rx, record, head, tag);
  }
  if (flavour == FLAVOUR_DRIVER_TX) return sendDriver(rx, record, head, tag);
  return receiveChains(rx, record, head, tag, load<u32>(rx, Q_HDR_BYTES) + length);
}

/**
 * As `receive`, in segments. Where a receiver is waited for, O_DONE says with which one to go on. Otherwise the segments
 * behind one that was refused share its fate: its receiver has to ask for them again whatever becomes of them.
 */
function receiveSegments(rx: usize, at: usize, record: usize, here: u32, wait: bool): bool {
  const head: u32 = load<u16>(at, N_HEAD);
  const tag = load<u32>(at, N_TAG);
  const area = headCopyAt(record);
  const segments = load<u32>(area, O_SEGMENTS);
  beginSegments(record);
  let i = load<u32>(area, O_DONE);
  let refused: u32 = 0;
  for (; i < segments; i++) {
    const segment = nextSegment(record, i);
    const length = outLength(head, load<u32>(segment, R_LENGTH));
    refused = put(rx, segment, head, tag, length);
    if (refused != 0) break;
    noteReceived(at, length);
  }
  if (wait && waitsFor(refused)) {
    store<u32>(area, i, O_DONE);
    return false;
  }
  note(B_DONE, 1);
  // A flooded frame has other receivers, who get it from its beginning on.
  store<u32>(area, 0, O_DONE);
  if (refused == 0) return true;
  return refuse(refused, segments - i, at, here);
}
