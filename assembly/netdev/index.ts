/**
 * A netdev port: the driver of a NIC pool's queue pair, with a file of the kernel behind it (a TAP, a packet socket).
 * Frames go between the ring's buffers and the kernel, header and all: nothing is copied here, and no frame is looked
 * into. A round is `compose`, the kernel's call, `settle`. What the kernel does not take at once is dropped and counted,
 * for whoever waits for it would hold up everybody else's frames.
 */
import * as N from "../../shared/layout/netdev.ts";
import * as V from "../../shared/layout/virtio.ts";
import { completed, completionAt, forget, hasRoom, submit, unsubmitted } from "./io.ts";
import { isCutOff, layOutMessages, putTag, readyRead, readySend, takenTag } from "./packet.ts";
import { count, fail, FRAME_BYTES_MIN, get, set } from "./state.ts";
import {
  armQueues,
  freeCount,
  freeTransmit,
  giveBackReceived,
  layOutQueues,
  NONE,
  offerTransmit,
  publishReceive,
  publishTransmit,
  received,
  rxBuffer,
  takeFree,
  takeReceived,
  takeSent,
  txBuffer,
  untaken,
} from "./virtqueues.ts";

/** Frames that one round writes, and that it reads. */
const WRITES_MAX: u32 = 64;
const READS_MAX: u32 = 64;
const HEADER_BYTES: u32 = V.VIRTIO_NET_HDR_BYTES;

// asm-generic/errno.h
const EIO: u32 = 5;
const ENXIO: u32 = 6;
const EAGAIN: u32 = 11;
const ENOMEM: u32 = 12;
const ENODEV: u32 = 19;
const EBADFD: u32 = 77;
const EMSGSIZE: u32 = 90;
const ENETDOWN: u32 = 100;
const ENOBUFS: u32 = 105;

export { abandonXdp, armXdp, startXdp, unsent, xdpRound } from "./xdp.ts";

/** Begins: lays out the rings. The configuration is there, everything else is 0. */
export function start(): void {
  layOutQueues();
  if (get(N.NC_IS_PACKET) != 0) layOutMessages();
}

/**
 * Submits a round: writes of what the NIC has handed over, and reads, if there may be something to read or other work is
 * done anyhow. Answers how many entries the kernel is to be told of.
 */
export function compose(): u32 {
  reclaim();
  const writes = composeWrites();
  // Beside other work one read in vain costs less than asking whether there is something to read.
  const wanted = max(get(N.NS_READS), writes > 0 ? 1 : 0);
  if (get(N.NS_REQUEST) == N.REQUEST_RUN) composeReads(min(wanted, READS_MAX));
  return unsubmitted();
}

/** The transmit descriptors that the NIC has sent are free. */
function reclaim(): void {
  while (takeSent() != NONE) {
    // Their buffers go with them.
  }
}

function composeWrites(): u32 {
  const most = min(received(), WRITES_MAX);
  const isPacket = get(N.NC_IS_PACKET) != 0;
  let n: u32 = 0;
  for (let i: u32 = 0; i < most && hasRoom(); i++) {
    const element = takeReceived();
    const id = <u32> element;
    if (id == NONE) break;
    const bytes = <u32> (element >> 32);
    if (bytes < HEADER_BYTES + FRAME_BYTES_MIN) {
      count(N.NCO_OUT_RUNT, 1);
      giveBackReceived(id);
      continue;
    }
    if (isPacket) submit(N.DID_WRITE, id, readySend(id, bytes), 1);
    else submit(N.DID_WRITE, id, rxBuffer(id), bytes);
    n++;
  }
  return n;
}

function composeReads(wanted: u32): void {
  const most = min(wanted, freeCount());
  const isPacket = get(N.NC_IS_PACKET) != 0;
  for (let i: u32 = 0; i < most && hasRoom(); i++) {
    const id = takeFree();
    if (isPacket) submit(N.DID_READ, id, readyRead(id), 1);
    else submit(N.DID_READ, id, txBuffer(id), N.ND_BUFFER_ROOM);
  }
}

/** Takes in what the kernel has completed, and tells the NIC. Answers STATUS_* bits. */
export function settle(): u32 {
  const n = completed();
  let wrote: u32 = 0;
  let asked: u32 = 0;
  let got: u32 = 0;
  for (let i: u32 = 0; i < n; i++) {
    const completion = completionAt(i);
    const what = load<u32>(completion);
    const result = load<i32>(completion, N.CQE_RESULT);
    const id = what & 0xffff;
    if ((what & N.DID_WRITE) != 0) {
      settleWrite(id, result);
      wrote++;
    } else {
      asked++;
      if (settleRead(id, result)) got++;
    }
  }
  forget(n);
  if (asked > 0) noteReads(asked, got);
  let status: u32 = wrote + got > 0 || received() > 0 ? N.STATUS_WORK : 0;
  if (publishReceive()) status |= N.STATUS_ROOM;
  if (publishTransmit()) status |= N.STATUS_KICK;
  if (get(N.NS_FAULT) != N.FAULT_NONE) status |= N.STATUS_FAULT;
  return status;
}

/** Of `asked` reads `got` brought something: then there may be more, or else the kernel will say when there is. */
function noteReads(asked: u32, got: u32): void {
  set(N.NS_READS_GUESS, max(got, 1));
  // Fewer than wanted were asked for if the NIC had the descriptors.
  set(N.NS_READS, got == asked ? min(max(asked * 2, get(N.NS_READS)), READS_MAX) : 0);
}

function settleWrite(id: u32, result: i32): void {
  if (result < 0) {
    const errno = <u32> -result;
    if (errno == EBADFD || errno == ENODEV) fail(N.FAULT_FILE_GONE, errno);
    if (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM) count(N.NCO_OUT_BUSY, 1);
    else if (errno == EIO || errno == ENETDOWN || errno == ENXIO) count(N.NCO_OUT_DOWN, 1);
    else if (errno == EMSGSIZE) count(N.NCO_OUT_TOO_LONG, 1);
    else count(N.NCO_OUT_REFUSED, 1);
  } else {
    count(N.NCO_OUT_FRAMES, 1);
    count(N.NCO_OUT_BYTES, <u32> result - headerBytes());
  }
  giveBackReceived(id);
}

/** Bytes of the header that the kernel counts with a frame. */
@inline
function headerBytes(): u32 {
  return get(N.NC_IS_PACKET) != 0 ? V.VIRTIO_NET_HDR_LEGACY_BYTES : HEADER_BYTES;
}

/** What has come of reading into transmit buffer `id`; false if there was nothing to read. */
function settleRead(id: u32, result: i32): bool {
  if (result < 0) {
    const errno = <u32> -result;
    if (errno == EBADFD || errno == ENODEV) fail(N.FAULT_FILE_GONE, errno);
    else if (errno != EAGAIN) count(N.NCO_IN_ERRORS, 1);
    freeTransmit(id);
    return errno != EAGAIN && get(N.NS_FAULT) == N.FAULT_NONE;
  }
  const refused = offerRead(id, <u32> result);
  if (refused == 0) return true;
  count(refused, 1);
  freeTransmit(id);
  return true;
}

/** Hands the frame that was read into buffer `id` to the NIC: 0, or the counter of why it cannot be. */
function offerRead(id: u32, result: u32): u32 {
  const isPacket = get(N.NC_IS_PACKET) != 0;
  if (isPacket && isCutOff(id)) return N.NCO_IN_CUT_OFF;
  if (result < headerBytes() + FRAME_BYTES_MIN) return N.NCO_IN_RUNT;
  let bytes = result - headerBytes() + HEADER_BYTES;
  let at = txBuffer(id);
  if (isPacket) {
    const tag = takenTag(id);
    if (tag != 0) {
      at = putTag(at, tag);
      bytes += 4;
    }
  }
  count(N.NCO_IN_FRAMES, 1);
  count(N.NCO_IN_BYTES, bytes - HEADER_BYTES);
  offerTransmit(id, at, bytes);
  return 0;
}

/** There may be something to read: as much as the last time. */
export function wake(): void {
  if (get(N.NS_READS) == 0) set(N.NS_READS, max(get(N.NS_READS_GUESS), 1));
}

/** Asks for interrupts; 1 if there is something to do already. */
export function arm(): u32 {
  const wantsReads = get(N.NS_REQUEST) == N.REQUEST_RUN && get(N.NS_READS) > 0;
  if (wantsReads && freeCount() > 0) return 1;
  const quiet = get(N.NS_REQUEST) == N.REQUEST_QUIET;
  // While no transmit descriptor is free nobody waits for the file.
  return armQueues(freeCount() == 0 || (quiet && untaken() > 0)) ? 1 : 0;
}

/** Frames that were read and that the NIC has not taken, and calls of the kernel that have not ended. */
export function unfinished(): u32 {
  reclaim();
  return untaken() + get(N.NS_IN_FLIGHT);
}

/** The file is gone: what the NIC has handed over is dropped. */
export function abandon(): void {
  while (received() > 0 && <u32> takeReceived() != NONE) count(N.NCO_OUT_DOWN, 1);
}

/** Whether there is a transmit descriptor to read into. */
export function mayRead(): u32 {
  return get(N.NS_REQUEST) == N.REQUEST_RUN && freeCount() > 0 ? 1 : 0;
}
