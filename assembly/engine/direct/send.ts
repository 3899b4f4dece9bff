/**
 * The direct path's transmit side: the descriptors of a guest's frames become descriptors of the VF's transmit ring, many
 * of them to one doorbell. No byte of a frame is touched. Each field of the guest's descriptors is read once, translated
 * and checked; the NIC reads what is written here, never the guest's ring. The NIC has the guest's memory at the addresses
 * at which this engine has it, so a pointer that was checked is an address for the NIC.
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
  B_CHAIN_DESCRIPTORS,
  B_UNITS,
  BATCH_FRAMES,
  C_TX_BYTES,
  C_TX_FRAMES,
  DIRECT_SENT,
  DIRECT_TX_FRAMES,
  FLAVOUR_PACKED,
  P_RX_COUNT,
  Q_AVAIL,
  Q_CARRY_TO,
  Q_DESC,
  Q_FLAVOUR,
  Q_HDR_BYTES,
  Q_LAST_AVAIL,
  Q_POOL,
  Q_SIZE,
  Q_WRAP,
  R_DATA,
  R_LENGTH,
  R_SEGMENTS,
  WRAP_AVAIL,
} from "../../../shared/layout/nic.ts";
import { VIRTQ_AVAIL_RING, VIRTQ_DESC_BYTES } from "../../../shared/layout/virtio.ts";
import { beginGather, recordAt } from "../batch/record.ts";
import { batch, poolAt } from "../context.ts";
import { count } from "../deliver/results.ts";
import { remembered } from "../queue/domain.ts";
import { markDirty } from "../queue/interrupts.ts";
import { availableFlags, metaOf, OWNER_FLAGS } from "../queue/packed.ts";
import { pendingSplit } from "../queue/split.ts";
import { lookAgain } from "../schedule/again.ts";
import { spend, UNITS_FRAME } from "../schedule/cost.ts";
import { hashOf, noteFlow } from "../switch/steer.ts";
import { FRONT } from "../queue/direct_receive.ts";
import { descriptorAt, openBook, stateOf } from "./books.ts";
import { chainBytes, sendChain } from "./send_chain.ts";
import { completeSent } from "./sent.ts";

/** What a descriptor may hold, beside the header. */
const LONGEST: u32 = 0xffff - FRONT;
const WHOLE: u32 = ADV_TXD_DTYP_DATA | ADV_TXD_DCMD_DEXT | ADV_TXD_DCMD_IFCS | ADV_TXD_DCMD_EOP;

/** Bytes of the frames that the running batch has sent. */
let sentBytes: u64 = 0;

/** Free slots of the transmit ring: those whose books are closed. */
@inline
function roomOf(tx: usize): u32 {
  const mask = load<u32>(tx, Q_SIZE) - 1;
  return (load<u32>(stateOf(tx), DIRECT_SENT) - load<u32>(tx, Q_LAST_AVAIL) - 1) & mask;
}

/** Sends frames of the guest's queue `q`, for at most `share` units; answers how many. */
export function sendDirect(q: usize, share: u32): u32 {
  const tx: usize = load<u32>(q, Q_CARRY_TO);
  if (roomOf(tx) < <u32> ADV_CHAIN_MAX) completeSent(tx);
  beginGather();
  sentBytes = 0;
  const spent = load<u32>(batch(), B_UNITS);
  const most = min(<u32> BATCH_FRAMES, share > spent ? (share - spent) / UNITS_FRAME + 1 : 1);
  const n = load<u32>(q, Q_FLAVOUR) == FLAVOUR_PACKED ? sendPacked(q, tx, most) : sendSplit(q, tx, most);
  if (roomOf(tx) < <u32> ADV_CHAIN_MAX) lookAgain();
  if (n == 0) return 0;
  markDirty(tx, n);
  const p = poolAt(load<u32>(q, Q_POOL));
  count(p, C_TX_FRAMES, n);
  count(p, C_TX_BYTES, sentBytes);
  return n;
}

/** Puts a frame that lies in one piece, with its header, into slot `slot`. */
@inline
function putWhole(tx: usize, slot: u32, pointer: usize, length: u32): void {
  const descriptor = descriptorAt(tx, slot);
  store<u64>(descriptor, <u64> pointer);
  const payload: u64 = <u64> (length - FRONT) << ADV_TXD_PAYLEN_SHIFT;
  store<u64>(descriptor, <u64> (WHOLE | length) | (payload << 32), 8);
}

/** Notes which flow a frame of a guest with several queues is of. */
function noteSteering(q: usize, frame: usize, length: u32): void {
  const record = recordAt(0);
  store<u32>(record, <u32> frame, R_DATA);
  store<u32>(record, length, R_LENGTH);
  store<u32>(record, 1, R_SEGMENTS);
  noteFlow(load<u32>(q, Q_POOL), hashOf(record), q);
}

function sendSplit(q: usize, tx: usize, most: u32): u32 {
  const mask = load<u32>(q, Q_SIZE) - 1;
  const table: usize = load<u32>(q, Q_DESC);
  const ring: usize = load<u32>(q, Q_AVAIL) + VIRTQ_AVAIL_RING;
  const last = load<u32>(q, Q_LAST_AVAIL);
  const state = stateOf(q);
  const txMask = load<u32>(tx, Q_SIZE) - 1;
  const isCommon = load<u32>(q, Q_HDR_BYTES) == FRONT;
  const steers = load<u32>(poolAt(load<u32>(q, Q_POOL)), P_RX_COUNT) > 1;
  const waiting = min(pendingSplit(q), most);
  let tail = load<u32>(tx, Q_LAST_AVAIL);
  let room = roomOf(tx);
  let direct: u32 = 0;
  let n: u32 = 0;
  for (; n < waiting && room != 0; n++) {
    const head: u32 = load<u16>(ring + ((last + n) & mask) * 2);
    const descriptor: usize = table + ((head & mask) << 4);
    const iova = load<u64>(descriptor);
    const meta = load<u64>(descriptor, 8);
    const length = <u32> meta;
    const isPlain = isCommon && head <= mask && (<u32> (meta >> 32) & 0xffff) == 0 && length - FRONT <= LONGEST;
    const pointer = isPlain ? remembered(q, iova, length) : 0;
    if (pointer != 0) {
      putWhole(tx, tail, pointer, length);
      openBook(state, tail, q, head, 1);
      if (steers) noteSteering(q, pointer + FRONT, length - FRONT);
      sentBytes += length - FRONT;
      tail = (tail + 1) & txMask;
      room--;
      direct++;
      continue;
    }
    store<u32>(tx, tail, Q_LAST_AVAIL);
    if (!sendChain(q, tx, last + n, n == 0, room)) break;
    sentBytes += chainBytes;
    tail = load<u32>(tx, Q_LAST_AVAIL);
    room = roomOf(tx);
  }
  store<u32>(tx, tail, Q_LAST_AVAIL);
  store<u32>(q, last + n, Q_LAST_AVAIL);
  store<u64>(state, load<u64>(state, DIRECT_TX_FRAMES) + direct, DIRECT_TX_FRAMES);
  spend(direct * UNITS_FRAME);
  return n;
}

function sendPacked(q: usize, tx: usize, most: u32): u32 {
  const size = load<u32>(q, Q_SIZE);
  const ring: usize = load<u32>(q, Q_DESC);
  const state = stateOf(q);
  const txMask = load<u32>(tx, Q_SIZE) - 1;
  const isCommon = load<u32>(q, Q_HDR_BYTES) == FRONT;
  const steers = load<u32>(poolAt(load<u32>(q, Q_POOL)), P_RX_COUNT) > 1;
  let slot = load<u32>(q, Q_LAST_AVAIL);
  let wrap = load<u32>(q, Q_WRAP) & WRAP_AVAIL;
  let tail = load<u32>(tx, Q_LAST_AVAIL);
  let room = roomOf(tx);
  let direct: u32 = 0;
  let n: u32 = 0;
  for (; n < most && room != 0; n++) {
    const meta = metaOf(q, slot);
    const flags = <u32> (meta >> 48);
    if ((flags & OWNER_FLAGS) != availableFlags(wrap)) break;
    const length = <u32> meta;
    const isPlain = isCommon && flags == availableFlags(wrap) && length - FRONT <= LONGEST;
    const pointer = isPlain ? remembered(q, load<u64>(ring + slot * VIRTQ_DESC_BYTES), length) : 0;
    let places: u32 = 1;
    if (pointer != 0) {
      putWhole(tx, tail, pointer, length);
      openBook(state, tail, q, <u32> (meta >> 32) & 0xffff, 1);
      if (steers) noteSteering(q, pointer + FRONT, length - FRONT);
      sentBytes += length - FRONT;
      tail = (tail + 1) & txMask;
      room--;
      direct++;
    } else {
      store<u32>(tx, tail, Q_LAST_AVAIL);
      if (!sendChain(q, tx, slot | (wrap << 16), n == 0, room)) break;
      sentBytes += chainBytes;
      places = load<u32>(batch(), B_CHAIN_DESCRIPTORS);
      tail = load<u32>(tx, Q_LAST_AVAIL);
      room = roomOf(tx);
    }
    slot += places;
    if (slot < size) continue;
    slot -= size;
    wrap ^= WRAP_AVAIL;
  }
  store<u32>(tx, tail, Q_LAST_AVAIL);
  store<u32>(q, slot, Q_LAST_AVAIL);
  store<u32>(q, (load<u32>(q, Q_WRAP) & ~<u32> WRAP_AVAIL) | wrap, Q_WRAP);
  store<u64>(state, load<u64>(state, DIRECT_TX_FRAMES) + direct, DIRECT_TX_FRAMES);
  spend(direct * UNITS_FRAME);
  return n;
}
