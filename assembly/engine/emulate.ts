/**
 * Emulated mode's data path: a guest's virtqueues are carried to a VF of the NIC and back, with one copy each way. What
 * is sent goes into the VF's transmit ring as it is, and what its receive ring brings goes to the guest; policy is the
 * NIC's, in this mode as in every other. A full side holds the other one up, so frames are dropped where they are
 * counted: in the NIC.
 */
import {
  B_DELIVERED,
  B_DELIVERED_BYTES,
  B_RECEIVE_UNITS,
  BATCH_FRAMES,
  C_TX_BYTES,
  C_TX_FRAMES,
  FLAVOUR_DRIVER_RX,
  FLAVOUR_DRIVER_TX,
  HALT_TX,
  HEAD_AS_IS,
  N_HEAD,
  N_RECORD,
  P_RX_COUNT,
  P_RX_QUEUES,
  Q_DIRECT,
  Q_FLAVOUR,
  Q_POOL,
  Q_STATE,
  Q_CARRY_TO,
  QUEUE_RUNNING,
  R_DELIVERY,
} from "../../shared/layout/nic.ts";
import { goOnInFrame, noteInFrame } from "./batch/offload.ts";
import { beginGather, recordAt } from "./batch/record.ts";
import { batch, poolAt } from "./context.ts";
import { bookRefused, clearResults, count } from "./deliver/results.ts";
import { isHalted, stateOf } from "./direct/books.ts";
import { deliverOffered } from "./direct/deliver.ts";
import { completeHost, gatherHost } from "./direct/host.ts";
import { offer, offered } from "./direct/offer.ts";
import { sendDirect } from "./direct/send.ts";
import { completeSent } from "./direct/sent.ts";
import { isDriverTxFull } from "./queue/driver.ts";
import { complete, gather, pending, scatter } from "./queue/format.ts";
import { markDirty } from "./queue/interrupts.ts";
import { lookAgain } from "./schedule/again.ts";
import { hashOf, noteFlow, steer } from "./switch/steer.ts";

/** No limit of bytes: the NIC has its own. */
const ANY_BYTES: u32 = 0x7fffffff;

/** Whether nothing of queue `q` can be carried before somebody else makes room: the NIC, or the guest. */
export function isHeldUp(q: usize): bool {
  const flavour = load<u32>(q, Q_FLAVOUR);
  if (flavour == FLAVOUR_DRIVER_TX) return false;
  const isDirect = load<u32>(q, Q_DIRECT) != 0;
  // What is in buffers of the guest's already needs no others.
  if (flavour == FLAVOUR_DRIVER_RX) return !(isDirect && offered(q) != 0) && !hasBuffers(poolAt(load<u32>(q, Q_POOL)));
  const driverTx: usize = load<u32>(q, Q_CARRY_TO);
  if (load<u32>(driverTx, Q_STATE) != QUEUE_RUNNING) return true;
  return isDirect ? isHalted(stateOf(q), HALT_TX) : isDriverTxFull(driverTx);
}

/** Whether a guest has buffers for what comes, on any of its receive queues. */
function hasBuffers(p: usize): bool {
  const count = load<u32>(p, P_RX_COUNT);
  for (let i: u32 = 0; i < count; i++) {
    if (pending(load<u32>(p + i * 4, P_RX_QUEUES)) != 0) return true;
  }
  return false;
}

/** Carries a batch of queue `q`, which has Q_CARRY_TO, for at most `share` units. Answers how many frames it took. */
export function carry(q: usize, share: u32): u32 {
  if (load<u32>(q, Q_DIRECT) != 0) return carryDirect(q, share);
  const isDriverRx = load<u32>(q, Q_FLAVOUR) == FLAVOUR_DRIVER_RX;
  beginGather();
  const waiting = pending(q);
  const n = gather(q, waiting, BATCH_FRAMES, ANY_BYTES, share);
  if (n == 0) return 0;
  goOnInFrame(q);
  const done = isDriverRx ? toGuest(q, n) : fromGuest(q, n);
  noteInFrame(q, done, n);
  if (done < n) lookAgain();
  if (done == 0) return 0;
  complete(q, done);
  markDirty(q, done);
  return done;
}

/** As `carry`, on the direct path, where a pair's transmit ring has something to give back too. */
function carryDirect(q: usize, share: u32): u32 {
  const flavour = load<u32>(q, Q_FLAVOUR);
  if (flavour == FLAVOUR_DRIVER_TX) return completeSent(q);
  if (flavour != FLAVOUR_DRIVER_RX) return sendDirect(q, share);
  let taken = deliverOffered(q, BATCH_FRAMES);
  if (offered(q) == 0) {
    beginGather();
    const n = gatherHost(q, BATCH_FRAMES, share);
    if (n != 0) goOnInFrame(q);
    const done: u32 = n == 0 ? 0 : toGuest(q, n);
    if (n != 0) noteInFrame(q, done, n);
    if (done < n) lookAgain();
    if (done != 0) completeHost(q, done);
    taken += done;
  }
  offer(q);
  if (taken != 0) markDirty(q, taken);
  return taken;
}

/** A delivery of records `from` … `end`-1, as they are. */
function chain(from: u32, end: u32): usize {
  const record = recordAt(from);
  const delivery = record + R_DELIVERY;
  store<u64>(delivery, <u32> record, N_RECORD);
  store<u64>(delivery, <u64> HEAD_AS_IS | (<u64> (end - from) << 16), N_HEAD);
  return delivery;
}

/** Frames of the guest into the VF's transmit ring; answers how many went in. */
function fromGuest(q: usize, n: u32): u32 {
  const driverTx: usize = load<u32>(q, Q_CARRY_TO);
  const pool = load<u32>(q, Q_POOL);
  const p = poolAt(pool);
  clearResults();
  const done = scatter(driverTx, chain(0, n), true);
  const delivered = load<u32>(batch(), B_DELIVERED);
  if (delivered != 0) {
    markDirty(driverTx, delivered);
    count(p, C_TX_FRAMES, delivered);
    count(p, C_TX_BYTES, load<u32>(batch(), B_DELIVERED_BYTES));
  }
  if (load<u32>(p, P_RX_COUNT) > 1) {
    for (let i: u32 = 0; i < done; i++) noteFlow(pool, hashOf(recordAt(i)), q);
  }
  return done;
}

/** Frames of the VF's receive ring to the guest; answers how many are done with. */
function toGuest(q: usize, n: u32): u32 {
  const pool = load<u32>(q, Q_POOL);
  const p = poolAt(pool);
  const queues = load<u32>(p, P_RX_COUNT);
  if (queues == 0) return 0;
  let done: u32 = 0;
  store<u32>(batch(), 0, B_RECEIVE_UNITS);
  while (done < n) {
    // Neighbours for one receive queue together.
    let rx: usize = load<u32>(p, P_RX_QUEUES);
    let end = n;
    if (queues > 1) {
      rx = steer(pool, hashOf(recordAt(done)));
      end = done + 1;
      while (end < n && steer(pool, hashOf(recordAt(end))) == rx) end++;
    }
    clearResults();
    const part = scatter(rx, chain(done, end), true);
    if (load<u32>(batch(), B_DELIVERED) != 0) markDirty(rx, load<u32>(batch(), B_DELIVERED));
    bookRefused(p);
    done += part;
    if (done < end) break;
  }
  return done;
}
