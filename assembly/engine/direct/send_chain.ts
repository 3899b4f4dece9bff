/**
 * Frames of a guest that lie in several pieces: each piece becomes a descriptor, if the NIC takes so many. What cannot be
 * handed on as it is is copied into the slots' host buffers, once, and its buffers go back to the guest in their turn, as
 * all others do: when the NIC has sent the frame.
 */
import {
  ADV_CHAIN_MAX,
  ADV_TXD_DCMD_DEXT,
  ADV_TXD_DCMD_EOP,
  ADV_TXD_DCMD_IFCS,
  ADV_TXD_DTYP_DATA,
  ADV_TXD_PAYLEN_SHIFT,
} from "../../../shared/layout/advanced.ts";
import {
  B_BAD_DETAIL,
  B_CHAIN_BYTES,
  B_CHAIN_DESCRIPTORS,
  B_CHAIN_ID,
  B_CHAIN_SEGMENTS,
  BAD_CHAIN_LENGTH,
  BAD_HEADER,
  DIRECT_TX_COPIED,
  DIRECT_TX_FRAMES,
  DRIVER_BUFFER_BYTES,
  FRAME_OUT_BYTES_MAX,
  OK,
  OUT_VIRTIO_HDR,
  Q_HDR_BYTES,
  Q_LAST_AVAIL,
  Q_SIZE,
  QUEUE_SIZE_MAX,
  RX_SEGMENTS,
  SEGMENT_STRIDE,
  TX_SEGMENTS,
} from "../../../shared/layout/nic.ts";
import { appendSegment, peek, put, putFrom, rewindOut } from "../batch/segments.ts";
import { batch, context } from "../context.ts";
import { walk } from "../queue/chain.ts";
import { failQueue } from "../queue/interrupts.ts";
import { spend, UNITS_BYTES_SHIFT, UNITS_FRAME, UNITS_UNUSUAL } from "../schedule/cost.ts";
import { FRONT } from "../queue/direct_receive.ts";
import { descriptorAt, hostBuffer, openBook, stateOf } from "./books.ts";

/** What one descriptor holds. */
const PIECE_MAX: u32 = 0xffff;
/** More than the longest frame, so that the NIC counts what is longer as such. */
const BYTES_MAX: u64 = FRONT + FRAME_OUT_BYTES_MAX + 1;
const COMMAND: u32 = ADV_TXD_DTYP_DATA | ADV_TXD_DCMD_DEXT | ADV_TXD_DCMD_IFCS;

/** Bytes of the last frame that was sent, without its header. */
export let chainBytes: u64 = 0;

/**
 * Sends the chain at `position` of `q`, as `walk` has it, if its descriptors find `room`. False if it does not go now: it
 * waits, or it breaks the protocol, for which the queue stops if it is the `first` of its batch.
 */
export function sendChain(q: usize, tx: usize, position: u32, first: bool, room: u32): bool {
  const hdrBytes = load<u32>(q, Q_HDR_BYTES);
  let verdict = walk(q, position, 0, false, QUEUE_SIZE_MAX);
  const bytes = load<u64>(batch(), B_CHAIN_BYTES);
  if (verdict == OK && load<u32>(batch(), B_CHAIN_DESCRIPTORS) > load<u32>(q, Q_SIZE)) verdict = BAD_CHAIN_LENGTH;
  if (verdict != OK || bytes < hdrBytes) {
    if (!first) return false;
    if (verdict != OK) failQueue(q, verdict, load<u64>(batch(), B_BAD_DETAIL));
    else failQueue(q, BAD_HEADER, bytes);
    return false;
  }
  spend(UNITS_UNUSUAL + UNITS_FRAME);
  chainBytes = bytes - hdrBytes;
  const state = stateOf(q);
  const pieces = hdrBytes == FRONT ? piecesOf(load<u32>(batch(), B_CHAIN_SEGMENTS)) : 0;
  const isDirect = pieces != 0 && pieces <= <u32> ADV_CHAIN_MAX;
  const slots = isDirect ? pieces : copySlots(bytes, hdrBytes);
  if (slots > room) return false;
  if (isDirect) putPieces(tx, bytes);
  else copyChain(tx, slots, bytes, hdrBytes);
  const mask = load<u32>(tx, Q_SIZE) - 1;
  const end = load<u32>(tx, Q_LAST_AVAIL) + slots;
  openBook(state, (end - 1) & mask, q, load<u32>(batch(), B_CHAIN_ID), load<u32>(batch(), B_CHAIN_DESCRIPTORS));
  store<u32>(tx, end & mask, Q_LAST_AVAIL);
  const counter = state + (isDirect ? DIRECT_TX_FRAMES : DIRECT_TX_COPIED);
  store<u64>(counter, load<u64>(counter) + 1);
  return true;
}

/** Descriptors that the first `segments` of TX_SEGMENTS take; 0 if there is nothing in them. */
function piecesOf(segments: u32): u32 {
  let pieces: u32 = 0;
  for (let i: u32 = 0; i < segments && pieces <= <u32> ADV_CHAIN_MAX; i++) {
    pieces += (load<u32>(context + TX_SEGMENTS + i * SEGMENT_STRIDE, 4) + PIECE_MAX - 1) / PIECE_MAX;
  }
  return pieces;
}

/** Bytes of a chain that are copied: its frame, if it is not too long, with a header of FRONT bytes. */
@inline
function copyBytesOf(bytes: u64, hdrBytes: u32): u32 {
  return <u32> min(bytes - hdrBytes + FRONT, BYTES_MAX);
}

@inline
function copySlots(bytes: u64, hdrBytes: u32): u32 {
  return (copyBytesOf(bytes, hdrBytes) + DRIVER_BUFFER_BYTES - 1) / DRIVER_BUFFER_BYTES;
}

/** Writes the descriptor at the `i`th slot behind the tail. `payload`: PAYLEN, in a frame's first one. */
@inline
function putPiece(tx: usize, i: u32, address: u64, length: u32, payload: u64): void {
  const slot = (load<u32>(tx, Q_LAST_AVAIL) + i) & (load<u32>(tx, Q_SIZE) - 1);
  store<u64>(descriptorAt(tx, slot), address);
  store<u64>(descriptorAt(tx, slot), <u64> (COMMAND | length) | (payload << (32 + ADV_TXD_PAYLEN_SHIFT)), 8);
}

/** Marks the `i`th slot behind the tail as a frame's last one. */
@inline
function endPiece(tx: usize, i: u32): void {
  const slot = (load<u32>(tx, Q_LAST_AVAIL) + i) & (load<u32>(tx, Q_SIZE) - 1);
  const command = descriptorAt(tx, slot) + 8;
  store<u32>(command, load<u32>(command) | ADV_TXD_DCMD_EOP);
}

/** A descriptor for each piece of the chain; they are known to fit. */
function putPieces(tx: usize, bytes: u64): void {
  const segments = load<u32>(batch(), B_CHAIN_SEGMENTS);
  let n: u32 = 0;
  for (let i: u32 = 0; i < segments; i++) {
    const segment = context + TX_SEGMENTS + i * SEGMENT_STRIDE;
    let pointer: u32 = load<u32>(segment);
    let left = load<u32>(segment, 4);
    for (; left != 0; n++) {
      const length = min(left, PIECE_MAX);
      putPiece(tx, n, pointer, length, n == 0 ? bytes - FRONT : 0);
      pointer += length;
      left -= length;
    }
  }
  endPiece(tx, n - 1);
}

/** Copies the chain into the host buffers of `slots` slots. */
function copyChain(tx: usize, slots: u32, bytes: u64, hdrBytes: u32): void {
  const mask = load<u32>(tx, Q_SIZE) - 1;
  const tail = load<u32>(tx, Q_LAST_AVAIL);
  const all = copyBytesOf(bytes, hdrBytes);
  let left = all;
  for (let i: u32 = 0; i < slots; i++) {
    const buffer = hostBuffer(tx, (tail + i) & mask);
    const length = min(left, <u32> DRIVER_BUFFER_BYTES);
    appendSegment(context + RX_SEGMENTS, i, buffer, length);
    putPiece(tx, i, buffer, length, i == 0 ? all - FRONT : 0);
    left -= length;
  }
  endPiece(tx, slots - 1);
  const list = context + TX_SEGMENTS;
  const header = context + OUT_VIRTIO_HDR;
  store<u32>(header, 0, 8);
  peek(list, 0, hdrBytes, header);
  rewindOut();
  put(header, FRONT);
  putFrom(list, hdrBytes, all - FRONT);
  spend(all >> UNITS_BYTES_SHIFT);
}
