/** What became of a group's frames: kept by the scatters, booked on the receiving pool by whoever had it done. */
import {
  B_BROADCAST,
  B_DELIVERED,
  B_DELIVERED_BYTES,
  B_DONE,
  B_MULTICAST,
  B_NO_BUFFER,
  B_QUEUE_ERROR,
  B_TOO_DEAR,
  B_TOO_SMALL,
  B_WAITS_FOR,
  C_RX_BROADCAST,
  C_RX_BYTES,
  C_RX_FRAMES,
  C_RX_MULTICAST,
  C_RX_NO_BUFFER,
  C_RX_QUEUE_ERROR,
  C_RX_TOO_DEAR,
  C_RX_TOO_SMALL,
  HEAD_F_BROADCAST,
  HEAD_F_MULTICAST,
  N_COUNT,
  N_HEAD,
  N_NEXT,
  N_RECORD,
  P_COUNTERS,
  R_DROP,
  RECORD_STRIDE,
} from "../../../shared/layout/nic.ts";
import { batch } from "../context.ts";

/** Adds `n` to the counter at `offset` of pool `p`. */
@inline
export function count(p: usize, offset: u32, n: u64): void {
  const at = p + P_COUNTERS + offset;
  store<u64>(at, load<u64>(at) + n);
}

/** Whether frames that are refused are marked, each in its record, since somebody captures their pool; how many were. */
let marks: bool = false;
let marked: u32 = 0;

/** Has frames that are refused marked from now on. */
export function beginMarks(): void {
  marks = true;
  marked = 0;
}

/** Ends that; answers how many frames were marked. */
export function endMarks(): u32 {
  marks = false;
  return marked;
}

/** Marks the last `here` records of delivery `at`, or the first `n` of them, as refused. */
function mark(at: usize, here: u32, n: u32, refused: u32): void {
  if (!marks) return;
  marked += n;
  const count: u32 = load<u16>(at, N_COUNT);
  let record: usize = load<u32>(at, N_RECORD) + (count - here) * RECORD_STRIDE;
  for (let i: u32 = 0; i < n; i++, record += RECORD_STRIDE) store<u32>(record, refused, R_DROP);
}

/** Begins a group: nothing has become of its frames. */
@inline
export function clearResults(): void {
  const at = batch();
  store<u64>(at, 0, B_DELIVERED);
  store<u64>(at, 0, B_NO_BUFFER);
  store<u64>(at, 0, B_QUEUE_ERROR);
  store<u64>(at, 0, B_BROADCAST);
  store<u32>(at, 0, B_TOO_DEAR);
}

/** Notes that `n` frames met this fate. */
@inline
export function note(result: u32, n: u32): void {
  store<u32>(batch() + result, load<u32>(batch() + result) + n);
}

/** Notes frames that were delivered. */
@inline
export function noteDelivered(frames: u32, bytes: u32): void {
  note(B_DELIVERED, frames);
  note(B_DELIVERED_BYTES, bytes);
}

/**
 * Notes what became of a frame of delivery `at`, `length` bytes long, that is not of the common kind: `refused` is 0, or
 * the counter that tells why it did not go in. `here`: frames of its delivery from it on. False if the scatter ends with
 * it: its queue has stopped, or it waits for buffers.
 */
export function settle(refused: u32, at: usize, here: u32, length: u32, wait: bool): bool {
  if (wait && waitsFor(refused)) return false;
  note(B_DONE, 1);
  if (refused == 0) {
    noteReceived(at, length);
    return true;
  }
  return refuse(refused, 1, at, here);
}

/**
 * Notes that the counter at `refused` refuses a frame, or `n` segments of it; `at` and `here` as for `settle`. False if the
 * scatter ends with it.
 */
export function refuse(refused: u32, n: u32, at: usize, here: u32): bool {
  note(resultOf(refused), n);
  mark(at, here, 1, refused);
  if (refused != C_RX_QUEUE_ERROR) return true;
  note(B_DONE, failRest(at, here - 1));
  return false;
}

/** Whether a frame that was refused for this reason may go in later; then B_WAITS_FOR has it. */
@inline
export function waitsFor(refused: u32): bool {
  if (refused != C_RX_NO_BUFFER && refused != C_RX_TOO_DEAR) return false;
  store<u32>(batch(), refused, B_WAITS_FOR);
  return true;
}

/** Notes a frame of delivery `at` that went in. */
export function noteReceived(at: usize, length: u32): void {
  noteDelivered(1, length);
  const head: u32 = load<u16>(at, N_HEAD);
  if (head & HEAD_F_BROADCAST) note(B_BROADCAST, 1);
  else if (head & HEAD_F_MULTICAST) note(B_MULTICAST, 1);
}

/** Where a frame is noted that this counter refuses. */
function resultOf(refused: u32): u32 {
  if (refused == C_RX_NO_BUFFER) return B_NO_BUFFER;
  if (refused == C_RX_TOO_DEAR) return B_TOO_DEAR;
  return refused == C_RX_TOO_SMALL ? B_TOO_SMALL : B_QUEUE_ERROR;
}

/**
 * Gives up a group's frames, since its queue has stopped: the first `here`, and those of the deliveries behind `at`.
 * Answers how many there were.
 */
export function failRest(at: usize, here: u32): u32 {
  let n = here;
  mark(at, here, here, C_RX_QUEUE_ERROR);
  for (let delivery: usize = load<u32>(at, N_NEXT); delivery != 0; delivery = load<u32>(delivery, N_NEXT)) {
    const count: u32 = load<u16>(delivery, N_COUNT);
    mark(delivery, count, count, C_RX_QUEUE_ERROR);
    n += count;
  }
  note(B_QUEUE_ERROR, n);
  return n;
}

/** Books the group's results on pool `p`. */
export function bookResults(p: usize): void {
  const at = batch();
  const delivered = load<u32>(at, B_DELIVERED);
  if (delivered != 0) {
    count(p, C_RX_FRAMES, delivered);
    count(p, C_RX_BYTES, load<u32>(at, B_DELIVERED_BYTES));
  }
  if (load<u32>(at, B_MULTICAST) != 0) count(p, C_RX_MULTICAST, load<u32>(at, B_MULTICAST));
  if (load<u32>(at, B_BROADCAST) != 0) count(p, C_RX_BROADCAST, load<u32>(at, B_BROADCAST));
  bookRefused(p);
}

/** Books on pool `p` what the group's queue did not take. */
export function bookRefused(p: usize): void {
  const at = batch();
  if ((load<u64>(at, B_NO_BUFFER) | load<u32>(at, B_QUEUE_ERROR) | load<u32>(at, B_TOO_DEAR)) == 0) return;
  count(p, C_RX_NO_BUFFER, load<u32>(at, B_NO_BUFFER));
  count(p, C_RX_TOO_SMALL, load<u32>(at, B_TOO_SMALL));
  count(p, C_RX_QUEUE_ERROR, load<u32>(at, B_QUEUE_ERROR));
  count(p, C_RX_TOO_DEAR, load<u32>(at, B_TOO_DEAR));
}
