/**
 * Submissions and completions in the words of io_uring, whose rings lie in this memory: the kernel's own, or, where
 * io_uring is forbidden, the worker's, which does one call for each entry. Nobody but the entry's completion gives a
 * buffer back, so it does not matter when that comes.
 */
import * as N from "../../shared/layout/netdev.ts";
import { get, native, set } from "./state.ts";

/** Whether another submission may be made: none may complete without a place for that. */
@inline
export function hasRoom(): bool {
  return get(N.NS_IN_FLIGHT) < <u32> N.ND_IO_ENTRY_COUNT;
}

/** Submits reading or writing (DID_*) of the `bytes` bytes at `at`, which belong to buffer `id`. */
export function submit(what: u32, id: u32, at: usize, bytes: u32): void {
  const tailAt: usize = get(N.NC_SQ_TAIL);
  const tail = load<u32>(tailAt);
  const entry: usize = N.ND_IO_ENTRIES + (tail & get(N.NC_SQ_MASK)) * N.SQE_BYTES;
  const op = get(what == N.DID_READ ? N.NC_READ_OP : N.NC_WRITE_OP);
  store<u64>(entry, <u64> op | (<u64> get(N.NC_ENTRY_FLAGS) << 8) | (<u64> get(N.NC_FILE) << 32));
  store<u64>(entry, 0, N.SQE_OFFSET);
  store<u64>(entry, native(at), N.SQE_ADDRESS);
  store<u64>(entry, <u64> bytes | (<u64> get(N.NC_OP_FLAGS) << 32), N.SQE_LENGTH);
  store<u64>(entry, what | id, N.SQE_USER_DATA);
  // The registered buffer is the first one; nothing of the rest is used.
  store<u64>(entry, 0, 40);
  store<u64>(entry, 0, 48);
  store<u64>(entry, 0, 56);
  atomic.store<u32>(tailAt, tail + 1);
  set(N.NS_IN_FLIGHT, get(N.NS_IN_FLIGHT) + 1);
}

/** Entries that the kernel has not taken. */
export function unsubmitted(): u32 {
  return load<u32>(get(N.NC_SQ_TAIL)) - atomic.load<u32>(get(N.NC_SQ_HEAD));
}

/** Completions that nobody has looked at. */
@inline
export function completed(): u32 {
  return atomic.load<u32>(get(N.NC_CQ_TAIL)) - load<u32>(get(N.NC_CQ_HEAD));
}

/** The next completion, `offset` behind the first one that nobody has looked at. */
@inline
export function completionAt(offset: u32): usize {
  const index = (load<u32>(get(N.NC_CQ_HEAD)) + offset) & get(N.NC_CQ_MASK);
  return get(N.NC_CQ_ENTRIES) + index * N.CQE_BYTES;
}

/** `n` completions have been looked at. */
export function forget(n: u32): void {
  const headAt: usize = get(N.NC_CQ_HEAD);
  atomic.store<u32>(headAt, load<u32>(headAt) + n);
  set(N.NS_IN_FLIGHT, get(N.NS_IN_FLIGHT) - n);
}
